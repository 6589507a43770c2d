//! Answering and checking hash requests (BEP 52, "hash request" and "hashes").
//!
//! An answer holds a run of hashes of one layer, then the siblings ("uncles") that lead from the node above that run
//! towards the root. Uncles which the run itself determines are left out.

use super::{Hash, layer_above, pad_hash, parent, root};

/// Which hashes of a file's tree a peer asks for, as the messages 21 to 23 carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashRange {
    /// The layer of the hashes asked for; 0 is the block hashes.
    pub base_layer: u32,
    /// The first hash, a multiple of `length`.
    pub index: u32,
    /// How many: a power of two, 2 to [`HashRange::LENGTH_MAX`].
    pub length: u32,
    /// How many layers above the base layer are to be proven, the root not counted.
    pub proof_layers: u32,
}

/// Why a hash request cannot be answered; the peer gets a hash reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashRangeError {
    /// The numbers break the rules of BEP 52.
    #[error("hash request is malformed: length must be a power of two from 2 to 8192 that divides index")]
    Malformed,
    /// The tree is smaller than what is asked for.
    #[error("hash request lies outside of the tree")]
    OutOfTree,
    /// The tree knows no hashes of that layer.
    #[error("hashes of layer {0} are not known")]
    LayerUnknown(u32),
}

impl HashRange {
    /// The longest run answered, as in other implementations.
    pub const LENGTH_MAX: u32 = 8192;

    /// How many uncles follow the run, or why the request is malformed.
    ///
    /// # Errors
    /// [`HashRangeError::Malformed`].
    pub fn uncles(&self) -> Result<u32, HashRangeError> {
        let length_valid = self.length.is_power_of_two() && (2..=Self::LENGTH_MAX).contains(&self.length);
        // A file has fewer than 2^63 bytes, thus no tree is higher than 49 layers.
        let layers_valid = self.base_layer < 64 && self.proof_layers < 64;
        if !length_valid || !layers_valid || !self.index.is_multiple_of(self.length) {
            return Err(HashRangeError::Malformed);
        }
        // The run determines log2(length) layers above it; the topmost is the first to have an uncle.
        Ok(self.proof_layers.saturating_sub(self.length.ilog2() - 1))
    }

    /// Layer and index of the node that an answer proves: the root, or a node of a layer known already.
    ///
    /// # Errors
    /// [`HashRangeError::Malformed`].
    pub fn proven(&self) -> Result<(u32, u32), HashRangeError> {
        let above = self.length.ilog2() + self.uncles()?;
        Ok((self.base_layer + above, self.index.checked_shr(above).unwrap_or(0)))
    }

    /// The hash that `hashes`, the answer to this request, give for the node [`HashRange::proven`].
    ///
    /// The answer is good exactly if this equals the known hash of that node.
    ///
    /// # Errors
    /// [`HashRangeError::Malformed`], also if the number of hashes is not what was asked for.
    pub fn ancestor(&self, hashes: &[Hash]) -> Result<Hash, HashRangeError> {
        let count = self.length.checked_add(self.uncles()?).ok_or(HashRangeError::Malformed)?;
        if usize::try_from(count) != Ok(hashes.len()) {
            return Err(HashRangeError::Malformed);
        }
        let run = usize::try_from(self.length).map_err(|_| HashRangeError::Malformed)?;
        let (run, uncles) = hashes.split_at(run);
        let mut position = self.index / self.length;
        let mut node = root(run, self.base_layer);
        for uncle in uncles {
            node = if position.is_multiple_of(2) { parent(&node, uncle) } else { parent(uncle, &node) };
            position /= 2;
        }
        Ok(node)
    }
}

