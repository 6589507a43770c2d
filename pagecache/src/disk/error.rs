//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

use millrace_proto::id::ContentId;
use millrace_proto::metainfo::MetainfoError;

use super::durable::Unreadable;
use crate::layout::LayoutError;

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("the store {0} is in use by another process: stop that one, or give this one a store of its own")]
    InUse(PathBuf),
    /// The disk says so.
    #[error("{path}: {source}")]
    Io {
        /// What it is about.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// Written by a later program.
    #[error("{path} has version {found}, which this program does not know: use the program that wrote it")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// A file of the store is damaged.
    #[error("{path}: {why}")]
    Damaged {
        /// What it is about.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A length or piece size that no store can hold.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Names or lengths of which no torrent can be made.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
    /// The disk did not keep a content that was being added; what it said then.
    #[error("{0}")]
    Lost(String),
    /// No such content, or an older object of it.
    #[error("content {0} is not in the store")]
    Absent(ContentId),
    /// Something of the kind that the store does not take.
    #[error("{path}: {why}")]
    Refused {
        /// What it is about.
        path: PathBuf,
        /// What to do instead.
        why: &'static str,
    },
}

impl StoreError {
    /// For `map_err`: an I/O error about `path`.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Io { path: path.to_path_buf(), source }
    }

    /// For `map_err`: a file of the store that cannot be used.
    pub(super) fn unreadable(path: &Path) -> impl FnOnce(Unreadable) -> StoreError {
        let path = path.to_path_buf();
        move |error| match error {
            Unreadable::Torn(why) => StoreError::Damaged { path, why: why.to_owned() },
            Unreadable::Version(found) => StoreError::Version { path, found },
            Unreadable::Io(source) => StoreError::Io { path, source },
        }
    }
}
