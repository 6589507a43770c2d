//! What is said of a content when it is added, and kept beside its state.

use std::path::PathBuf;
use std::sync::Arc;

use millrace_proto::access::Access;
use millrace_proto::id::ContentId;
use millrace_proto::metainfo::Metainfo;
use serde_json::Value;

use crate::layout::{Layout, LayoutError};

/// A content to be added to a store.
#[derive(Debug, Clone)]
pub struct NewContent {
    /// Its name on every relay.
    pub id: ContentId,
    /// Its name for people; of a single file, also the name of that file.
    pub name: String,
    /// Where its bytes lie.
    pub shape: Shape,
    /// Entity tag with its quotes (RFC 9110 §8.8.3), decided before the first byte is served and never changed.
    pub etag: String,
    /// Unix seconds.
    pub last_modified: Option<u64>,
    /// When it was added, Unix seconds.
    pub added: u64,
    /// Never evicted.
    pub pinned: bool,
    /// Larger is pulled earlier.
    pub priority: u8,
    /// Not pulled until resumed.
    pub paused: bool,
    /// Whether eviction may drop it because its bytes can be pulled again.
    pub refetchable: bool,
    /// Who may have it.
    pub access: Access,
    /// Origins, headers and validators: the server's own words, kept as they are.
    pub sources: Value,
    /// The content of which this is a newer version.
    pub supersedes: Option<ContentId>,
    /// SHA-256 that the whole must have, if somebody said.
    pub sha256: Option<[u8; 32]>,
}

/// Where the bytes of a new content lie, and what is known of them.
#[derive(Debug, Clone)]
pub enum Shape {
    /// Hashes are known.
    Metainfo(Arc<Metainfo>),
    /// Length known, hashes not.
    Layout(Layout),
    /// All there from the start, in files of the store; hashes not known.
    Imported(Layout),
    /// Nothing known: it ends where it ends.
    Growing,
    /// Files of somebody else, all there, served from where they are and never written.
    InPlace {
        /// How they follow each other.
        layout: Layout,
        /// Where each file of the layout is; ignored for padding.
        paths: Vec<PathBuf>,
    },
}

impl NewContent {
    /// A content of this shape, with everything else left unsaid.
    #[must_use]
    pub fn new(id: ContentId, name: &str, shape: Shape, etag: &str) -> Self {
        NewContent {
            id,
            name: name.to_owned(),
            refetchable: !matches!(shape, Shape::InPlace { .. } | Shape::Imported(_)),
            shape,
            etag: etag.to_owned(),
            last_modified: None,
            added: 0,
            pinned: false,
            priority: 0,
            paused: false,
            access: Access::Public,
            sources: Value::Null,
            supersedes: None,
            sha256: None,
        }
    }

    /// A content whose hashes are known.
    #[must_use]
    pub fn with_metainfo(id: ContentId, metainfo: Arc<Metainfo>, etag: &str) -> Self {
        let name = metainfo.info.name.clone();
        NewContent::new(id, &name, Shape::Metainfo(metainfo), etag)
    }

    /// One file of `length` bytes whose hashes are not known.
    ///
    /// # Errors
    /// A length or piece size out of bounds.
    pub fn single_of_length(
        id: ContentId,
        name: &str,
        length: u64,
        piece_bytes: u32,
        etag: &str,
    ) -> Result<Self, LayoutError> {
        Ok(NewContent::new(id, name, Shape::Layout(Layout::single(name, length, piece_bytes)?), etag))
    }

    /// One file whose origin does not tell its length.
    #[must_use]
    pub fn growing(id: ContentId, name: &str, etag: &str) -> Self {
        NewContent::new(id, name, Shape::Growing, etag)
    }

    /// Files that stay where they are; `paths` has one entry for each file of the layout.
    #[must_use]
    pub fn imported(id: ContentId, name: &str, layout: Layout, paths: Vec<PathBuf>, etag: &str) -> Self {
        NewContent::new(id, name, Shape::InPlace { layout, paths }, etag)
    }
}
