//! Ingest: pulls contents from their origins into the store, hashes and verifies them, and makes their torrents.
//!
//! One thread runs everything here as tasks that share state without locks; hashing and syncing go to a few more threads. The rest of
//! the relay holds an [`Ingest`], which sends commands and never waits for a pull.

mod add;
pub mod answer;
pub mod balance;
pub mod budget;
pub mod client;
mod context;
mod digest;
mod error;
mod fill;
mod growing;
pub mod guard;
mod lines;
pub mod metrics;
pub mod origin;
pub mod planner;
mod publish;
mod pull;
mod pulls;
mod request;
mod rest;
pub mod runs;
mod runtime;
pub mod sources;
mod writes;

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_engine::ledger::Ledger;
use millrace_pagecache::Store;
use millrace_pagecache::content::Content;
use millrace_pagecache::disk::VisibleRuns;
use millrace_proto::admin;
use millrace_proto::id::ContentId;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use self::balance::Patience;
use self::budget::OriginBudget;
use self::client::{ClientConfig, Clients};
use self::context::Context;
use self::lines::Lines;
use self::metrics::IngestMetrics;
use self::pulls::Pulls;
use self::writes::Writes;
use crate::caps::Clock;
use crate::config::Config;
use crate::control::describe::Links;
use crate::origins::Origins;
use crate::shards::Shards;
use crate::upgrade::{Gate, Loose};

pub use self::error::{AddError, IngestError};
pub use self::pull::{OriginStatus, PullStatus};
pub use self::request::NewPull;
pub use self::runtime::Way;

/// Connections to one origin where the operator names no limit.
pub const ORIGIN_CONNECTIONS: usize = 16;

/// A crash forgets at most what came in this time.
const COUNT_SAVED_EVERY: Duration = Duration::from_secs(1);

/// Limits and names of ingest.
#[derive(Debug, Clone)]
pub struct IngestConfig {
    /// How origins are talked to.
    pub client: ClientConfig,
    /// How files are written.
    pub way: Way,
    /// Folder of the store, for messages.
    pub store: PathBuf,
    /// What the torrents made here name as tracker and web seed; none leaves both out.
    pub links: Option<Links>,
    /// What all pulls together may take from origins.
    pub budget: Arc<OriginBudget>,
    /// Connections to one origin (scheme, host and port) at a time, of all contents together.
    pub origin_connections_max: usize,
    /// Requests under way at a time of one content whose origin answers at once; more the farther it is. Two more for what somebody
    /// waits for.
    pub requests_near: usize,
    /// Origins of one content used at a time.
    pub origins_active_max: usize,
    /// When a failing origin is asked again, and given up.
    pub patience: Patience,
    /// The same before a content exists, while whoever adds it waits.
    pub add_patience: Patience,
    /// Commit after so many bytes ...
    pub commit_bytes: u64,
    /// ... or so much time.
    pub commit_interval: Duration,
    /// Threads that hash.
    pub hash_threads: usize,
    /// Where who may have a content stands, of which nobody said.
    pub ledger: Arc<Ledger>,
    /// Origins of the configuration: what lies beneath them is as good as named by the operator.
    pub origins: Origins,
    /// Nothing is pulled before it is open.
    pub gate: Gate,
    /// What another program had pulled of pieces that were not whole, where hashes are known.
    pub arrived: VisibleRuns,
}

impl Default for IngestConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        IngestConfig {
            client: ClientConfig::default(),
            way: Way::default(),
            store: PathBuf::new(),
            links: None,
            budget: Arc::new(OriginBudget::new(Clock::system())),
            origin_connections_max: ORIGIN_CONNECTIONS,
            requests_near: 6,
            origins_active_max: 3,
            // An origin that is away for an hour is waited for.
            patience: Patience { rest_ms: 250, rest_ms_max: 60_000, failures_max: 100 },
            add_patience: Patience { rest_ms: 250, rest_ms_max: 5_000, failures_max: 5 },
            commit_bytes: 64 << 20,
            commit_interval: Duration::from_secs(2),
            hash_threads: cores.div_ceil(2).min(8),
            ledger: Arc::default(),
            origins: Origins::default(),
            gate: Gate::open(),
            arrived: VisibleRuns::new(),
        }
    }
}

