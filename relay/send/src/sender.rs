//! The one send path: what an [`Output`] holds goes into a socket, by whichever way is cheapest for it.
//!
//! HTTP answers below 64 KiB: the head with `MSG_MORE`, then `sendfile`. Larger ones, and batches of BitTorrent blocks: page references
//! through the pipe. `sendfile` under `TCP_CORK` for all of them where page references are not to be had. What was read past the page cache
//! for one send is copied out of its buffer, or sent from there where the card does without a copy.

mod tls;
mod zero_copy;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use millrace_engine::counters::Counters;
use millrace_engine::event::Sent;
use millrace_engine::ids::{ConnId, Now};
use millrace_engine::output::Output;
use millrace_pagecache::OpenFile;
use nix::errno::Errno;

use crate::cold::{self, Cold, Finished, Read, Resumed, Waiting};
use crate::header_table::HeaderTables;
use crate::kept::KeptFiles;
use crate::outcome::{Absent, Outcome, Residency, SendPath, Way};
use crate::pipe::Pipe;
use crate::plan::{ABSENT_BYTES_MAX, Gap, Plan, Source, Unreadable};
use crate::reference::References;
use crate::tls::{Layer, Sealer, Terms};
use crate::zero_copy::{self as lending, ZeroCopy};
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
    cold: Cold,
    zero_copy: ZeroCopy,
    tls: Layer,
}

/// How far a way of sending came.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) sent: u64,
    pub(crate) end: End,
}

