//! One io_uring: its set-up, its submission queue with room made when it is full, and its completions.
//!
//! The set-up asks for the most and takes what the kernel gives, see [`Mode`]. The ring is restricted to the opcodes this back end
//! uses, so a stray write to the submission queue cannot open files or send bytes.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::{self, Flags};
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, opcode};

/// `IORING_UNREGISTER_RING_FDS` and `IORING_UNREGISTER_PBUF_RING`, which the io-uring crate keeps to itself: what is needed to end.
pub(crate) const UNREGISTER: [u8; 2] = [21, 23];

/// The opcodes this back end uses: what a kernel must know, and all that a ring is allowed, but for zero-copy sends where it knows those.
pub(crate) const OPCODES: [(u8, &str); 5] = [
    (opcode::AcceptMulti::CODE, "ACCEPT"),
    (opcode::RecvMulti::CODE, "RECV"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::Read::CODE, "READ"),
];

/// When the kernel runs the part of an operation that belongs to our thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `SINGLE_ISSUER | DEFER_TASKRUN` (Linux 6.1): only while the loop waits for completions, so a send is never interrupted.
    Deferred,
    /// `COOP_TASKRUN` (Linux 5.19): at any return from the kernel, without an inter-processor interrupt.
    Cooperative,
    /// No flag: at once, by interrupting the thread.
    Plain,
}

impl Mode {
    /// The set-up flags, as `doctor` prints them.
    #[must_use]
    pub fn flags(self) -> &'static str {
        match self {
            Mode::Deferred => "SINGLE_ISSUER | DEFER_TASKRUN",
            Mode::Cooperative => "COOP_TASKRUN",
            Mode::Plain => "none",
        }
    }
}

/// How large the queues are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Submission queue entries. More are submitted in several calls.
    pub(crate) submissions: u32,
    /// Completion queue entries: every one-shot operation and every provided buffer at once, and an allowance for accepts. The
    /// kernel's bound is 65,536; what does not fit is kept by the kernel and counted as an overflow.
    pub(crate) completions: u32,
}

/// Makes a ring, still disabled: [`Ring::enable`] starts it.
///
/// # Errors
/// What `io_uring_setup` answered to the plainest of the three modes.
pub(crate) fn open(size: Size) -> io::Result<(IoUring, Mode)> {
    let attempt = |mode: Mode| {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_r_disabled().setup_clamp().setup_cqsize(size.completions);
        match mode {
            Mode::Deferred => builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag(),
            Mode::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
            Mode::Plain => &mut builder,
        };
        builder.build(size.submissions).map(|ring| (ring, mode))
    };
    // A kernel answers EINVAL to flags it does not know; anything else would come again.
    let unknown = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    attempt(Mode::Deferred)
        .or_else(|error| if unknown(&error) { attempt(Mode::Cooperative) } else { Err(error) })
        .or_else(|error| if unknown(&error) { attempt(Mode::Plain) } else { Err(error) })
}

/// A ring in use by one thread.
pub(crate) struct Ring<'r> {
    submitter: Submitter<'r>,
    submissions: SubmissionQueue<'r>,
    completions: CompletionQueue<'r>,
    /// Requests the kernel would not take for now, oldest first. They go before any other.
    backlog: VecDeque<squeue::Entry>,
    restricted: bool,
    registered: bool,
}

impl<'r> Ring<'r> {
    /// Takes over a ring made by [`open`], registers its descriptor with this thread, and restricts it. Both are refinements: a
    /// kernel that refuses them is used without.
    pub(crate) fn new(uring: &'r mut IoUring) -> Self {
        let (mut submitter, submissions, completions) = uring.split();
        let registered = submitter.register_ring_fd().is_ok();
        let restricted = submitter.register_restrictions(&mut restrictions(&submitter)).is_ok();
        Ring { submitter, submissions, completions, backlog: VecDeque::new(), restricted, registered }
    }

    /// Whether only our opcodes are allowed on it.
    pub(crate) fn is_restricted(&self) -> bool {
        self.restricted
    }