impl IngestConfig {
    /// What a relay's configuration says of ingest; torrents made here name the relay by `links`, and files are written in `way`.
    #[must_use]
    pub fn new(config: &Config, links: Links, way: Way) -> Self {
        let client = ClientConfig { ca_file: config.origin_ca.clone(), ..ClientConfig::default() };
        let origins = Origins::new(config.origins.clone());
        let (store, links) = (config.store.clone(), Some(links));
        let origin_connections_max = config.origin_connections;
        IngestConfig { client, way, store, links, origins, origin_connections_max, ..IngestConfig::default() }
    }
}

/// What the rest of the relay asks of ingest.
#[derive(Debug)]
enum Command {
    Add(Box<NewPull>, oneshot::Sender<Result<Arc<Content>, AddError>>),
    Pull(Box<NewPull>, Then),
    Demand { id: ContentId, offset: u64, bytes: u64 },
    Pause(ContentId, oneshot::Sender<Result<(), AddError>>),
    Resume(ContentId, oneshot::Sender<Result<(), AddError>>),
    Remove(ContentId, oneshot::Sender<Result<(), AddError>>),
    Rest(Duration, oneshot::Sender<Vec<Loose>>),
    TakeBack,
    LeaveTo(Elsewhere),
    Stop,
}

/// Tells another program that somebody here waits for bytes of a content, from an offset on, so many.
pub(crate) type PassOn = Box<dyn Fn(ContentId, u64, u64) + Send>;

struct Elsewhere(PassOn);

impl std::fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Elsewhere")
    }
}

/// What is done with the outcome of an addition, on the ingest thread.
type Act = Box<dyn FnOnce(Result<Arc<Content>, AddError>) + Send>;

/// An [`Act`] that is done in any case: dropped, it hears that the relay is stopping.
struct Then(Option<Act>);

impl Then {
    fn act(mut self, outcome: Result<Arc<Content>, AddError>) {
        if let Some(act) = self.0.take() {
            act(outcome);
        }
    }
}

impl Drop for Then {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act(Err(AddError::Stopping));
        }
    }
}

impl std::fmt::Debug for Then {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Then")
    }
}

/// A handle to ingest; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingest {
    commands: mpsc::UnboundedSender<Command>,
    metrics: Arc<IngestMetrics>,
    budget: Arc<OriginBudget>,
    statuses: Arc<Mutex<HashMap<ContentId, PullStatus>>>,
}

impl Ingest {
    /// Starts the thread, and goes on with everything in the store that is unfinished.
    ///
    /// # Errors
    /// A CA file that cannot be read, TLS, the thread or its ring that cannot be set up.
    pub fn start(
        mut config: IngestConfig,
        store: Arc<Store>,
        shards: Shards,
    ) -> Result<(Ingest, JoinHandle<()>), IngestError> {
        let metrics = Arc::new(IngestMetrics::default());
        let budget = Arc::clone(&config.budget);
        let clients = Clients::new(config.client.clone(), Arc::clone(&metrics), Arc::clone(&budget))?;
        let statuses = Arc::default();
        let (way, arrived) = (config.way, std::mem::take(&mut config.arrived));
        let context = Arc::new(Context {
            hashers: Arc::new(Semaphore::new(config.hash_threads.max(1))),
            writes: Writes::new(way),
            lines: Lines::new(config.origin_connections_max),
            config,
            store,
            shards,
            clients,
            budget: Arc::clone(&budget),
            metrics: Arc::clone(&metrics),
            statuses: Arc::clone(&statuses),
            promised: tokio::sync::Mutex::default(),
            disk: Arc::default(),
            arrived: Mutex::new(arrived),
        });
        let (sender, commands) = mpsc::unbounded_channel();
        let thread = runtime::spawn(way, "ingest", move || run(context, commands))?;
        Ok((Ingest { commands: sender, metrics, budget, statuses }, thread))
    }