impl Progress {
    /// What the shard is told of it.
    fn told(&self) -> Sent {
        match (self.end, self.sent) {
            (End::Broken, _) => Sent::Broken,
            (End::Unreadable, 0) => Sent::Unreadable,
            // What stood in the way further on is met again by the next call.
            (end, bytes) => Sent::Bytes { bytes, blocked: end == End::Blocked },
        }
    }
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
        let cold = Cold::new(Arc::clone(&counters), 0);
        Ok(Sender {
            counters,
            headers,
            references,
            kept: KeptFiles::default(),
            cold,
            zero_copy: ZeroCopy::default(),
            tls: Layer::default(),
        })
    }

    /// Reads what is asked for once past the page cache, into at most `buffers_max` buffers of [`cold::BUFFER_BYTES`]. Without, all that is
    /// absent is brought into the page cache.
    #[must_use]
    pub fn reading_directly(self, buffers_max: usize) -> Sender {
        Sender { cold: Cold::new(Arc::clone(&self.counters), buffers_max), ..self }
    }

    /// Keeps up to `files_max` files open between sends, each of which takes a descriptor, and one more when it is read past the page
    /// cache.
    #[must_use]
    pub fn keeping_files(self, files_max: usize) -> Sender {
        Sender { kept: KeptFiles::new(files_max), ..self }
    }

    /// Speaks TLS on the connections that [begin](Sender::begin_tls) with it.
    #[must_use]
    pub fn speaking_tls(self, terms: Arc<Terms>) -> Sender {
        Sender { tls: Layer::new(terms), ..self }
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
        conn: ConnId,
        socket: BorrowedFd<'_>,
        output: &Output,
        bytes_max: u64,
        residency: Residency,
    ) -> Outcome {
        if let Some(progress) = self.tls.send_rest(conn, socket, bytes_max) {
            self.counters.sent_tls_bytes.add(progress.sent);
            return Outcome::Sent(progress.told());
        }
        let sealer = self.tls.sealer(conn, socket, output.bytes());
        if sealer == Some(Sealer::Nobody) {
            return Outcome::Sent(Sent::Broken);
        }
        let is_encrypted = sealer.is_some();
        let heads = match (&self.references, output.content()) {
            (Some(_), Some(content)) => Some(self.headers.of_piece_length(content.layout().piece_bytes())),
            _ => None,
        };
        let staged = self.cold.staged_for(conn);
        let mut plan = match Plan::new(output, bytes_max, heads.as_ref(), staged, &mut self.kept) {
            Ok(plan) => plan,
            Err(Unreadable) => return Outcome::Sent(Sent::Unreadable),
        };
        let may_lend = !is_encrypted && self.zero_copy.may_send(conn);
        let eligible = if may_lend { lending::eligible(&plan, self.cold.staged()) } else { None };
        let is_lent = eligible.is_some() && self.zero_copy.is_honoured(conn);
        let is_copied = is_encrypted || plan.has_buffers() && !is_lent;
        if is_copied && !self.cold.copies().may_copy(conn) {
            self.cold.copies_mut().wait(conn, bytes_max);
            return Outcome::Postponed;
        }
        let is_there = |file: &Arc<OpenFile>, offset, bytes| {
            self.kept.resident(file, offset, bytes) && !self.cold.is_coming(file, offset, bytes)
        };
        if residency == Residency::Ask
            && let Some(gap) = plan.cut_before_absent(is_there)
        {
            return Outcome::Absent(self.absent(conn, output, gap));
        }
        if sealer == Some(Sealer::Relay) {
            let sealed = self.tls.send(conn, socket, &plan);
            // What was encrypted need not be read again, whether the socket has it or not.
            let from_buffers = plan.staged_prefix(sealed.encrypted);
            return self.note_sealed(&sealed, &from_buffers);
        }
        if let Some(eligible) = eligible {
            let head = plan.first_memory();
            let plan_bytes = plan.bytes();
            return match self.send_before(socket, head) {
                Ok(()) => self.lend(conn, eligible, plan_bytes),
                Err(progress) => Outcome::Sent(progress.told()),
            };
        }
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
        let (pieces, from_buffers) = (plan.runs(), plan.staged_prefix(progress.sent));
        if !from_buffers.is_empty() {
            self.cold.consume(&from_buffers);
        }
        if is_encrypted {
            self.note_encrypted(conn, pieces, progress.sent, &from_buffers);
        }
        Outcome::Sent(progress.told())
    }

    /// How the bytes in a gap are to be had. A read past the page cache takes as much of what the output has behind them as fits a
    /// buffer: nobody else will use it, and the disk likes it better.
    fn absent(&mut self, conn: ConnId, output: &Output, gap: Gap) -> Absent {
        let Gap { file, offset, bytes } = gap;
        // What is still being written is in memory for the most part, and a read past it waits for the rest.
        let is_written =
            output.content().is_some_and(|content| content.is_imported() || content.is_complete());
        if !is_written || !self.cold.may_read_directly(&file) {
            return Absent { file, offset, bytes: bytes.min(ABSENT_BYTES_MAX), way: Way::BringIn };
        }
        let bytes_max = cold::direct_bytes_max(offset);
        let plan = Plan::new(output, bytes_max, None, self.cold.staged_for(conn), &mut self.kept);
        let direct_bytes = plan.map_or(bytes, |plan| plan.first_bytes(bytes_max).max(bytes));
        match self.cold.decide(&file, offset, direct_bytes.min(bytes_max)) {
            Way::BringIn => Absent { file, offset, bytes: bytes.min(ABSENT_BYTES_MAX), way: Way::BringIn },
            Way::Direct => Absent { file, offset, bytes: direct_bytes.min(bytes_max), way: Way::Direct },
        }
    }

    /// Reads past the page cache that can be under way at a time.
    #[must_use]
    pub fn buffers_max(&self) -> usize {
        self.cold.buffers_max()
    }

    /// Lets a send that found its bytes [absent](Outcome::Absent) wait for them.
    pub fn wait(&mut self, waiting: Waiting) {
        self.cold.wait(waiting);
    }

    /// The next read to begin. Call until there is none, once a loop at least.
    pub fn next_read(&mut self) -> Option<Read> {
        self.cold.next_read()
    }

    /// The next send that was [postponed](Outcome::Postponed) and the budget that it was given. Call until there is none at the end of
    /// each loop, so that what takes less time comes first.
    pub fn next_postponed(&mut self) -> Option<(ConnId, u64)> {
        self.cold.copies_mut().next()
    }

    /// A read ended; `is_open` is whether the connection that waited for it still is. What to do with its send; nothing where it is closed.
    pub fn finish(&mut self, finished: Finished, is_open: bool) -> Resumed {
        self.cold.finish(finished, is_open)
    }

    /// A connection was closed: what was read for it is of no use to anybody. Buffers that the kernel still refers to stay lent.
    pub fn forget(&mut self, conn: ConnId) {
        if let Some(buffer) = self.zero_copy.forget(conn) {
            self.cold.give_back(buffer);
        }
        self.cold.forget(conn);
        self.tls.forget(conn);
    }

    /// Begins a loop of the shard: what was learnt about files grows old, and those that nothing was sent from lately are closed, so that
    /// what was removed from the store gives its space back.
    pub fn begin_turn(&mut self, now: Now) {
        self.kept.begin_turn(now);
        self.cold.begin_turn(now);
        self.tls.begin_turn();
    }

    /// When [`begin_turn`](Sender::begin_turn) is due although nothing happens, in monotonic nanoseconds.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        [self.kept.deadline_ns(), self.cold.deadline_ns(), self.tls.deadline_ns()].into_iter().flatten().min()
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
