//! Sending by `send` and `sendfile`, one call for each run, with nothing going out in crumbs: `MSG_MORE` before what follows at once,
//! and `TCP_CORK` around several files' worth, because `sendfile` knows no `MSG_MORE`.
//!
//! `send` is called through rustix: in the C library it is a point at which a thread may be cancelled, and pays for that each time.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::sendfile::sendfile;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use crate::pipe::retry;
use crate::plan::{Plan, Position, Run, Source};
use crate::sender::{End, Progress};
use crate::socket::corked;

/// What padding is sent from.
static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// Runs from which on a cork pays for its two system calls. Two are a head and its body, for which `MSG_MORE` does.
const CORK_RUNS_MIN: usize = 3;

/// Runs in memory that go out in one call: those of a batch of blocks.
const SLICES_MAX: usize = 104;

/// Bytes from which on it does as well: more than one segment has room for.
pub(crate) const CORK_BYTES_MIN: u64 = 64 * 1024;

/// Sends `plan`, run by run.
pub(crate) fn send(socket: BorrowedFd<'_>, plan: &Plan<'_>) -> Progress {
    let pays = plan.runs() >= CORK_RUNS_MIN || plan.bytes() > CORK_BYTES_MIN;
    if pays && plan.has_files() {
        corked(socket, || send_runs(socket, plan))
    } else {
        send_runs(socket, plan)
    }
}

fn send_runs(socket: BorrowedFd<'_>, plan: &Plan<'_>) -> Progress {
    let mut position = Position::default();
    let mut sent = 0;
    while let Some(run) = plan.at(position) {
        let taken = match run.source {
            Source::File(file, offset) => send_file(socket, plan, file, offset, run.bytes),
            _ => send_memory(socket, plan, position, plan.bytes() - sent),
        };
        match taken {
            // A call may take less than it was given without the socket being full; the next one says so if it is.
            Ok(taken) => {
                sent += taken;
                position = plan.after(position, taken);
            }
            Err(error) => return Progress { sent, end: End::of(error) },
        }
    }
    Progress { sent, end: End::Complete }
}

/// Sends the head of an answer, as much of it as goes at once, where more follows it.
pub(crate) fn send_head(socket: BorrowedFd<'_>, head: &[u8]) -> Progress {
    match send_bytes(socket, head, true) {
        Ok(sent) => Progress { sent, end: End::Complete },
        Err(error) => Progress { sent: 0, end: End::of(error) },
    }
}

/// Sends a part of the runs that follow each other in memory, at least one byte, of `left` bytes in all.
pub(crate) fn send_memory(
    socket: BorrowedFd<'_>,
    plan: &Plan<'_>,
    mut position: Position,
    left: u64,
) -> nix::Result<u64> {
    // The head of an answer, behind which a file follows, needs no table.
    if let Some(Run { source: Source::Memory(memory), bytes }) = plan.at(position)
        && plan.at(plan.after(position, bytes)).is_none_or(|next| matches!(next.source, Source::File(..)))
    {
        let memory = usize::try_from(bytes).ok().and_then(|bytes| memory.get(..bytes)).unwrap_or(memory);
        return send_bytes(socket, memory, (memory.len() as u64) < left);
    }
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let (mut count, mut bytes) = (0, 0);
    while let (Some(run), Some(slice)) = (plan.at(position), slices.get_mut(count)) {
        let memory = match run.source {
            Source::Memory(memory) | Source::Head(memory) | Source::Staged(_, memory) => memory,
            Source::Zeros => &ZEROS,
            Source::File(..) => break,
        };
        let length = usize::try_from(run.bytes).map_or(memory.len(), |bytes| bytes.min(memory.len()));
        *slice = IoSlice::new(&memory[..length]);
        count += 1;
        bytes += length as u64;
        position = plan.after(position, length as u64);
    }
    let slices = &slices[..count];
    let taken = retry(|| {
        sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags(bytes < left)).map_err(errno)
    })?;
    Ok(taken as u64)
}

/// Sends as much of `bytes` as goes at once; `more` is whether something follows.
fn send_bytes(socket: BorrowedFd<'_>, bytes: &[u8], more: bool) -> nix::Result<u64> {
    let taken = retry(|| rustix::net::send(socket, bytes, flags(more)).map_err(errno))?;
    Ok(taken as u64)
}

fn flags(more: bool) -> SendFlags {
    let more = if more { SendFlags::MORE } else { SendFlags::empty() };
    SendFlags::NOSIGNAL | SendFlags::DONTWAIT | more
}

fn send_file(
    socket: BorrowedFd<'_>,
    plan: &Plan<'_>,
    file: usize,
    offset: u64,
    bytes: u64,
) -> nix::Result<u64> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    match retry(|| sendfile(socket, plan.file(file), Some(&mut offset.clone()), bytes))? {
        // The file is shorter than it was.
        0 => Err(Errno::ENODATA),
        taken => Ok(taken as u64),
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
