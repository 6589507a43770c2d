//! The other end of a connection that opens with message stream encryption, until its stream is plain.

use millrace_proto::peer::mse::{Initiator, KEY_BYTES, PLAINTEXT};

use crate::bytes;

/// The private exponent of every such peer.
const EXPONENT: [u8; 20] = *b"no secret but random";

/// What a pad is filled with comes out of this stream of bytes.
const PAD_SEED: u64 = 98;

/// Says what it is told to, and takes what a relay answers, in portions of any size.
#[derive(Debug, Default)]
pub struct Encrypted {
    initiator: Option<Initiator>,
    received: Vec<u8>,
    /// The relay's key, once it was asked for.
    key: Option<[u8; KEY_BYTES]>,
}

impl Encrypted {
    /// Our key, and a pad.
    #[must_use]
    pub fn key(&self, pad_bytes: usize) -> Vec<u8> {
        Initiator::new(EXPONENT, [0; 20]).open(&bytes::read(PAD_SEED, 0, pad_bytes))
    }

    /// Takes more bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Whether everything that came was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Takes the relay's key, if it has come.
    pub fn take_key(&mut self) -> bool {
        let Some(key) = self.received.first_chunk().copied() else { return false };
        self.received.drain(..KEY_BYTES);
        self.key = Some(key);
        true
    }

    /// What follows the relay's key. `first` are the first bytes of the stream, which are sent encrypted.
    ///
    /// # Panics
    /// When the key has not come.
    #[must_use]
    pub fn ask(&mut self, infohash: [u8; 20], provide: u32, pad_bytes: usize, first: &[u8]) -> Vec<u8> {
        let Some(key) = &self.key else { panic!("no key yet") };
        let mut initiator = Initiator::new(EXPONENT, infohash);
        initiator.provide = provide;
        let asked = initiator.ask(key, &bytes::read(PAD_SEED, 0, pad_bytes), first);
        self.initiator = Some(initiator);
        asked
    }

    /// What came behind the relay's selection. `None` while it has not come.
    ///
    /// # Panics
    /// When something else than plaintext is selected.
    #[must_use]
    pub fn stream(&self) -> Option<Vec<u8>> {
        let received = [self.key.as_ref()?.as_slice(), &self.received].concat();
        let (selected, at) = self.initiator.as_ref()?.selected(&received)?;
        assert_eq!(selected, PLAINTEXT, "what is selected");
        received.get(at..).map(<[u8]>::to_vec)
    }
}
