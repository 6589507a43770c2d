//! Puts a relay together, from a checked configuration to running threads, and takes it apart again.
//!
//! The order matters: what can fail for an operator's mistake comes before anything that others notice.

mod upgrading;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use millrace_engine::counters::Counters;
use millrace_engine::event::News;
use millrace_engine::ids::ShardId;
use millrace_engine::ledger::Ledger;
use millrace_engine::shard::{self, Identity, Shard};
use millrace_pagecache::disk::{Interrupted, Left};
use millrace_pagecache::{Options, Store, StoreError};
use millrace_proto::admin::Choice;
use millrace_ring::Reservation;
use millrace_send::{Front, HeaderTables, Mailbox, Outward, SendPath, Sender, Setup};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use crate::access::{self, KeysError};
use crate::backend::{self, NoUring};
use crate::caps::{CapsFileError, Clock, Keeper};
use crate::config::{Config, Https};
use crate::control::describe::Links;
use crate::control::socket::{self, SocketFile};
use crate::control::{self, Asked};
use crate::ingest::budget::{OriginBudget, UsageError};
use crate::ingest::{Ingest, IngestConfig};
use crate::listen::ListenError;
use crate::machine;
use crate::relay::{Relay, Stop, UpgradeWish};
use crate::shards::Shards;
use crate::sockets::{Kept, Sockets, default_public_url};
use crate::tls::{Tls, TlsError};
use crate::upgrade::Gate;

use upgrading::Before;
pub(crate) use upgrading::Beginning;

/// Why a relay does not start. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate of HTTPS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The keys of signed URLs cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The admin socket is not to be had.
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
    /// The store cannot be opened.
    #[error("{0}; name another folder with --store, or see to it that this user may write there")]
    Store(StoreError),
    /// Another relay has the store open.
    #[error("{0}")]
    StoreInUse(StoreError),
    /// `--io uring` or `--ingest-io uring` was asked for and is not to be had.
    #[error("{flag} uring was asked for, and {why}")]
    NoUring {
        /// Which of the two.
        flag: &'static str,
        /// What stands in the way.
        why: String,
    },
    /// The caps of the last run cannot be used.
    #[error(transparent)]
    Caps(#[from] CapsFileError),
    /// What came from origins before cannot be told.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// Ingest does not start.
    #[error("pulling cannot start: {0}")]
    Ingest(String),
    /// The kernel refuses a thread, a descriptor or randomness.
    #[error("{what}: {source}")]
    Kernel {
        /// What was asked of it.
        what: &'static str,
        /// Its word.
        source: io::Error,
    },
}

fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Kernel { what, source }
}

fn no_uring(flag: &'static str) -> impl FnOnce(NoUring) -> StartError {
    move |NoUring(why)| StartError::NoUring { flag, why }
}

/// A relay whose threads run.
#[derive(Debug)]
pub struct Running {
    relay: Arc<Relay>,
    shards: Vec<JoinHandle<()>>,
    control: JoinHandle<()>,
    ingest: JoinHandle<()>,
    admin_file: Option<SocketFile>,
    /// What the program that follows is given.
    kept: Arc<Kept>,
    upgrades: Option<UnboundedReceiver<UpgradeWish>>,
    /// Until the thread that speaks to the program before is started: the news that it hears.
    predecessor: Option<Mailbox>,
    /// That thread.
    teller: Option<JoinHandle<()>>,
}

