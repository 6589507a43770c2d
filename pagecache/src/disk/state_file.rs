//! The `state` file: which pieces are good, and the hashes learned of a content that came without.
//!
//! Little endian: magic (8), version u32, content id (16), piece bytes u32, length u64, piece count u32, a bit for each
//! piece (first piece in the highest bit, as in BEP 3's bitfield), hash count u32, for each one byte whether it is known
//! and 20 + 32 bytes, CRC-32C u32 of everything before.

use bitvec::prelude::{BitVec, Msb0};
use millrace_proto::id::ContentId;

use super::durable::Unreadable;
use crate::hashes::PieceHash;

const MAGIC: &[u8; 8] = b"MRSTATE\0";
const VERSION: u32 = 1;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) id: ContentId,
    pub(super) piece_bytes: u32,
    pub(super) length: u64,
    pub(super) good: BitVec<u8, Msb0>,
    pub(super) learned: Vec<Option<PieceHash>>,
}

impl Saved {
    pub(super) fn encode(&self) -> Vec<u8> {
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend(self.id.0);
        out.extend(self.piece_bytes.to_le_bytes());
        out.extend(self.length.to_le_bytes());
        out.extend(count(self.good.len()));
        out.extend(self.good.as_raw_slice());
        out.extend(count(self.learned.len()));
        for hash in &self.learned {
            out.push(u8::from(hash.is_some()));
            let hash = hash.unwrap_or(PieceHash { sha1: [0; 20], layer: [0; 32] });
            out.extend(hash.sha1);
            out.extend(hash.layer);
        }
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Saved, Unreadable> {
        const TORN: Unreadable = Unreadable::Torn("state is cut short or changed");
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(TORN)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(TORN);
        }
        let mut rest = body;
        if take::<8>(&mut rest) != Some(*MAGIC) {
            return Err(TORN);
        }
        match take(&mut rest).map(u32::from_le_bytes) {
            Some(VERSION) => Self::fields(&mut rest).ok_or(TORN),
            Some(version) => Err(Unreadable::Version(u64::from(version))),
            None => Err(TORN),
        }
    }

    fn fields(rest: &mut &[u8]) -> Option<Saved> {
        let id = ContentId(take(rest)?);
        let piece_bytes = u32::from_le_bytes(take(rest)?);
        let length = u64::from_le_bytes(take(rest)?);
        let pieces = usize::try_from(u32::from_le_bytes(take(rest)?)).ok()?;
        let (bitmap, after) = rest.split_at_checked(pieces.div_ceil(8))?;
        *rest = after;
        let mut good = BitVec::from_slice(bitmap);
        good.truncate(pieces);
        let hashes = usize::try_from(u32::from_le_bytes(take(rest)?)).ok()?;
        if hashes.checked_mul(53)? != rest.len() {
            return None;
        }
        let mut learned = Vec::with_capacity(hashes);
        for _ in 0..hashes {
            let [known] = take(rest)?;
            let hash = PieceHash { sha1: take(rest)?, layer: take(rest)? };
            learned.push((known == 1).then_some(hash));
        }
        Some(Saved { id, piece_bytes, length, good, learned })
    }
}

/// The next bytes of `rest`, which becomes what follows.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (now, later) = rest.split_first_chunk::<N>()?;
    *rest = later;
    Some(*now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let mut good = BitVec::repeat(false, 11);
        good.set(3, true);
        let learned = vec![None, Some(PieceHash { sha1: [1; 20], layer: [2; 32] })];
        let saved = Saved { id: ContentId([9; 16]), piece_bytes: 16384, length: 11 * 16384, good, learned };
        let bytes = saved.encode();
        assert_eq!(Saved::decode(&bytes).unwrap(), saved);
        for cut in 0..bytes.len() {
            assert!(matches!(Saved::decode(&bytes[..cut]), Err(Unreadable::Torn(_))), "cut at {cut}");
            let mut flipped = bytes.clone();
            flipped[cut] ^= 0x10;
            assert!(matches!(Saved::decode(&flipped), Err(Unreadable::Torn(_))), "flipped at {cut}");
        }
    }

    #[test]
    fn a_later_version_is_told_apart_from_damage() {
        let good = BitVec::new();
        let saved = Saved { id: ContentId([9; 16]), piece_bytes: 1, length: 0, good, learned: vec![] };
        let mut bytes = saved.encode();
        bytes.truncate(bytes.len() - 4);
        bytes[8] = 2;
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        assert!(matches!(Saved::decode(&bytes), Err(Unreadable::Version(2))));
    }
}
