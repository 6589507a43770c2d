//! The provided buffers of a shard: the kernel takes one for each piece it receives, and gets it back once it was delivered.
//!
//! A buffer is the kernel's from [`provide`](Buffers::new) on until a completion names it, ours as a [`Filled`] until it is given
//! back. The memory is unmapped only after the kernel has let go of it; a loop that ends before leaks it instead.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{Submitter, cqueue};

use crate::mapping::Mapping;

/// Bytes of one buffer: a request head or some 200 requests of the peer wire fit.
pub(crate) const BUFFER_BYTES: u16 = 4096;

/// The only group of buffers of a ring.
pub(crate) const GROUP: u16 = 0;

/// Buffers the kernel is given at first. It fills them in turn, so that each one more is one more that lies in no cache when its turn comes:
/// with 2,048 of them an answer of 16 KiB cost 4 % more.
const PROVIDED_MIN: u16 = 128;

/// Buffers for a shard of `connections_max`: one for every eighth connection, in bounds that keep memory at 256 KiB to 16 MiB.
pub(crate) fn count_for(connections_max: u32) -> u16 {
    let count = (connections_max / 8).clamp(64, 4096).next_power_of_two();
    u16::try_from(count).unwrap_or(4096)
}

/// The buffers and the ring in which they are handed to the kernel.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// `count` of `BufRingEntry`; the tail lies in the first of them.
    entries: Mapping,
    /// `count` times [`BUFFER_BYTES`].
    memory: Mapping,
    count: u16,
    tail: u16,
    /// The kernel was given those below this number; it gets [more](Buffers::provide_more) when they do not suffice.
    provided: u16,
    /// Which buffers are ours now.
    ours: Box<[bool]>,
    /// Whether the kernel may write to the memory.
    registered: bool,
}

/// A buffer that the kernel filled. Goes back through [`Buffers::give_back`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Filled {
    id: u16,
    bytes: usize,
}

