//! The side that calls.

use super::cipher::Cipher;
use super::keys::{EXPONENT_BYTES, KEY_BYTES, KeyPair, Secret, SkeyHash};
use super::{PAD_BYTES_MAX, VC};
use crate::octets::{take, take_u16, take_u32};

/// A peer that opens with message stream encryption. It decides nothing: what is against the standard is sent as well as anything else.
#[derive(Debug)]
pub struct Initiator {
    keys: KeyPair,
    infohash: [u8; 20],
    /// `crypto_provide`: [`PLAINTEXT`](super::PLAINTEXT), [`RC4`](super::RC4), both or neither.
    pub provide: u32,
}

impl Initiator {
    /// One that offers everything.
    #[must_use]
    pub fn new(exponent: [u8; EXPONENT_BYTES], infohash: [u8; 20]) -> Self {
        Initiator { keys: KeyPair::new(exponent), infohash, provide: super::PLAINTEXT | super::RC4 }
    }

    /// The first step: the key and PadA.
    #[must_use]
    pub fn open(&self, pad_a: &[u8]) -> Vec<u8> {
        [self.keys.public(), pad_a].concat()
    }

    /// The third step, after `public` of the other side. `pad_c` and `ia` are of 65,535 bytes at most; what is beyond is not announced.
    #[must_use]
    pub fn ask(&self, public: &[u8; KEY_BYTES], pad_c: &[u8], ia: &[u8]) -> Vec<u8> {
        let secret = self.keys.secret(public);
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
        let mut encrypted =
            [&VC, &self.provide.to_be_bytes()[..], &length(pad_c), pad_c, &length(ia), ia].concat();
        Cipher::new(&secret.key_a(&self.infohash)).apply(&mut encrypted);
        let skey = secret.mask(SkeyHash::of(&self.infohash).0);
        [&secret.marker()[..], &skey, &encrypted].concat()
    }

    /// Reads the second and the fourth step: `crypto_select`, and where the stream begins. `None` while they are not whole.
    #[must_use]
    pub fn selected(&self, received: &[u8]) -> Option<(u32, usize)> {
        let (public, rest) = received.split_first_chunk::<KEY_BYTES>()?;
        let mut cipher = self.cipher_b(&self.keys.secret(public));
        let mut vc = VC;
        cipher.apply(&mut vc);
        let pads = &rest[..rest.len().min(PAD_BYTES_MAX + VC.len())];
        let at = pads.windows(VC.len()).position(|bytes| bytes == vc)? + VC.len();
        let mut head: [u8; 6] = take(&mut rest.get(at..)?)?;
        cipher.apply(&mut head);
        let mut fields = head.as_slice();
        let (select, pad_d) = (take_u32(&mut fields)?, usize::from(take_u16(&mut fields)?));
        let stream = KEY_BYTES + at + head.len() + pad_d;
        (received.len() >= stream).then_some((select, stream))
    }

    fn cipher_b(&self, secret: &Secret) -> Cipher {
        Cipher::new(&secret.key_b(&self.infohash))
    }
}
