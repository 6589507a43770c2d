//! What is known of a content besides its bytes: state, names, counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use millrace_proto::id::{ContentId, InfoHashV1};
use millrace_proto::merkle::Hash;
use millrace_proto::metainfo::Metainfo;
use serde_json::Value;

use super::{Content, Known};
use crate::hashes::PieceHash;
use crate::layout::FileIndex;

/// What is being done about a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// To be pulled.
    Queued,
    /// Being pulled.
    Pulling,
    /// All there.
    Complete,
    /// Not to be pulled until resumed.
    Paused,
    /// Given up: [`Content::error`] says why.
    Failed,
    /// No longer in the store; readers that hold it may finish.
    Removed,
}

impl State {
    const ALL: [State; 6] =
        [State::Queued, State::Pulling, State::Complete, State::Paused, State::Failed, State::Removed];

    pub(super) fn code(self) -> u8 {
        Self::ALL.iter().position(|&state| state == self).and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
    }

    fn from_code(code: u8) -> State {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(State::Failed)
    }
}

/// How much a content was used. Written to disk when something else is, so a crash may lose the latest.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes sent over HTTP.
    pub served_http: AtomicU64,
    /// Bytes sent over BitTorrent.
    pub served_bittorrent: AtomicU64,
    /// Bytes received from origins.
    pub origin_bytes: AtomicU64,
    /// When it was last asked for, Unix seconds.
    pub last_used: AtomicU64,
    /// How often it was asked for.
    pub uses: AtomicU64,
}

impl Counters {
    /// Notes a use at `now` (Unix seconds), for eviction.
    pub fn touch(&self, now: u64) {
        self.last_used.fetch_max(now, Ordering::Relaxed);
        self.uses.fetch_add(1, Ordering::Relaxed);
    }
}

impl Content {
    /// Its name on every relay.
    #[must_use]
    pub fn id(&self) -> ContentId {
        self.id
    }

    /// Its name for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Entity tag with its quotes, fixed before the first byte was served.
    #[must_use]
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// Unix seconds: what the origin said, else when it was added, since no byte has changed after that.
    #[must_use]
    pub fn last_modified(&self) -> Option<u64> {
        self.last_modified.or((self.added > 0).then_some(self.added))
    }

    /// When it was added, Unix seconds.
    #[must_use]
    pub fn added(&self) -> u64 {
        self.added
    }

    /// The content of which this is a newer version.
    #[must_use]
    pub fn supersedes(&self) -> Option<ContentId> {
        self.supersedes
    }

    /// Whether its bytes can be pulled again after an eviction.
    #[must_use]
    pub fn is_refetchable(&self) -> bool {
        self.refetchable
    }

    /// Whether hashes were known from the start: then bytes become visible only when verified.
    #[must_use]
    pub fn hashes_known(&self) -> bool {
        self.hashes_known
    }

    /// Whether it came from local files: then all of it is visible from the start.
    #[must_use]
    pub fn is_imported(&self) -> bool {
        self.imported
    }

    /// What is being done about it.
    #[must_use]
    pub fn state(&self) -> State {
        State::from_code(self.state.load(Ordering::Acquire))
    }

    /// Changes the state. Wake [`Content::take_parked`] after this. A removed content stays removed.
    pub fn set_state(&self, state: State) {
        let removed = State::Removed.code();
        let update = |now: u8| (now != removed).then(|| state.code());
        // An error means that it is removed, and stays so.
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
    }

    /// Its metainfo, once there is one.
    #[must_use]
    pub fn metainfo(&self) -> Option<&Arc<Metainfo>> {
        self.metainfo.get().map(|known| &known.metainfo)
    }

    /// Of a hybrid, the torrent of its v1 half alone: the same bytes under another infohash.
    #[must_use]
    pub fn v1_half(&self) -> Option<&Arc<Metainfo>> {
        self.metainfo.get()?.v1_half.as_ref()
    }