    /// Adds a content and answers when it exists and outlives a power cut: of a URL of unknown hashes, after its origin has answered.
    /// The same request again answers with the same content.
    ///
    /// # Errors
    /// See [`AddError`].
    pub async fn add(&self, request: NewPull) -> Result<Arc<Content>, AddError> {
        self.ask(|answer| Command::Add(Box::new(request), answer)).await
    }

    /// [`Ingest::add`] for somebody who wants the bytes, and does not wait for the disk: a crash may take the content away, and the disk
    /// may yet fail it. `act` is called once, on the ingest thread, which it must not hold up: every hand-over to another thread would
    /// come between the origin's first byte and the reader's.
    pub fn pull(&self, request: NewPull, act: impl FnOnce(Result<Arc<Content>, AddError>) + Send + 'static) {
        // Where ingest has ended, the command is dropped, and says so.
        let _ = self.commands.send(Command::Pull(Box::new(request), Then(Some(Box::new(act)))));
    }

    /// Somebody waits for `bytes` bytes from `offset` on. Never waits.
    pub fn demand(&self, id: ContentId, offset: u64, bytes: u64) {
        // A relay that is stopping has no use for it.
        let _ = self.commands.send(Command::Demand { id, offset, bytes });
    }

    /// Asks for nothing more of a content until resumed.
    ///
    /// # Errors
    /// No such content.
    pub async fn pause(&self, id: ContentId) -> Result<(), AddError> {
        self.ask(|answer| Command::Pause(id, answer)).await
    }

    /// Goes on with a content that was paused or failed.
    ///
    /// # Errors
    /// No such content.
    pub async fn resume(&self, id: ContentId) -> Result<(), AddError> {
        self.ask(|answer| Command::Resume(id, answer)).await
    }

    /// Removes a content.
    ///
    /// # Errors
    /// No such content, or what the disk says.
    pub async fn remove(&self, id: ContentId) -> Result<(), AddError> {
        self.ask(|answer| Command::Remove(id, answer)).await
    }

    /// Brings all pulls to rest, within this time where ranges under way come to their end by then; nothing is written any more when this
    /// returns. What no file of the store says comes back. Everything else that is asked waits until [`Ingest::take_back`] or
    /// [`Ingest::leave_to`]. Waits for it; `None` when ingest has ended.
    pub(crate) fn rest(&self, patience: Duration) -> Option<Vec<Loose>> {
        let (answer, rested) = oneshot::channel();
        self.commands.send(Command::Rest(patience, answer)).ok()?;
        rested.blocking_recv().ok()
    }

    /// Goes on after [`Ingest::rest`].
    pub(crate) fn take_back(&self) {
        let _ = self.commands.send(Command::TakeBack);
    }

    /// After [`Ingest::rest`]: another program pulls from now on, and is told what readers here wait for.
    pub(crate) fn leave_to(&self, elsewhere: PassOn) {
        let _ = self.commands.send(Command::LeaveTo(Elsewhere(elsewhere)));
    }

    /// Ends all pulls, keeps what they have, and ends the thread.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// The pulls under way, as of a quarter of a second ago.
    #[must_use]
    pub fn pulls(&self) -> Vec<PullStatus> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How the pull of a content goes, for the operator.
    #[must_use]
    pub fn pull_status(&self, id: ContentId) -> Option<admin::PullStatus> {
        let statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let PullStatus { rate, origins, note, .. } = statuses.get(&id)?;
        let origins = origins.iter().map(|origin| admin::OriginStatus {
            url: origin.url.clone(),
            speed: origin.speed,
            requests: u64::try_from(origin.requests).unwrap_or(u64::MAX),
            error: origin.error.clone(),
            given_up: origin.given_up,
        });
        Some(admin::PullStatus { rate: *rate, origins: origins.collect(), note: note.clone() })
    }

