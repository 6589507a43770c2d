//! Hashing one piece as its bytes arrive, in slices of any size, for v1 and v2 at once.

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{BLOCK_BYTES, Hash, subtree_root};

/// The hashes of one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceHash {
    /// SHA-1 of the piece with its padding (BEP 3, BEP 47), where v1 was asked for.
    pub v1: Option<[u8; 20]>,
    /// The node of the piece layer, or the root of a file no longer than a piece (BEP 52), where v2 was asked for.
    pub v2: Option<Hash>,
}

/// Takes the bytes of one piece in order and yields its hashes.
#[derive(Debug, Clone)]
pub struct PieceHasher {
    v1: Option<Sha1>,
    v2: Option<Blocks>,
}

/// The leaves so far, and the block being filled.
#[derive(Debug, Clone, Default)]
struct Blocks {
    leaves: Vec<Hash>,
    block: Sha256,
    block_filled: usize,
}

impl PieceHasher {
    /// A hasher that computes the kinds asked for.
    ///
    /// In a v1-only torrent a piece may span files and has no v2 hash.
    #[must_use]
    pub fn new(v1: bool, v2: bool) -> Self {
        Self { v1: v1.then(Sha1::default), v2: v2.then(Blocks::default) }
    }

    /// Takes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(sha1) = &mut self.v1 {
            sha1.update(bytes);
        }
        if let Some(blocks) = &mut self.v2 {
            blocks.update(bytes);
        }
    }

    /// Takes `count` bytes of padding behind the file: zeros to v1, nothing to v2.
    pub fn update_padding(&mut self, count: u32) {
        const ZEROS: [u8; 4096] = [0; 4096];
        let Some(sha1) = &mut self.v1 else { return };
        let mut left = usize::try_from(count).unwrap_or(usize::MAX);
        while left > 0 {
            let chunk = left.min(ZEROS.len());
            sha1.update(&ZEROS[..chunk]);
            left -= chunk;
        }
    }

    /// The hashes; `leaf_width` is that of [`super::leaf_width`] and matters to v2 only.
    #[must_use]
    pub fn finish(self, leaf_width: usize) -> PieceHash {
        PieceHash {
            v1: self.v1.map(|sha1| sha1.finalize().into()),
            v2: self.v2.map(|blocks| subtree_root(&blocks.into_leaves(), 0, leaf_width)),
        }
    }

    /// The block hashes of the piece, for requests beneath the piece layer; empty unless v2 was asked for.
    #[must_use]
    pub fn into_leaves(self) -> Vec<Hash> {
        self.v2.map(Blocks::into_leaves).unwrap_or_default()
    }
}

impl Blocks {
    const BLOCK: usize = BLOCK_BYTES as usize;

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(Self::BLOCK - self.block_filled));
            self.block.update(now);
            self.block_filled += now.len();
            if self.block_filled == Self::BLOCK {
                self.close_block();
            }
            bytes = later;
        }
    }

    fn close_block(&mut self) {
        self.leaves.push(self.block.finalize_reset().into());
        self.block_filled = 0;
    }

    fn into_leaves(mut self) -> Vec<Hash> {
        if self.block_filled > 0 {
            self.close_block();
        }
        self.leaves
    }
}

#[cfg(test)]
mod tests {
    use super::super::{hash_block, parent};
    use super::*;

    fn check(bytes: &[u8], slice_bytes: usize, padding: u32, width: usize) -> PieceHash {
        let mut hasher = PieceHasher::new(true, true);
        bytes.chunks(slice_bytes).for_each(|slice| hasher.update(slice));
        hasher.update_padding(padding);
        hasher.finish(width)
    }

    #[test]
    fn slicing_does_not_matter() {
        let bytes: Vec<u8> = (0..40_000u32).map(|i| i.to_le_bytes()[1] ^ i.to_le_bytes()[0]).collect();
        let whole = check(&bytes, bytes.len(), 25_536, 4);
        let leaves: Vec<Hash> = bytes.chunks(16_384).map(hash_block).collect();
        assert_eq!(whole.v2, Some(parent(&parent(&leaves[0], &leaves[1]), &parent(&leaves[2], &[0; 32]))));
        let mut padded = bytes.clone();
        padded.resize(65_536, 0);
        assert_eq!(whole.v1, Some(Sha1::digest(&padded).into()));
        for slice_bytes in [1, 7, 4096, 16_383, 16_384, 16_385] {
            assert_eq!(check(&bytes, slice_bytes, 25_536, 4), whole, "slices of {slice_bytes}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_computed() {
        let none = PieceHasher::new(false, false).finish(1);
        assert_eq!(none, PieceHash { v1: None, v2: None });
        assert!(PieceHasher::new(true, false).into_leaves().is_empty());
    }
}
