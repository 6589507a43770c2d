//! What all pulls of a relay share: configuration, store, clients, budget, counters, and the threads that hash.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use millrace_engine::event::News;
use millrace_pagecache::content::Content;
use millrace_pagecache::disk::VisibleRuns;
use millrace_pagecache::eviction::Shortage;
use millrace_pagecache::{PieceIndex, State, Store, StoreError};
use millrace_proto::id::ContentId;
use millrace_proto::units::Size;
use tokio::sync::Semaphore;

use super::IngestConfig;
use super::budget::{Grant, OriginBudget};
use super::client::Clients;
use super::error::AddError;
use super::lines::Lines;
use super::metrics::IngestMetrics;
use super::origin::Origin;
use super::pull::PullStatus;
use super::writes::Writes;
use crate::shards::Shards;

/// How long the caps on origins may keep somebody waiting who adds a content, before that is told.
const CAPPED_WAIT: Duration = Duration::from_secs(5);

/// Shared by all tasks of ingest.
#[derive(Debug)]
pub(super) struct Context {
    /// Limits and names.
    pub config: IngestConfig,
    /// Where bytes go.
    pub store: Arc<Store>,
    /// How they get there.
    pub writes: Writes,
    /// Who must hear of them.
    pub shards: Shards,
    /// Who fetches them.
    pub clients: Clients,
    /// On which connections.
    pub lines: Arc<Lines>,
    /// What origins may be charged.
    pub budget: Arc<OriginBudget>,
    /// What is counted.
    pub metrics: Arc<IngestMetrics>,
    /// Bounds the blocking threads that hash, so that they leave the cores to the shards.
    pub hashers: Arc<Semaphore>,
    /// The pulls under way, as last seen.
    pub statuses: Arc<Mutex<HashMap<ContentId, PullStatus>>>,
    /// The pulls that were promised room for all their bytes. Locked while one is decided on, so that no two get the same room.
    pub promised: tokio::sync::Mutex<Vec<Weak<Promise>>>,
    /// Held for reading while a blocking thread changes the store, whoever waits for it.
    pub disk: Arc<tokio::sync::RwLock<()>>,
    /// What had arrived of pieces that are not whole when a pull with known hashes came to rest; taken by the pull that goes on.
    pub arrived: Mutex<VisibleRuns>,
}

/// Room for the rest of a content, until it is dropped.
#[derive(Debug)]
pub(super) struct Promise(Arc<Content>);

impl Promise {
    /// Bytes that are still to come.
    fn bytes(&self) -> u64 {
        self.0.length().map_or(0, |length| length.saturating_sub(self.0.visible_bytes()))
    }
}

