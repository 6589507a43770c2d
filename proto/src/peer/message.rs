//! The messages of the peer wire (BEP 3, 6, 10, 52), borrowed from the frame that carried them.
//!
//! A [`Message`] is what a frame says, checked for shape only: whether a piece exists, or a request lies within it,
//! is for the session to judge, which knows the content.

use crate::octets::{take, take_u8, take_u16, take_u32};

/// The block length every client uses, and the largest a request should ask for (BEP 3, BEP 52).
pub const BLOCK_BYTES: u32 = 16 * 1024;

/// Length of what stands before the block in a `piece` frame, the frame's own length included.
pub const BLOCK_HEAD_BYTES: usize = 13;

/// The message ids, as the BEPs number them.
pub mod id {
    /// BEP 3.
    pub const CHOKE: u8 = 0;
    /// BEP 3.
    pub const UNCHOKE: u8 = 1;
    /// BEP 3.
    pub const INTERESTED: u8 = 2;
    /// BEP 3.
    pub const NOT_INTERESTED: u8 = 3;
    /// BEP 3.
    pub const HAVE: u8 = 4;
    /// BEP 3.
    pub const BITFIELD: u8 = 5;
    /// BEP 3.
    pub const REQUEST: u8 = 6;
    /// BEP 3.
    pub const PIECE: u8 = 7;
    /// BEP 3.
    pub const CANCEL: u8 = 8;
    /// BEP 5.
    pub const PORT: u8 = 9;
    /// BEP 6.
    pub const SUGGEST: u8 = 0x0d;
    /// BEP 6.
    pub const HAVE_ALL: u8 = 0x0e;
    /// BEP 6.
    pub const HAVE_NONE: u8 = 0x0f;
    /// BEP 6.
    pub const REJECT: u8 = 0x10;
    /// BEP 6.
    pub const ALLOWED_FAST: u8 = 0x11;
    /// BEP 10.
    pub const EXTENDED: u8 = 20;
    /// BEP 52.
    pub const HASH_REQUEST: u8 = 21;
    /// BEP 52.
    pub const HASHES: u8 = 22;
    /// BEP 52.
    pub const HASH_REJECT: u8 = 23;
}

/// A block by its place: what `request`, `cancel` and `reject` carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    /// Piece index.
    pub index: u32,
    /// Offset of the first byte within the piece.
    pub begin: u32,
    /// Length in bytes; whatever the peer wrote, zero and absurd values included.
    pub length: u32,
}

/// Hashes by their place in a file's tree: what the three hash messages of BEP 52 begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashSpan {
    /// Root of the file's tree.
    pub pieces_root: [u8; 32],
    /// Lowest layer asked for; 0 is the layer of 16 KiB leaves.
    pub base_layer: u32,
    /// First hash within the base layer.
    pub index: u32,
    /// Number of hashes of the base layer.
    pub length: u32,
    /// Number of ancestor layers the proof should cover.
    pub proof_layers: u32,
}

impl HashSpan {
    /// The longest span a request should name (BEP 52).
    pub const LENGTH_MAX: u32 = 512;

    /// Whether the span keeps the rules of BEP 52: a power of two from 2 to 512, aligned to its own length, in
    /// layers that a tree of at most 2^63 bytes can have.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.length >= 2
            && self.length <= Self::LENGTH_MAX
            && self.length.is_power_of_two()
            && self.index.is_multiple_of(self.length)
            && self.base_layer < 64
            && self.proof_layers < 64
    }
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A frame of length zero.
    KeepAlive,
    /// No request will be answered until `Unchoke`.
    Choke,
    /// Requests are welcome.
    Unchoke,
    /// The sender wants something we have.
    Interested,
    /// The sender wants nothing we have.
    NotInterested,
    /// The sender completed this piece.
    Have(u32),
    /// The sender's pieces, highest bit of the first byte first; judged by [`super::bitfield::check`].
    Bitfield(&'a [u8]),
    /// Asks for a block.
    Request(Block),
    /// Brings a block.
    Piece {
        /// Piece index.
        index: u32,
        /// Offset within the piece.
        begin: u32,
        /// The bytes.
        block: &'a [u8],
    },
    /// Takes a request back.
    Cancel(Block),
    /// The sender's DHT port (BEP 5).
    Port(u16),
    /// A piece that is cheap for the sender to serve (BEP 6).
    Suggest(u32),
    /// The sender has every piece (BEP 6).
    HaveAll,
    /// The sender has no piece (BEP 6).
    HaveNone,
    /// The request will not be answered (BEP 6).
    Reject(Block),
    /// A piece that may be requested while choked (BEP 6).
    AllowedFast(u32),
    /// An extension message (BEP 10); id 0 is the extension handshake.
    Extended {
        /// The number the receiver gave the extension in its handshake.
        id: u8,
        /// What the extension says.
        payload: &'a [u8],
    },
    /// Asks for hashes (BEP 52).
    HashRequest(HashSpan),
    /// Brings hashes (BEP 52).
    Hashes {
        /// The span of the request that is answered.
        span: HashSpan,
        /// Hashes of the base layer, then the uncles from the bottom up; a multiple of 32 bytes.
        hashes: &'a [u8],
    },
    /// The hash request will not be answered (BEP 52).
    HashReject(HashSpan),
    /// An id that no BEP we know gives a meaning; to be ignored.
    Unknown(u8),
}

