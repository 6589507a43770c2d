//! Zero-copy sends (`SEND_ZC`): what they refer to belongs to their record until the kernel has let go of it.
//!
//! Such a send completes twice: with the count of bytes that the socket took, and, unless it failed early, with a notification
//! (`F_NOTIF`) when no packet refers to the buffer any more, which is as late as the peer's acknowledgement. With `REPORT_USAGE` (Linux
//! 6.2) that tells whether the kernel copied the bytes all the same.
//!
//! Records that are dropped before their notification leak nothing and endanger nothing: the kernel only reads, and holds references to
//! the pages themselves. What must not happen is that something else is read into the buffer, and a buffer in a record is nobody else's.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::types::Fd;
use io_uring::{cqueue, opcode, squeue};
use millrace_send::zero_copy::ZeroCopySend;

use crate::records::Records;
use crate::ring::Ring;
use crate::token::{Kind, Parts, Token};

/// `IORING_SEND_ZC_REPORT_USAGE` and `IORING_NOTIF_USAGE_ZC_COPIED`, which the io-uring crate keeps to itself.
const REPORT_USAGE: u16 = 1 << 3;
const USAGE_COPIED: u32 = 1 << 31;

/// What a completion of a zero-copy send says.
pub(crate) enum Completed {
    /// So many bytes were taken, or none; a notification follows.
    Answered(io::Result<usize>),
    /// It failed, and nothing follows.
    Failed(io::Error),
    /// The kernel has let go of the buffer.
    Released {
        /// Whether it had copied the bytes.
        copied: bool,
    },
}

/// All of a shard.
#[derive(Debug)]
pub(crate) struct ZeroCopies(Records<ZeroCopySend>);

impl ZeroCopies {
    /// None yet.
    pub(crate) fn new() -> Self {
        ZeroCopies(Records::new(Kind::SendZeroCopy))
    }

    /// Makes the request of a send. What it names stays in place until it is [taken](Self::take).
    pub(crate) fn begin(&mut self, socket: BorrowedFd<'_>, send: ZeroCopySend) -> squeue::Entry {
        let more = if send.has_more() { libc::MSG_MORE } else { 0 };
        let bytes = u32::try_from(send.bytes().len()).unwrap_or(u32::MAX);
        // A socket that takes no more is not waited for.
        let request = opcode::SendZc::new(Fd(socket.as_raw_fd()), send.bytes().as_ptr(), bytes)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | more)
            .zc_flags(REPORT_USAGE)
            .build();
        request.user_data(self.0.insert(send).user_data())
    }

    /// A send that goes on.
    pub(crate) fn of(&mut self, token: Parts) -> &mut ZeroCopySend {
        self.0.of(token)
    }

    /// A send whose last completion has come.
    pub(crate) fn take(&mut self, token: Parts) -> ZeroCopySend {
        self.0.take(token)
    }
}

/// What a completion says.
pub(crate) fn completed(completion: &cqueue::Entry) -> Completed {
    let code = completion.result();
    if cqueue::notif(completion.flags()) {
        return Completed::Released { copied: code.cast_unsigned() & USAGE_COPIED != 0 };
    }
    let result = usize::try_from(code).map_err(|_| io::Error::from_raw_os_error(-code));
    match result {
        Err(error) if !cqueue::more(completion.flags()) => Completed::Failed(error),
        result => Completed::Answered(result),
    }
}

/// Whether the kernel knows such sends and reports on them. Asked with a kind of socket that has none: it says so only when it has
/// understood the question. Nothing else may be in flight on the ring.
///
/// # Errors
/// The ring is unusable.
pub(crate) fn is_known(ring: &mut Ring<'_>) -> io::Result<bool> {
    static BYTE: [u8; 1] = [0];
    let Ok((ours, theirs)) = UnixStream::pair() else { return Ok(false) };
    let request = opcode::SendZc::new(Fd(ours.as_raw_fd()), BYTE.as_ptr(), 1).zc_flags(REPORT_USAGE).build();
    // What came too late for us would mean nothing to the loop, as the end of a cancellation does.
    let request = request.user_data(Token::new(Kind::Cancel, 0, 0).user_data());
    // SAFETY: the request names a byte that is always there.
    unsafe { ring.push(request) };
    let mut sockets = Some((ours, theirs));
    let mut reaped = Vec::new();
    let mut is_known = false;
    // It completes while it is submitted; a kernel that keeps us waiting all the same is not one to rely on.
    for _ in 0..4 {
        ring.wait(Some(Duration::from_secs(1)))?;
        ring.reap(&mut reaped);
        for completion in reaped.drain(..) {
            // Nobody will read the byte, so a kernel that took it lets go of it when the sockets are closed.
            if sockets.take().is_some() {
                is_known = !matches!(completion.result().saturating_neg(), libc::EINVAL | libc::EACCES);
            }
            if !cqueue::more(completion.flags()) {
                return Ok(is_known);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use io_uring::register::Restriction;

    use super::*;
    use crate::probe::{available_to_test, explain, patiently, probe};
    use crate::ring::{self, OPCODES, Size, UNREGISTER};

    const SMALL: Size = Size { submissions: 4, completions: 64 };

    #[test]
    fn a_ring_that_may_not_send_so_is_seen_to() {
        if !available_to_test("a_ring_that_may_not_send_so_is_seen_to") {
            return;
        }
        let (mut uring, _) = patiently(|| ring::open(SMALL).map_err(explain)).unwrap();
        // Restrictions are set once: those that the ring would have, without this opcode, come first.
        let opcodes = OPCODES.into_iter().map(|(code, _)| Restriction::sqe_op(code));
        let mut allowed: Vec<_> = opcodes.chain(UNREGISTER.map(Restriction::register_op)).collect();
        uring.submitter().register_restrictions(&mut allowed).unwrap();
        let mut ring = Ring::new(&mut uring);
        ring.enable().unwrap();
        assert!(!is_known(&mut ring).unwrap());
    }

    #[test]
    fn the_question_leaves_nothing_in_flight_and_is_answered_as_the_probe_says() {
        if !available_to_test("the_question_leaves_nothing_in_flight_and_is_answered_as_the_probe_says") {
            return;
        }
        let (mut uring, _) = patiently(|| ring::open(SMALL).map_err(explain)).unwrap();
        let mut ring = Ring::new(&mut uring);
        ring.enable().unwrap();
        let known = is_known(&mut ring).unwrap();
        assert_eq!(patiently(|| probe().verdict).unwrap().zero_copy, known);
        ring.wait(Some(Duration::ZERO)).unwrap();
        let mut reaped = Vec::new();
        ring.reap(&mut reaped);
        assert!(reaped.is_empty());
    }
}
