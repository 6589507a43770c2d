//! The one send path: what an [`Output`] holds goes into a socket, by whichever way is cheapest for it.
//!
//! HTTP answers below 64 KiB: the head with `MSG_MORE`, then `sendfile`. Larger ones, and batches of BitTorrent blocks: page references
//! through the pipe. `sendfile` under `TCP_CORK` for all of them where page references are not to be had.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use millrace_engine::counters::Counters;
use millrace_engine::event::Sent;
use millrace_engine::ids::Now;
use millrace_engine::output::Output;
use nix::errno::Errno;

use crate::header_table::HeaderTables;
use crate::kept::KeptFiles;
use crate::outcome::{Outcome, Residency, SendPath};
use crate::pipe::Pipe;
use crate::plan::{Obstacle, Plan, Source};
use crate::reference::References;
use crate::{corked, reference};

/// HTTP answers of fewer bytes go by `sendfile`: 0.70 of nginx's cost at 16 KiB against 0.9 through the pipe.
const REFERENCE_BYTES_MIN: u64 = 64 * 1024;

/// Sends for one shard. Holds one pipe, which is empty whenever no call is under way.
#[derive(Debug)]
pub struct Sender {
    counters: Arc<Counters>,
    headers: Arc<HeaderTables>,
    /// None where everything goes by `sendfile`.
    references: Option<References>,
    kept: KeptFiles,
}

/// How far a way of sending came.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) sent: u64,
    pub(crate) end: End,
}

/// Why it came no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// All was sent.
    Complete,
    /// The socket takes no more.
    Blocked,
    /// The next byte cannot be read.
    Unreadable,
    /// The socket is broken.
    Broken,
}

impl End {
    /// What an error of `splice`, `sendfile` or `vmsplice` means: of the two sides, which one failed.
    pub(crate) fn of(error: Errno) -> Self {
        match error {
            Errno::EAGAIN => End::Blocked,
            // A page past the end of a file that became shorter is a fault; reading may fail in the ways of any disk.
            Errno::EFAULT
            | Errno::EIO
            | Errno::ENODATA
            | Errno::EINVAL
            | Errno::EOVERFLOW
            | Errno::ESTALE => End::Unreadable,
            _ => End::Broken,
        }
    }
}

impl Sender {
    /// A sender that uses `path`, as [`probe`](crate::selftest::probe) chose it or a test forces it.
    ///
    /// # Errors
    /// No descriptors or memory for the pipe.
    pub fn new(path: SendPath, counters: Arc<Counters>, headers: Arc<HeaderTables>) -> io::Result<Sender> {
        let references = match path {
            SendPath::Reference => Some(References::new(Pipe::new()?)?),
            SendPath::Sendfile => None,
        };
        Ok(Sender { counters, headers, references, kept: KeptFiles::default() })
    }

    /// Keeps up to `files_max` files open between sends, each of which takes a descriptor.
    #[must_use]
    pub fn keeping_files(self, files_max: usize) -> Sender {
        Sender { kept: KeptFiles::new(files_max), ..self }
    }

    /// How bytes of files are sent.
    #[must_use]
    pub fn path(&self) -> SendPath {
        if self.references.is_some() { SendPath::Reference } else { SendPath::Sendfile }
    }

    /// Sends from the start of `output` as much as `socket` takes, at most `bytes_max` and at most a few hundred parts, without
    /// waiting for the peer. `socket` must be non-blocking: otherwise the kernel waits for it whatever the flags.
    ///
    /// A count that falls short of `bytes_max` without `blocked` means nothing but that there is more to do. SIGPIPE must be ignored,
    /// as Rust programs do: `splice` and `sendfile` know no `MSG_NOSIGNAL`.
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        output: &Output,
        bytes_max: u64,
        residency: Residency,
    ) -> Outcome {
        let heads = match (&self.references, output.content()) {
            (Some(_), Some(content)) => Some(self.headers.of_piece_length(content.layout().piece_bytes())),
            _ => None,
        };
        let plan = match Plan::new(output, bytes_max, heads.as_ref(), residency, &mut self.kept) {
            Ok(plan) => plan,
            Err(Obstacle::Unreadable) => return Outcome::Sent(Sent::Unreadable),
            Err(Obstacle::Absent(absent)) => return Outcome::Absent(absent),
        };
        let large = plan.has_heads() || output.bytes() >= REFERENCE_BYTES_MIN;
        let progress = match self.references.as_mut().filter(|_| large && plan.has_files()) {
            Some(references) => {
                let progress = reference::send(references, socket, &plan);
                self.count_references(&plan, progress.sent);
                progress
            }
            None => {
                let progress = corked::send(socket, &plan);
                self.count_sendfile(&plan, progress.sent);
                progress
            }
        };
        Outcome::Sent(match (progress.end, progress.sent) {
            (End::Broken, _) => Sent::Broken,
            (End::Unreadable, 0) => Sent::Unreadable,
            // What stood in the way further on is met again by the next call.
            (end, bytes) => Sent::Bytes { bytes, blocked: end == End::Blocked },
        })
    }

    /// Begins a loop of the shard: what was learnt about files grows old, and those that nothing was sent from lately are closed, so that
    /// what was removed from the store gives its space back.
    pub fn begin_turn(&mut self, now: Now) {
        self.kept.begin_turn(now);
    }

    /// When [`begin_turn`](Sender::begin_turn) is due although nothing happens, in monotonic nanoseconds.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.kept.deadline_ns()
    }

    fn count_references(&self, plan: &Plan<'_>, sent: u64) {
        let copied = plan
            .prefix(sent)
            .filter(|run| matches!(run.source, Source::Memory(_)))
            .map(|run| run.bytes)
            .sum();
        self.counters.sent_copy_bytes.add(copied);
        self.counters.sent_reference_bytes.add(sent - copied);
    }

    fn count_sendfile(&self, plan: &Plan<'_>, sent: u64) {
        let by_file =
            plan.prefix(sent).filter(|run| matches!(run.source, Source::File(..))).map(|run| run.bytes).sum();
        self.counters.sent_sendfile_bytes.add(by_file);
        self.counters.sent_copy_bytes.add(sent - by_file);
    }
}
