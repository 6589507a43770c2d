//! The load: connections of both protocols, spread over threads that are pinned to cores of their own.

mod bittorrent;
mod blocks;
mod body;
mod http;
pub(crate) mod idle;
pub(crate) mod meter;
pub(crate) mod once;
mod pace;
mod ranges;
pub(crate) mod runtime;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::measure::latency::Latencies;
use crate::payload::Payload;
use crate::server::{HttpFile, Torrent};
use meter::{Board, Meter, Phase};
use runtime::{Runtime, Task};

/// How often a load thread looks whether it shall end.
const LOOK: Duration = Duration::from_millis(20);

/// Time before a connection that failed is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Time a connection may take to open.
const CONNECT: Duration = Duration::from_secs(10);

/// Which part of the file is asked for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Any, as the seed has it.
    Random,
    /// The one behind the last, each connection from a place of its own.
    Sequential,
    /// Any, as the seed has it, but each once among all connections of HTTP; then nothing more.
    Once,
}

/// HTTP connections that ask for ranges.
#[derive(Debug, Clone)]
pub(crate) struct HttpLoad {
    pub(crate) file: HttpFile,
    /// Other paths of files of the same length, of which each request picks one at random; empty where there is the one file.
    pub(crate) paths: Arc<[String]>,
    pub(crate) connections: usize,
    pub(crate) range_bytes: u64,
    /// How many different ranges are asked for, evenly spread over the file; `None` is all.
    pub(crate) ranges: Option<u64>,
    /// Requests per second of all connections together; `None` is the next as soon as the last is answered.
    pub(crate) rate: Option<f64>,
}

impl HttpLoad {
    /// How many different answers there are.
    pub(crate) fn distinct(&self) -> u64 {
        let all = self.file.length.div_ceil(self.range_bytes.max(1)).max(1);
        self.ranges.map_or(all, |ranges| ranges.clamp(1, all)) * (self.paths.len() as u64).max(1)
    }
}

/// BitTorrent peers that ask for blocks.
#[derive(Debug, Clone)]
pub(crate) struct BittorrentLoad {
    pub(crate) torrent: Torrent,
    pub(crate) connections: usize,
    /// Requests that a peer keeps unanswered.
    pub(crate) queue: usize,
}

/// Clients of a download that go away in the middle.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Aborting {
    pub(crate) http: usize,
    pub(crate) bittorrent: usize,
}

/// All that is asked of a server at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) http: Option<HttpLoad>,
    pub(crate) bittorrent: Option<BittorrentLoad>,
    pub(crate) order: Order,
    pub(crate) seed: u64,
    /// Of the clients of a download, so many of each protocol go away when they have half.
    pub(crate) aborting: Aborting,
    /// What the content must be, where every byte is to be checked.
    pub(crate) verify: Option<Payload>,
}

/// Latencies by protocol.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorded {
    pub(crate) http: Latencies,
    pub(crate) bittorrent: Latencies,
}

/// Load that runs; it ends with [`Running::finish`], or when the board enters [`Phase::Over`].
pub(crate) struct Running {
    pub(crate) board: Arc<Board>,
    threads: Vec<JoinHandle<io::Result<Recorded>>>,
}

impl Load {
    /// Connections of both protocols.
    pub(crate) fn connections(&self) -> usize {
        self.http.as_ref().map_or(0, |http| http.connections)
            + self.bittorrent.as_ref().map_or(0, |bittorrent| bittorrent.connections)
    }

    /// Starts a thread on each core; connection `n` runs on the thread `n` modulo their number.
    pub(crate) fn start(&self, runtime: Runtime, cores: &[usize]) -> Running {
        let board = Arc::new(Board::new(cores.len()));
        let threads = cores.iter().enumerate().map(|(thread, core)| {
            let (load, board, threads) = (self.clone(), board.clone(), cores.len());
            runtime.start(*core, move || run_thread(load, Worker::new(runtime, board, thread), threads))
        });
        Running { threads: threads.collect(), board }
    }
}

impl Running {
    /// Ends the load and gives what was recorded.
    ///
    /// # Errors
    /// A thread that could not start.
    pub(crate) fn finish(self) -> io::Result<Recorded> {
        self.board.enter(Phase::Over);
        let mut all = Recorded::default();
        for thread in self.threads {
            let recorded = thread.join().map_err(|_| io::Error::other("a load thread panicked"))??;
            all.http.merge(&recorded.http);
            all.bittorrent.merge(&recorded.bittorrent);
        }
        Ok(all)
    }

    /// Whether a thread has ended by itself, which it does only when it cannot start.
    pub(crate) fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

/// What the connections of one thread share.
struct Worker {
    runtime: Runtime,
    board: Arc<Board>,
    thread: usize,
    recorded: RefCell<Recorded>,
    /// Where bytes are received to: thrown away, or checked.
    buffer: RefCell<Box<[u8]>>,
}

impl Worker {
    fn new(runtime: Runtime, board: Arc<Board>, thread: usize) -> Rc<Self> {
        let buffer = RefCell::new(vec![0; body::BUFFER_BYTES].into_boxed_slice());
        Rc::new(Worker { runtime, board, thread, recorded: RefCell::default(), buffer })
    }

    fn meter(&self) -> &Meter {
        self.board.meter(self.thread)
    }

    fn is_over(&self) -> bool {
        self.board.phase() == Phase::Over
    }

    /// Runs a connection again and again until the load is over; what `run` returns is why one ended.
    async fn keep(self: Rc<Self>, what: &'static str, mut run: impl AsyncFnMut() -> io::Error) {
        while !self.is_over() {
            let error = run().await;
            if !self.is_over() {
                self.board.fail(self.thread, || format!("{what}: {error}"));
                self.runtime.sleep(PAUSE).await;
            }
        }
    }
}

async fn run_thread(load: Load, worker: Rc<Worker>, threads: usize) -> Recorded {
    let mine = |connections: usize| (worker.thread..connections).step_by(threads);
    let mut tasks: Vec<Task> = Vec::new();
    if let Some(http) = &load.http {
        tasks.extend(mine(http.connections).map(|number| {
            let (mut connection, worker) = (http::Connection::new(&load, http, number), worker.clone());
            worker.runtime.spawn(worker.clone().keep("HTTP", async move || connection.run(&worker).await))
        }));
    }
    if let Some(bittorrent) = &load.bittorrent {
        tasks.extend(mine(bittorrent.connections).map(|number| {
            let (mut peer, worker) = (bittorrent::Leecher::new(&load, bittorrent, number), worker.clone());
            worker.runtime.spawn(worker.clone().keep("BitTorrent", async move || peer.run(&worker).await))
        }));
    }
    while !worker.is_over() {
        worker.runtime.sleep(LOOK).await;
    }
    for task in tasks {
        task.cancel().await;
    }
    worker.recorded.take()
}
