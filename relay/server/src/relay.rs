//! What control and ingest share of a running relay.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use millrace_engine::counters::Counters;
use millrace_engine::event::News;
use millrace_engine::ledger::Ledger;
use millrace_pagecache::Store;
use millrace_proto::admin::Choice;
use millrace_send::HeaderTables;
use tokio::sync::{Notify, RwLock, mpsc, oneshot, watch};
use url::Url;

use crate::caps::Keeper;
use crate::config::Config;
use crate::ingest::Ingest;
use crate::origins::Origins;
use crate::shards::Shards;
use crate::tls::Tls;

/// A running relay, seen from its control thread.
#[derive(Debug)]
pub struct Relay {
    /// What it was told.
    pub config: Config,
    /// What it stores.
    pub store: Arc<Store>,
    /// Where news for the shards goes.
    pub shards: Shards,
    /// What pulls.
    pub ingest: Ingest,
    /// Origins of pull-through.
    pub origins: Origins,
    /// What holds across shards.
    pub ledger: Arc<Ledger>,
    /// What limits all of it.
    pub caps: Arc<Keeper>,
    /// What each shard counted.
    pub counters: Vec<Arc<Counters>>,
    /// Heads of BitTorrent blocks, made as contents come.
    pub headers: Arc<HeaderTables>,
    /// BitTorrent peer id.
    pub peer_id: [u8; 20],
    /// What links name; ends in `/`.
    pub public_url: Url,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where HTTPS is served, if it is.
    pub https: Option<SocketAddr>,
    /// By which certificate, if it is.
    pub tls: Option<Tls>,
    /// Where BitTorrent is served.
    pub bittorrent: SocketAddr,
    /// Where the pages for people are served, if apart from the data.
    pub pages: Option<SocketAddr>,
    /// Where metrics are served, besides the admin socket.
    pub metrics: Option<SocketAddr>,
    /// The back end, and why.
    pub backend: Choice,
    /// The send path, and why.
    pub send_path: Choice,
    /// How ingest writes, and why.
    pub ingest_io: Choice,
    /// When it started.
    pub started: Instant,
    /// How it is told to stop.
    pub stop: Stop,
    /// Read while something is changed over the admin socket; written while another program takes over, and ever after.
    pub changes: Arc<RwLock<()>>,
    /// Wishes for an upgrade.
    pub upgrades: mpsc::UnboundedSender<UpgradeWish>,
    /// Whether another program is the relay by now: this one answers nobody but who was here before.
    pub replaced: watch::Sender<bool>,
}

/// Who wishes an upgrade is told what came of it: the version of the new program, and its process, or why there is none.
pub type UpgradeWish = oneshot::Sender<Result<(String, u32), String>>;

/// The wish to stop: no new connections, running answers finish, then the process ends.
#[derive(Debug, Default)]
pub struct Stop {
    draining: AtomicBool,
    wished: Notify,
}

impl Stop {
    /// Wishes it. Once is enough.
    pub fn wish(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.wished.notify_one();
    }

    /// Whether it was wished.
    #[must_use]
    pub fn is_wished(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Waits for the wish.
    pub async fn wished(&self) {
        self.wished.notified().await;
    }
}

impl Relay {
    /// Gives what still runs no more time than any drain: whoever takes over is gone, or somebody wants an end.
    pub(crate) fn hurry(&self) {
        self.stop.wish();
        let limits = Arc::new(self.config.limits.clone());
        self.shards.broadcast(|| News::Limits(Arc::clone(&limits)));
        self.shards.broadcast(|| News::Drain);
    }

    /// An absolute link to `path`, which is encoded already and does not begin with `/`.
    #[must_use]
    pub fn link(&self, path: &str) -> String {
        format!("{}{path}", self.public_url)
    }

    /// The URL of the built-in tracker.
    #[must_use]
    pub fn announce_url(&self) -> String {
        self.link("announce")
    }
}