    /// Whether calls name it without a descriptor look-up.
    pub(crate) fn is_registered(&self) -> bool {
        self.registered
    }

    /// The kernel's registration calls, for who owns what is registered.
    pub(crate) fn submitter(&self) -> &Submitter<'r> {
        &self.submitter
    }

    /// Starts the ring. The calling thread is the only one that may submit from now on.
    pub(crate) fn enable(&self) -> io::Result<()> {
        self.submitter.register_enable_rings()
    }

    /// Queues one request. It is submitted by the next [`wait`](Self::wait) at the latest; a full queue is submitted at once.
    ///
    /// # Safety
    /// Whatever the request lets the kernel read or write stays in place until its terminal completion.
    pub(crate) unsafe fn push(&mut self, request: squeue::Entry) {
        if self.backlog.is_empty() && self.submissions.is_full() {
            self.submissions.sync();
            // An error shows as a queue that is still full.
            let _ = self.submitter.submit();
            self.submissions.sync();
        }
        if !self.backlog.is_empty() || self.submissions.is_full() {
            self.backlog.push_back(request);
            return;
        }
        // SAFETY: the caller of this function keeps what the request names in place.
        let pushed = unsafe { self.submissions.push(&request) };
        debug_assert!(pushed.is_ok(), "room was made above");
    }

    /// Moves what waits into the queue, as far as it goes.
    fn drain_backlog(&mut self) {
        while !self.submissions.is_full()
            && let Some(request) = self.backlog.pop_front()
        {
            // SAFETY: who pushed the request promised to keep what it names in place until it completes, and it has not even begun.
            let pushed = unsafe { self.submissions.push(&request) };
            debug_assert!(pushed.is_ok(), "the queue is not full");
        }
    }

    /// Submits everything and waits for a completion: until `timeout`, for ever without one, not at all for zero. Does without a
    /// system call where there is nothing to submit, nothing to wait for and nothing for the kernel to finish.
    ///
    /// # Errors
    /// What cannot be mended by trying again: the ring is unusable.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.drain_backlog();
        self.submissions.sync();
        self.completions.sync();
        let ready = !self.completions.is_empty() || !self.backlog.is_empty();
        let entered = match timeout {
            _ if ready => self.submit(),
            Some(Duration::ZERO) => self.submit(),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                self.submitter.submit_with_args(1, &SubmitArgs::new().timespec(&timespec)).map(drop)
            }
            None => self.submitter.submit_and_wait(1).map(drop),
        };
        self.submissions.sync();
        match entered.as_ref().map_err(|error| error.raw_os_error()) {
            // Time is up; a signal; or the kernel wants completions reaped before it takes more.
            Ok(()) | Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(_) => entered,
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        let idle =
            self.submissions.is_empty() && !self.submissions.taskrun() && !self.submissions.cq_overflow();
        if idle { Ok(()) } else { self.submitter.submit().map(drop) }
    }

    /// Moves all completions that are there into `reaped`. Returns whether the queue had overflowed, in which case the rest comes
    /// with the next [`wait`](Self::wait).
    ///
    /// # Panics
    /// When the kernel has dropped completions, which `IORING_FEAT_NODROP` rules out short of a kernel without memory: what is in
    /// flight would never be known again.
    pub(crate) fn reap(&mut self, reaped: &mut Vec<cqueue::Entry>) -> bool {
        self.completions.sync();
        let overflowed = self.submissions.cq_overflow();
        reaped.extend(&mut self.completions);
        self.completions.sync();
        assert_eq!(self.completions.overflow(), 0, "the kernel dropped completions of the ring");
        overflowed
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        // A thread has 16 places for registered descriptors, and one that is taken keeps its ring alive.
        if self.registered {
            let unregistered = self.submitter.unregister_ring_fd();
            debug_assert!(unregistered.is_ok(), "a registered ring cannot be unregistered: {unregistered:?}");
        }
    }
}

