//! Sending by page reference: mapped bytes go into the pipe by `vmsplice`, and from there into the socket, without being copied.
//!
//! Sound only because what is sent this way never changes: visible bytes of the store, sealed header tables, sealed zeros.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use crate::corked::{CORK_BYTES_MIN, send_memory};
use crate::pipe::{PAGE_BYTES, Pipe};
use crate::plan::{Plan, Position, Run, Source};
use crate::sealed::Sealed;
use crate::sender::{End, Progress};
use crate::slice::Slice;
use crate::socket::{corked, send_room};

/// Slices given to one `vmsplice`. A pipe full of blocks takes 102.
const SLICES_MAX: usize = 128;

/// Zeros at hand for padding.
const ZEROS_BYTES: usize = 64 * 1024;

/// A batch that is put into the pipe however little room the socket seems to have: room is an estimate, and only a socket that has
/// refused bytes tells when it takes more.
const BATCH_BYTES_MIN: u64 = 16 * 1024;

/// Batches no larger than this are not worth two system calls that ask for the room; an idle socket takes them whole.
const BATCH_BYTES_UNASKED: u64 = 64 * 1024;

/// What sending by reference needs.
#[derive(Debug)]
pub(crate) struct References {
    pipe: Pipe,
    zeros: Sealed,
}

impl References {
    pub(crate) fn new(pipe: Pipe) -> io::Result<Self> {
        let zeros = Sealed::new("millrace-zeros", |file| file.write_all(&[0; ZEROS_BYTES]))?;
        Ok(References { pipe, zeros })
    }
}

/// Sends `plan`, a batch at a time.
pub(crate) fn send(references: &mut References, socket: BorrowedFd<'_>, plan: &Plan<'_>) -> Progress {
    // A batch of blocks is one call as it is, and its heads end its segments early anyway.
    if plan.has_heads() || plan.bytes() <= CORK_BYTES_MIN {
        return send_batches(references, socket, plan, Position::default(), 0);
    }
    corked(socket, || match plan.at(Position::default()) {
        // The head of an answer takes no room in the pipe, which has just enough for 1 MiB.
        Some(Run { source: Source::Memory(_), .. }) => {
            match send_memory(socket, plan, Position::default(), plan.bytes()) {
                Ok(sent) => {
                    let position = plan.after(Position::default(), sent);
                    send_batches(references, socket, plan, position, sent)
                }
                Err(error) => Progress { sent: 0, end: End::of(error) },
            }
        }
        _ => send_batches(references, socket, plan, Position::default(), 0),
    })
}

/// Sends what follows `position`, before which `sent` bytes were sent already.
fn send_batches(
    References { pipe, zeros }: &mut References,
    socket: BorrowedFd<'_>,
    plan: &Plan<'_>,
    mut position: Position,
    mut sent: u64,
) -> Progress {
    // Behind the head of an answer, which an idle socket takes whole most of the time.
    let mut unasked_max = if sent > 0 { plan.bytes() } else { BATCH_BYTES_UNASKED };
    while sent < plan.bytes() {
        let left = plan.bytes() - sent;
        let batch_max = if left <= unasked_max { left } else { left.min(room(socket)) };
        unasked_max = BATCH_BYTES_UNASKED;
        let filled = fill(pipe, zeros, plan, position, batch_max);
        let batch = pipe.held() as u64;
        if let (Err(error), 0) = (filled, batch) {
            return Progress { sent, end: End::of(error) };
        }
        let taken = match pipe.send(socket, sent + batch < plan.bytes()) {
            Ok(taken) => taken as u64,
            Err(error) => return Progress { sent, end: End::of(error) },
        };
        sent += taken;
        if taken < batch {
            return Progress { sent, end: End::Blocked };
        }
        position = plan.after(position, taken);
    }
    Progress { sent, end: End::Complete }
}

/// Bytes that the socket is likely to take.
fn room(socket: BorrowedFd<'_>) -> u64 {
    send_room(socket).unwrap_or(0).max(BATCH_BYTES_MIN)
}