impl Context {
    /// See the field.
    pub(super) fn arrived(&self) -> MutexGuard<'_, VisibleRuns> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work`, which reads and hashes, on one of the hash threads.
    ///
    /// # Errors
    /// What `work` returns; `Other` when it panicked.
    pub(super) async fn hash<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        // The semaphore is never closed; without a permit it would only be less bounded.
        let permit = Arc::clone(&self.hashers).acquire_owned().await.ok();
        let done = tokio::task::spawn_blocking(work).await;
        drop(permit);
        done.map_err(io::Error::other)?
    }

    /// Runs `work`, which waits for the disk, beside the hash threads.
    ///
    /// # Errors
    /// As [`Context::hash`].
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let held = Arc::clone(&self.disk).read_owned().await;
        let work = move || {
            let _held = held;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
    }

    /// The right to a request, for somebody who waits for what comes of it.
    ///
    /// # Errors
    /// [`AddError::Capped`] after [`CAPPED_WAIT`].
    pub(super) async fn request_soon(&self) -> Result<Grant, AddError> {
        loop {
            if let Ok(grant) = tokio::time::timeout(CAPPED_WAIT, self.budget.request()).await {
                return Ok(grant);
            }
            if let Some(wait) = self.budget.obstacle() {
                return Err(AddError::Capped(format!("pulls wait: {}", wait.why)));
            }
        }
    }

    /// Whether an origin may be asked as far as grants go.
    ///
    /// # Errors
    /// [`AddError::Capped`].
    pub(super) fn check_grant(&self, origin: &Origin) -> Result<(), AddError> {
        match self.budget.ungranted(&origin.url) {
            Some(wait) => Err(AddError::Capped(format!("pulls wait: {}", wait.why))),
            None => Ok(()),
        }
    }

    /// Has folders made for the contents that will be added next, in the background.
    pub(super) fn make_spares(&self) {
        // While the store is another's, there is nothing to be made.
        let Ok(held) = Arc::clone(&self.disk).try_read_owned() else { return };
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || {
            let _held = held;
            if let Err(error) = store.make_spares() {
                tracing::debug!(%error, "no folders made in advance");
            }
        });
    }

    /// Makes the creation of `content` outlive a power cut.
    ///
    /// # Errors
    /// As [`Store::make_durable`], [`StoreError::Absent`] only when there is no other object of it either.
    pub(super) async fn make_durable(&self, content: &Arc<Content>) -> Result<(), StoreError> {
        let (store, durable, id) = (Arc::clone(&self.store), Arc::clone(content), content.id());
        let result = self.blocking(move || store.make_durable(&durable)).await;
        // A panic in there is a bug, which its thread has reported.
        let result = result.unwrap_or(Err(StoreError::Absent(id)));
        match result {
            // It was settled or evicted, which makes it durable.
            Err(StoreError::Absent(_)) if self.store.get(id).is_some() => Ok(()),
            other => other,
        }
    }

    /// Tells the shards that wait that more of `content` is visible.
    pub(super) fn announce_bytes(&self, content: &Content) {
        let waiting = content.take_parked();
        if waiting != 0 {
            let id = content.id();
            self.shards.post_to(waiting, || News::Arrived(id));
        }
    }

    /// Tells the shards that have peers of `content` that a piece may be offered.
    pub(super) fn announce_piece(&self, content: &Content, piece: PieceIndex) {
        let (listeners, id) = (content.listeners(), content.id());
        self.shards.post_to(listeners, || News::Piece { content: id, piece });
    }

    /// Tells all shards of a content, or of what became known of it.
    pub(super) fn put(&self, content: &Arc<Content>) {
        self.shards.broadcast(|| News::Put(Arc::clone(content)));
    }

    /// Changes the state and tells all shards.
    pub(super) fn change(&self, content: &Content, state: State) {
        content.set_state(state);
        let _ = content.take_parked();
        let id = content.id();
        self.shards.broadcast(|| News::Changed(id));
    }

    /// Promises room for all of `content` that is still to come, beside what other pulls were promised.
    ///
    /// # Errors
    /// As [`Context::make_room`].
    pub(super) async fn promise_room(&self, content: &Arc<Content>) -> io::Result<Arc<Promise>> {
        let mut promised = self.promised.lock().await;
        promised.retain(|promise| promise.strong_count() > 0);
        let promise = Arc::new(Promise(Arc::clone(content)));
        let others = promised.iter().filter_map(Weak::upgrade).map(|other| other.bytes());
        self.make_room(others.fold(promise.bytes(), u64::saturating_add)).await?;
        promised.push(Arc::downgrade(&promise));
        Ok(promise)
    }

    /// Evicts what may go until `bytes` more fit.
    ///
    /// # Errors
    /// `StorageFull` when they do not fit.
    pub(super) async fn make_room(&self, bytes: u64) -> io::Result<()> {
        // One question to the file system then, which is not worth another thread.
        if !self.store.has_capacity() && self.store.fits(bytes).map_err(io::Error::other)? {
            return Ok(());
        }
        let (store, now) = (Arc::clone(&self.store), self.unix_now());
        let (evicted, shortage) = self
            .blocking(move || {
                let evicted = store.make_room(bytes, now).map_err(io::Error::other)?;
                Ok::<_, io::Error>((evicted, store.shortage(bytes).map_err(io::Error::other)?))
            })
            .await??;
        // An evicted content is a fresh, empty object of the same id.
        for content in evicted.into_iter().filter_map(|id| self.store.get(id)) {
            self.put(&content);
        }
        match shortage {
            None => Ok(()),
            Some(Shortage::Disk) => Err(io::ErrorKind::StorageFull.into()),
            Some(Shortage::Capacity { capacity, used }) => {
                let text = format!(
                    "--capacity is {}: {} are stored and may not go, {} more are to come; raise it, or remove or unpin contents",
                    Size(capacity),
                    Size(used),
                    Size(bytes)
                );
                Err(io::Error::new(io::ErrorKind::StorageFull, text))
            }
        }
    }

    /// What the disk said, in words that tell what to do.
    #[must_use]
    pub(super) fn io_error(&self, error: &io::Error) -> String {
        match error.kind() {
            // Ours says more than the kernel's.
            io::ErrorKind::StorageFull if error.get_ref().is_some() => error.to_string(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.disk_full(),
            _ => error.to_string(),
        }
    }

    /// The same for an error of the store, which wraps the disk's.
    #[must_use]
    pub(super) fn disk_error(&self, error: &str) -> String {
        match error.contains("No space left") {
            true => self.disk_full(),
            false => error.to_owned(),
        }
    }

    fn disk_full(&self) -> String {
        let store = self.config.store.display();
        match self.store.free_floor() {
            0 => format!("disk full: free space under {store}, or remove contents"),
            kept => format!(
                "disk full but for --keep-free {}: free space under {store}, or remove contents",
                Size(kept)
            ),
        }
    }

    /// Seconds since 1970.
    #[must_use]
    pub(super) fn unix_now(&self) -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// A number from 0 to 1023, to spread retries.
    #[must_use]
    pub(super) fn dice(&self) -> u64 {
        let mut bytes = [0; 2];
        // Without randomness retries are spread less.
        let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
        u64::from(u16::from_le_bytes(bytes) % 1024)
    }

    /// Puts the status of a pull where other threads read it.
    pub(super) fn publish_status(&self, id: ContentId, status: PullStatus) {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).insert(id, status);
    }

    /// Forgets the status of a pull that is over.
    pub(super) fn forget_status(&self, id: ContentId) {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Tells all shards that a content is gone.
    pub(super) fn gone(&self, id: ContentId) {
        self.shards.broadcast(|| News::Gone(id));
    }
}