fn restrictions(submitter: &Submitter<'_>) -> Vec<Restriction> {
    let flags = Flags::BUFFER_SELECT | Flags::SKIP_SUCCESS;
    // A kernel that does not know an opcode refuses to allow it, and everything else with it.
    let zero_copy = Some(opcode::SendZc::CODE).filter(|code| knows(submitter, *code).unwrap_or(false));
    OPCODES
        .iter()
        .map(|(code, _)| *code)
        .chain(zero_copy)
        .map(Restriction::sqe_op)
        .chain([Restriction::sqe_flags_allowed(flags.bits())])
        .chain(UNREGISTER.map(Restriction::register_op))
        .collect()
}

/// Whether the kernel knows an opcode.
fn knows(submitter: &Submitter<'_>, code: u8) -> io::Result<bool> {
    let mut known = io_uring::Probe::new();
    submitter.register_probe(&mut known)?;
    Ok(known.is_supported(code))
}

#[cfg(test)]
mod tests {
    use io_uring::types::Fd;

    use super::*;
    use crate::probe::{explain, patiently};

    const SMALL: Size = Size { submissions: 4, completions: 64 };

    #[track_caller]
    fn check(name: &str, scenario: impl FnOnce(&mut Ring<'_>)) {
        if !crate::probe::available_to_test(name) {
            return;
        }
        let (mut uring, _) = patiently(|| open(SMALL).map_err(explain)).unwrap();
        let mut ring = Ring::new(&mut uring);
        ring.enable().unwrap();
        scenario(&mut ring);
    }

    fn cancel_nothing(user_data: u64) -> squeue::Entry {
        opcode::AsyncCancel::new(u64::MAX).build().user_data(user_data)
    }

    #[test]
    fn a_full_submission_queue_loses_nothing_and_keeps_the_order() {
        check("a_full_submission_queue_loses_nothing_and_keeps_the_order", |ring| {
            for number in 0..50 {
                // SAFETY: a cancellation names no memory.
                unsafe { ring.push(cancel_nothing(number)) };
            }
            ring.wait(Some(Duration::ZERO)).unwrap();
            let mut reaped = Vec::new();
            assert!(!ring.reap(&mut reaped));
            let order: Vec<u64> = reaped.iter().map(cqueue::Entry::user_data).collect();
            assert_eq!(order, (0..50).collect::<Vec<_>>());
            assert!(reaped.iter().all(|completion| completion.result() == -libc::ENOENT));
        });
    }

    #[test]
    fn an_overflow_of_the_completion_queue_is_seen_and_loses_nothing() {
        check("an_overflow_of_the_completion_queue_is_seen_and_loses_nothing", |ring| {
            for number in 0..200 {
                // SAFETY: a cancellation names no memory.
                unsafe { ring.push(cancel_nothing(number)) };
            }
            let mut reaped = Vec::new();
            let mut overflows = 0;
            while reaped.len() < 200 {
                ring.wait(Some(Duration::ZERO)).unwrap();
                let before = reaped.len();
                overflows += usize::from(ring.reap(&mut reaped));
                assert!(reaped.len() > before, "completions stopped at {before}");
            }
            assert!(overflows > 0);
        });
    }

    #[test]
    fn a_timeout_ends_the_wait_without_an_error() {
        check("a_timeout_ends_the_wait_without_an_error", |ring| {
            ring.wait(Some(Duration::from_millis(1))).unwrap();
            let mut reaped = Vec::new();
            ring.reap(&mut reaped);
            assert!(reaped.is_empty());
        });
    }

    #[test]
    fn opcodes_that_are_not_ours_are_refused() {
        check("opcodes_that_are_not_ours_are_refused", |ring| {
            assert!(ring.is_restricted());
            let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build().user_data(1);
            let close = opcode::Close::new(Fd(-1)).build().user_data(2);
            for request in [socket, close] {
                // SAFETY: neither request names memory.
                unsafe { ring.push(request) };
            }
            let mut reaped = Vec::new();
            while reaped.len() < 2 {
                ring.wait(Some(Duration::ZERO)).unwrap();
                ring.reap(&mut reaped);
            }
            assert!(reaped.iter().all(|completion| completion.result() == -libc::EACCES));
        });
    }
}
