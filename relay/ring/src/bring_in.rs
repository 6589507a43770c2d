//! Bringing bytes into the page cache before they are sent, so that a send does not wait for the disk.
//!
//! One bring-in is two linked requests: advice that starts all the reads, carried out by a kernel worker, and a read of the same
//! range that ends when every page is there. (A probe counts pages whose read is still under way, so the read is what tells.) What
//! it reads goes into one piece of scratch memory, over and over and by all at once: nobody looks at it, and it stays in the CPU's
//! cache. A fixed number is under way at a time, the others queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::squeue::Flags;
use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use millrace_engine::ids::ConnId;
use millrace_send::Absent;

use crate::mapping::Mapping;
use crate::token::{Kind, Token};

/// Bring-ins under way at a time: enough to keep a solid-state disk busy.
pub(crate) const READS_MAX: u32 = 32;

const SCRATCH_BYTES: usize = 64 * 1024;
const SEGMENTS_MAX: usize = 16;

/// Bytes of one bring-in; a longer one is cut, and the send after it finds the rest absent.
const READ_BYTES_MAX: u64 = (SCRATCH_BYTES * SEGMENTS_MAX) as u64;

/// A send that waits for its bytes.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) conn: ConnId,
    /// The budget the send was given.
    pub(crate) bytes_max: u64,
    /// Keeps the file open until the kernel is done with it.
    pub(crate) absent: Absent,
}

impl Waiting {
    /// Bytes to read, 1 to [`READ_BYTES_MAX`].
    fn bytes(&self) -> u64 {
        self.absent.bytes.clamp(1, READ_BYTES_MAX)
    }

    /// Whether a read that ended with this result brought everything in.
    ///
    /// # Errors
    /// The read failed, or the file is shorter than it was.
    pub(crate) fn check(&self, result: io::Result<u32>) -> io::Result<()> {
        if u64::from(result?) < self.bytes() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// What the kernel reads into; it may look at this until the read has ended.
    segments: [libc::iovec; SEGMENTS_MAX],
    /// The send in whose name a read is in flight.
    reading: Option<Waiting>,
}

/// All bring-ins of a shard.
#[derive(Debug)]
pub(crate) struct BringIn {
    /// Written by the kernel, read by nobody.
    scratch: Mapping,
    slots: Box<[Slot]>,
    queue: VecDeque<Waiting>,
}

impl BringIn {
    /// An idle pool.
    ///
    /// # Errors
    /// No memory for the scratch.
    pub(crate) fn new() -> io::Result<Self> {
        let scratch = Mapping::new(SCRATCH_BYTES)?;
        let segments = [libc::iovec { iov_base: scratch.start().as_ptr(), iov_len: 0 }; SEGMENTS_MAX];
        let slots = (0..READS_MAX).map(|_| Slot { generation: 0, segments, reading: None }).collect();
        Ok(BringIn { scratch, slots, queue: VecDeque::new() })
    }

    /// Adds a send that waits; [`next_reads`](Self::next_reads) starts it.
    pub(crate) fn add(&mut self, waiting: Waiting) {
        self.queue.push_back(waiting);
    }

    /// The requests of the next bring-in, to be submitted as one chain. Call until there is none.
    ///
    /// What they name stays in place until [`ended`](Self::ended): the segments and the file lie in the slot, and if the pool is
    /// dropped before, it leaks what the kernel may write to.
    pub(crate) fn next_reads(&mut self) -> Option<[squeue::Entry; 2]> {
        if self.queue.is_empty() {
            return None;
        }
        let (slot, number) = self.slots.iter_mut().zip(0..).find(|(slot, _)| slot.reading.is_none())?;
        let waiting = self.queue.pop_front()?;
        let bytes = waiting.bytes();
        let count = lay_out(&mut slot.segments, bytes);
        let file = Fd(waiting.absent.file.file().as_raw_fd());
        let advise = opcode::Fadvise::new(file, i64::try_from(bytes).ok()?, libc::POSIX_FADV_WILLNEED)
            .offset(waiting.absent.offset)
            .build()
            // Hard: advice that the file system refuses must not keep the read from being made.
            .flags(Flags::IO_HARDLINK | Flags::SKIP_SUCCESS)
            .user_data(Token::new(Kind::Advise, number, slot.generation).user_data());
        let read = opcode::Readv::new(file, slot.segments.as_ptr(), count)
            .offset(waiting.absent.offset)
            .build()
            .user_data(Token::new(Kind::Read, number, slot.generation).user_data());
        slot.reading = Some(waiting);
        Some([advise, read])
    }

    /// The read of a slot has ended. Returns the send that waited for it.
    ///
    /// # Panics
    /// When no such read is in flight: the kernel has completed something twice.
    pub(crate) fn ended(&mut self, slot: u32, generation: u32) -> Waiting {
        let held = self.slots.get_mut(slot as usize).filter(|held| held.generation == generation);
        let waiting = held.and_then(|held| {
            held.generation = held.generation.wrapping_add(1);
            held.reading.take()
        });
        waiting.expect("the kernel completed a read that is not in flight")
    }

    /// Forgets what has not begun. Returns the reads to cancel.
    pub(crate) fn stop(&mut self) -> Vec<Token> {
        self.queue.clear();
        let reading = self.slots.iter().zip(0..).filter(|(slot, _)| slot.reading.is_some());
        reading.map(|(slot, number)| Token::new(Kind::Read, number, slot.generation)).collect()
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.slots.iter().all(|slot| slot.reading.is_none())
    }
}

impl Drop for BringIn {
    fn drop(&mut self) {
        if !self.is_idle() {
            self.scratch.leak();
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

/// Lays `bytes` out over segments of the same scratch. Returns how many it takes.
fn lay_out(segments: &mut [libc::iovec; SEGMENTS_MAX], bytes: u64) -> u32 {
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut count = 0;
    for segment in segments.iter_mut() {
        if left == 0 {
            break;
        }
        segment.iov_len = left.min(SCRATCH_BYTES);
        left -= segment.iov_len;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: u64, lengths: &[usize]) {
        let mut segments = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SEGMENTS_MAX];
        let count = lay_out(&mut segments, bytes);
        let laid_out: Vec<usize> =
            segments.iter().take(count as usize).map(|segment| segment.iov_len).collect();
        assert_eq!(laid_out, lengths);
    }

    #[test]
    fn a_read_covers_exactly_what_is_absent() {
        check(1, &[1]);
        check(65_536, &[65_536]);
        check(65_537, &[65_536, 1]);
        check(READ_BYTES_MAX, &[65_536; SEGMENTS_MAX]);
    }
}
