//! What load threads count while they run, read by the main thread at the edges of the measured window and for the progress bar.
//! Counters only grow; a window is the difference of two readings, so no thread has to know when it begins.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Errors of which the text is kept.
const ERRORS_KEPT: usize = 8;

/// One load thread's counters, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Meter {
    http_bytes: AtomicU64,
    bittorrent_bytes: AtomicU64,
    requests: AtomicU64,
    blocks: AtomicU64,
    errors: AtomicU64,
    connections: AtomicU64,
}

/// What was counted by all threads together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Bytes of bodies, without heads.
    pub(crate) http_bytes: u64,
    /// Bytes of blocks, without the frames around them.
    pub(crate) bittorrent_bytes: u64,
    /// Whole HTTP answers.
    pub(crate) requests: u64,
    /// Whole BitTorrent blocks.
    pub(crate) blocks: u64,
    /// Answers that were wrong and connections that failed.
    pub(crate) errors: u64,
    /// Connections over which something could be asked: HTTP when connected, BitTorrent when unchoked.
    pub(crate) connections: u64,
}

impl Totals {
    /// Bytes of either protocol.
    pub(crate) fn bytes(&self) -> u64 {
        self.http_bytes + self.bittorrent_bytes
    }

    /// Answers of either protocol.
    pub(crate) fn answers(&self) -> u64 {
        self.requests + self.blocks
    }

    /// What was added since `earlier`.
    pub(crate) fn since(&self, earlier: &Totals) -> Totals {
        Totals {
            http_bytes: self.http_bytes.saturating_sub(earlier.http_bytes),
            bittorrent_bytes: self.bittorrent_bytes.saturating_sub(earlier.bittorrent_bytes),
            requests: self.requests.saturating_sub(earlier.requests),
            blocks: self.blocks.saturating_sub(earlier.blocks),
            errors: self.errors.saturating_sub(earlier.errors),
            connections: self.connections.saturating_sub(earlier.connections),
        }
    }
}

impl Meter {
    pub(crate) fn add_http(&self, bytes: usize) {
        self.http_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_bittorrent(&self, bytes: usize) {
        self.bittorrent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_block(&self) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }
}

/// When load threads are in the measured window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Latencies are not recorded: before the window, and while something else is looked at after it.
    Unmeasured,
    /// They are.
    Measured,
    /// Threads shall end.
    Over,
}

/// What load threads and the main thread share.
#[derive(Debug)]
pub(crate) struct Board {
    phase: AtomicU8,
    meters: Vec<Meter>,
    errors: Mutex<Vec<String>>,
}

impl Board {
    /// A board for so many threads.
    pub(crate) fn new(threads: usize) -> Self {
        Board {
            phase: AtomicU8::new(0),
            meters: (0..threads).map(|_| Meter::default()).collect(),
            errors: Mutex::default(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Unmeasured,
            1 => Phase::Measured,
            _ => Phase::Over,
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The counters of a thread.
    ///
    /// # Panics
    /// If the board was made for fewer threads.
    pub(crate) fn meter(&self, thread: usize) -> &Meter {
        &self.meters[thread]
    }

    /// Counts an error, and keeps its text if it is one of the first.
    pub(crate) fn fail(&self, thread: usize, text: impl FnOnce() -> String) {
        self.meter(thread).errors.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < ERRORS_KEPT {
            let text = text();
            if !kept.contains(&text) {
                kept.push(text);
            }
        }
    }

    /// Texts of the first errors, each once.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What all threads have counted so far.
    pub(crate) fn totals(&self) -> Totals {
        self.meters.iter().fold(Totals::default(), |sum, meter| {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            Totals {
                http_bytes: sum.http_bytes + read(&meter.http_bytes),
                bittorrent_bytes: sum.bittorrent_bytes + read(&meter.bittorrent_bytes),
                requests: sum.requests + read(&meter.requests),
                blocks: sum.blocks + read(&meter.blocks),
                errors: sum.errors + read(&meter.errors),
                connections: sum.connections + read(&meter.connections),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_and_windows_are_differences() {
        let board = Board::new(2);
        board.meter(0).add_http(10);
        let before = board.totals();
        board.meter(1).add_http(5);
        board.meter(0).add_bittorrent(7);
        board.meter(1).add_block();
        let window = board.totals().since(&before);
        assert_eq!((window.http_bytes, window.bittorrent_bytes, window.answers()), (5, 7, 1));
        assert_eq!(board.totals().bytes(), 22);
    }

    #[test]
    fn errors_are_all_counted_and_each_text_is_kept_once() {
        let board = Board::new(1);
        for number in 0..100 {
            board.fail(0, || format!("error {}", number % 20));
        }
        assert_eq!((board.totals().errors, board.errors().len()), (100, ERRORS_KEPT));
    }

    #[test]
    fn phases_are_what_was_entered() {
        let board = Board::new(1);
        assert_eq!(board.phase(), Phase::Unmeasured);
        for phase in [Phase::Measured, Phase::Over] {
            board.enter(phase);
            assert_eq!(board.phase(), phase);
        }
    }
}
