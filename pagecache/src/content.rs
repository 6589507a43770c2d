//! A content: its layout, what of it may be served, who waits for it, and the way to its bytes.
//!
//! Shared by `Arc` between shards and ingest. Everything that a shard calls is atomic and waits for nothing; what takes
//! a lock or touches the disk says so.

mod access;
mod bytes;
mod facts;
mod placement;
mod stream;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use millrace_proto::id::{ContentId, InfoHashV1};
use millrace_proto::metainfo::Metainfo;

use crate::bits::Bits;
use crate::disk::FileSet;
use crate::hashes::Learned;
use crate::layout::{Layout, PieceIndex};
use crate::new_content::{NewContent, Shape};
use crate::visible::Visible;
use crate::waiting::Waiting;

pub use facts::{Counters, State};
pub use placement::{Part, Placement};
pub use stream::Stream;

/// A function that stands for the bytes of a content: fills the buffer with what is at the offset.
pub type BytesAt = dyn Fn(u64, &mut [u8]) + Send + Sync;

/// One content of the store; see the module.
pub struct Content {
    id: ContentId,
    name: String,
    layout: Layout,
    etag: String,
    last_modified: Option<u64>,
    added: u64,
    supersedes: Option<ContentId>,
    refetchable: bool,
    hashes_known: bool,
    imported: bool,
    visible: Visible,
    have: Bits,
    have_count: AtomicU64,
    quarantined: AtomicBool,
    /// What was found wrong with what is stored, for good: see [`crate::Store::condemn`].
    damage: OnceLock<String>,
    waiting: Waiting,
    state: AtomicU8,
    pinned: AtomicBool,
    priority: AtomicU8,
    counters: Counters,
    metainfo: OnceLock<Known>,
    sha256: OnceLock<[u8; 32]>,
    links: OnceLock<Box<[u8]>>,
    learned: Learned,
    guarded: access::Guarded,
    sources: Mutex<serde_json::Value>,
    error: Mutex<Option<String>>,
    pub(crate) data: Data,
}

/// A metainfo, and what follows from it.
struct Known {
    metainfo: Arc<Metainfo>,
    /// For clients that cannot read hybrids: see [`Metainfo::v1_half`].
    v1_half: Option<Arc<Metainfo>>,
    names: SwarmNames,
}

/// The infohashes that handshakes carry, v2's cut to 20 bytes (BEP 52). Hashed once: an info dictionary may have megabytes, and a
/// handshake costs its sender nothing.
#[derive(Clone, Copy)]
struct SwarmNames {
    v1: Option<InfoHashV1>,
    v2: Option<InfoHashV1>,
    v1_half: Option<InfoHashV1>,
}

impl Known {
    fn new(metainfo: Arc<Metainfo>) -> Self {
        let v1_half = metainfo.v1_half().map(Arc::new);
        let names = SwarmNames {
            v1: metainfo.infohash_v1(),
            v2: metainfo.infohash_v2().map(|v2| v2.truncated()),
            v1_half: v1_half.as_ref().and_then(|half| half.infohash_v1()),
        };
        Known { metainfo, v1_half, names }
    }
}

/// Where the bytes are.
pub(crate) enum Data {
    Files(Box<FileSet>),
    Function(Box<BytesAt>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("state", &self.state())
            .field("length", &self.length())
            .field("visible", &self.visible.bytes())
            .finish_non_exhaustive()
    }
}

impl Content {
    /// A content whose bytes are a function of the offset: for simulations and tests. Writing to it checks and reveals
    /// as on a disk, but keeps nothing. The layout of `new` must have been made already where it comes from a metainfo.
    pub fn simulated(new: NewContent, layout: Layout, bytes_at: Box<BytesAt>) -> Arc<Content> {
        Arc::new(Content::assemble(new, layout, Data::Function(bytes_at)))
    }

