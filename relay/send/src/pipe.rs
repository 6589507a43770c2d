//! The pipe that page references pass through on their way into a socket. It is empty after every operation, so that no slow reader
//! holds a pipe, and nothing meant for one client can reach another.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::{pipe2, write};

use crate::calls;
use crate::slice::Slice;

/// Bytes of a page; a pipe has a slot for each.
pub(crate) const PAGE_BYTES: usize = 4096;

/// What a pipe is asked to hold. The kernel grants less where a user has many pipes (`pipe-user-pages-soft`).
const WANTED_BYTES: i32 = 1 << 20;

/// A pipe and where to throw what a socket did not take.
#[derive(Debug)]
pub(crate) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    null: File,
    slots: usize,
    /// Bytes in the pipe.
    held: usize,
}

impl Pipe {
    /// An empty pipe of 1 MiB, or of whatever is granted.
    pub(crate) fn new() -> nix::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let granted = match fcntl(&writer, FcntlArg::F_SETPIPE_SZ(WANTED_BYTES)) {
            Ok(granted) => granted,
            Err(_) => fcntl(&writer, FcntlArg::F_GETPIPE_SZ)?,
        };
        let null = OpenOptions::new().write(true).open("/dev/null").map_err(|_| Errno::last())?;
        let slots = usize::try_from(granted).unwrap_or(0) / PAGE_BYTES;
        Ok(Pipe { reader, writer, null, slots: slots.max(1), held: 0 })
    }

    /// Pages the pipe holds. Each slice, each copy and each page that a slice touches takes one.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes that were put in and not yet sent.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Appends references to the pages of `slices`, whose bytes must never change again: nobody says when they have been sent. Returns
    /// how many bytes were taken, fewer when a page cannot be had.
    pub(crate) fn reference(&mut self, slices: &[Slice<'_>]) -> nix::Result<usize> {
        let taken = retry(|| {
            let writer = self.writer.as_raw_fd();
            // SAFETY: `Slice` is an iovec (`repr(transparent)`), of which there are `slices.len()`; each names memory that stays mapped
            // while it is borrowed, and the kernel only takes references to its pages.
            let taken = unsafe {
                libc::vmsplice(writer, slices.as_ptr().cast(), slices.len(), libc::SPLICE_F_NONBLOCK)
            };
            Errno::result(taken)
        })?;
        let taken = usize::try_from(taken).unwrap_or(0);
        self.held += taken;
        Ok(taken)
    }

    /// Appends a copy of `bytes`, which may change afterwards.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> nix::Result<usize> {
        let taken = retry(|| write(&self.writer, bytes))?;
        self.held += taken;
        Ok(taken)
    }

    /// Appends references to pages of a file without a mapping. 0 at the end of the file.
    pub(crate) fn reference_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        bytes: usize,
    ) -> nix::Result<usize> {
        let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        let taken = retry(|| splice(file, Some(&mut offset.clone()), &self.writer, None, bytes, flags))?;
        self.held += taken;
        Ok(taken)
    }

    /// Moves what the pipe holds into `socket` and throws the rest away, so that the pipe is empty again. Returns how many bytes went
    /// out; fewer than were held means that the socket is full. `more` holds back a last short segment for what follows at once.
    ///
    /// `splice` knows no `MSG_NOSIGNAL`: a broken socket is an `EPIPE` here because Rust programs ignore SIGPIPE.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>, more: bool) -> nix::Result<usize> {
        let mut flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        flags.set(SpliceFFlags::SPLICE_F_MORE, more);
        let sent = retry(|| splice(&self.reader, None, socket, None, self.held, flags));
        self.held -= sent.unwrap_or(0).min(self.held);
        self.drain()?;
        match sent {
            Err(Errno::EAGAIN) => Ok(0),
            sent => sent,
        }
    }

    /// Takes into account that `bytes` were read from the pipe by other means.
    pub(crate) fn note_read(&mut self, bytes: usize) {
        self.held -= bytes.min(self.held);
    }

    /// Throws away what the pipe holds. Nothing where it is empty.
    pub(crate) fn drain(&mut self) -> nix::Result<()> {
        while self.held > 0 {
            let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
            match retry(|| splice(&self.reader, None, &self.null, None, self.held, flags)) {
                Ok(thrown @ 1..) => self.held -= thrown.min(self.held),
                // Whatever is still in this pipe must not reach anybody: a new one takes its place.
                _ => *self = Pipe::new()?,
            }
        }
        Ok(())
    }
}

impl AsFd for Pipe {
    /// The end that is read.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        calls::note();
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_pipe_is_empty_after_every_send() {
        let (socket, _never_reads) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let memory = vec![7; 100_000];
        let mut pipe = Pipe::new().unwrap();
        let mut short = 0;
        // Short once, then refused altogether.
        while short < 2 {
            let put =
                pipe.reference(&[Slice::of_memory(&memory, 60_000)]).unwrap() + pipe.copy(b"head").unwrap();
            assert_eq!((put, pipe.held()), (60_004, 60_004));
            let sent = pipe.send(socket.as_fd(), false).unwrap();
            short += usize::from(sent < put);
            assert_eq!(pipe.held(), 0);
            assert_eq!(nix::unistd::read(&pipe, &mut [0]), Err(Errno::EAGAIN), "after {sent} of {put} bytes");
        }
    }
}