/// Why a frame is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The length does not fit the id (BEP 3, 5, 6, 10, 52).
    #[error("message {id} cannot have a body of {body_bytes} bytes")]
    Length {
        /// The message id.
        id: u8,
        /// Bytes after the id.
        body_bytes: u32,
    },
    /// The length is possible, and beyond the limit set for this connection.
    #[error("message {id} of {body_bytes} bytes is beyond the limit")]
    TooLong {
        /// The message id.
        id: u8,
        /// Bytes after the id.
        body_bytes: u32,
    },
}

/// The 13 bytes before a block: frame length, id 7, index, begin (BEP 3).
///
/// The header table is filled with these. `length` is the block's, in bytes; a block the frame length cannot
/// express (more than `u32::MAX - 9`) saturates, and no session sends one.
#[must_use]
pub fn block_head(index: u32, begin: u32, length: u32) -> [u8; BLOCK_HEAD_BYTES] {
    let [l0, l1, l2, l3] = length.saturating_add(9).to_be_bytes();
    let [i0, i1, i2, i3] = index.to_be_bytes();
    let [b0, b1, b2, b3] = begin.to_be_bytes();
    [l0, l1, l2, l3, id::PIECE, i0, i1, i2, i3, b0, b1, b2, b3]
}

impl<'a> Message<'a> {
    /// Reads what follows the length of a whole frame: nothing for a keep-alive, otherwise id and body.
    ///
    /// # Errors
    /// [`Invalid::Length`] when the body's length does not fit the id.
    pub fn decode(frame: &'a [u8]) -> Result<Self, Invalid> {
        let mut rest = frame;
        let Some(id) = take_u8(&mut rest) else { return Ok(Message::KeepAlive) };
        let body_bytes = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        Self::decode_body(id, rest).ok_or(Invalid::Length { id, body_bytes })
    }

    fn decode_body(id: u8, body: &'a [u8]) -> Option<Self> {
        let mut rest = body;
        let message = match id {
            id::CHOKE => Message::Choke,
            id::UNCHOKE => Message::Unchoke,
            id::INTERESTED => Message::Interested,
            id::NOT_INTERESTED => Message::NotInterested,
            id::HAVE => Message::Have(take_u32(&mut rest)?),
            id::BITFIELD => Message::Bitfield(std::mem::take(&mut rest)),
            id::REQUEST => Message::Request(take_block(&mut rest)?),
            id::PIECE => {
                let (index, begin) = (take_u32(&mut rest)?, take_u32(&mut rest)?);
                Message::Piece { index, begin, block: std::mem::take(&mut rest) }
            }
            id::CANCEL => Message::Cancel(take_block(&mut rest)?),
            id::PORT => Message::Port(take_u16(&mut rest)?),
            id::SUGGEST => Message::Suggest(take_u32(&mut rest)?),
            id::HAVE_ALL => Message::HaveAll,
            id::HAVE_NONE => Message::HaveNone,
            id::REJECT => Message::Reject(take_block(&mut rest)?),
            id::ALLOWED_FAST => Message::AllowedFast(take_u32(&mut rest)?),
            id::EXTENDED => Message::Extended { id: take_u8(&mut rest)?, payload: std::mem::take(&mut rest) },
            id::HASH_REQUEST => Message::HashRequest(take_span(&mut rest)?),
            id::HASHES => {
                let span = take_span(&mut rest)?;
                if !rest.len().is_multiple_of(32) {
                    return None;
                }
                Message::Hashes { span, hashes: std::mem::take(&mut rest) }
            }
            id::HASH_REJECT => Message::HashReject(take_span(&mut rest)?),
            _ => {
                rest = &[];
                Message::Unknown(id)
            }
        };
        rest.is_empty().then_some(message)
    }
}

