//! Metadata exchange (BEP 9, `ut_metadata`): how a peer that has only a magnet link gets the info dictionary.
//!
//! The messages are payloads of [`super::message::Message::Extended`]: a small dictionary, and for data the bytes
//! behind it. Writing allocates nothing.

use std::ops::Range;

use crate::bencode::{Decoder, Limits, Value};
use crate::octets::{NoRoom, Writer};

/// The info dictionary travels in pieces of this length, the last one shorter.
pub const METADATA_PIECE_BYTES: u32 = 16 * 1024;

/// Longest dictionary before the data, in bytes.
const DICT_LIMITS: Limits = Limits { bytes: METADATA_PIECE_BYTES as usize + 1024, depth: 4, items: 64 };

/// A message of the extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataMessage<'a> {
    /// Asks for a piece.
    Request {
        /// Its index.
        piece: u32,
    },
    /// Brings a piece.
    Data {
        /// Its index.
        piece: u32,
        /// Bytes of the whole info dictionary.
        total_size: u32,
        /// The bytes: exactly those of [`piece_range`].
        data: &'a [u8],
    },
    /// The request will not be answered.
    Reject {
        /// Its index.
        piece: u32,
    },
}

/// Where a piece lies in an info dictionary of `total_size` bytes; `None` when there is no such piece.
#[must_use]
pub fn piece_range(piece: u32, total_size: u32) -> Option<Range<usize>> {
    let begin = piece.checked_mul(METADATA_PIECE_BYTES).filter(|begin| *begin < total_size)?;
    let end = begin.saturating_add(METADATA_PIECE_BYTES).min(total_size);
    Some(usize::try_from(begin).ok()?..usize::try_from(end).ok()?)
}

impl<'a> MetadataMessage<'a> {
    /// Reads a payload; `None` is no message of BEP 9, or one of an unknown type, which it wants ignored. Data that
    /// has not the length of its place is none either.
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let (value, data) = Decoder::new(DICT_LIMITS).decode_prefix(payload).ok()?;
        let dict = value.as_dict()?;
        let number = |key| u32::try_from(dict.get(key).and_then(Value::as_int)?).ok();
        let piece = number("piece")?;
        match number("msg_type")? {
            0 => Some(Self::Request { piece }),
            1 => {
                let total_size = number("total_size")?;
                let expected = piece_range(piece, total_size)?.len();
                (data.len() == expected).then_some(Self::Data { piece, total_size, data })
            }
            2 => Some(Self::Reject { piece }),
            _ => None,
        }
    }

    /// Writes the payload to the front of `out` and returns its length; data needs at most 64 bytes beside itself.
    ///
    /// # Errors
    /// [`NoRoom`] when `out` is too short.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut to = Writer::new(out);
        match *self {
            Self::Request { piece } => to.text(format_args!("d8:msg_typei0e5:piecei{piece}ee"))?,
            Self::Data { piece, total_size, data } => {
                to.text(format_args!("d8:msg_typei1e5:piecei{piece}e10:total_sizei{total_size}ee"))?;
                to.bytes(data)?;
            }
            Self::Reject { piece } => to.text(format_args!("d8:msg_typei2e5:piecei{piece}ee"))?,
        }
        Ok(to.used())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: MetadataMessage<'_>, starts: &[u8]) {
        let mut out = [0; METADATA_PIECE_BYTES as usize + 64];
        let length = message.encode(&mut out).unwrap();
        assert!(out[..length].starts_with(starts));
        assert_eq!(MetadataMessage::parse(&out[..length]), Some(message));
        assert_eq!(message.encode(&mut out[..length - 1]), Err(NoRoom));
    }

    #[test]
    fn messages_are_written_as_bep_9_shows_them() {
        check(MetadataMessage::Request { piece: 0 }, b"d8:msg_typei0e5:piecei0ee");
        check(MetadataMessage::Reject { piece: 7 }, b"d8:msg_typei2e5:piecei7ee");
        let data = [b'x'; METADATA_PIECE_BYTES as usize];
        let message = MetadataMessage::Data { piece: 0, total_size: 34_256, data: &data };
        check(message, b"d8:msg_typei1e5:piecei0e10:total_sizei34256eexxxx");
    }

    #[test]
    fn data_must_have_the_length_of_its_place() {
        let parse = MetadataMessage::parse;
        assert!(parse(b"d8:msg_typei1e5:piecei0e10:total_sizei3eeabc").is_some());
        assert!(parse(b"d8:msg_typei1e5:piecei0e10:total_sizei3eeab").is_none());
        assert!(parse(b"d8:msg_typei1e5:piecei0e10:total_sizei3eeabcd").is_none());
        assert!(parse(b"d8:msg_typei1e5:piecei1e10:total_sizei3eeabc").is_none());
        assert!(parse(b"d8:msg_typei3e5:piecei0ee").is_none());
        assert!(parse(b"d8:msg_typei0e5:piecei-1ee").is_none());
    }

    #[test]
    fn pieces_cover_the_dictionary_once() {
        assert_eq!(piece_range(2, 34_256), Some(32_768..34_256));
        assert_eq!(piece_range(3, 34_256), None);
        assert_eq!(piece_range(1, 32_768), Some(16_384..32_768));
        assert_eq!(piece_range(2, 32_768), None);
        assert_eq!(piece_range(0, 0), None);
        assert_eq!(piece_range(u32::MAX, u32::MAX), None);
    }
}
