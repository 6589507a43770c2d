//! Why a torrent is refused, in words for the person who tried to add it.

use crate::bencode;

/// Why bytes are not an acceptable .torrent file or info dictionary, or a torrent cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetainfoError {
    /// Not canonical bencoding.
    #[error("torrent is malformed: {0}")]
    Bencode(#[from] bencode::Error),
    /// A key that must be there is not.
    #[error("torrent has no `{0}`")]
    Missing(&'static str),
    /// A key has a value of the wrong type or size.
    #[error("torrent has an invalid `{0}`")]
    Invalid(&'static str),
    /// `meta version` is neither absent nor 2.
    #[error("torrent has meta version {0}; versions 1 and 2 are understood")]
    Version(i64),
    /// A name that could leave the torrent's folder, or that no file system takes.
    #[error("torrent has a file name that is {reason}: {name:?}")]
    Name {
        /// The name, or as much of it as is safe to show.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Two files of the same path, or a file where another file needs a folder.
    #[error("torrent names {0:?} twice, or as both a file and a folder")]
    Collision(String),
    /// A symbolic link (BEP 47 `l`).
    #[error("torrent contains the symbolic link {0:?}; links are not accepted")]
    Symlink(String),
    /// Not a piece length that this program works with.
    #[error(
        "torrent has a piece length of {0} bytes; 1 to 64 MiB are accepted, for v2 powers of two from 16 KiB"
    )]
    PieceBytes(i64),
    /// The lengths overflow, or give more pieces than [`super::PIECE_COUNT_MAX`].
    #[error("torrent is too long for its piece length, or its lengths overflow")]
    TooLong,
    /// `pieces` does not fit the length.
    #[error("torrent of {expected} pieces has {found} piece hashes")]
    PieceCount {
        /// Pieces that the length gives.
        expected: u64,
        /// Hashes found.
        found: u64,
    },
    /// The v1 list and the v2 tree of a hybrid torrent differ, or its files are not aligned by padding.
    #[error(
        "hybrid torrent contradicts itself at {0:?}: v1 and v2 parts differ in name, length or alignment"
    )]
    HybridMismatch(String),
    /// `piece layers` lacks the hashes of a file, or they do not give its root.
    #[error("torrent has missing or wrong piece layers for {0:?}")]
    PieceLayer(String),
}