/// Aborts the process when its thread panics: a shard that is gone would be a port that answers to nobody. The message was
/// printed by then.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl Running {
    /// Starts everything. The sources that the configuration names are not added yet.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left running then.
    pub fn start(config: Config) -> Result<Running, StartError> {
        Running::start_with(config, Beginning::default())
    }

    /// Starts everything, on the sockets that a service manager opened, or the program before had, where there are such.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left running then but threads that wait at the gate.
    pub(crate) fn start_with(mut config: Config, beginning: Beginning) -> Result<Running, StartError> {
        let (mut inherited, before) = Before::of(beginning);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let load = |https: &Https| Ok(Tls::new(https.files.load()?, config.handshakes, config.tls_kernel));
        let tls = config.https.as_ref().map(load).transpose().map_err(StartError::Tls)?;
        let files_max = limit_descriptors(&mut config);
        let (rings, backend) =
            backend::choose(config.io, config.cores.len(), &config.limits).map_err(no_uring("--io"))?;
        let (way, ingest_io) =
            backend::choose_ingest_io(config.ingest_io).map_err(no_uring("--ingest-io"))?;
        let probe = millrace_send::probe();
        let send_path = Choice { name: probe.path.name().to_owned(), reason: probe.reason.clone() };
        tracing::info!(io = %backend.name, reason = %backend.reason, "back end");
        tracing::info!(path = %send_path.name, reason = %send_path.reason, "send path");
        tracing::info!(io = %ingest_io.name, reason = %ingest_io.reason, "ingest");

        let admin = inherited.admin.take();
        let sockets = Sockets::open(&config, inherited)?;
        let store = open_store(&config, before.left)?;
        // The file of an inherited socket belongs to who made it. Where that was the program before, it is ours when that has gone.
        let (admin, admin_file) = match admin {
            Some(admin) => (admin, None),
            None => socket::make(&config.admin).map(|(admin, file)| (admin, Some(file)))?,
        };
        let owns_admin_file = admin_file.is_some() || before.owns_admin_file;
        let kept = sockets.keep(&admin, owns_admin_file).map_err(kernel("no descriptors for the sockets"))?;
        let shard_count = config.cores.len();
        let counters: Vec<Arc<Counters>> = (0..shard_count).map(|_| Arc::default()).collect();
        let (mut postboxes, mut mailboxes) = (Vec::new(), Vec::new());
        // One more than there are shards: the control thread hears the same news.
        // After an upgrade one more: the thread that tells the program before.
        for _ in 0..=shard_count + usize::from(before.listens) {
            let (postbox, mailbox) = Mailbox::new().map_err(kernel("no descriptor for a mailbox"))?;
            postboxes.push(postbox);
            mailboxes.push(mailbox);
        }
        let predecessor = before.listens.then(|| mailboxes.pop()).flatten();
        let Some(control_mailbox) = mailboxes.pop() else {
            unreachable!("there is one mailbox more than there are shards")
        };
        let shards = Shards::new(postboxes);
        // Before ingest starts: whatever changes after that is told by ingest, to the control thread as well, so nobody is told of a
        // content that a shard does not know.
        for content in store.contents() {
            shards.broadcast(|| News::Put(Arc::clone(&content)));
        }
        let public_url = config.public_url.clone().unwrap_or_else(|| default_public_url(&sockets));
        tracing::info!(url = %public_url, "links name this relay by this URL");
        let links = Links { base: public_url.clone(), bittorrent_port: sockets.bittorrent.0.port() };
        let clock = Clock::system();
        let caps = Arc::new(Keeper::open(config.store.clone(), config.caps.clone(), clock.clone())?);
        let budget = Arc::new(OriginBudget::open(config.store.clone(), clock)?);
        let ledger = Arc::new(Ledger::default());
        // The shards that start after this begin with it.
        let _ = ledger.set_gate(access::gate(&config.access)?);
        caps.enforce(Arc::clone(&ledger), shards.clone(), Arc::clone(&budget));
        let (gate, arrived) = (before.gate, before.arrived);
        let ingest_config = IngestConfig {
            budget,
            ledger: Arc::clone(&ledger),
            gate: gate.clone(),
            arrived,
            ..IngestConfig::new(&config, links, way)
        };
        let origins = ingest_config.origins.clone();
        let (ingest, ingest_thread) = Ingest::start(ingest_config, Arc::clone(&store), shards.clone())
            .map_err(|error| StartError::Ingest(error.to_string()))?;
        let peer_id = before.peer_id.map_or_else(machine::peer_id, Ok).map_err(kernel("no peer id"))?;
        let (upgrades, wishes) = unbounded_channel();
        let relay = Arc::new(Relay {
            ledger,
            caps,
            store,
            shards,
            ingest,
            origins,
            counters,
            headers: Arc::new(HeaderTables::default()),
            peer_id,
            public_url,
            http: sockets.http.0,
            https: sockets.https.as_ref().map(|https| https.0),
            tls,
            bittorrent: sockets.bittorrent.0,
            pages: sockets.pages.as_ref().and_then(|pages| pages.local_addr().ok()),
            metrics: sockets.metrics.as_ref().and_then(|metrics| metrics.local_addr().ok()),
            backend,
            send_path,
            ingest_io,
            started: Instant::now(),
            stop: Stop::default(),
            changes: Arc::default(),
            upgrades,
            replaced: watch::Sender::new(false),
            config,
        });
        let threads = Threads { relay: Arc::clone(&relay), rings, send_path: probe.path, files_max, gate };
        let (shards, control) = threads.start(sockets, admin, mailboxes, control_mailbox)?;
        Ok(Running {
            relay,
            shards,
            control,
            ingest: ingest_thread,
            admin_file,
            kept: Arc::new(kept),
            upgrades: Some(wishes),
            predecessor,
            teller: None,
        })
    }

    /// What runs.
    #[must_use]
    pub fn relay(&self) -> &Arc<Relay> {
        &self.relay
    }

    /// Drains: no new connections, running answers finish within the configured time, then everything is written down and the
    /// threads end. Waits for that.
    pub fn drain(self) {
        self.relay.stop.wish();
        // Who connects from now on is refused, unless a service manager has the sockets too.
        drop(self.kept);
        self.relay.shards.broadcast(|| News::Drain);
        for shard in self.shards {
            // A shard that panicked has taken the process with it.
            let _ = shard.join();
        }
        self.relay.ingest.stop();
        let _ = self.ingest.join();
        let _ = self.control.join();
    }
}

