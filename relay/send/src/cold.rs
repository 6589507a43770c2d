//! Bytes that are not in memory: how each send that waits for some gets them, and what has been read for it.
//!
//! What is asked for once is read past the page cache (`O_DIRECT`) into a buffer of the shard, copied into the socket and forgotten. What
//! is asked for again is brought into the page cache and sent like everything that is there. A back end asks for the
//! [next read](crate::sender::Sender::next_read), carries it out, and says how it [ended](crate::sender::Sender::finish).

mod asked;
mod buffer;
mod coming;
mod copies;
mod read;
mod staged;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use millrace_engine::counters::Counters;
use millrace_engine::ids::{ConnId, Now};
use millrace_pagecache::OpenFile;

use crate::outcome::{Absent, Residency, Way};
use asked::Asked;
use buffer::Pool;
pub use buffer::{BUFFER_BYTES, Buffer};
use coming::Coming;
pub use copies::COPY_BYTES_MAX;
use copies::Copies;
use read::BLOCK_BYTES;
pub use read::{DirectRead, Finished, Read, Resumed, Waiting};
pub(crate) use staged::{Staged, StagedFor};

/// A buffer whose reader took nothing for so long is given to somebody who waits for one.
const STALE_NS: u64 = 250_000_000;

/// How often buffers that nobody needs are freed.
const TRIM_NS: u64 = 2_000_000_000;

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
    /// What threads are bringing in.
    coming: Coming,
    /// Sends out of buffers.
    copies: Copies,
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
            coming: Coming::default(),
            copies: Copies::default(),
            telling: Vec::new(),
            now_ns: 0,
            trim_at_ns: 0,
        }
    }

    /// Buffers that can be in use at a time.
    pub(crate) fn buffers_max(&self) -> usize {
        self.pool.buffers_max()
    }

    /// All that is staged.
    pub(crate) fn staged(&self) -> &[Staged] {
        &self.staged
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
        self.coming.begin(&waiting.absent);
        self.counters.brought_in.increment();
        self.counters.brought_in_bytes.add(waiting.absent.bytes);
        Some(Read::BringIn(waiting))
    }

    /// A read ended. What becomes of the send that waited for it, whose connection may be closed by now.
    pub(crate) fn finish(&mut self, finished: Finished, is_open: bool) -> Resumed {
        if let Finished::BringIn(waiting, _) = &finished {
            self.coming.end(&waiting.absent);
        }
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
                buffer: Arc::new(buffer),
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

    /// Whether some of these bytes are being brought in. The kernel counts them as in memory from the moment they are asked for.
    pub(crate) fn is_coming(&self, file: &OpenFile, offset: u64, bytes: u64) -> bool {
        self.coming.has(file.identity(), offset, bytes)
    }

    /// Whose turn it is to be sent bytes out of buffers.
    pub(crate) fn copies(&self) -> &Copies {
        &self.copies
    }

    /// The same, to change it.
    pub(crate) fn copies_mut(&mut self) -> &mut Copies {
        &mut self.copies
    }

    /// So many bytes of each of these places were sent; the places as [`StagedFor::find`] gave them.
    pub(crate) fn consume(&mut self, sent: &[(usize, u64)]) {
        for (place, bytes) in sent {
            self.copies.copied(*bytes);
            if let Some(staged) = self.staged.get_mut(*place) {
                staged.left = staged.left.saturating_sub(*bytes);
                staged.used_ns = self.now_ns;
            }
        }
        self.release(|staged| staged.left == 0);
    }

    /// So many bytes out of this buffer were sent without a copy of ours.
    pub(crate) fn consume_of(&mut self, buffer: &Arc<Buffer>, bytes: u64) {
        if let Some(staged) = self.staged.iter_mut().find(|staged| Arc::ptr_eq(&staged.buffer, buffer)) {
            staged.left = staged.left.saturating_sub(bytes);
            staged.used_ns = self.now_ns;
        }
        self.release(|staged| staged.left == 0);
    }

    /// Nothing refers to this buffer any more in the place from which it is given back.
    pub(crate) fn give_back(&mut self, buffer: Arc<Buffer>) {
        self.pool.give_back_shared(buffer);
    }

    /// A connection is closed: what was read for it goes.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.copies.forget(conn);
        self.release(|staged| staged.conn == conn);
    }

    fn release(&mut self, is_over: impl Fn(&Staged) -> bool) {
        for staged in self.staged.extract_if(.., |staged| is_over(staged)) {
            self.pool.give_back_shared(staged.buffer);
        }
    }

    /// The buffer that its reader has left alone for longest, if that is long, and that no send refers to.
    fn take_stale(&mut self) -> Option<Buffer> {
        let unlent = self.staged.iter().enumerate().filter(|(_, staged)| !staged.is_lent());
        let stale = unlent.min_by_key(|(_, staged)| staged.used_ns);
        let (place, _) = stale.filter(|(_, staged)| staged.used_ns + STALE_NS <= self.now_ns)?;
        Arc::into_inner(self.staged.swap_remove(place).buffer)
    }

    /// A loop begins.
    pub(crate) fn begin_turn(&mut self, now: Now) {
        self.now_ns = now.monotonic_ns;
        self.copies.begin_turn();
        if self.now_ns >= self.trim_at_ns {
            self.trim_at_ns = self.now_ns + TRIM_NS;
            self.pool.trim();
        }
    }

    /// When there is something to do although nothing happens, in monotonic nanoseconds.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        let unlent = self.staged.iter().filter(|staged| !staged.is_lent());
        let stale = unlent.map(|staged| staged.used_ns + STALE_NS).min();
        let steal = stale.filter(|_| !self.to_read.is_empty());
        let trim = self.pool.is_held().then_some(self.trim_at_ns);
        [steal, trim, self.copies.deadline_ns()].into_iter().flatten().min()
    }
}

/// Whether an error says that the file system or the device cannot read past the page cache, or not so.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EBADF))
}
