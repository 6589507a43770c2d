//! Bencoding (BEP 3), as torrents, tracker answers and extension messages carry it.
//!
//! Decoding borrows from its input, so that the raw bytes of a sub-value can be hashed exactly as they arrived.
//! It uses no recursion and keeps to [`Limits`]: hostile input costs bounded stack and memory.

mod decode;
mod encode;

pub use decode::{Decoder, Limits, decode, decode_canonical, decode_prefix};
pub use encode::Item;

/// A decoded value; byte strings, lists and dictionaries borrow from the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// `i…e`; integers outside of 64 bits are refused by the decoder.
    Int(i64),
    /// `N:…`, not necessarily UTF-8.
    Bytes(&'a [u8]),
    /// `l…e`
    List(List<'a>),
    /// `d…e`
    Dict(Dict<'a>),
}

impl<'a> Value<'a> {
    /// The integer, or `None` for another kind of value.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(int) = self { Some(*int) } else { None }
    }

    /// The byte string, or `None` for another kind of value.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The byte string as text, or `None` for another kind of value and for what is not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        self.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The items of the list, or `None` for another kind of value.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Value<'a>]> {
        if let Self::List(list) = self { Some(&list.items) } else { None }
    }

    /// The dictionary, or `None` for another kind of value.
    #[must_use]
    pub fn as_dict(&self) -> Option<&Dict<'a>> {
        if let Self::Dict(dict) = self { Some(dict) } else { None }
    }
}

/// A list and the bytes it was decoded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<'a> {
    items: Vec<Value<'a>>,
    raw: &'a [u8],
}

impl<'a> List<'a> {
    /// The items in the order they arrived.
    #[must_use]
    pub fn items(&self) -> &[Value<'a>] {
        &self.items
    }

    /// The encoded list, from its `l` to its `e`.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// A dictionary with unique keys, and the bytes it was decoded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dict<'a> {
    /// Sorted by key, whatever the order on the wire was.
    entries: Vec<(&'a [u8], Value<'a>)>,
    raw: &'a [u8],
}

impl<'a> Dict<'a> {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        let at = self.entries.binary_search_by(|(have, _)| (*have).cmp(key.as_bytes())).ok()?;
        self.entries.get(at).map(|(_, value)| value)
    }

    /// The entries sorted by key.
    #[must_use]
    pub fn entries(&self) -> &[(&'a [u8], Value<'a>)] {
        &self.entries
    }

    /// The encoded dictionary, from its `d` to its `e`: what an infohash is computed over.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// Why input is not acceptable bencoding; `at` is the offset in bytes where that showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input stops inside a value.
    #[error("bencoding ends in the middle of a value")]
    Truncated,
    /// Something else stands where a value, a key or an end was expected.
    #[error("bencoding is malformed at byte {at}")]
    Syntax {
        /// Offset in bytes.
        at: usize,
    },
    /// Leading zeros, minus zero, or more than 64 bits.
    #[error("bencoded number at byte {at} has leading zeros, is minus zero, or does not fit 64 bits")]
    Number {
        /// Offset in bytes.
        at: usize,
    },
    /// A key occurs twice in a dictionary.
    #[error("bencoded dictionary has the same key twice, before byte {at}")]
    DuplicateKey {
        /// Offset in bytes.
        at: usize,
    },
    /// Keys are out of order, where canonical encoding is required.
    #[error("bencoded dictionary has unsorted keys at byte {at}")]
    UnsortedKey {
        /// Offset in bytes.
        at: usize,
    },
    /// A complete value is followed by more bytes.
    #[error("bencoded value ends at byte {at} but more data follows")]
    Trailing {
        /// Offset in bytes.
        at: usize,
    },
    /// Lists and dictionaries are nested beyond [`Limits::depth`].
    #[error("bencoding is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// There are more values than [`Limits::items`].
    #[error("bencoding has more than {limit} values")]
    TooManyItems {
        /// The limit.
        limit: usize,
    },
    /// The input is longer than [`Limits::bytes`].
    #[error("bencoding is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
}
