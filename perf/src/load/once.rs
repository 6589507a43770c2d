//! Clients that download one content whole, each once and all at the same time.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::meter::Board;
use super::runtime::Runtime;
use super::{Load, Worker, bittorrent, http};

/// How a download went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Download {
    /// When the client set out.
    pub(crate) began: Instant,
    /// When the first byte of the content came.
    pub(crate) first_byte: Instant,
    /// When the last one did.
    pub(crate) done: Instant,
}

/// Clients on their way.
pub(crate) struct Downloads {
    pub(crate) board: Arc<Board>,
    threads: Vec<std::thread::JoinHandle<io::Result<Vec<Download>>>>,
}

impl Load {
    /// Starts every client of both protocols; each takes the whole content and ends, or goes away when it has half.
    pub(crate) fn download(&self, runtime: Runtime, cores: &[usize]) -> Downloads {
        let board = Arc::new(Board::new(cores.len()));
        let threads = cores.iter().enumerate().map(|(thread, core)| {
            let (load, board, threads) = (self.clone(), board.clone(), cores.len());
            runtime.start(*core, move || run_thread(load, Worker::new(runtime, board, thread), threads))
        });
        Downloads { threads: threads.collect(), board }
    }
}

impl Downloads {
    /// Whether all have ended.
    pub(crate) fn are_done(&self) -> bool {
        self.threads.iter().all(std::thread::JoinHandle::is_finished)
    }

    /// The downloads that came through; the board tells of the others. Those still on their way are given up.
    ///
    /// # Errors
    /// A thread that could not start.
    pub(crate) fn finish(self) -> io::Result<Vec<Download>> {
        self.board.enter(super::meter::Phase::Over);
        let mut all = Vec::new();
        for thread in self.threads {
            all.extend(thread.join().map_err(|_| io::Error::other("a load thread panicked"))??);
        }
        Ok(all)
    }
}

async fn run_thread(load: Load, worker: Rc<Worker>, threads: usize) -> Vec<Download> {
    let done: Rc<std::cell::RefCell<(usize, Vec<Download>)>> = Rc::default();
    let mine = |connections: usize| (worker.thread..connections).step_by(threads);
    let mut tasks = Vec::new();
    for number in load.http.iter().flat_map(|http| mine(http.connections)) {
        let Some(http) = &load.http else { continue };
        let client = http::Connection::new(&load, http, number);
        let enough = enough(number, load.aborting.http, http.file.length);
        let (worker, done) = (worker.clone(), done.clone());
        tasks.push(worker.runtime.spawn(async move {
            let began = Instant::now();
            let first_byte = client.run_once(&worker, enough.unwrap_or(u64::MAX)).await;
            note(&worker, &done, "HTTP", began, first_byte, enough.is_none());
        }));
    }
    for number in load.bittorrent.iter().flat_map(|bittorrent| mine(bittorrent.connections)) {
        let Some(bittorrent) = &load.bittorrent else { continue };
        let client = bittorrent::Leecher::new(&load, bittorrent, number);
        let enough = enough(number, load.aborting.bittorrent, bittorrent.torrent.length);
        let (worker, done) = (worker.clone(), done.clone());
        tasks.push(worker.runtime.spawn(async move {
            let began = Instant::now();
            let first_byte = client.run_once(&worker, enough.unwrap_or(u64::MAX)).await;
            note(&worker, &done, "BitTorrent", began, first_byte, enough.is_none());
        }));
    }
    while done.borrow().0 < tasks.len() && !worker.is_over() {
        worker.runtime.sleep(super::LOOK).await;
    }
    for task in tasks {
        task.cancel().await;
    }
    done.take().1
}

/// After how many bytes a client goes away that does: the first ones do.
fn enough(number: usize, aborting: usize, length: u64) -> Option<u64> {
    (number < aborting).then_some((length / 2).max(1))
}

/// One client has ended; its download counts if it was to have all.
fn note(
    worker: &Worker,
    done: &std::cell::RefCell<(usize, Vec<Download>)>,
    what: &str,
    began: Instant,
    result: io::Result<Instant>,
    whole: bool,
) {
    let (ended, downloads) = &mut *done.borrow_mut();
    *ended += 1;
    match result {
        Ok(first_byte) if whole => downloads.push(Download { began, first_byte, done: Instant::now() }),
        Ok(_) => {}
        Err(error) => worker.board.fail(worker.thread, || format!("{what}: {error}")),
    }
}