/// Lowers the limit of connections where descriptors would not suffice. How many files each shard may keep open.
fn limit_descriptors(config: &mut Config) -> usize {
    let descriptors = machine::raise_descriptor_limit().unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of descriptors stays as it was");
        1024
    });
    let shards = config.cores.len();
    let wanted = config.limits.connections_max;
    config.limits.connections_max = machine::connections_per_shard(wanted, descriptors, shards);
    if config.limits.connections_max < wanted {
        tracing::info!(
            descriptors,
            "fewer connections than `limits` allows: each takes a descriptor, so raise their limit (LimitNOFILE= in the unit, or ulimit -n)"
        );
    }
    let connections = config.limits.connections_max;
    let files_max = machine::files_per_shard(connections, descriptors, shards);
    tracing::info!(
        shards,
        connections_per_shard = connections,
        files_per_shard = files_max,
        descriptors,
        "limits"
    );
    files_max
}

fn open_store(config: &Config, left: Option<Left>) -> Result<Arc<Store>, StartError> {
    let options = Options { capacity: config.capacity, free_floor: config.keep_free };
    let store = match left {
        Some(left) => Store::take_over(&config.store, options, left),
        None => Store::open(&config.store, options),
    };
    let store = store.map_err(store_error)?;
    for problem in store.problems() {
        tracing::error!(folder = %problem.folder.display(), error = %problem.error, "a content is left out: its files are as they were");
    }
    for Interrupted { folder, goes_on } in store.interrupted() {
        let folder = folder.display();
        match goes_on {
            true => tracing::info!(%folder, "a content goes on whose adding was interrupted"),
            false => {
                tracing::warn!(%folder, "a content is removed whose adding was interrupted, before anybody was told that it was added: ask for it again")
            }
        }
    }
    Ok(Arc::new(store))
}

fn store_error(error: StoreError) -> StartError {
    if matches!(error, StoreError::InUse(_)) {
        StartError::StoreInUse(error)
    } else {
        StartError::Store(error)
    }
}

/// What the threads are started with.
struct Threads {
    relay: Arc<Relay>,
    /// One for each shard; none where they run over epoll.
    rings: Vec<Reservation>,
    send_path: SendPath,
    files_max: usize,
    gate: Gate,
}

