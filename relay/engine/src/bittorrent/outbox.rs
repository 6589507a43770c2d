//! Messages made on the spot, counted so that a peer which asks and does not read cannot make them pile up.

use millrace_proto::peer::message::Message;

use crate::output::Output;

/// Bytes of messages queued since the output was empty; beyond this the peer is not read from.
const QUEUED_BYTES_MAX: usize = 64 * 1024;

/// Pieces that become ready cannot be held back like answers; a peer that is this far behind is given up.
const OVERFLOW_BYTES: usize = 1024 * 1024;

/// Longest message with a payload: 16 KiB of metadata (BEP 9), or 512 hashes and their uncles (BEP 52).
const LONG_BYTES_MAX: usize = 20 * 1024;

/// What was queued since the output was empty.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queued_bytes: usize,
}

impl Outbox {
    /// Whether the peer takes less than it causes.
    pub(super) fn is_full(&self) -> bool {
        self.queued_bytes > QUEUED_BYTES_MAX
    }

    /// Whether it takes so much less that it is not worth having.
    pub(super) fn is_overflowing(&self) -> bool {
        self.queued_bytes > OVERFLOW_BYTES
    }

    /// Everything went out.
    pub(super) fn clear(&mut self) {
        self.queued_bytes = 0;
    }

    /// Queues a message of a fixed length.
    pub(super) fn push(&mut self, output: &mut Output, message: &Message<'_>) {
        self.encode(output, message, &mut [0; 64]);
    }

    /// Queues a message with a payload, not a bitfield.
    pub(super) fn push_long(&mut self, output: &mut Output, message: &Message<'_>) {
        self.encode(output, message, &mut [0; LONG_BYTES_MAX]);
    }

    /// Queues a bitfield (BEP 3), as long as it is.
    pub(super) fn push_bitfield(&mut self, output: &mut Output, bits: &[u8]) {
        let frame_bytes = u32::try_from(bits.len() + 1).unwrap_or(u32::MAX);
        output.push_bytes(&frame_bytes.to_be_bytes());
        output.push_bytes(&[millrace_proto::peer::message::id::BITFIELD]);
        output.push_bytes(bits);
        self.queued_bytes += bits.len() + 5;
    }

    fn encode(&mut self, output: &mut Output, message: &Message<'_>, frame: &mut [u8]) {
        match message.encode(frame) {
            Ok(bytes) => {
                output.push_bytes(&frame[..bytes]);
                self.queued_bytes += bytes;
            }
            Err(_) => debug_assert!(false, "no room for {message:?}"),
        }
    }
}
