//! Bytes that are not in memory: how each send that waits for some gets them, and what has been read for it.
//!
//! What is asked for once is read past the page cache (`O_DIRECT`) into a buffer of the shard, copied into the socket and forgotten. What
//! is asked for again is brought into the page cache and sent like everything that is there. A back end asks for the
//! [next read](crate::sender::Sender::next_read), carries it out, and says how it [ended](crate::sender::Sender::finish).

mod asked;
mod buffer;
mod staged;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;

use millrace_engine::counters::Counters;
use millrace_engine::ids::{ConnId, Now};
use millrace_pagecache::OpenFile;
use nix::errno::Errno;
use nix::sys::uio::pread;

use crate::outcome::{Absent, Residency, Way};
use crate::pipe::retry;
use asked::Asked;
use buffer::Pool;
pub use buffer::{BUFFER_BYTES, Buffer};
pub(crate) use staged::{Staged, StagedFor};

/// What offset, length and memory of a read past the page cache are multiples of. A device that wants more refuses, and is read through
/// the page cache.
const BLOCK_BYTES: u64 = 4096;

/// A buffer whose reader took nothing for so long is given to somebody who waits for one.
const STALE_NS: u64 = 250_000_000;

/// How often buffers that nobody needs are freed.
const TRIM_NS: u64 = 2_000_000_000;

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
    waiting: Waiting,
    buffer: Buffer,
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

/// The most that one read past the page cache gives of what begins at `offset`.
pub(crate) fn direct_bytes_max(offset: u64) -> u64 {
    BUFFER_BYTES as u64 - offset % BLOCK_BYTES
}

/// What a shard has under way for bytes that are not in memory.
#[derive(Debug)]
pub(crate) struct Cold {
    counters: Arc<Counters>,
    pool: Pool,
    asked: Asked,
    staged: Vec<Staged>,
    /// Sends that wait for a buffer.
    to_read: VecDeque<Waiting>,
    /// Sends that wait for the page cache.
    to_bring_in: VecDeque<Waiting>,
    /// Devices on which a read into the page cache was seen there afterwards. On others the kernel may not tell, and what is in memory
    /// would be read from the disk for ever.
    telling: Vec<u64>,
    now_ns: u64,
    trim_at_ns: u64,
}

impl Cold {
    /// Reads past the page cache into at most `buffers_max` buffers; with none, never.
    pub(crate) fn new(counters: Arc<Counters>, buffers_max: usize) -> Self {
        Cold {
            counters,
            pool: Pool::new(buffers_max),
            asked: Asked::default(),
            staged: Vec::new(),
            to_read: VecDeque::new(),
            to_bring_in: VecDeque::new(),
            telling: Vec::new(),
            now_ns: 0,
            trim_at_ns: 0,
        }
    }

    /// Buffers that can be in use at a time.
    pub(crate) fn buffers_max(&self) -> usize {
        self.pool.buffers_max()
    }