/// All known layers of a file's tree, from a base layer to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    base_layer: u32,
    /// From the base layer upwards, without nodes that are padding only; the last holds the root.
    layers: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree above `hashes` of `base_layer`: all block hashes, or the piece layer.
    #[must_use]
    pub fn new(hashes: Vec<Hash>, base_layer: u32) -> Self {
        let mut layers = vec![hashes];
        let mut layer = base_layer;
        while let Some(top) = layers.last()
            && top.len() > 1
        {
            let above = layer_above(top, &pad_hash(layer));
            layers.push(above);
            layer += 1;
        }
        Self { base_layer, layers }
    }

    /// The root of the file (`pieces root`).
    #[must_use]
    pub fn root(&self) -> Hash {
        self.layers.last().and_then(|top| top.first()).copied().unwrap_or_else(|| pad_hash(self.base_layer))
    }

    /// The node `index` of `layer`; padding where the file has ended, `None` outside of the tree.
    #[must_use]
    pub fn node(&self, layer: u32, index: u32) -> Option<Hash> {
        let up = usize::try_from(layer.checked_sub(self.base_layer)?).ok()?;
        let nodes = self.layers.get(up)?;
        let width = 1u64 << (self.layers.len() - 1 - up);
        if u64::from(index) >= width {
            return None;
        }
        let index = usize::try_from(index).ok()?;
        Some(nodes.get(index).copied().unwrap_or_else(|| pad_hash(layer)))
    }

    /// The answer to a request whose base layer is in this tree: the run, then its uncles.
    ///
    /// # Errors
    /// The request is malformed, or reaches outside of the tree.
    pub fn proof(&self, range: HashRange) -> Result<Vec<Hash>, HashRangeError> {
        let uncles = range.uncles()?;
        if range.base_layer < self.base_layer {
            return Err(HashRangeError::LayerUnknown(range.base_layer));
        }
        let end = range.index.checked_add(range.length).ok_or(HashRangeError::OutOfTree)?;
        let node = |layer, index| self.node(layer, index).ok_or(HashRangeError::OutOfTree);
        let mut hashes =
            (range.index..end).map(|index| node(range.base_layer, index)).collect::<Result<Vec<_>, _>>()?;
        hashes.extend(self.uncles(
            range.base_layer + range.length.ilog2(),
            range.index / range.length,
            uncles,
        )?);
        Ok(hashes)
    }

    /// The answer to a request for block hashes inside one piece, when this tree begins at the piece layer.
    ///
    /// `leaves` are the block hashes of the piece that holds block `range.index`, from its first block on; they are
    /// fewer than the piece has blocks only at the end of the file.
    ///
    /// # Errors
    /// The request is malformed, is not for blocks, or does not stay inside of one piece and of the tree.
    pub fn leaf_proof(&self, leaves: &[Hash], range: HashRange) -> Result<Vec<Hash>, HashRangeError> {
        let uncles = range.uncles()?;
        let blocks = 1u32.checked_shl(self.base_layer).ok_or(HashRangeError::OutOfTree)?;
        if range.base_layer != 0 || range.length > blocks {
            return Err(HashRangeError::LayerUnknown(range.base_layer));
        }
        let mut padded = leaves.to_vec();
        padded.resize(usize::try_from(blocks).map_err(|_| HashRangeError::OutOfTree)?, [0; 32]);
        let piece = Self::new(padded, 0);
        let inside = uncles.min(self.base_layer - range.length.ilog2());
        // proof_layers that give exactly `inside` uncles.
        let local = HashRange {
            index: range.index % blocks,
            proof_layers: inside + range.length.ilog2() - 1,
            ..range
        };
        let mut hashes = piece.proof(local)?;
        let piece_index = range.index / blocks;
        self.node(self.base_layer, piece_index).ok_or(HashRangeError::OutOfTree)?;
        hashes.extend(self.uncles(self.base_layer, piece_index, uncles - inside)?);
        Ok(hashes)
    }

    /// The siblings along the way up from a node, `count` of them.
    fn uncles(&self, layer: u32, index: u32, count: u32) -> Result<Vec<Hash>, HashRangeError> {
        (0..count)
            .map(|up| {
                let position = index.checked_shr(up).unwrap_or(0);
                self.node(layer + up, position ^ 1).ok_or(HashRangeError::OutOfTree)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{hash_block, subtree_root};
    use super::*;

    fn leaves(count: u32) -> Vec<Hash> {
        (0..count).map(|i| hash_block(&i.to_le_bytes())).collect()
    }

    /// Every request of every shape on a tree of `count` blocks proves what it says, and a changed hash does not.
    fn check(count: u32, piece_layer: u32) {
        let blocks = leaves(count);
        let tree = Tree::new(blocks.clone(), 0);
        let width = 1usize << piece_layer;
        let pieces: Vec<Hash> = blocks.chunks(width).map(|piece| subtree_root(piece, 0, width)).collect();
        let upper = Tree::new(pieces, piece_layer);
        assert_eq!(upper.root(), tree.root());
        let height = count.next_power_of_two().ilog2();
        for base_layer in 0..height {
            for log in 1..=height - base_layer {
                for proof_layers in 0..height - base_layer {
                    let length = 1 << log;
                    for index in (0..1u32 << (height - base_layer)).step_by(1 << log) {
                        let range = HashRange { base_layer, index, length, proof_layers };
                        let hashes = tree.proof(range).unwrap();
                        let (layer, at) = range.proven().unwrap();
                        assert_eq!(range.ancestor(&hashes), Ok(tree.node(layer, at).unwrap()), "{range:?}");
                        for wrong in 0..hashes.len() {
                            let mut forged = hashes.clone();
                            forged[wrong][5] ^= 1;
                            assert_ne!(range.ancestor(&forged), Ok(tree.node(layer, at).unwrap()));
                        }
                        if base_layer >= piece_layer {
                            assert_eq!(upper.proof(range), Ok(hashes));
                        } else if base_layer == 0 && log <= piece_layer {
                            let start = (index as usize / width * width).min(blocks.len());
                            let end = (start + width).min(blocks.len());
                            let whole = upper.leaf_proof(&blocks[start..end], range);
                            assert_eq!(whole, Ok(hashes), "{range:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn proofs_lead_to_known_nodes() {
        for (count, piece_layer) in [(2, 0), (5, 1), (8, 2), (13, 2), (16, 3), (9, 2)] {
            check(count, piece_layer);
        }
    }

    #[test]
    fn requests_outside_are_refused() {
        let tree = Tree::new(leaves(5), 0);
        let range = HashRange { base_layer: 0, index: 0, length: 2, proof_layers: 2 };
        assert_eq!(tree.proof(range).unwrap().len(), 4);
        let malformed = [
            HashRange { length: 1, ..range },
            HashRange { length: 3, index: 3, ..range },
            HashRange { index: 1, ..range },
            HashRange { length: 16_384, ..range },
            HashRange { length: 0, ..range },
            HashRange { base_layer: u32::MAX, ..range },
            HashRange { proof_layers: u32::MAX, ..range },
        ];
        for range in malformed {
            assert_eq!(tree.proof(range), Err(HashRangeError::Malformed), "{range:?}");
        }
        let outside = [
            HashRange { index: 8, ..range },
            HashRange { proof_layers: 3, ..range },
            HashRange { base_layer: 3, ..range },
            HashRange { index: u32::MAX - 1, ..range },
        ];
        for range in outside {
            assert_eq!(tree.proof(range), Err(HashRangeError::OutOfTree), "{range:?}");
        }
        let upper = Tree::new(leaves(5), 2);
        assert_eq!(upper.proof(HashRange { base_layer: 1, ..range }), Err(HashRangeError::LayerUnknown(1)));
    }
}
