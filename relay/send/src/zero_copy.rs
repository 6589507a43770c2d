//! Zero-copy sends out of buffers: the card takes the bytes where they lie, and the kernel says afterwards when it has let go of them and
//! whether it copied them all the same. Over loopback, veth and many cards it always does, which costs more than copying at once.
//!
//! Judged for each connection by the kernel's own report: the first send that it copied is the last that is tried. A buffer stays lent from
//! the time a send of it is planned until its notification, whatever becomes of the connection; nobody waits for one. A back end that has
//! such sends [offers](crate::sender::Sender::offer_zero_copy) them and carries out the [next](crate::sender::Sender::next_zero_copy).

mod trial;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use millrace_engine::ids::ConnId;

use crate::cold::{Buffer, Staged};
use crate::plan::{Plan, Position, Source};
pub(crate) use trial::Report;
use trial::Trial;

/// Sends of less are copied: pinning pages and being told of their release costs as much as copying a few of them.
pub const ZERO_COPY_BYTES_MIN: u64 = 64 * 1024;

/// A send that refers to a part of a buffer. Whoever carries it out keeps it until the kernel has let go of the buffer.
#[derive(Debug)]
pub struct ZeroCopySend {
    pub(crate) conn: ConnId,
    pub(crate) buffer: Arc<Buffer>,
    /// Where in the buffer to begin.
    start: usize,
    bytes: usize,
    has_more: bool,
    /// Bytes of the output that were sent before it.
    pub(crate) before: u64,
    /// How many of its own went out.
    pub(crate) sent: u64,
    /// The kernel would not do it, though the connection is whole.
    pub(crate) is_refused: bool,
}

impl ZeroCopySend {
    /// Whose send it is. By the time it ends it may be closed.
    #[must_use]
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// What to send: stays in place and unchanged as long as this lives.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.bytes().get(self.start..self.start + self.bytes).unwrap_or_default()
    }

    pub(crate) fn into_buffer(self) -> Arc<Buffer> {
        self.buffer
    }

    /// Whether more follows at once (`MSG_MORE`).
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.has_more
    }
}

/// Where a plan has bytes that may be sent so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Eligible {
    /// Bytes in memory before them: the head of an answer.
    pub(crate) head_bytes: u64,
    /// The place of their buffer among those that are staged.
    pub(crate) place: usize,
    /// Where in it they begin.
    pub(crate) start: usize,
    pub(crate) bytes: usize,
}

/// Zero-copy sends of one shard: which connections they are tried on, and how many are under way.
#[derive(Debug, Default)]
pub(crate) struct ZeroCopy {
    /// None are made while this is 0.
    lent_max: usize,
    /// Sends that have not been notified of, those to begin among them.
    lent: usize,
    to_begin: VecDeque<ZeroCopySend>,
    /// Of connections that were tried. Those that are not here were not.
    trials: HashMap<ConnId, Trial>,
}

impl ZeroCopy {
    /// Allows as many at a time as leave half of `buffers_max` to reads, however late notifications come.
    pub(crate) fn offer(&mut self, buffers_max: usize) {
        self.lent_max = buffers_max / 2;
    }

    /// Whether the next send of a connection may be one.
    pub(crate) fn may_send(&self, conn: ConnId) -> bool {
        self.lent < self.lent_max && self.trial(conn).may_send()
    }

    /// Whether the kernel is known not to copy what this connection is sent.
    pub(crate) fn is_honoured(&self, conn: ConnId) -> bool {
        self.trial(conn) == Trial::Honoured
    }

    fn trial(&self, conn: ConnId) -> Trial {
        self.trials.get(&conn).copied().unwrap_or(Trial::Untried)
    }

    /// Lends `buffer` to a send behind `eligible.head_bytes` that were sent already, of `plan_bytes` in all.
    pub(crate) fn lend(&mut self, conn: ConnId, buffer: Arc<Buffer>, eligible: Eligible, plan_bytes: u64) {
        let Eligible { head_bytes, start, bytes, .. } = eligible;
        let has_more = head_bytes + (bytes as u64) < plan_bytes;
        self.lent += 1;
        let trial = self.trials.entry(conn).or_insert(Trial::Untried);
        *trial = trial.begun();
        let send = ZeroCopySend {
            conn,
            buffer,
            start,
            bytes,
            has_more,
            before: head_bytes,
            sent: 0,
            is_refused: false,
        };
        self.to_begin.push_back(send);
    }

    /// The next one to begin.
    pub(crate) fn next(&mut self) -> Option<ZeroCopySend> {
        self.to_begin.pop_front()
    }

    /// The kernel has let go of a buffer.
    pub(crate) fn end(&mut self, conn: ConnId, report: Option<Report>) {
        self.lent -= 1;
        // A connection that was closed is not judged any more.
        if let Some(trial) = self.trials.get_mut(&conn) {
            *trial = trial.reported(report);
        }
    }

    /// A connection is closed. Its send that was not begun, if there is one, ends here.
    pub(crate) fn forget(&mut self, conn: ConnId) -> Option<Arc<Buffer>> {
        self.trials.remove(&conn);
        let place = self.to_begin.iter().position(|send| send.conn == conn)?;
        self.lent -= 1;
        self.to_begin.remove(place).map(ZeroCopySend::into_buffer)
    }
}

/// The bytes that `plan` begins with, apart from the head of an answer, if they lie in one buffer and are worth it.
pub(crate) fn eligible(plan: &Plan<'_>, staged: &[Staged]) -> Option<Eligible> {
    let first = plan.at(Position::default())?;
    let head_bytes = if matches!(first.source, Source::Memory(_)) { first.bytes } else { 0 };
    let run = plan.at(plan.after(Position::default(), head_bytes))?;
    let Source::Staged(place, found) = run.source else { return None };
    if run.bytes < ZERO_COPY_BYTES_MIN {
        return None;
    }
    let buffer = staged.get(place)?.buffer.bytes();
    let start = found.as_ptr().addr().checked_sub(buffer.as_ptr().addr())?;
    Some(Eligible { head_bytes, place, start, bytes: usize::try_from(run.bytes).ok()? })
}