/// Puts up to `bytes_max` bytes of `plan` from `position` on into the empty `pipe`. On an error the pipe holds what came before it.
fn fill(
    pipe: &mut Pipe,
    zeros: &[u8],
    plan: &Plan<'_>,
    mut position: Position,
    bytes_max: u64,
) -> nix::Result<()> {
    pipe.drain()?;
    let mut gathered = Gathered::new(pipe.slots());
    let mut left = bytes_max;
    while let Some(run) = plan.at(position).filter(|_| left > 0 && gathered.slots > 0) {
        let bytes = usize::try_from(run.bytes.min(left)).unwrap_or(usize::MAX);
        let slice = match run.source {
            Source::Head(head) => Some(Slice::of_memory(head, bytes)),
            Source::Zeros => Some(Slice::of_memory(zeros, bytes)),
            Source::File(file, offset) => Slice::of_file(plan.file(file), offset, bytes),
            Source::Memory(_) | Source::Staged(..) => None,
        };
        let put = match (slice, run.source) {
            (Some(slice), _) => gathered.push(pipe, slice)?,
            (None, Source::Memory(memory) | Source::Staged(_, memory)) => {
                gathered.copy(pipe, &memory[..bytes.min(memory.len())])?
            }
            (None, Source::File(file, offset)) => {
                gathered.reference_file(pipe, plan.file(file).as_fd(), offset, bytes)?
            }
            (None, Source::Head(_) | Source::Zeros) => return Err(Errno::EFAULT),
        };
        left -= put as u64;
        position = plan.after(position, put as u64);
    }
    gathered.flush(pipe)
}

/// Slices on their way into the pipe: one system call for many.
struct Gathered<'a> {
    slices: [Slice<'a>; SLICES_MAX],
    count: usize,
    bytes: usize,
    /// Slots of the pipe that nothing is meant for yet.
    slots: usize,
}

impl<'a> Gathered<'a> {
    fn new(slots: usize) -> Self {
        Gathered { slices: [Slice::EMPTY; SLICES_MAX], count: 0, bytes: 0, slots }
    }

    /// Adds as much of `slice` as there are slots for.
    fn push(&mut self, pipe: &mut Pipe, slice: Slice<'a>) -> nix::Result<usize> {
        if self.count == SLICES_MAX {
            self.flush(pipe)?;
        }
        let (slice, touched) = slice.within(self.slots);
        self.slots -= touched;
        self.slices[self.count] = slice;
        self.count += 1;
        self.bytes += slice.bytes();
        Ok(slice.bytes())
    }

    /// Puts what was added into the pipe.
    fn flush(&mut self, pipe: &mut Pipe) -> nix::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let taken = pipe.reference(&self.slices[..self.count])?;
        // A page that cannot be had ends the call early, and is an error of its own only when it comes first.
        let whole = taken == self.bytes;
        self.count = 0;
        self.bytes = 0;
        if whole { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Puts a copy of `memory` into the pipe.
    fn copy(&mut self, pipe: &mut Pipe, memory: &[u8]) -> nix::Result<usize> {
        self.flush(pipe)?;
        let put = pipe.copy(&memory[..memory.len().min(self.slots * PAGE_BYTES)])?;
        self.slots -= put.div_ceil(PAGE_BYTES).min(self.slots);
        Ok(put)
    }

    /// Puts pages of a file into the pipe that are not mapped, as when the process has used up its mappings.
    fn reference_file(
        &mut self,
        pipe: &mut Pipe,
        file: BorrowedFd<'_>,
        offset: u64,
        bytes: usize,
    ) -> nix::Result<usize> {
        self.flush(pipe)?;
        let into_page = usize::try_from(offset % PAGE_BYTES as u64).unwrap_or(0);
        let put = pipe.reference_file(file, offset, bytes.min(self.slots * PAGE_BYTES - into_page))?;
        self.slots -= (into_page + put).div_ceil(PAGE_BYTES).min(self.slots);
        if put == 0 { Err(Errno::ENODATA) } else { Ok(put) }
    }
}
