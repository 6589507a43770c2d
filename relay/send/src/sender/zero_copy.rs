//! Sends that refer to a buffer instead of copying it, see [`crate::zero_copy`].

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use millrace_engine::event::Sent;
use millrace_engine::ids::ConnId;

use super::{Outcome, Progress, Sender};
use crate::corked::send_head;
use crate::zero_copy::{Eligible, Report, ZeroCopySend};

impl Sender {
    /// The back end carries out [zero-copy sends](Sender::next_zero_copy). Without, there are none.
    pub fn offer_zero_copy(&mut self) {
        self.zero_copy.offer(self.cold.buffers_max());
    }

    /// The next zero-copy send to begin, once only: it is [answered](Sender::answer_zero_copy) by how many bytes went out, and
    /// [finished](Sender::finish_zero_copy) when the kernel has let go of them. Call until there is none, once a loop at least.
    pub fn next_zero_copy(&mut self) -> Option<ZeroCopySend> {
        self.zero_copy.next()
    }

    /// The kernel took so many bytes of a zero-copy send, or none. Returns what the shard is to be told, if the connection still is open.
    pub fn answer_zero_copy(&mut self, send: &mut ZeroCopySend, result: io::Result<usize>) -> Sent {
        let blocked = match result {
            Ok(sent) => {
                send.sent = sent as u64;
                sent < send.bytes().len()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
            Err(error) if is_refusal(&error) => {
                send.is_refused = true;
                self.counters.zero_copy_refusals.increment();
                false
            }
            Err(_) => return Sent::Broken,
        };
        self.cold.consume_of(&send.buffer, send.sent);
        Sent::Bytes { bytes: send.before + send.sent, blocked }
    }

    /// The kernel has let go of what a zero-copy send refers to, and says whether it `copied` it, where it sent anything.
    pub fn finish_zero_copy(&mut self, send: ZeroCopySend, copied: bool) {
        let report = match (send.is_refused, send.sent, copied) {
            (true, _, _) => Some(Report::Refused),
            (false, 0, _) => None,
            (false, _, true) => Some(Report::Copied),
            (false, _, false) => Some(Report::Uncopied),
        };
        let counted = match report {
            Some(Report::Uncopied) => &self.counters.sent_zero_copy_bytes,
            _ => &self.counters.sent_zero_copy_copied_bytes,
        };
        counted.add(send.sent);
        self.zero_copy.end(send.conn, report);
        self.cold.give_back(send.into_buffer());
    }

    /// Sends what comes before a zero-copy send; an error says how far it came.
    pub(super) fn send_before(&self, socket: BorrowedFd<'_>, head: &[u8]) -> Result<(), Progress> {
        if head.is_empty() {
            return Ok(());
        }
        let progress = send_head(socket, head);
        self.counters.sent_copy_bytes.add(progress.sent);
        if progress.sent == head.len() as u64 { Ok(()) } else { Err(progress) }
    }

    /// Makes a zero-copy send of bytes in a buffer, before which their head was sent.
    pub(super) fn lend(&mut self, conn: ConnId, eligible: Eligible, plan_bytes: u64) -> Outcome {
        let Some(staged) = self.cold.staged().get(eligible.place) else {
            return Outcome::Sent(Sent::Bytes { bytes: eligible.head_bytes, blocked: false });
        };
        let buffer = Arc::clone(&staged.buffer);
        if !self.zero_copy.is_honoured(conn) {
            // As it is in most places, and then it takes the loop's time as any copy does.
            self.cold.copies_mut().copied(eligible.bytes as u64);
        }
        self.zero_copy.lend(conn, buffer, eligible, plan_bytes);
        Outcome::Lent
    }
}

/// Whether an error is about the way of sending, and not about the connection: no such operation here, no memory to pin (which counts
/// against `RLIMIT_MEMLOCK`).
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINVAL
                | libc::EOPNOTSUPP
                | libc::ENOSYS
                | libc::EACCES
                | libc::EPERM
                | libc::ENOMEM
                | libc::ENOBUFS
                | libc::EFAULT
        )
    )
}
