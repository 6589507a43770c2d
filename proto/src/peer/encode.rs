//! Writing messages into a buffer that the caller owns; the mirror of [`super::message`].

use super::message::{Block, HashSpan, Message, id};
use crate::octets::{NoRoom, Writer};

impl Message<'_> {
    /// Bytes of the whole frame, its length prefix included.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        4 + self.body_bytes().map_or(0, |body| 1 + body)
    }

    /// Bytes after the id, or `None` for the keep-alive, which has no id.
    fn body_bytes(&self) -> Option<usize> {
        Some(match self {
            Message::KeepAlive => return None,
            Message::Choke
            | Message::Unchoke
            | Message::Interested
            | Message::NotInterested
            | Message::HaveAll
            | Message::HaveNone
            | Message::Unknown(_) => 0,
            Message::Port(_) => 2,
            Message::Have(_) | Message::Suggest(_) | Message::AllowedFast(_) => 4,
            Message::Request(_) | Message::Cancel(_) | Message::Reject(_) => 12,
            Message::HashRequest(_) | Message::HashReject(_) => 48,
            Message::Bitfield(bits) => bits.len(),
            Message::Piece { block, .. } => 8 + block.len(),
            Message::Extended { payload, .. } => 1 + payload.len(),
            Message::Hashes { hashes, .. } => 48 + hashes.len(),
        })
    }

    fn id(&self) -> Option<u8> {
        Some(match self {
            Message::KeepAlive => return None,
            Message::Choke => id::CHOKE,
            Message::Unchoke => id::UNCHOKE,
            Message::Interested => id::INTERESTED,
            Message::NotInterested => id::NOT_INTERESTED,
            Message::Have(_) => id::HAVE,
            Message::Bitfield(_) => id::BITFIELD,
            Message::Request(_) => id::REQUEST,
            Message::Piece { .. } => id::PIECE,
            Message::Cancel(_) => id::CANCEL,
            Message::Port(_) => id::PORT,
            Message::Suggest(_) => id::SUGGEST,
            Message::HaveAll => id::HAVE_ALL,
            Message::HaveNone => id::HAVE_NONE,
            Message::Reject(_) => id::REJECT,
            Message::AllowedFast(_) => id::ALLOWED_FAST,
            Message::Extended { .. } => id::EXTENDED,
            Message::HashRequest(_) => id::HASH_REQUEST,
            Message::Hashes { .. } => id::HASHES,
            Message::HashReject(_) => id::HASH_REJECT,
            Message::Unknown(id) => *id,
        })
    }

    /// Writes the frame to the front of `out` and returns its length in bytes.
    ///
    /// # Errors
    /// [`NoRoom`] when `out` is shorter than [`Self::encoded_bytes`]; `out` may then hold a part of the frame.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut to = Writer::new(out);
        let frame_bytes = u32::try_from(self.encoded_bytes() - 4).map_err(|_| NoRoom)?;
        to.u32(frame_bytes)?;
        if let Some(id) = self.id() {
            to.u8(id)?;
            self.encode_body(&mut to)?;
        }
        Ok(to.used())
    }

    fn encode_body(&self, to: &mut Writer<'_>) -> Result<(), NoRoom> {
        match *self {
            Message::KeepAlive
            | Message::Choke
            | Message::Unchoke
            | Message::Interested
            | Message::NotInterested
            | Message::HaveAll
            | Message::HaveNone
            | Message::Unknown(_) => Ok(()),
            Message::Port(port) => to.u16(port),
            Message::Have(piece) | Message::Suggest(piece) | Message::AllowedFast(piece) => to.u32(piece),
            Message::Request(block) | Message::Cancel(block) | Message::Reject(block) => put_block(to, block),
            Message::HashRequest(span) | Message::HashReject(span) => put_span(to, &span),
            Message::Bitfield(bits) => to.bytes(bits),
            Message::Piece { index, begin, block } => {
                to.u32(index)?;
                to.u32(begin)?;
                to.bytes(block)
            }
            Message::Extended { id, payload } => {
                to.u8(id)?;
                to.bytes(payload)
            }
            Message::Hashes { span, hashes } => {
                put_span(to, &span)?;
                to.bytes(hashes)
            }
        }
    }
}

fn put_block(to: &mut Writer<'_>, block: Block) -> Result<(), NoRoom> {
    to.u32(block.index)?;
    to.u32(block.begin)?;
    to.u32(block.length)
}

fn put_span(to: &mut Writer<'_>, span: &HashSpan) -> Result<(), NoRoom> {
    to.bytes(&span.pieces_root)?;
    to.u32(span.base_layer)?;
    to.u32(span.index)?;
    to.u32(span.length)?;
    to.u32(span.proof_layers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::message::block_head;

    #[test]
    fn a_short_buffer_is_refused_and_an_exact_one_is_enough() {
        let message = Message::Piece { index: 1, begin: 2, block: b"bytes" };
        let mut out = [0; 18];
        assert_eq!(message.encode(&mut out[..17]), Err(NoRoom));
        assert_eq!(message.encode(&mut out), Ok(18));
        assert_eq!(out[..13], block_head(1, 2, 5));
        assert_eq!(&out[13..], b"bytes");
    }
}
