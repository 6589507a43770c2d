//! RC4 (the cipher that RFC 6229 has test vectors of), less its first 1,024 bytes, as message stream encryption uses it.

use std::fmt;

/// Bytes of the key stream that are thrown away.
const DISCARDED_BYTES: usize = 1024;

/// One direction of a connection.
#[derive(Clone)]
pub(super) struct Cipher {
    state: [u8; 256],
    i: u8,
    j: u8,
}

impl Cipher {
    pub(super) fn new(key: &[u8; 20]) -> Self {
        let mut cipher = Cipher::begun(key);
        (0..DISCARDED_BYTES).for_each(|_| {
            cipher.next();
        });
        cipher
    }

    /// With nothing thrown away.
    fn begun(key: &[u8]) -> Self {
        let mut state = std::array::from_fn(|at| u8::try_from(at).unwrap_or(0));
        let mut j = 0_u8;
        for (i, key) in (0..=u8::MAX).zip(key.iter().cycle()) {
            j = j.wrapping_add(state[usize::from(i)]).wrapping_add(*key);
            state.swap(usize::from(i), usize::from(j));
        }
        Cipher { state, i: 0, j: 0 }
    }

    fn next(&mut self) -> u8 {
        self.i = self.i.wrapping_add(1);
        let a = self.state[usize::from(self.i)];
        self.j = self.j.wrapping_add(a);
        let b = self.state[usize::from(self.j)];
        self.state.swap(usize::from(self.i), usize::from(self.j));
        self.state[usize::from(a.wrapping_add(b))]
    }

    /// Encrypts or decrypts in place.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte ^= self.next();
        }
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher")
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// RFC 6229 §2: the key stream of a key, at two offsets.
    fn check(key: &str, first: &str, at_1024: &str) {
        let mut cipher = Cipher::begun(&HEXLOWER.decode(key.as_bytes()).unwrap());
        let stream: Vec<u8> = (0..1040).map(|_| cipher.next()).collect();
        assert_eq!(HEXLOWER.encode(&stream[..16]), first, "key {key}");
        assert_eq!(HEXLOWER.encode(&stream[1024..]), at_1024, "key {key} at 1024");
    }

    #[test]
    fn the_vectors_of_the_standard() {
        check("0102030405", "b2396305f03dc027ccc3524a0a1118a8", "30abbcc7c20b01609f23ee2d5f6bb7df");
        check(
            "0102030405060708090a0b0c0d0e0f10",
            "9ac7cc9a609d1ef7b2932899cde41b97",
            "bdf0324e6083dcc6d3cedd3ca8c53c16",
        );
    }

    #[test]
    fn the_beginning_of_the_key_stream_is_not_used() {
        let mut whole = Cipher::begun(&[7; 20]);
        let stream: Vec<u8> = (0..1025).map(|_| whole.next()).collect();
        let mut byte = [0];
        Cipher::new(&[7; 20]).apply(&mut byte);
        assert_eq!(byte[0], stream[1024]);
    }
}
