//! Memory that files are read into past the page cache.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Advice, MmapMut};

/// Bytes of a buffer: one huge page, which the kernel pins and hands to the disk in one piece.
pub const BUFFER_BYTES: usize = 2 << 20;

/// One buffer, aligned to a page.
#[derive(Debug)]
pub struct Buffer(MmapMut);

impl Buffer {
    fn new() -> io::Result<Self> {
        let memory = MmapMut::map_anon(BUFFER_BYTES)?;
        // Where there are no transparent huge pages it is made of small ones.
        let _ = memory.advise(Advice::HugePage);
        Ok(Buffer(memory))
    }

    /// Where it begins, for who writes to it behind the compiler's back.
    pub fn start(&mut self) -> NonNull<u8> {
        NonNull::from(&mut self.0[..]).cast()
    }

    /// All of it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The buffers of a shard, made when they are needed.
#[derive(Debug)]
pub(crate) struct Pool {
    buffers_max: usize,
    /// Those that exist, wherever they are.
    made: usize,
    free: Vec<Buffer>,
    /// The fewest that were free since the last [`trim`](Pool::trim).
    idle: usize,
}

impl Pool {
    pub(crate) fn new(buffers_max: usize) -> Self {
        Pool { buffers_max, made: 0, free: Vec::new(), idle: 0 }
    }

    /// How many there can be.
    pub(crate) fn buffers_max(&self) -> usize {
        self.buffers_max
    }

    /// Whether it gives one now.
    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty() || self.made < self.buffers_max
    }

    /// The buffer that was used last, or a new one.
    pub(crate) fn take(&mut self) -> Option<Buffer> {
        if let Some(buffer) = self.free.pop() {
            self.idle = self.idle.min(self.free.len());
            return Some(buffer);
        }
        if self.made == self.buffers_max {
            return None;
        }
        match Buffer::new() {
            Ok(buffer) => {
                self.made += 1;
                Some(buffer)
            }
            Err(_no_memory) => {
                self.buffers_max = self.made;
                None
            }
        }
    }

    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }

    /// Takes a buffer back from one of those who share it. It can be used again when the last of them has given it back.
    pub(crate) fn give_back_shared(&mut self, buffer: Arc<Buffer>) {
        if let Some(buffer) = Arc::into_inner(buffer) {
            self.give_back(buffer);
        }
    }

    /// Frees the memory of the buffers that nobody needed since the last time.
    pub(crate) fn trim(&mut self) {
        self.made -= self.idle;
        self.free.drain(..self.idle);
        self.idle = self.free.len();
    }

    /// Whether it holds memory that [`trim`](Pool::trim) may free.
    pub(crate) fn is_held(&self) -> bool {
        !self.free.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_buffers_as_may_be_exist_until_nobody_needs_them() {
        let mut pool = Pool::new(2);
        let [one, other] = [pool.take().unwrap(), pool.take().unwrap()];
        assert!(!pool.has_free() && pool.take().is_none());
        pool.give_back(one);
        pool.give_back(other);
        pool.trim();
        assert_eq!(pool.made, 2, "both were in use since the last time");
        let mut used = pool.take().unwrap();
        assert_eq!(used.start().as_ptr().addr() % 4096, 0);
        assert_eq!(used.bytes_mut().len(), BUFFER_BYTES);
        pool.give_back(used);
        pool.trim();
        assert_eq!((pool.made, pool.free.len()), (1, 1));
        pool.trim();
        assert!(!pool.is_held() && pool.has_free());
    }
}