impl Buffers {
    /// Maps `count` buffers, a power of two, registers them as [`GROUP`] and provides the first [`PROVIDED_MIN`].
    ///
    /// # Errors
    /// No memory; EINVAL from a kernel before 5.19.
    pub(crate) fn new(submitter: &Submitter<'_>, count: u16) -> io::Result<Self> {
        debug_assert!(count.is_power_of_two());
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * usize::from(BUFFER_BYTES))?;
        let ours = vec![true; usize::from(count)].into_boxed_slice();
        let mut buffers = Buffers { entries, memory, count, tail: 0, provided: 0, ours, registered: false };
        let address = buffers.first_entry().as_ptr() as u64;
        // SAFETY: `entries` is a page-aligned mapping of `count` entries that `Drop` keeps while `registered` is set.
        unsafe { submitter.register_buf_ring_with_flags(address, count, GROUP, 0) }?;
        buffers.registered = true;
        buffers.provide_up_to(count.min(PROVIDED_MIN));
        Ok(buffers)
    }

    /// A receive found no buffer: from now on there are twice as many, as long as there are more.
    pub(crate) fn provide_more(&mut self) {
        self.provide_up_to(self.provided.saturating_mul(2).min(self.count));
    }

    fn provide_up_to(&mut self, end: u16) {
        (self.provided..end).for_each(|id| self.provide(id));
        self.provided = end;
    }

    fn first_entry(&self) -> NonNull<BufRingEntry> {
        self.entries.start()
    }

    /// The buffer a completion names, or none where it carries no data.
    ///
    /// # Panics
    /// When the kernel names a buffer that was not its own, or more bytes than fit: its contract is broken.
    pub(crate) fn take(&mut self, completion: &cqueue::Entry) -> Option<Filled> {
        let id = cqueue::buffer_select(completion.flags())?;
        let bytes = usize::try_from(completion.result()).unwrap_or(0);
        let ours = self.ours.get_mut(usize::from(id)).expect("the kernel names a buffer that does not exist");
        assert!(
            !*ours && bytes <= usize::from(BUFFER_BYTES),
            "the kernel filled buffer {id}, which was not its own, with {bytes} bytes"
        );
        *ours = true;
        Some(Filled { id, bytes })
    }

    /// What the kernel received.
    pub(crate) fn bytes<'b>(&'b self, filled: &'b Filled) -> &'b [u8] {
        // SAFETY: `take` checked that the id is below `count`, so the result lies in the mapping of `count` buffers.
        let start =
            unsafe { self.memory.start::<u8>().add(usize::from(filled.id) * usize::from(BUFFER_BYTES)) };
        // SAFETY: `take` made the buffer ours, so nobody writes to it while the `Filled` lives; `bytes` is at most its size, and
        // the mapping was zeroed, so all of it is initialised.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), filled.bytes) }
    }

    /// Hands a buffer to the kernel again.
    pub(crate) fn give_back(&mut self, filled: Filled) {
        self.provide(filled.id);
    }

    fn provide(&mut self, id: u16) {
        // SAFETY: ids come from `new` and `take`, both below `count`: inside the mapping.
        let buffer = unsafe { self.memory.start::<u8>().add(usize::from(id) * usize::from(BUFFER_BYTES)) };
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is below `count`, the number of entries in the mapping.
        let mut slot = unsafe { self.first_entry().add(at) };
        // SAFETY: the kernel reads entries from its head up to the tail only. There are as many entries as buffers and this one's
        // buffer is ours, so entry `tail` is outside that range, and the kernel never writes to entries.
        let entry = unsafe { slot.as_mut() };
        entry.set_addr(buffer.as_ptr() as u64);
        entry.set_len(u32::from(BUFFER_BYTES));
        entry.set_bid(id);
        self.ours[usize::from(id)] = false;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the address of the first entry of the registered ring, in whose reserved half-word the tail lies.
        let tail = unsafe { BufRingEntry::tail(self.first_entry().as_ptr()) };
        // SAFETY: the half-word is aligned, lives as long as `self`, and is written by this thread alone; the kernel loads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the entry is complete before the kernel sees it.
        tail.store(self.tail, Ordering::Release);
    }

    /// Takes the memory from the kernel, so that dropping the buffers frees it. Call when nothing that could receive is in flight.
    ///
    /// # Errors
    /// The kernel refuses, and the memory will not be freed.
    pub(crate) fn retire(&mut self, submitter: &Submitter<'_>) -> io::Result<()> {
        submitter.unregister_buf_ring(GROUP)?;
        self.registered = false;
        Ok(())
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.registered {
            // The loop ended in a panic or an error. The kernel may write to this memory until it has torn the ring down, some time
            // after it was closed: leaking is the only sound thing left.
            self.entries.leak();
            self.memory.leak();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use io_uring::opcode;
    use io_uring::types::Fd;

    use super::*;
    use crate::probe::{explain, patiently};
    use crate::ring::{self, Ring, Size};

    const COUNT: u16 = 64;

    struct Scene<'r> {
        ring: Ring<'r>,
        buffers: Buffers,
        ours: UnixStream,
        theirs: UnixStream,
    }

    impl Scene<'_> {
        fn receive(&mut self) {
            let request = opcode::RecvMulti::new(Fd(self.ours.as_raw_fd()), GROUP).build();
            // SAFETY: the request names no memory but the provided buffers, which `Buffers` keeps.
            unsafe { self.ring.push(request) };
        }

        fn completions(&mut self) -> Vec<cqueue::Entry> {
            let mut reaped = Vec::new();
            self.ring.wait(Some(Duration::from_millis(20))).unwrap();
            self.ring.reap(&mut reaped);
            reaped
        }
    }

    #[track_caller]
    fn check(name: &str, scenario: impl FnOnce(&mut Scene<'_>)) {
        check_with(COUNT, name, scenario);
    }

    #[track_caller]
    fn check_with(count: u16, name: &str, scenario: impl FnOnce(&mut Scene<'_>)) {
        if !crate::probe::available_to_test(name) {
            return;
        }
        let size = Size { submissions: 8, completions: 1024 };
        let (mut uring, _) = patiently(|| ring::open(size).map_err(explain)).unwrap();
        let ring = Ring::new(&mut uring);
        let buffers = patiently(|| Buffers::new(ring.submitter(), count).map_err(explain)).unwrap();
        ring.enable().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut scene = Scene { ring, buffers, ours, theirs };
        scenario(&mut scene);
        scene.buffers.retire(scene.ring.submitter()).unwrap();
    }

    #[test]
    fn what_was_received_lies_in_the_buffer_that_the_completion_names() {
        check("what_was_received_lies_in_the_buffer_that_the_completion_names", |scene| {
            scene.receive();
            // Several times around the ring, so that every entry is used again.
            for round in 0..3 * COUNT {
                let message = format!("message {round}");
                scene.theirs.write_all(message.as_bytes()).unwrap();
                let [completion] = scene.completions().try_into().unwrap();
                let filled = scene.buffers.take(&completion).unwrap();
                assert_eq!(scene.buffers.bytes(&filled), message.as_bytes());
                scene.buffers.give_back(filled);
            }
        });
    }

    #[test]
    fn running_out_ends_the_receive_and_nothing_is_lost_once_buffers_are_back() {
        check("running_out_ends_the_receive_and_nothing_is_lost_once_buffers_are_back", |scene| {
            let sent: Vec<u8> =
                (0..=250).cycle().take((usize::from(COUNT) + 5) * usize::from(BUFFER_BYTES) / 2).collect();
            let mut received = Vec::new();
            let mut ran_out = false;
            scene.receive();
            let mut held = Vec::new();
            for piece in sent.chunks(usize::from(BUFFER_BYTES) / 2) {
                // Written one by one and never given back, each takes a buffer.
                scene.theirs.write_all(piece).unwrap();
                for completion in scene.completions() {
                    ran_out |= completion.result() == -libc::ENOBUFS && !cqueue::more(completion.flags());
                    held.extend(scene.buffers.take(&completion));
                }
            }
            assert!(ran_out, "{} buffers held", held.len());
            assert_eq!(held.len(), usize::from(COUNT));
            for filled in held {
                received.extend_from_slice(scene.buffers.bytes(&filled));
                scene.buffers.give_back(filled);
            }
            scene.receive();
            while received.len() < sent.len() {
                for completion in scene.completions() {
                    let filled = scene.buffers.take(&completion).expect("a buffer is free");
                    received.extend_from_slice(scene.buffers.bytes(&filled));
                    scene.buffers.give_back(filled);
                }
            }
            assert_eq!(received, sent);
        });
    }

    #[test]
    fn the_kernel_gets_more_buffers_when_those_it_has_do_not_suffice() {
        let name = "the_kernel_gets_more_buffers_when_those_it_has_do_not_suffice";
        check_with(4 * PROVIDED_MIN, name, |scene| {
            let mut held = Vec::new();
            for provided in [PROVIDED_MIN, 2 * PROVIDED_MIN, 4 * PROVIDED_MIN, 4 * PROVIDED_MIN] {
                scene.receive();
                let mut ran_out = false;
                while !ran_out {
                    scene.theirs.write_all(b"x").unwrap();
                    for completion in scene.completions() {
                        ran_out |= completion.result() == -libc::ENOBUFS;
                        held.extend(scene.buffers.take(&completion));
                    }
                }
                assert_eq!(held.len(), usize::from(provided));
                scene.buffers.provide_more();
            }
            held.into_iter().for_each(|filled| scene.buffers.give_back(filled));
        });
    }

    #[test]
    fn there_are_at_least_64_buffers_and_at_most_4096() {
        assert_eq!([0, 1_000, 16_384, u32::MAX].map(count_for), [64, 128, 2048, 4096]);
    }
}
