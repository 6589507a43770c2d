//! `content.json`: everything about a content that is not a piece, for the store and for people.

use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use data_encoding::HEXLOWER;
use millrace_proto::access::Access;
use millrace_proto::id::ContentId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::durable::Unreadable;
use super::files::Place;
use super::open_file::Stamp;
use crate::content::{Content, Data, State};
use crate::layout::{FileSpan, Layout};

const VERSION: u64 = 1;

/// Of a content that is not for everybody: a program that knows nothing of that must not serve it.
const VERSION_RESTRICTED: u64 = 2;

/// The file, as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) version: u64,
    pub(super) name: String,
    pub(super) etag: String,
    pub(super) last_modified: Option<u64>,
    pub(super) added: u64,
    pub(super) pinned: bool,
    pub(super) priority: u8,
    pub(super) paused: bool,
    pub(super) refetchable: bool,
    pub(super) supersedes: Option<String>,
    pub(super) sha256: Option<String>,
    /// What was found wrong with the stored bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) damage: Option<String>,
    /// Who may have it.
    #[serde(default, skip_serializing_if = "Access::is_public")]
    pub(super) access: Access,
    pub(super) shape: DescribedShape,
    pub(super) sources: Value,
    pub(super) used: Used,
}

/// Where the bytes lie.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum DescribedShape {
    /// As `metainfo.torrent` says, which was there from the start.
    Metainfo,
    /// As said here; hashes were not known.
    Layout(DescribedLayout),
    /// Nobody knows yet.
    Growing,
    /// As said here, all there from the start, in the store.
    Imported(DescribedLayout),
    /// As said here, and in the files of somebody else.
    InPlace {
        /// How they follow each other.
        layout: DescribedLayout,
        /// Where each is, and how it was; none for padding.
        files: Vec<Option<(PathBuf, Stamp)>>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DescribedLayout {
    piece_bytes: u32,
    length: u64,
    files: Vec<FileSpan>,
}

/// Counters, as of the last time something was written.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Used {
    pub(super) served_http: u64,
    pub(super) served_bittorrent: u64,
    pub(super) origin_bytes: u64,
    pub(super) last_used: u64,
    pub(super) uses: u64,
}

impl From<&Layout> for DescribedLayout {
    fn from(layout: &Layout) -> Self {
        let (piece_bytes, length) = (layout.piece_bytes(), layout.length());
        DescribedLayout { piece_bytes, length, files: layout.files().to_vec() }
    }
}

impl DescribedLayout {
    pub(super) fn layout(self) -> Result<Layout, Unreadable> {
        let torn = |_| Unreadable::Torn("content.json describes an impossible layout");
        Layout::new(self.piece_bytes, self.length, self.files).map_err(torn)
    }
}

impl Description {
    pub(super) fn of(content: &Content) -> Description {
        let layout = || DescribedLayout::from(content.layout());
        let shape = match &content.data {
            Data::Files(files) => match files.place() {
                Place::InPlace(files) => DescribedShape::InPlace { layout: layout(), files: files.clone() },
                Place::Stored(_) if content.hashes_known() => DescribedShape::Metainfo,
                Place::Stored(_) if content.is_growing() => DescribedShape::Growing,
                Place::Stored(_) if content.is_imported() => DescribedShape::Imported(layout()),
                Place::Stored(_) => DescribedShape::Layout(layout()),
            },
            Data::Function(_) => DescribedShape::Layout(layout()),
        };
        let counters = content.counters();
        Description {
            version: if content.is_public() { VERSION } else { VERSION_RESTRICTED },
            name: content.name().to_owned(),
            etag: content.etag().to_owned(),
            last_modified: content.last_modified(),
            added: content.added(),
            pinned: content.is_pinned(),
            priority: content.priority(),
            paused: content.state() == State::Paused,
            refetchable: content.is_refetchable(),
            supersedes: content.supersedes().map(|id| id.to_string()),
            sha256: content.sha256().map(|hash| HEXLOWER.encode(hash)),
            damage: content.damage().map(str::to_owned),
            access: Access::clone(&content.access()),
            shape,
            sources: content.sources(),
            used: Used {
                served_http: counters.served_http.load(Relaxed),
                served_bittorrent: counters.served_bittorrent.load(Relaxed),
                origin_bytes: counters.origin_bytes.load(Relaxed),
                last_used: counters.last_used.load(Relaxed),
                uses: counters.uses.load(Relaxed),
            },
        }
    }

    pub(super) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Description, Unreadable> {
        const TORN: Unreadable = Unreadable::Torn("content.json is cut short or changed");
        let value: Value = serde_json::from_slice(bytes).map_err(|_| TORN)?;
        match value.get("version").and_then(Value::as_u64) {
            Some(version @ (VERSION | VERSION_RESTRICTED)) => {
                let described: Description = serde_json::from_value(value).map_err(|_| TORN)?;
                match version == VERSION_RESTRICTED && described.access.is_public() {
                    true => Err(TORN),
                    false => Ok(described),
                }
            }
            Some(version) => Err(Unreadable::Version(version)),
            None => Err(TORN),
        }
    }

    pub(super) fn supersedes(&self) -> Option<ContentId> {
        self.supersedes.as_ref()?.parse().ok()
    }

    pub(super) fn sha256(&self) -> Option<[u8; 32]> {
        HEXLOWER.decode(self.sha256.as_ref()?.as_bytes()).ok()?.try_into().ok()
    }
}