    /// The infohashes under which peers ask for it: v1, v2 truncated (BEP 52), and that of the v1 half.
    pub fn swarm_names(&self) -> impl Iterator<Item = InfoHashV1> + use<> {
        let names = self.metainfo.get().map(|known| [known.names.v1, known.names.v2, known.names.v1_half]);
        names.into_iter().flatten().flatten()
    }

    /// Of a hybrid whose v1 infohash this is, the truncated v2 infohash: what its v1 peers may upgrade to (BEP 52).
    #[must_use]
    pub fn v2_name_of(&self, v1: InfoHashV1) -> Option<InfoHashV1> {
        let names = self.metainfo.get()?.names;
        names.v2.filter(|_| names.v1 == Some(v1))
    }

    /// The torrent that a peer means by one of the [`Content::swarm_names`].
    #[must_use]
    pub fn metainfo_of_swarm(&self, infohash: InfoHashV1) -> Option<&Arc<Metainfo>> {
        let known = self.metainfo.get()?;
        let half = known.v1_half.as_ref().filter(|_| known.names.v1_half == Some(infohash));
        Some(half.unwrap_or(&known.metainfo))
    }

    /// Gives it the metainfo that was made of it; `false` when it has one already. On a disk use
    /// [`crate::Store::set_metainfo`], which also keeps it and makes it known by infohash.
    pub fn set_metainfo(&self, metainfo: Arc<Metainfo>) -> bool {
        self.metainfo.set(Known::new(metainfo)).is_ok()
    }

    /// The files that have bytes, each with its length and the root of its hash tree (BEP 52): equal for equal bytes,
    /// whatever they are called and however they are cut into pieces. Empty without v2 hashes.
    pub fn roots(&self) -> impl Iterator<Item = (FileIndex, u64, Hash)> {
        let known = self.metainfo().map_or(&[][..], |metainfo| &metainfo.info.files);
        let files = known.iter().zip(self.layout.files()).zip(0..);
        files.filter_map(|((known, span), index)| {
            let same = (known.offset, known.length) == (span.offset, span.length);
            Some((FileIndex(index), span.length, known.pieces_root.filter(|_| same)?))
        })
    }

    /// SHA-256 of the whole: as wanted by who added it, or as found at the end.
    #[must_use]
    pub fn sha256(&self) -> Option<&[u8; 32]> {
        self.sha256.get()
    }

    /// Records the SHA-256 of the whole; `false` when another is recorded already.
    pub fn set_sha256(&self, sha256: [u8; 32]) -> bool {
        self.sha256.get_or_init(|| sha256) == &sha256
    }

    /// `Link` field lines about where else its bytes are (RFC 6249), each with its CRLF; empty until set.
    #[must_use]
    pub fn links(&self) -> &[u8] {
        self.links.get().map_or(&[], |links| links)
    }

    /// Sets the `Link` field lines, once.
    pub fn set_links(&self, links: Box<[u8]>) {
        // Set before: the first word stands.
        let _ = self.links.set(links);
    }

    /// Whether it is never evicted.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed)
    }

    /// Pins or unpins it; kept on disk by the next [`crate::Store::save`].
    pub fn set_pinned(&self, pinned: bool) {
        self.pinned.store(pinned, Ordering::Relaxed);
    }

    /// Larger is pulled earlier.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.priority.load(Ordering::Relaxed)
    }

    /// Changes the priority; kept on disk by the next [`crate::Store::save`].
    pub fn set_priority(&self, priority: u8) {
        self.priority.store(priority, Ordering::Relaxed);
    }

    /// How much it was used.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Hashes learned so far, by piece. Takes a lock: not for shards.
    #[must_use]
    pub fn hashes(&self) -> Vec<Option<PieceHash>> {
        self.learned.all()
    }

    /// The server's own words about where it comes from. Takes a lock: not for shards.
    #[must_use]
    pub fn sources(&self) -> Value {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the sources; kept on disk by the next [`crate::Store::save`].
    pub fn set_sources(&self, sources: Value) {
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = sources;
    }

    /// What went wrong last, for people. Takes a lock: not for shards.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says what went wrong, or that it is over.
    pub fn set_error(&self, error: Option<&str>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error.map(str::to_owned);
    }
}
