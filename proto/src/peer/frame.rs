//! Cutting the received byte stream into frames (BEP 3): a length of four bytes, then that many bytes.
//!
//! A length is judged as soon as the id behind it is known, before anything is buffered for it: what has a fixed
//! length must have exactly that, and what has not is held to the limits of the connection.

use super::message::{BLOCK_BYTES, Invalid, Message, id};

/// What a peer may make us buffer, in bytes after the message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Longest `bitfield`; the exact length once the content is known, see [`super::bitfield::bytes`].
    pub bitfield_bytes_max: u32,
    /// Longest block in a `piece`; 0 for a connection on which we never ask.
    pub block_bytes_max: u32,
    /// Longest extension message, its extension id included.
    pub extended_bytes_max: u32,
    /// Largest number of hashes in one `hashes`, uncles included; 0 where we never ask.
    pub hashes_max: u32,
    /// Longest message with an id we do not know. It is buffered only to be skipped, so little is enough.
    pub unknown_bytes_max: u32,
}

impl FrameLimits {
    /// A peer that downloads from us and of whom we ask nothing: every frame it may send but the bitfield fits in
    /// 16 KiB and a little.
    #[must_use]
    pub fn upload_only(bitfield_bytes: u32) -> Self {
        Self {
            bitfield_bytes_max: bitfield_bytes,
            block_bytes_max: 0,
            extended_bytes_max: 16 * 1024,
            hashes_max: 0,
            unknown_bytes_max: 1024,
        }
    }

    /// A peer of whom we also ask blocks, metadata and hashes.
    #[must_use]
    pub fn exchange(bitfield_bytes: u32) -> Self {
        Self {
            block_bytes_max: BLOCK_BYTES,
            // One metadata piece and its dictionary (BEP 9).
            extended_bytes_max: 16 * 1024 + 1024,
            // A full span and one uncle for each layer above it (BEP 52).
            hashes_max: 512 + 64,
            ..Self::upload_only(bitfield_bytes)
        }
    }

    /// Refuses a length that no message with this id has, or that is more than this connection may send.
    fn judge(&self, id: u8, body_bytes: u32) -> Result<(), Invalid> {
        let exactly =
            |bytes| if body_bytes == bytes { Ok(()) } else { Err(Invalid::Length { id, body_bytes }) };
        let within = |least, most| {
            if body_bytes < least {
                Err(Invalid::Length { id, body_bytes })
            } else if body_bytes > most {
                Err(Invalid::TooLong { id, body_bytes })
            } else {
                Ok(())
            }
        };
        match id {
            id::CHOKE | id::UNCHOKE | id::INTERESTED | id::NOT_INTERESTED => exactly(0),
            id::HAVE_ALL | id::HAVE_NONE => exactly(0),
            id::HAVE | id::SUGGEST | id::ALLOWED_FAST => exactly(4),
            id::REQUEST | id::CANCEL | id::REJECT => exactly(12),
            id::PORT => exactly(2),
            id::HASH_REQUEST | id::HASH_REJECT => exactly(48),
            id::BITFIELD => within(0, self.bitfield_bytes_max),
            id::PIECE => within(8, self.block_bytes_max.saturating_add(8)),
            id::EXTENDED => within(1, self.extended_bytes_max),
            id::HASHES => within(48, self.hashes_max.saturating_mul(32).saturating_add(48)),
            _ => within(0, self.unknown_bytes_max),
        }
    }
}

/// What stands at the front of the received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The beginning of a frame, or nothing; at least this many more bytes are to come, never 0.
    NeedMore(usize),
    /// A whole message.
    Whole {
        /// Bytes of the frame; the next one starts there.
        consumed: usize,
        /// What it says.
        message: Message<'a>,
    },
    /// Nothing that can be a frame: the stream has lost its sense, close it.
    Invalid(Invalid),
}

/// Reads the frame at the front of `received`.
#[must_use]
pub fn next_frame<'a>(received: &'a [u8], limits: &FrameLimits) -> Frame<'a> {
    let mut rest = received;
    let Some(frame_bytes) = crate::octets::take_u32(&mut rest) else {
        return Frame::NeedMore(4 - received.len());
    };
    let Some(body_bytes) = frame_bytes.checked_sub(1) else {
        return Frame::Whole { consumed: 4, message: Message::KeepAlive };
    };
    let Some(&id) = rest.first() else { return Frame::NeedMore(1) };
    if let Err(reason) = limits.judge(id, body_bytes) {
        return Frame::Invalid(reason);
    }
    let Ok(frame_bytes) = usize::try_from(frame_bytes) else {
        return Frame::Invalid(Invalid::TooLong { id, body_bytes });
    };
    match rest.get(..frame_bytes) {
        None => Frame::NeedMore(frame_bytes - rest.len()),
        Some(frame) => match Message::decode(frame) {
            Ok(message) => Frame::Whole { consumed: 4 + frame_bytes, message },
            Err(reason) => Frame::Invalid(reason),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(received: &[u8], expected: Frame<'_>) {
        assert_eq!(next_frame(received, &FrameLimits::exchange(2)), expected);
    }

    #[test]
    fn frames_are_cut_one_after_another() {
        let stream = [0, 0, 0, 0, 0, 0, 0, 5, 4, 0, 0, 0, 9, 0, 0, 0, 1, 1];
        check(&stream, Frame::Whole { consumed: 4, message: Message::KeepAlive });
        check(&stream[4..], Frame::Whole { consumed: 9, message: Message::Have(9) });
        check(&stream[13..], Frame::Whole { consumed: 5, message: Message::Unchoke });
        check(&stream[13..17], Frame::NeedMore(1));
        check(&stream[4..10], Frame::NeedMore(3));
        check(&stream[..3], Frame::NeedMore(1));
        check(&[], Frame::NeedMore(4));
    }

    #[test]
    fn absurd_lengths_are_refused_on_the_id() {
        let too_long = |id, body_bytes| Frame::Invalid(Invalid::TooLong { id, body_bytes });
        check(&[0xff, 0xff, 0xff, 0xff, 7], too_long(7, 0xffff_fffe));
        check(&[0, 0, 0x40, 10, 7], too_long(7, 0x4009));
        check(&[0, 0, 0, 4, 5], too_long(5, 3));
        check(&[0, 1, 0, 0, 99], too_long(99, 0xffff));
        check(&[0, 0, 0, 14, 6], Frame::Invalid(Invalid::Length { id: 6, body_bytes: 13 }));
        check(&[0, 0, 0, 1, 20], Frame::Invalid(Invalid::Length { id: 20, body_bytes: 0 }));
    }

    #[test]
    fn a_block_of_the_usual_length_is_waited_for() {
        check(&[0, 0, 0x40, 9, 7], Frame::NeedMore(0x4008));
        assert_eq!(
            next_frame(&[0, 0, 0x40, 9, 7], &FrameLimits::upload_only(2)),
            Frame::Invalid(Invalid::TooLong { id: 7, body_bytes: 0x4008 })
        );
    }
}
