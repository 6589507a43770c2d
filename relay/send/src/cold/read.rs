//! Reads of what is not in memory: what waits for them, how they are carried out, and how they end.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;

use millrace_engine::ids::ConnId;
use nix::errno::Errno;
use nix::sys::uio::pread;

use super::buffer::{BUFFER_BYTES, Buffer};
use crate::outcome::{Absent, Residency};
use crate::pipe::retry;

/// What offset, length and memory of a read past the page cache are multiples of. A device that wants more refuses, and is read through
/// the page cache.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// A send that waits for its bytes.
#[derive(Debug)]
pub struct Waiting {
    /// Whose send it is. By the time the bytes are there it may be closed.
    pub conn: ConnId,
    /// The budget the send was given.
    pub bytes_max: u64,
    /// What it waits for. Keeps the file open until the kernel is done with it.
    pub absent: Absent,
}

/// A read to be carried out by a back end.
#[derive(Debug)]
pub enum Read {
    /// Into the page cache: [`Absent::bring_in`].
    BringIn(Waiting),
    /// Into a buffer.
    Direct(DirectRead),
}

/// A read that ended.
#[derive(Debug)]
pub enum Finished {
    /// Into the page cache, and whether the bytes were then seen to be there.
    BringIn(Waiting, io::Result<bool>),
    /// Into a buffer, and how many bytes the kernel put there.
    Direct(DirectRead, io::Result<usize>),
}

impl Finished {
    /// The connection that waited for it.
    #[must_use]
    pub fn conn(&self) -> ConnId {
        match self {
            Finished::BringIn(waiting, _) => waiting.conn,
            Finished::Direct(read, _) => read.waiting.conn,
        }
    }
}

/// What follows from a read that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// Send again.
    Send {
        /// The budget the send was given.
        bytes_max: u64,
        /// Whether to ask what is in memory.
        residency: Residency,
    },
    /// The bytes cannot be had: answer the send so.
    Unreadable,
    /// It waits for another read.
    Waits,
}

/// A read past the page cache, and the buffer that it fills. Whoever carries it out keeps it in place until the kernel is done.
#[derive(Debug)]
pub struct DirectRead {
    pub(super) waiting: Waiting,
    pub(super) buffer: Buffer,
}

impl DirectRead {
    /// The descriptor to read from.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        // The kernel answers EBADF to -1, which is as good as any other refusal.
        self.waiting.absent.file.direct().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Where in the file to begin, a multiple of what the device needs.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.waiting.absent.offset / BLOCK_BYTES * BLOCK_BYTES
    }

    /// How many bytes to read, likewise a multiple, at most [`BUFFER_BYTES`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        let end = self.waiting.absent.offset + self.waiting.absent.bytes;
        let bytes = end.next_multiple_of(BLOCK_BYTES) - self.offset();
        usize::try_from(bytes).map_or(BUFFER_BYTES, |bytes| bytes.min(BUFFER_BYTES))
    }

    /// Where to put them: room for [`bytes`](Self::bytes), which stays where it is as long as this lives.
    pub fn start(&mut self) -> NonNull<u8> {
        self.buffer.start()
    }

    /// Carries it out and waits for it. How many bytes came.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn run(&mut self) -> io::Result<usize> {
        let (offset, bytes) = (self.offset(), self.bytes());
        let offset = i64::try_from(offset).map_err(io::Error::other)?;
        let file = self.waiting.absent.file.direct().ok_or(Errno::EBADF)?;
        let memory = &mut self.buffer.bytes_mut()[..bytes];
        Ok(retry(|| pread(file, memory, offset))?)
    }
}
