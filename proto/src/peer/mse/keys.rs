//! The Diffie-Hellman exchange of message stream encryption, and the hashes that are made of what comes out of it.

use std::fmt;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U192, U768};
use sha1::{Digest as _, Sha1};

/// Bytes of a public key.
pub const KEY_BYTES: usize = 96;

/// Bytes of a private exponent; the standard finds 160 bits enough.
pub const EXPONENT_BYTES: usize = 20;

/// The prime P of the standard.
const PRIME: Odd<U768> = Odd::<U768>::from_be_hex(concat!(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD",
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A63A36210000000000090563",
));
const FIELD: FixedMontyParams<{ U768::LIMBS }> = FixedMontyParams::new_vartime(PRIME);

/// G of the standard.
const GENERATOR: U768 = U768::from_u8(2);

/// A private exponent and the public key that belongs to it.
#[derive(Clone)]
pub struct KeyPair {
    exponent: U192,
    public: [u8; KEY_BYTES],
}

impl KeyPair {
    /// Makes the public key, which takes as long as [`Self::secret`].
    #[must_use]
    pub fn new(exponent: [u8; EXPONENT_BYTES]) -> Self {
        let mut wide = [0; U192::BYTES];
        wide[U192::BYTES - EXPONENT_BYTES..].copy_from_slice(&exponent);
        let exponent = U192::from_be_slice(&wide);
        KeyPair { exponent, public: power(&GENERATOR, &exponent) }
    }

    /// What the peer is sent.
    #[must_use]
    pub fn public(&self) -> &[u8; KEY_BYTES] {
        &self.public
    }

    /// S, which the peer has, too. Any `theirs` is taken, even one that makes S guessable: see the [module](super).
    #[must_use]
    pub(super) fn secret(&self, theirs: &[u8; KEY_BYTES]) -> Secret {
        Secret(power(&U768::from_be_slice(theirs), &self.exponent))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair")
    }
}

/// `base` may be larger than the prime.
fn power(base: &U768, exponent: &U192) -> [u8; KEY_BYTES] {
    let bits = u32::try_from(8 * EXPONENT_BYTES).unwrap_or(U192::BITS);
    let mut out = [0; KEY_BYTES];
    let power = FixedMontyForm::new(base, &FIELD).pow_bounded_exp(exponent, bits).retrieve();
    out.copy_from_slice(power.to_be_bytes().as_ref());
    out
}

/// `HASH("req2", SKEY)`: an infohash, by which a peer says what it wants without showing it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SkeyHash(pub [u8; 20]);

impl SkeyHash {
    /// Of an infohash as handshakes carry it (see [`Handshake::infohash`](crate::peer::handshake::Handshake::infohash)).
    #[must_use]
    pub fn of(infohash: &[u8; 20]) -> Self {
        SkeyHash(hash(b"req2", &[infohash]))
    }
}

impl fmt::Debug for SkeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SkeyHash({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// S.
#[derive(Clone)]
pub(super) struct Secret([u8; KEY_BYTES]);

impl Secret {
    /// `HASH("req1", S)`, which marks the end of `PadA`.
    pub(super) fn marker(&self) -> [u8; 20] {
        hash(b"req1", &[&self.0])
    }

    /// Hides the hash of SKEY, or uncovers it.
    pub(super) fn mask(&self, skey: [u8; 20]) -> [u8; 20] {
        let mask = hash(b"req3", &[&self.0]);
        std::array::from_fn(|at| skey[at] ^ mask[at])
    }

    /// The RC4 key of what the calling side sends.
    pub(super) fn key_a(&self, skey: &[u8; 20]) -> [u8; 20] {
        hash(b"keyA", &[&self.0, skey])
    }

    /// The RC4 key of what the side that was called sends.
    pub(super) fn key_b(&self, skey: &[u8; 20]) -> [u8; 20] {
        hash(b"keyB", &[&self.0, skey])
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

fn hash(label: &[u8; 4], parts: &[&[u8]]) -> [u8; 20] {
    let mut sha1 = Sha1::new_with_prefix(label);
    parts.iter().for_each(|part| sha1.update(part));
    sha1.finalize().into()
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn pair(first: u8) -> KeyPair {
        KeyPair::new(std::array::from_fn(|at| first + u8::try_from(at).unwrap()))
    }

    /// Python's `pow(base, exponent, P)` says what is right; exponents are the bytes 1 to 20, and 101 to 120.
    #[test]
    fn powers_are_right_even_of_keys_beyond_the_prime() {
        let (a, b) = (pair(1), pair(101));
        let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
        assert_eq!(
            hex(a.public()),
            "96e112dab29e8c5272accb9b17b26887ce54a144a4e3b697c7d159b7a817e556b0918db2b4c658e02a87f7e5fb14b18a\
             553e084cbf3dad2d30f16596ccb982d406258c61b30c5c1dae2ddc60bdbd48d79896312aad63238c39e1a633821eb693"
        );
        let shared = "d05ed96a95215a89b44073afe5d0b1626289ac01cff7849392948b2470b346547e944d7562a897ae86976bc389999083\
                      ec09572dbdc8ed7f6a0a86a1aa42a3ca04209b72d8239890360435640643b76479ed7836f1857963fcc7cb72084c3ab4";
        assert_eq!(hex(&a.secret(b.public()).0), shared);
        assert_eq!(hex(&b.secret(a.public()).0), shared);
        assert_eq!(
            hex(&b.secret(&[0xff; KEY_BYTES]).0),
            "5ab5fde806eabc7d5f5a1a508a09409e55763e242e2b4bda1c54b37323d8f8572c52f23b1e9b5853def38ed39781ce7f\
             a9be768978cfc23cae1186b1304e9714b56777f4f1f15777c93c84d52c671e5861bd839aa4c299a3f0f6fcd9eaae5e88"
        );
        assert_eq!(b.secret(&[0; KEY_BYTES]).0, [0; KEY_BYTES]);
    }
}
