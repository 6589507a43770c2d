//! What a piece must hash to, and which bytes of which file it is.

use super::Metainfo;
use crate::merkle::{self, Hash};

/// A piece of a torrent and its known hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where the piece begins in the linear space, in bytes.
    pub offset: u64,
    /// Bytes in the linear space, explicit padding included; less than the piece length only in the last piece.
    pub bytes: u32,
    /// With a v2 part: bytes that belong to the file; the v2 hash is over these. Equal to `bytes` without.
    pub data_bytes: u32,
    /// SHA-1 over `bytes`, padding being zeros.
    pub v1: Option<[u8; 20]>,
    /// Node of the piece layer or root of the file; `None` without a v2 part, and while the layer is not known.
    pub v2: Option<Hash>,
    /// To be given to [`merkle::PieceHasher::finish`].
    pub leaf_width: usize,
}

impl Metainfo {
    /// The piece `index`, or `None` behind the last.
    #[must_use]
    pub fn piece(&self, index: u32) -> Option<Piece> {
        let info = &self.info;
        let piece_bytes = u64::from(info.piece_bytes);
        let offset = u64::from(index) * piece_bytes;
        let left = info.length.checked_sub(offset).filter(|left| *left > 0)?;
        let bytes = u32::try_from(left.min(piece_bytes)).ok()?;
        let at = usize::try_from(index).ok()?;
        let v1 = info.v1_pieces.as_ref().and_then(|pieces| pieces.get(at)).copied();
        let mut piece = Piece { offset, bytes, data_bytes: bytes, v1, v2: None, leaf_width: 1 };
        if info.v2 {
            // With a v2 part a piece belongs to the one file that has bytes at its beginning.
            let after = info.files.partition_point(|file| file.offset <= offset);
            let file = info.files[..after].iter().rev().find(|file| file.length > 0)?;
            let inside = offset - file.offset;
            piece.data_bytes = u32::try_from(file.length.saturating_sub(inside).min(piece_bytes)).ok()?;
            piece.leaf_width = merkle::leaf_width(file.length, info.piece_bytes);
            let root = file.pieces_root?;
            piece.v2 = if file.length <= piece_bytes {
                Some(root)
            } else {
                let layer = self.piece_layers.get(&root);
                usize::try_from(inside / piece_bytes).ok().and_then(|at| layer?.get(at).copied())
            };
            if info.v1_pieces.is_none() {
                // The gap behind a file is implicit: no byte of it exists.
                piece.bytes = piece.data_bytes;
            }
        }
        Some(piece)
    }
}
