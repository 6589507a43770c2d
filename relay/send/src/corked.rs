//! Sending by `send` and `sendfile`, one call for each run, with nothing going out in crumbs: `MSG_MORE` before what follows at once,
//! and `TCP_CORK` around several files' worth, because `sendfile` knows no `MSG_MORE`.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::sendfile::sendfile;
use socket2::SockRef;

use crate::pipe::retry;
use crate::plan::{Plan, Position, Run, Source};
use crate::sender::{End, Progress};

/// What padding is sent from.
static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// Runs from which on a cork pays for its two system calls. Two are a head and its body, for which `MSG_MORE` does.
const CORK_RUNS_MIN: usize = 3;

/// Sends `plan`, run by run.
pub(crate) fn send(socket: BorrowedFd<'_>, plan: &Plan<'_>) -> Progress {
    let options = SockRef::from(&socket);
    // Sockets that know no cork (a test's socket pair) do without.
    let corked = plan.runs() >= CORK_RUNS_MIN && plan.has_files() && options.set_tcp_cork(true).is_ok();
    let progress = send_runs(socket, plan);
    if corked {
        // Fails only on a socket that is broken, which the next call finds out.
        let _ = options.set_tcp_cork(false);
    }
    progress
}

fn send_runs(socket: BorrowedFd<'_>, plan: &Plan<'_>) -> Progress {
    let mut position = Position::default();
    let mut sent = 0;
    while let Some(run) = plan.at(position) {
        let more = sent + run.bytes < plan.bytes();
        match send_run(socket, plan, run, more) {
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

/// Sends a part of the run, at least one byte.
fn send_run(socket: BorrowedFd<'_>, plan: &Plan<'_>, run: Run<'_>, more: bool) -> nix::Result<u64> {
    let bytes = usize::try_from(run.bytes).unwrap_or(usize::MAX);
    let memory = match run.source {
        Source::Memory(bytes) | Source::Head(bytes) => bytes,
        Source::Zeros => &ZEROS,
        Source::File(file, offset) => return send_file(socket, plan, file, offset, bytes),
    };
    let memory = &memory[..bytes.min(memory.len())];
    let more = more || memory.len() < bytes;
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | if more { libc::MSG_MORE } else { 0 };
    let taken = retry(|| SockRef::from(&socket).send_with_flags(memory, flags).map_err(errno))?;
    Ok(taken as u64)
}

fn send_file(
    socket: BorrowedFd<'_>,
    plan: &Plan<'_>,
    file: usize,
    offset: u64,
    bytes: usize,
) -> nix::Result<u64> {
    let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    match retry(|| sendfile(socket, plan.file(file), Some(&mut offset.clone()), bytes))? {
        // The file is shorter than it was.
        0 => Err(Errno::ENODATA),
        taken => Ok(taken as u64),
    }
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
