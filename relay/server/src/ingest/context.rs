//! What all pulls of a relay share: configuration, store, clients, budget, counters, and the threads that hash.

use std::io;
use std::sync::Arc;

use millrace_engine::event::News;
use millrace_pagecache::content::Content;
use millrace_pagecache::{PieceIndex, State, Store};
use millrace_proto::id::ContentId;
use tokio::sync::Semaphore;

use super::IngestConfig;
use super::budget::OriginBudget;
use super::client::Clients;
use super::metrics::IngestMetrics;
use crate::shards::Shards;

/// Shared by all tasks of ingest.
#[derive(Debug)]
pub struct Context {
    /// Limits and names.
    pub config: IngestConfig,
    /// Where bytes go.
    pub store: Arc<Store>,
    /// Who must hear of them.
    pub shards: Shards,
    /// Who fetches them.
    pub clients: Clients,
    /// What origins may be charged.
    pub budget: Arc<OriginBudget>,
    /// What is counted.
    pub metrics: Arc<IngestMetrics>,
    /// Bounds the blocking threads that hash, so that they leave the cores to the shards.
    pub hashers: Arc<Semaphore>,
}

impl Context {
    /// Runs `work`, which reads and hashes, on one of the hash threads.
    ///
    /// # Errors
    /// What `work` returns; `Other` when it panicked.
    pub async fn hash<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
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
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
    }

    /// Tells the shards that wait that more of `content` is visible.
    pub fn announce_bytes(&self, content: &Content) {
        let waiting = content.take_parked();
        if waiting != 0 {
            let id = content.id();
            self.shards.post_to(waiting, || News::Arrived(id));
        }
    }

    /// Tells the shards that have peers of `content` that a piece may be offered.
    pub fn announce_piece(&self, content: &Content, piece: PieceIndex) {
        let (listeners, id) = (content.listeners(), content.id());
        self.shards.post_to(listeners, || News::Piece { content: id, piece });
    }

    /// Tells all shards of a content, or of what became known of it.
    pub fn put(&self, content: &Arc<Content>) {
        self.shards.broadcast(|| News::Put(Arc::clone(content)));
    }

    /// Changes the state and tells all shards.
    pub fn change(&self, content: &Content, state: State) {
        content.set_state(state);
        let _ = content.take_parked();
        let id = content.id();
        self.shards.broadcast(|| News::Changed(id));
    }

    /// Tells all shards that a content is gone.
    pub fn gone(&self, id: ContentId) {
        self.shards.broadcast(|| News::Gone(id));
    }
}