fn take_block(rest: &mut &[u8]) -> Option<Block> {
    Some(Block { index: take_u32(rest)?, begin: take_u32(rest)?, length: take_u32(rest)? })
}

fn take_span(rest: &mut &[u8]) -> Option<HashSpan> {
    Some(HashSpan {
        pieces_root: take(rest)?,
        base_layer: take_u32(rest)?,
        index: take_u32(rest)?,
        length: take_u32(rest)?,
        proof_layers: take_u32(rest)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(frame: &[u8], expected: Message<'_>) {
        assert_eq!(Message::decode(frame), Ok(expected));
        // A fixed body that is one byte shorter or longer is another message, never this one.
        let longer = [frame, b"\0"].concat();
        assert_ne!(Message::decode(&longer), Ok(expected), "one byte more");
    }

    #[test]
    fn bodies_are_read_as_the_beps_lay_them_out() {
        check(&[], Message::KeepAlive);
        check(&[0], Message::Choke);
        check(&[3], Message::NotInterested);
        check(&[4, 0, 0, 1, 2], Message::Have(258));
        check(&[5, 0xff, 0x80], Message::Bitfield(&[0xff, 0x80]));
        let block = Block { index: 1, begin: 2, length: 3 };
        check(&[6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], Message::Request(block));
        check(&[8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], Message::Cancel(block));
        check(&[16, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], Message::Reject(block));
        check(&[7, 0, 0, 0, 1, 0, 0, 0, 2, 9, 9], Message::Piece { index: 1, begin: 2, block: &[9, 9] });
        check(&[9, 0x1a, 0xe1], Message::Port(6881));
        check(&[13, 0, 0, 0, 7], Message::Suggest(7));
        check(&[14], Message::HaveAll);
        check(&[15], Message::HaveNone);
        check(&[17, 0, 0, 0, 7], Message::AllowedFast(7));
        check(&[20, 3, b'd', b'e'], Message::Extended { id: 3, payload: b"de" });
    }

    #[test]
    fn wrong_lengths_are_no_message() {
        for id in [0u8, 1, 2, 3, 14, 15] {
            assert_eq!(Message::decode(&[id, 0]), Err(Invalid::Length { id, body_bytes: 1 }));
        }
        for id in [4u8, 6, 7, 8, 9, 13, 16, 17, 20, 21, 22, 23] {
            assert_eq!(Message::decode(&[id]), Err(Invalid::Length { id, body_bytes: 0 }));
        }
        let mut hashes = vec![22];
        hashes.resize(1 + 48 + 33, 0);
        assert_eq!(Message::decode(&hashes), Err(Invalid::Length { id: 22, body_bytes: 81 }));
        assert_eq!(Message::decode(&[99, 1, 2, 3]), Ok(Message::Unknown(99)));
    }

    #[test]
    fn the_block_head_is_the_start_of_a_piece_frame() {
        assert_eq!(block_head(0x0102_0304, 0x4000, 0x4000), [0, 0, 0x40, 9, 7, 1, 2, 3, 4, 0, 0, 0x40, 0]);
    }

    #[test]
    fn spans_keep_the_rules_of_bep_52() {
        let span = HashSpan { pieces_root: [0; 32], base_layer: 0, index: 4, length: 4, proof_layers: 3 };
        assert!(span.is_well_formed());
        for bad in [
            HashSpan { length: 0, ..span },
            HashSpan { length: 1, ..span },
            HashSpan { length: 3, index: 0, ..span },
            HashSpan { index: 6, ..span },
            HashSpan { length: 1024, index: 0, ..span },
            HashSpan { base_layer: 64, ..span },
            HashSpan { proof_layers: u32::MAX, ..span },
        ] {
            assert!(!bad.is_well_formed(), "{bad:?}");
        }
    }
}