    /// What was counted.
    #[must_use]
    pub fn metrics(&self) -> &IngestMetrics {
        &self.metrics
    }

    /// The caps on origins.
    #[must_use]
    pub fn budget(&self) -> &OriginBudget {
        &self.budget
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, AddError>>) -> Command,
    ) -> Result<T, AddError> {
        let (sender, answer) = oneshot::channel();
        self.commands.send(command(sender)).map_err(|_| AddError::Stopping)?;
        answer.await.map_err(|_| AddError::Stopping)?
    }
}

/// The ingest thread: takes commands until told to stop. An answer that nobody waits for any more is dropped.
async fn run(context: Arc<Context>, mut commands: mpsc::UnboundedReceiver<Command>) {
    // What another program leaves is its own until the gate opens.
    context.config.gate.pass();
    let pulls = Pulls::new(context);
    pulls.context().make_spares();
    pulls.resume_all();
    let mut counting = tokio::task::spawn_local(keep_count(Arc::clone(pulls.context())));
    let mut adding = JoinSet::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Rest(patience, answer) => {
                counting.abort();
                let (rest, loose) = rest::begin(&pulls, &mut adding, patience).await;
                let _ = answer.send(loose);
                let Some(waiting) = rest.wait(&pulls, &mut commands).await else { return };
                pulls.resume_all();
                counting = tokio::task::spawn_local(keep_count(Arc::clone(pulls.context())));
                waiting.into_iter().for_each(|command| take(&pulls, &mut adding, command));
            }
            Command::Stop => break,
            command => take(&pulls, &mut adding, command),
        }
        while adding.try_join_next().is_some() {}
    }
    pulls.stop().await;
    counting.abort();
    save_count(pulls.context()).await;
}

/// Does what is asked, or has it done: what takes its time is one of those `adding`.
fn take(pulls: &Rc<Pulls>, adding: &mut JoinSet<()>, command: Command) {
    match command {
        Command::Demand { id, offset, bytes } => pulls.demand(id, offset, bytes),
        Command::Add(request, answer) => {
            let pulls = Rc::clone(pulls);
            adding.spawn_local(async move {
                let _ = answer.send(pulls.add_durably(*request).await);
            });
        }
        Command::Pull(request, then) => {
            let pulls = Rc::clone(pulls);
            adding.spawn_local(async move { then.act(pulls.add(*request).await) });
        }
        Command::Pause(id, answer) => drop(answer.send(pulls.pause(id))),
        Command::Resume(id, answer) => drop(answer.send(pulls.resume(id))),
        Command::Remove(id, answer) => {
            let pulls = Rc::clone(pulls);
            adding.spawn_local(async move {
                let _ = answer.send(pulls.remove(id).await);
            });
        }
        // Nothing rests.
        Command::Rest(..) | Command::TakeBack | Command::LeaveTo(_) | Command::Stop => {}
    }
}

/// Writes down what came from origins, as it grows. Ends never.
async fn keep_count(context: Arc<Context>) {
    loop {
        tokio::time::sleep(COUNT_SAVED_EVERY).await;
        save_count(&context).await;
    }
}

async fn save_count(context: &Arc<Context>) {
    let folder = context.config.store.clone();
    // A test's relay may have no folder for it.
    let Some(count) = context.budget.unsaved().filter(|_| !folder.as_os_str().is_empty()) else { return };
    let saved = context.blocking(move || OriginBudget::save(&folder, &count)).await.and_then(|saved| saved);
    if let Err(error) = saved {
        tracing::warn!(%error, "what came from origins could not be written down: a restart would forget it");
    }
}