    /// What is staged, for one connection.
    pub(crate) fn staged_for(&self, conn: ConnId) -> StagedFor<'_> {
        StagedFor { conn, all: &self.staged }
    }

    /// Whether bytes of this file may be read past the page cache.
    pub(crate) fn may_read_directly(&self, file: &OpenFile) -> bool {
        self.pool.buffers_max() > 0 && self.telling.contains(&file.identity().0) && file.direct().is_some()
    }

    /// How these bytes, which may be read past the page cache, are to be had.
    pub(crate) fn decide(&mut self, file: &OpenFile, offset: u64, bytes: u64) -> Way {
        if self.asked.note(file.identity(), offset, bytes) { Way::BringIn } else { Way::Direct }
    }

    /// A send waits for its bytes from now on.
    pub(crate) fn wait(&mut self, waiting: Waiting) {
        match waiting.absent.way {
            Way::BringIn => self.to_bring_in.push_back(waiting),
            Way::Direct => {
                if !self.pool.has_free() {
                    self.counters.buffer_waits.increment();
                }
                self.to_read.push_back(waiting);
            }
        }
    }

    /// The next read to begin, in the order in which they were asked for; none while there is no buffer for it.
    pub(crate) fn next_read(&mut self) -> Option<Read> {
        if !self.to_read.is_empty()
            && let Some(buffer) = self.pool.take().or_else(|| self.take_stale())
        {
            let waiting = self.to_read.pop_front()?;
            return Some(Read::Direct(DirectRead { waiting, buffer }));
        }
        if self.pool.buffers_max() == 0 {
            // There is no memory for a single buffer.
            self.to_bring_in.append(&mut self.to_read);
        }
        let waiting = self.to_bring_in.pop_front()?;
        self.counters.brought_in.increment();
        self.counters.brought_in_bytes.add(waiting.absent.bytes);
        Some(Read::BringIn(waiting))
    }

    /// A read ended. What becomes of the send that waited for it, whose connection may be closed by now.
    pub(crate) fn finish(&mut self, finished: Finished, is_open: bool) -> Resumed {
        match finished {
            Finished::BringIn(waiting, Ok(is_resident)) => {
                let device = waiting.absent.file.identity().0;
                if is_resident && !self.telling.contains(&device) {
                    self.telling.push(device);
                }
                Resumed::Send { bytes_max: waiting.bytes_max, residency: Residency::Assume }
            }
            Finished::BringIn(_, Err(_)) => Resumed::Unreadable,
            Finished::Direct(read, result) => self.finish_direct(read, result, is_open),
        }
    }

    fn finish_direct(&mut self, read: DirectRead, result: io::Result<usize>, is_open: bool) -> Resumed {
        let DirectRead { mut waiting, buffer } = read;
        let Absent { file, offset, bytes, .. } = &waiting.absent;
        let skip = usize::try_from(offset % BLOCK_BYTES).unwrap_or(0);
        let got = *result.as_ref().unwrap_or(&0);
        // Past the end of the file there is less than was asked for.
        let useful = got.saturating_sub(skip).min(usize::try_from(*bytes).unwrap_or(usize::MAX));
        self.counters.read_direct.increment();
        self.counters.read_direct_bytes.add(got as u64);
        if is_open && useful > 0 {
            self.staged.push(Staged {
                conn: waiting.conn,
                file: Arc::clone(file),
                offset: *offset,
                skip,
                bytes: useful,
                left: useful as u64,
                buffer,
                used_ns: self.now_ns,
            });
            return Resumed::Send { bytes_max: waiting.bytes_max, residency: Residency::Ask };
        }
        self.pool.give_back(buffer);
        if is_open {
            if result.is_err_and(|error| is_refusal(&error)) {
                file.refuse_direct();
            }
            // The page cache has the last word on whether the bytes can be had.
            waiting.absent.way = Way::BringIn;
            self.to_bring_in.push_back(waiting);
        }
        Resumed::Waits
    }

    /// So many bytes of each of these places were sent; the places as [`StagedFor::find`] gave them.
    pub(crate) fn consume(&mut self, sent: &[(usize, u64)]) {
        for (place, bytes) in sent {
            if let Some(staged) = self.staged.get_mut(*place) {
                staged.left = staged.left.saturating_sub(*bytes);
                staged.used_ns = self.now_ns;
            }
        }
        self.release(|staged| staged.left == 0);
    }

    /// A connection is closed: what was read for it goes.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.release(|staged| staged.conn == conn);
    }

    fn release(&mut self, is_over: impl Fn(&Staged) -> bool) {
        for staged in self.staged.extract_if(.., |staged| is_over(staged)) {
            self.pool.give_back(staged.buffer);
        }
    }

    /// The buffer that its reader has left alone for longest, if that is long.
    fn take_stale(&mut self) -> Option<Buffer> {
        let stale = self.staged.iter().enumerate().min_by_key(|(_, staged)| staged.used_ns);
        let (place, _) = stale.filter(|(_, staged)| staged.used_ns + STALE_NS <= self.now_ns)?;
        Some(self.staged.swap_remove(place).buffer)
    }

    /// A loop begins.
    pub(crate) fn begin_turn(&mut self, now: Now) {
        self.now_ns = now.monotonic_ns;
        if self.now_ns >= self.trim_at_ns {
            self.trim_at_ns = self.now_ns + TRIM_NS;
            self.pool.trim();
        }
    }

    /// When there is something to do although nothing happens, in monotonic nanoseconds.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        let stale = self.staged.iter().map(|staged| staged.used_ns + STALE_NS).min();
        let steal = stale.filter(|_| !self.to_read.is_empty());
        let trim = self.pool.is_held().then_some(self.trim_at_ns);
        [steal, trim].into_iter().flatten().min()
    }
}

/// Whether an error says that the file system or the device cannot read past the page cache, or not so.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EBADF))
}
