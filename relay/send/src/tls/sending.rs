//! The send path of connections with TLS: payload is gathered, encrypted and copied into the socket, a batch at a time.

use std::io;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use millrace_engine::ids::ConnId;
use socket2::SockRef;

use super::session::{Phase, RECORD_BYTES_MAX, Records, Session};
use super::{Flushed, Layer, find};
use crate::calls;
use crate::plan::{Plan, Position, Source};
use crate::sender::{End, Progress};
use crate::socket::corked;

/// Payload that is encrypted before the socket is asked to take it: what a reader that takes nothing leaves in memory at most.
const BATCH_BYTES: usize = 4 * RECORD_BYTES_MAX;

impl Progress {
    pub(super) fn as_flushed(&self) -> Flushed {
        if self.end == End::Blocked { Flushed::Blocked } else { Flushed::All }
    }
}

/// How far a send came, in payload.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) progress: Progress,
    /// What was encrypted, and so need not be read again.
    pub(crate) encrypted: u64,
}

impl Layer {
    /// Sends what was encrypted before, without counting more than `payload_max`; none where nothing was.
    pub(crate) fn send_rest(
        &mut self,
        conn: ConnId,
        socket: BorrowedFd<'_>,
        payload_max: u64,
    ) -> Option<Progress> {
        let session = find(&mut self.sessions, conn)?;
        if session.outgoing.is_empty() {
            return None;
        }
        let progress = flush(session, socket, payload_max);
        session.outgoing.share(&mut self.spare);
        // What carries no payload may have been all that there was.
        let goes_on = progress.sent == 0 && progress.end == End::Complete && session.outgoing.is_empty();
        (!goes_on).then_some(progress)
    }

    /// Sends `plan`, when nothing is left of what was sent before.
    pub(crate) fn send(&mut self, conn: ConnId, socket: BorrowedFd<'_>, plan: &Plan<'_>) -> Sealed {
        let Layer { sessions, gathered, spare, .. } = self;
        let broken = Sealed { progress: Progress { sent: 0, end: End::Broken }, encrypted: 0 };
        let Some(session) = find(sessions, conn).filter(|session| session.phase == Phase::Open) else {
            return broken;
        };
        session.outgoing.share(spare);
        let sealed = match plan.bytes() > BATCH_BYTES as u64 {
            true => corked(socket, || send_batches(session, socket, plan, gathered)),
            false => send_batches(session, socket, plan, gathered),
        };
        session.outgoing.share(spare);
        sealed
    }

    /// Sends what the protocol itself has to say.
    pub(crate) fn flush(&mut self, conn: ConnId, socket: BorrowedFd<'_>) -> Flushed {
        let Some(session) = find(&mut self.sessions, conn) else { return Flushed::All };
        let progress = flush(session, socket, 0);
        session.outgoing.share(&mut self.spare);
        progress.as_flushed()
    }

    /// Ends what is sent, and the socket's side of it behind that.
    pub(crate) fn shut_down(&mut self, conn: ConnId, socket: BorrowedFd<'_>) -> Flushed {
        let Some(session) = find(&mut self.sessions, conn) else { return Flushed::All };
        session.end();
        // A few bytes that must not wait for a slow reader: the connection is closed soon, whether it has read or not.
        let _ = SockRef::from(&socket).set_tcp_notsent_lowat(u32::MAX);
        let progress = flush(session, socket, 0);
        session.outgoing.share(&mut self.spare);
        progress.as_flushed()
    }
}

fn send_batches(
    session: &mut Session,
    socket: BorrowedFd<'_>,
    plan: &Plan<'_>,
    gathered: &mut Vec<u8>,
) -> Sealed {
    gathered.resize(BATCH_BYTES, 0);
    let mut position = Position::default();
    let mut sealed = Sealed { progress: Progress { sent: 0, end: End::Complete }, encrypted: 0 };
    loop {
        let bytes = match gather(plan, position, gathered) {
            Ok(0) => return sealed,
            Ok(bytes) => bytes,
            Err(_) => {
                sealed.progress.end = End::Unreadable;
                return sealed;
            }
        };
        for payload in gathered[..bytes].chunks(RECORD_BYTES_MAX) {
            if session.seal(payload).is_err() {
                sealed.progress.end = End::Broken;
                return sealed;
            }
        }
        position = plan.after(position, bytes as u64);
        sealed.encrypted += bytes as u64;
        // The plan is within the budget.
        let flushed = flush(session, socket, u64::MAX);
        sealed.progress.sent += flushed.sent;
        sealed.progress.end = flushed.end;
        if flushed.end != End::Complete {
            return sealed;
        }
    }
}

/// Copies what the plan has from `position` on, as much as there is room for or can be read. Files are read by system calls, since a
/// mapping of one that becomes shorter is a signal.
fn gather(plan: &Plan<'_>, mut position: Position, room: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(run) = plan.at(position).filter(|_| filled < room.len()) {
        let left = &mut room[filled..];
        let bytes = usize::try_from(run.bytes).map_or(left.len(), |bytes| bytes.min(left.len()));
        let got = match run.source {
            Source::Memory(memory) | Source::Head(memory) | Source::Staged(_, memory) => {
                let bytes = bytes.min(memory.len());
                left[..bytes].copy_from_slice(&memory[..bytes]);
                Ok(bytes)
            }
            Source::Zeros => {
                left[..bytes].fill(0);
                Ok(bytes)
            }
            Source::File(file, offset) => read(plan, file, offset, &mut left[..bytes]),
        };
        match got {
            Ok(got) => {
                filled += got;
                position = plan.after(position, got as u64);
            }
            // What comes before it is sent first.
            Err(_) if filled > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn read(plan: &Plan<'_>, file: usize, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    loop {
        calls::note();
        match plan.file(file).file().read_at(into, offset) {
            // The file is shorter than it was.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Gives the socket as much as it takes and as `payload_max` allows; behind the last of it, its end.
pub(super) fn flush(session: &mut Session, socket: BorrowedFd<'_>, payload_max: u64) -> Progress {
    if let Records::Kernel(handed) = &mut session.records {
        return handed.flush(socket);
    }
    let mut sent = 0;
    loop {
        let sendable = session.outgoing.sendable(payload_max - sent);
        if sendable.is_empty() {
            break;
        }
        calls::note();
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        match SockRef::from(&socket).send_with_flags(sendable, flags) {
            Ok(taken) => sent += session.outgoing.take(taken),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Progress { sent, end: End::Blocked };
            }
            Err(_) => return Progress { sent, end: End::Broken },
        }
    }
    if session.is_last && session.outgoing.is_empty() {
        // It fails where the peer was first to break the connection, which receiving reports.
        let _ = SockRef::from(&socket).shutdown(Shutdown::Write);
    }
    Progress { sent, end: End::Complete }
}
