//! The one send path: what an [`Output`] holds goes into a socket, by whichever way is cheapest for it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use millrace_engine::counters::Counters;
use millrace_engine::output::Output;

use crate::header_table::HeaderTables;
use crate::outcome::{Outcome, Residency, SendPath};

/// Sends for one shard. Holds one pipe, which is empty whenever no call is under way.
#[derive(Debug)]
pub struct Sender {
    path: SendPath,
    counters: Arc<Counters>,
    headers: Arc<HeaderTables>,
}

impl Sender {
    /// A sender that uses `path`, as [`probe`](crate::selftest::probe) chose it or a test forces it.
    ///
    /// # Errors
    /// No descriptors or memory for the pipe.
    pub fn new(path: SendPath, counters: Arc<Counters>, headers: Arc<HeaderTables>) -> io::Result<Sender>;

    /// Sends from the start of `output` as much as `socket` takes, at most `bytes_max`, without waiting. `socket` must be non-blocking.
    pub fn send(&mut self, socket: BorrowedFd<'_>, output: &Output, bytes_max: u64, residency: Residency) -> Outcome;
}