    pub(crate) fn assemble(new: NewContent, layout: Layout, data: Data) -> Content {
        let visible = match &new.shape {
            Shape::Growing => Visible::growing(),
            Shape::InPlace { .. } | Shape::Imported(_) => Visible::whole(layout.length()),
            _ => Visible::blocks(layout.length(), layout.block_bytes()),
        };
        let pieces = if visible.is_growing() { 0 } else { u64::from(layout.piece_count()) };
        let imported = matches!(new.shape, Shape::InPlace { .. } | Shape::Imported(_));
        let metainfo = OnceLock::new();
        let hashes_known = matches!(new.shape, Shape::Metainfo(_));
        if let Shape::Metainfo(known) = new.shape {
            let _ = metainfo.set(Known::new(known));
        }
        let sha256 = OnceLock::new();
        if let Some(known) = new.sha256 {
            let _ = sha256.set(known);
        }
        let state = if new.paused { State::Paused } else { State::Queued };
        Content {
            id: new.id,
            name: new.name,
            layout,
            etag: new.etag,
            last_modified: new.last_modified,
            added: new.added,
            supersedes: new.supersedes,
            refetchable: new.refetchable,
            hashes_known,
            imported,
            visible,
            have: Bits::clear(pieces),
            have_count: AtomicU64::new(0),
            quarantined: AtomicBool::new(false),
            damage: OnceLock::new(),
            waiting: Waiting::default(),
            state: AtomicU8::new(state.code()),
            pinned: AtomicBool::new(new.pinned),
            priority: AtomicU8::new(new.priority),
            counters: Counters::default(),
            metainfo,
            sha256,
            links: OnceLock::new(),
            learned: Learned::default(),
            guarded: access::Guarded::new(new.access),
            sources: Mutex::new(new.sources),
            error: Mutex::new(None),
            data,
        }
    }

    /// Where its bytes lie. Of a growing content: one file that is longer than it will ever be.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes of the content, padding included; `None` while its end is not known.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.visible.length()
    }

    /// End of the bytes that may be served from `offset` on: see [`Visible::until`]. Nothing of a quarantined content
    /// may.
    #[must_use]
    pub fn visible_until(&self, offset: u64, limit: u64) -> u64 {
        if self.is_quarantined() { offset } else { self.visible.until(offset, limit) }
    }

    /// Whether any byte of `range` may be served.
    pub(crate) fn is_visible_anywhere(&self, range: std::ops::Range<u64>) -> bool {
        self.visible.intersects(range)
    }

    /// How many bytes may be served.
    #[must_use]
    pub fn visible_bytes(&self) -> u64 {
        self.visible.bytes()
    }

    /// Whether the piece is verified, so that BitTorrent may offer it.
    #[must_use]
    pub fn has_piece(&self, piece: PieceIndex) -> bool {
        self.have.is_set(u64::from(piece.0)) && !self.is_quarantined()
    }

    /// How many pieces are verified.
    #[must_use]
    pub fn pieces_have(&self) -> u32 {
        u32::try_from(self.have_count.load(Ordering::Acquire)).unwrap_or(u32::MAX)
    }

    /// Whether every piece is verified (or the end of a growing content has come).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self.visible.is_growing() {
            true => self.length().is_some(),
            false => self.pieces_have() == self.layout.piece_count() && !self.is_quarantined(),
        }
    }

    /// Whether the length was not known from the start: see [`crate::Store::settle`].
    #[must_use]
    pub fn is_growing(&self) -> bool {
        self.visible.is_growing()
    }

    /// Notes that this shard has a reader waiting; look at [`Content::visible_until`] and [`Content::state`] again
    /// after this. See [`Waiting`].
    pub fn park(&self, shard: u32) {
        self.waiting.park(shard);
    }

    /// The shards to wake after bytes were revealed or the state changed, as a mask.
    pub fn take_parked(&self) -> u64 {
        self.waiting.take_parked()
    }

    /// Notes that this shard has swarm members who want to hear of new pieces.
    pub fn listen(&self, shard: u32) {
        self.waiting.listen(shard);
    }

    /// Takes [`Content::listen`] back.
    pub fn unlisten(&self, shard: u32) {
        self.waiting.unlisten(shard);
    }

    /// The shards that want to hear of new pieces, as a mask.
    pub fn listeners(&self) -> u64 {
        self.waiting.listeners()
    }

    /// Whether a disk error has taken the trust away from what is stored.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.quarantined.load(Ordering::Acquire)
    }

    /// What was found wrong with what is stored, which a restart does not make right.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// [`Content::quarantine`] for damage that was found; kept on disk by the next [`crate::Store::save`].
    pub(crate) fn mark_damaged(&self, why: &str) {
        // Marked before: the first word stands.
        let _ = self.damage.set(why.to_owned());
        self.quarantine(why);
    }

    /// Whether the piece was verified once, even if nothing of the content is served any more.
    pub(crate) fn held_piece(&self, piece: PieceIndex) -> bool {
        self.have.is_set(u64::from(piece.0))
    }

    /// Stops serving it: the disk did not keep what it was given. Readers that wait are to be woken after this.
    pub fn quarantine(&self, why: &str) {
        self.quarantined.store(true, Ordering::Release);
        self.set_error(Some(why));
        self.set_state(State::Failed);
    }
}
