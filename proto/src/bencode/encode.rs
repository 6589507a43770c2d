//! The encoder: a tree whose dictionaries are sorted by construction.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// A value to be encoded; what is large can be borrowed.
///
/// Encoding recurses as deep as the tree is; trees are built by this program, never nested by a stranger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<'a> {
    /// `i…e`
    Int(i64),
    /// `N:…`
    Bytes(Cow<'a, [u8]>),
    /// `l…e`
    List(Vec<Item<'a>>),
    /// `d…e`, written in the order of its keys.
    Dict(BTreeMap<Cow<'a, [u8]>, Item<'a>>),
    /// Bytes that are bencoding already, such as an info dictionary that must not change.
    Raw(Cow<'a, [u8]>),
}

impl<'a> Item<'a> {
    /// A dictionary of the given entries; of equal keys the last counts.
    #[must_use]
    pub fn dict<K: Into<Cow<'a, str>>>(entries: impl IntoIterator<Item = (K, Item<'a>)>) -> Self {
        let key = |key: K| match key.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self::Dict(entries.into_iter().map(|(k, item)| (key(k), item)).collect())
    }

    /// A list of the given items.
    #[must_use]
    pub fn list(items: impl IntoIterator<Item = Item<'a>>) -> Self {
        Self::List(items.into_iter().collect())
    }

    /// The canonical encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Appends the canonical encoding to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(int) => {
                out.push(b'i');
                out.extend_from_slice(int.to_string().as_bytes());
                out.push(b'e');
            }
            Self::Bytes(bytes) => encode_bytes(bytes, out),
            Self::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| item.encode(out));
                out.push(b'e');
            }
            Self::Dict(entries) => {
                out.push(b'd');
                for (key, item) in entries {
                    encode_bytes(key, out);
                    item.encode(out);
                }
                out.push(b'e');
            }
            Self::Raw(raw) => out.extend_from_slice(raw),
        }
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(bytes);
}

impl From<i64> for Item<'_> {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl<'a> From<&'a str> for Item<'a> {
    fn from(text: &'a str) -> Self {
        Self::Bytes(Cow::Borrowed(text.as_bytes()))
    }
}

impl<'a> From<&'a [u8]> for Item<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Item<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Cow::Owned(bytes))
    }
}

impl From<String> for Item<'_> {
    fn from(text: String) -> Self {
        Self::Bytes(Cow::Owned(text.into_bytes()))
    }
}

impl<'a> From<&super::Value<'a>> for Item<'a> {
    fn from(value: &super::Value<'a>) -> Self {
        match value {
            super::Value::Int(int) => Self::Int(*int),
            super::Value::Bytes(bytes) => Self::from(*bytes),
            super::Value::List(list) => Self::list(list.items().iter().map(Self::from)),
            super::Value::Dict(dict) => {
                let entries = dict.entries().iter();
                Self::Dict(entries.map(|(key, value)| (Cow::Borrowed(*key), Self::from(value))).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_come_out_sorted() {
        let item = Item::dict([
            ("b", Item::list([Item::Int(-7), Item::from("x")])),
            ("a", Item::Raw(Cow::Borrowed(b"le"))),
            ("B", Item::from(vec![0xff])),
        ]);
        assert_eq!(item.to_bytes(), b"d1:B1:\xff1:ale1:bli-7e1:xee");
    }
}
