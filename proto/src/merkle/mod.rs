//! The hash trees of BitTorrent v2 (BEP 52): SHA-256 over 16 KiB blocks, one binary tree a file.
//!
//! Layer 0 holds the block hashes. A tree is as wide as the next power of two; the missing leaves are zero *hashes*, so
//! that a missing node of a higher layer has a fixed value, [`pad_hash`]. [`Tree`] answers hash requests,
//! [`HashRange::ancestor`] checks the answers, [`PieceHasher`] hashes bytes as they arrive.

mod hasher;
mod proof;

pub use hasher::{PieceHash, PieceHasher};
pub use proof::{HashRange, HashRangeError, Tree};

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// A node of a tree: a SHA-256.
pub type Hash = [u8; 32];

/// What a leaf covers; only the last block of a file may be shorter.
pub const BLOCK_BYTES: u32 = 16 << 10;

/// The leaf of a block of at most [`BLOCK_BYTES`] bytes.
#[must_use]
pub fn hash_block(block: &[u8]) -> Hash {
    Sha256::digest(block).into()
}

/// The node above two siblings.
#[must_use]
pub fn parent(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// A node of `layer` beneath which nothing exists.
#[must_use]
pub fn pad_hash(layer: u32) -> Hash {
    let known = (layer as usize).min(PADS.len() - 1);
    (known..layer as usize).fold(PADS[known], |hash, _| parent(&hash, &hash))
}

/// The padding of the lowest layers, more than the trees of 2^64 bytes have: in a torrent of small files most nodes are padding.
static PADS: LazyLock<[Hash; 64]> = LazyLock::new(|| {
    let mut pads = [[0; 32]; 64];
    for layer in 1..pads.len() {
        pads[layer] = parent(&pads[layer - 1], &pads[layer - 1]);
    }
    pads
});

/// The root of a layer of hashes, padded to the next power of two.
///
/// `layer` is the height of the hashes above the blocks: 0 for block hashes, `log2(piece_bytes / 16 KiB)` for a piece
/// layer. An empty slice gives the padding of that layer.
#[must_use]
pub fn root(hashes: &[Hash], layer: u32) -> Hash {
    subtree_root(hashes, layer, hashes.len())
}

/// Like [`root`], for at least `width` nodes: a short last piece is padded to the width of all pieces.
#[must_use]
pub fn subtree_root(hashes: &[Hash], layer: u32, width: usize) -> Hash {
    let mut width = width.max(hashes.len()).max(1).next_power_of_two();
    let mut layer = layer;
    let mut nodes = hashes.to_vec();
    while width > 1 {
        nodes = layer_above(&nodes, &pad_hash(layer));
        layer += 1;
        width /= 2;
    }
    nodes.first().copied().unwrap_or_else(|| pad_hash(layer))
}

/// The layer above `nodes`, without the nodes that are padding only.
fn layer_above(nodes: &[Hash], pad: &Hash) -> Vec<Hash> {
    nodes.chunks(2).map(|pair| parent(&pair[0], pair.get(1).unwrap_or(pad))).collect()
}

/// The layer whose nodes cover one piece each; `piece_bytes` is a power of two, at least [`BLOCK_BYTES`].
#[must_use]
pub fn piece_layer(piece_bytes: u32) -> u32 {
    (piece_bytes / BLOCK_BYTES).max(1).ilog2()
}

/// Leaves under the v2 hash of a piece: those of a whole piece, or those of the whole tree where the file is no longer
/// than one piece.
#[must_use]
pub fn leaf_width(file_bytes: u64, piece_bytes: u32) -> usize {
    let blocks = file_bytes.min(u64::from(piece_bytes)).div_ceil(u64::from(BLOCK_BYTES)).max(1);
    // A piece has fewer than 2^32 bytes, so its blocks fit any usize.
    usize::try_from(blocks).map_or(usize::MAX / 2, usize::next_power_of_two)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_zero_leaves() {
        let leaves: Vec<Hash> = (0..5).map(|i| hash_block(&[i])).collect();
        let mut padded = leaves.clone();
        padded.resize(8, [0; 32]);
        assert_eq!(root(&leaves, 0), root(&padded, 0));
        assert_ne!(root(&leaves, 0), root(&leaves, 1));
        // By way of a layer of two-block pieces, whose missing node is the parent of zeros.
        let pieces: Vec<Hash> = leaves.chunks(2).map(|pair| subtree_root(pair, 0, 2)).collect();
        assert_eq!(pieces.len(), 3);
        assert_eq!(root(&pieces, 1), root(&padded, 0));
        assert_eq!(root(&leaves[..1], 0), leaves[0]);
        let widened = parent(&parent(&leaves[0], &[0; 32]), &pad_hash(1));
        assert_eq!(subtree_root(&leaves[..1], 0, 4), widened);
    }

    #[test]
    fn every_layer_of_padding_follows_from_the_one_below() {
        assert_eq!(pad_hash(0), [0; 32]);
        for layer in 0..70 {
            assert_eq!(pad_hash(layer + 1), parent(&pad_hash(layer), &pad_hash(layer)), "{layer}");
        }
    }

    #[test]
    fn widths_follow_the_file_and_the_piece() {
        for (file, piece, width) in [
            (1, 16 << 10, 1),
            (16_385, 16 << 10, 1),
            (16_385, 64 << 10, 2),
            (40_000, 64 << 10, 4),
            (1 << 40, 64 << 10, 4),
            (1 << 40, 16 << 20, 1024),
        ] {
            assert_eq!(leaf_width(file, piece), width, "{file} bytes in pieces of {piece}");
        }
        assert_eq!(piece_layer(16 << 10), 0);
        assert_eq!(piece_layer(64 << 10), 2);
    }
}
