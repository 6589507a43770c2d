//! The other end of a BitTorrent connection: what a relay sends, cut into handshake and frames.

use millrace_proto::peer::handshake::{HANDSHAKE_BYTES, Handshake, Progress};
use millrace_proto::peer::message::Message;

/// Takes what a relay sends, in portions of any size.
#[derive(Debug, Default)]
pub struct Reader {
    received: Vec<u8>,
    handshake: Option<Handshake>,
}

impl Reader {
    /// Takes more bytes.
    ///
    /// # Panics
    /// When the connection does not begin with a handshake.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        if self.handshake.is_none() {
            match Handshake::parse(&self.received) {
                Progress::Whole(handshake) => {
                    self.handshake = Some(handshake);
                    self.received.drain(..HANDSHAKE_BYTES);
                }
                Progress::NeedMore(_) => {}
                Progress::NotBitTorrent => panic!("no handshake, but {:?}", self.received),
            }
        }
    }

    /// The relay's handshake, once it is whole.
    #[must_use]
    pub fn handshake(&self) -> Option<Handshake> {
        self.handshake
    }

    /// The next whole frame behind the handshake, without its length. Nothing in it is a keep-alive.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.handshake?;
        let length = u32::from_be_bytes(*self.received.first_chunk()?);
        let end = 4 + usize::try_from(length).unwrap_or(usize::MAX);
        let frame = self.received.get(4..end)?.to_vec();
        self.received.drain(..end);
        Some(frame)
    }

    /// Whether the connection may end here without a message being cut.
    #[must_use]
    pub fn is_at_frame(&self) -> bool {
        self.received.is_empty()
    }
}

/// A message as bytes.
#[must_use]
pub fn frame(message: &Message<'_>) -> Vec<u8> {
    let mut frame = vec![0; message.encoded_bytes()];
    if message.encode(&mut frame).is_err() {
        panic!("{message:?} needs more room than it says");
    }
    frame
}
