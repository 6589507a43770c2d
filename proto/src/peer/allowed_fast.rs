//! The allowed-fast set of BEP 6: the pieces a choked peer may ask for, derived from its address so that it cannot
//! get another set by connecting again.

use std::net::IpAddr;

use sha1::{Digest, Sha1};

/// The most pieces a set can be asked to have; BEP 6 suggests 10.
pub const SET_PIECES_MAX: usize = 16;

/// An allowed-fast set in the order of its generation, without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedFast {
    pieces: [u32; SET_PIECES_MAX],
    count: usize,
}

impl AllowedFast {
    /// Generates the set of `count` pieces for the peer at `address` (BEP 6, "Allowed Fast Set Generation").
    ///
    /// The count is cut to the number of pieces and to [`SET_PIECES_MAX`]. IPv4 addresses, mapped ones included, are
    /// masked to /24 as the BEP says; it leaves IPv6 open, where the /64 that one customer holds is the like of it.
    #[must_use]
    pub fn generate(address: IpAddr, infohash: &[u8; 20], piece_count: u32, count: usize) -> Self {
        let mut set = Self { pieces: [0; SET_PIECES_MAX], count: 0 };
        let count = count.min(SET_PIECES_MAX).min(usize::try_from(piece_count).unwrap_or(usize::MAX));
        let mut digest: [u8; 20] = match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Sha1::new().chain_update([a, b, c, 0]).chain_update(infohash).finalize().into()
            }
            IpAddr::V6(v6) => {
                Sha1::new().chain_update(&v6.octets()[..8]).chain_update(infohash).finalize().into()
            }
        };
        while set.count < count {
            for number in digest.chunks_exact(4) {
                let number = number.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
                let piece = number % piece_count;
                if set.count < count && !set.contains(piece) {
                    set.pieces[set.count] = piece;
                    set.count += 1;
                }
            }
            digest = Sha1::digest(digest).into();
        }
        set
    }

    /// The pieces, in the order in which they are to be announced.
    #[must_use]
    pub fn pieces(&self) -> &[u32] {
        &self.pieces[..self.count]
    }

    /// Whether a choked peer may ask for this piece.
    #[must_use]
    pub fn contains(&self, piece: u32) -> bool {
        self.pieces().contains(&piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, piece_count: u32, count: usize, expected: &[u32]) {
        let set = AllowedFast::generate(address.parse().unwrap(), &[0xaa; 20], piece_count, count);
        assert_eq!(set.pieces(), expected);
    }

    #[test]
    fn the_vectors_of_bep_6() {
        check("80.4.4.200", 1313, 7, &[1059, 431, 808, 1217, 287, 376, 1188]);
        check("80.4.4.200", 1313, 9, &[1059, 431, 808, 1217, 287, 376, 1188, 353, 508]);
        check("::ffff:80.4.4.7", 1313, 7, &[1059, 431, 808, 1217, 287, 376, 1188]);
    }

    #[test]
    fn few_pieces_end_the_search() {
        check("80.4.4.200", 0, 10, &[]);
        check("80.4.4.200", 1, 10, &[0]);
        let set = AllowedFast::generate("2001:db8::1".parse().unwrap(), &[1; 20], 3, 10);
        assert!(set.pieces().len() == 3 && (0..3).all(|piece| set.contains(piece)));
    }

    #[test]
    fn an_ipv6_customer_has_one_set() {
        let set = |address: &str| AllowedFast::generate(address.parse().unwrap(), &[1; 20], 9999, 10);
        assert_eq!(set("2001:db8::1"), set("2001:db8::ffff:2"));
        assert_ne!(set("2001:db8::1"), set("2001:db8:0:1::1"));
    }
}
