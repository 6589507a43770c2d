//! Whose turn it is to be sent bytes out of buffers. Copying a MiB takes longer than all else that a loop does for a request, and reads from
//! a disk end in bunches: without a bound, requests for what is in memory would wait for all of those copies.

use std::collections::VecDeque;

use millrace_engine::ids::ConnId;

/// Bytes copied out of buffers in one loop from which on further copies wait for the next. The one that reaches it is carried out whole: a
/// turn cut in two would cost another system call.
pub const COPY_BYTES_MAX: u64 = 512 * 1024;

/// Sends out of buffers: what this loop has copied, and who waits for another.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    copied_bytes: u64,
    /// In the order in which they came, with the budget that each was given.
    waiting: VecDeque<(ConnId, u64)>,
    /// Who was taken out of the queue last, and so need not go to its end.
    called: Option<ConnId>,
}

impl Copies {
    /// Whether `conn` may copy now. Nobody passes those who wait.
    pub(crate) fn may_copy(&self, conn: ConnId) -> bool {
        self.copied_bytes < COPY_BYTES_MAX && (self.waiting.is_empty() || self.called == Some(conn))
    }

    /// Lets a send of this budget wait for its turn.
    pub(crate) fn wait(&mut self, conn: ConnId, bytes_max: u64) {
        self.waiting.push_back((conn, bytes_max));
    }

    /// The next one whose turn it is.
    pub(crate) fn next(&mut self) -> Option<(ConnId, u64)> {
        if self.copied_bytes >= COPY_BYTES_MAX {
            return None;
        }
        let next = self.waiting.pop_front();
        self.called = next.map(|(conn, _)| conn);
        next
    }

    /// So many bytes were copied, or will be, or encrypted, which takes as long.
    pub(crate) fn copied(&mut self, bytes: u64) {
        self.copied_bytes += bytes;
    }

    pub(super) fn forget(&mut self, conn: ConnId) {
        self.waiting.retain(|(waiting, _)| *waiting != conn);
    }

    /// A loop begins.
    pub(super) fn begin_turn(&mut self) {
        self.copied_bytes = 0;
        self.called = None;
    }

    /// A loop is due at once as long as somebody waits.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then_some(0)
    }
}