impl Threads {
    fn start(
        mut self,
        sockets: Sockets,
        admin: UnixListener,
        mailboxes: Vec<Mailbox>,
        control_mailbox: Mailbox,
    ) -> Result<(Vec<JoinHandle<()>>, JoinHandle<()>), StartError> {
        let (asks, asked) = unbounded_channel();
        let parts = control::Parts {
            relay: Arc::clone(&self.relay),
            asks: asked,
            news: control_mailbox,
            udp: sockets.udp,
            metrics: sockets.metrics,
            pages: sockets.pages,
            admin,
            gate: self.gate.clone(),
        };
        let control = control::start(parts).map_err(kernel("the control thread does not start"))?;
        let no_https = || self.relay.config.cores.iter().map(|_| Vec::new()).collect();
        let https = sockets.https.map_or_else(no_https, |https| https.1);
        let listeners = sockets.http.1.into_iter().zip(https).zip(sockets.bittorrent.1);
        let (mut rings, mut shards) = (std::mem::take(&mut self.rings).into_iter(), Vec::new());
        for ((number, mailbox), ((http, https), bittorrent)) in
            mailboxes.into_iter().enumerate().zip(listeners)
        {
            let fronts = [(Front::Http, http), (Front::Https, https), (Front::BitTorrent, bittorrent)];
            let listeners = fronts
                .into_iter()
                .flat_map(|(front, sockets)| sockets.into_iter().map(move |socket| (socket, front)));
            let listeners = listeners.collect();
            shards.push(self.start_shard(number, rings.next(), mailbox, listeners, asks.clone())?);
        }
        Ok((shards, control))
    }

    fn start_shard(
        &self,
        number: usize,
        ring: Option<Reservation>,
        mailbox: Mailbox,
        listeners: Vec<(OwnedFd, Front)>,
        asks: UnboundedSender<Asked>,
    ) -> Result<JoinHandle<()>, StartError> {
        let relay = &self.relay;
        let id = ShardId(
            u8::try_from(number)
                .map_err(|_| kernel("too many shards")(io::ErrorKind::InvalidInput.into()))?,
        );
        let counters = Arc::clone(&relay.counters[number]);
        let sender = Sender::new(self.send_path, Arc::clone(&counters), Arc::clone(&relay.headers))
            .map_err(kernel("no pipe for sending"))?
            .keeping_files(self.files_max)
            .reading_directly(relay.config.limits.read_buffers);
        let sender = match &relay.tls {
            Some(tls) => sender.speaking_tls(Arc::clone(&tls.terms)),
            None => sender,
        };
        let limits = Arc::new(relay.config.limits.clone());
        let connections_max = limits.connections_max;
        let seed = u64::from_le_bytes(machine::random().map_err(kernel("no randomness"))?);
        let identity = Identity {
            peer_id: relay.peer_id,
            agent: concat!("Millrace ", env!("CARGO_PKG_VERSION")).to_owned(),
            port: relay.bittorrent.port(),
        };
        let config = shard::Config {
            limits,
            ledger: Arc::clone(&relay.ledger),
            counters: Arc::clone(&counters),
            identity,
            seed,
        };
        let core = relay.config.cores.get(number).copied();
        let setup = Setup {
            id,
            shard: Shard::new(id, config),
            connections_max,
            core,
            listeners,
            mailbox,
            sender,
            counters,
        };
        let ingest = relay.ingest.clone();
        let outward = move |outward| match outward {
            Outward::Demand { content, offset, bytes } => ingest.demand(content, offset, bytes),
            Outward::Ask { shard, conn, question } => {
                // The control thread outlives the shards; without it nobody could be answered.
                let _ = asks.send(Asked { shard, conn, question });
            }
        };
        let gate = self.gate.clone();
        std::thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn(move || {
                let _fatal = AbortOnPanic;
                gate.pass();
                let ended = match ring {
                    Some(ring) => millrace_ring::run(setup, ring, outward),
                    None => millrace_epoll::run(setup, outward),
                };
                if let Err(error) = ended {
                    panic!("shard {number} cannot go on: {error}");
                }
            })
            .map_err(kernel("a shard's thread does not start"))
    }
}
