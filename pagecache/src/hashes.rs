//! Hashes of pieces: those that a metainfo gives, and those learned while a content without one arrives.

use std::sync::{Mutex, PoisonError};

use millrace_proto::merkle;

use crate::layout::PieceIndex;

/// Both hashes of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceHash {
    /// SHA-1 of the piece's bytes, padding included (BEP 3).
    pub sha1: [u8; 20],
    /// Root of the piece's subtree of SHA-256 block hashes (BEP 52): an entry of the piece layer, or the file's root
    /// where the file is no longer than a piece.
    pub layer: [u8; 32],
}

impl From<PieceHash> for merkle::PieceHash {
    fn from(hash: PieceHash) -> Self {
        merkle::PieceHash { v1: Some(hash.sha1), v2: Some(hash.layer) }
    }
}

/// What verifying a piece found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every hash known of the piece matches.
    Good,
    /// One does not.
    Bad,
}

/// Hashes learned of a content whose hashes nobody told us.
///
/// Behind a mutex: ingest writes them, and who makes the metainfo or the state file reads them. No shard does.
#[derive(Debug, Default)]
pub struct Learned(Mutex<Vec<Option<PieceHash>>>);

impl Learned {
    /// Records the hash of a piece.
    pub fn record(&self, piece: PieceIndex, hash: PieceHash) {
        let Ok(index) = usize::try_from(piece.0) else { return };
        let mut hashes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hashes.len() <= index {
            hashes.resize(index + 1, None);
        }
        hashes[index] = Some(hash);
    }

    /// The hash of a piece, if learned.
    #[must_use]
    pub fn hash(&self, piece: PieceIndex) -> Option<PieceHash> {
        let hashes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.get(usize::try_from(piece.0).ok()?).copied().flatten()
    }

    /// All hashes so far, by piece; shorter than the content where the last pieces are not known.
    #[must_use]
    pub fn all(&self) -> Vec<Option<PieceHash>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
