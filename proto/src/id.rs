//! The names of contents: the relay's own id, and the two BitTorrent infohashes.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A string that is no content name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a content id (26 lower-case base32 characters) or infohash (40 or 64 hex characters)")]
pub struct ParseIdError;

/// Characters of a content id: 128 bits, five a character.
const CONTENT_ID_CHARS: usize = 26;

/// 128 random bits that name a content on every relay, from the moment it is added.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId(pub [u8; 16]);

/// SHA-1 of a v1 info dictionary (BEP 3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InfoHashV1(pub [u8; 20]);

/// SHA-256 of a v2 info dictionary (BEP 52).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InfoHashV2(pub [u8; 32]);

impl InfoHashV2 {
    /// The first 20 bytes, which handshakes and trackers carry (BEP 52).
    #[must_use]
    pub fn truncated(&self) -> InfoHashV1 {
        let mut short = [0; 20];
        short.copy_from_slice(&self.0[..20]);
        InfoHashV1(short)
    }
}

/// Any of the names under which a content may be asked for in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentName {
    /// The relay's own id.
    Id(ContentId),
    /// A v1 infohash.
    V1(InfoHashV1),
    /// A v2 infohash.
    V2(InfoHashV2),
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; CONTENT_ID_CHARS];
        BASE32_NOPAD.encode_mut(&self.0, &mut text);
        text.make_ascii_lowercase();
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let chars: &[u8; CONTENT_ID_CHARS] = text.as_bytes().try_into().map_err(|_| ParseIdError)?;
        let [chars @ .., last] = chars.map(|char| match char {
            b'a'..=b'z' => char - b'a',
            b'2'..=b'7' => char - b'2' + 26,
            _ => u8::MAX,
        });
        // The last one carries the 3 bits that are left of 128, and nothing below them.
        if last & 3 != 0 || last == u8::MAX || chars.contains(&u8::MAX) {
            return Err(ParseIdError);
        }
        let bits = chars.iter().fold(0, |bits: u128, five| bits << 5 | u128::from(*five));
        Ok(ContentId((bits << 3 | u128::from(last >> 2)).to_be_bytes()))
    }
}

impl Serialize for ContentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format!("`{text}`: {error}")))
    }
}

macro_rules! hex_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| ParseIdError)?;
                bytes.try_into().map($name).map_err(|_| ParseIdError)
            }
        }
    };
}

hex_id!(InfoHashV1);
hex_id!(InfoHashV2);

impl FromStr for ContentName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text.len() {
            26 => text.parse().map(ContentName::Id),
            40 => text.parse().map(ContentName::V1),
            64 => text.parse().map(ContentName::V2),
            _ => Err(ParseIdError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_refuse_other_spellings() {
        let id = ContentId(*b"0123456789abcdef");
        let text = id.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(text.parse(), Ok(id));
        assert!(text.to_ascii_uppercase().parse::<ContentId>().is_err());
        assert!("short".parse::<ContentName>().is_err());
        // The last character carries 3 bits: one with more set names no id.
        assert!("aaaaaaaaaaaaaaaaaaaaaaaaab".parse::<ContentId>().is_err());
    }

    #[test]
    fn names_are_told_apart_by_length() {
        let v2 = InfoHashV2([0xab; 32]);
        assert_eq!(v2.to_string().parse(), Ok(ContentName::V2(v2)));
        assert_eq!(v2.truncated().to_string().to_uppercase().parse(), Ok(ContentName::V1(v2.truncated())));
    }
}
