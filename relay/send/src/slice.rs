//! A run of mapped memory as the kernel is told of it. Never read here: a file that somebody truncates makes its pages a SIGBUS for whoever
//! touches them, while `vmsplice` of them only fails.

use std::marker::PhantomData;
use std::ptr;

use memmap2::MmapRaw;
use millrace_pagecache::OpenFile;

use crate::pipe::PAGE_BYTES;

/// An iovec whose memory stays mapped as long as `'a`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Slice<'a> {
    iovec: libc::iovec,
    mapped: PhantomData<&'a ()>,
}

impl<'a> Slice<'a> {
    /// No memory at all.
    pub(crate) const EMPTY: Slice<'static> = Slice::new(ptr::null(), 0);

    /// The first `bytes_max` bytes of `memory`, which never change.
    pub(crate) fn of_memory(memory: &'a [u8], bytes_max: usize) -> Self {
        Slice::new(memory.as_ptr(), memory.len().min(bytes_max))
    }

    /// `bytes` of `file` from `offset` on, visible ones. None where they are not all mapped.
    pub(crate) fn of_file(file: &'a OpenFile, offset: u64, bytes: usize) -> Option<Self> {
        let end = offset.checked_add(bytes as u64)?;
        if end > file.mapped().len() {
            return None;
        }
        Some(Slice::new(file.mapped().as_ptr().wrapping_add(usize::try_from(offset).ok()?), bytes))
    }

    /// All of a mapping.
    pub(crate) fn of_mapping(map: &'a MmapRaw) -> Self {
        Slice::new(map.as_ptr(), map.len())
    }

    const fn new(start: *const u8, bytes: usize) -> Self {
        Slice {
            iovec: libc::iovec { iov_base: start.cast_mut().cast(), iov_len: bytes },
            mapped: PhantomData,
        }
    }

    /// Bytes of it.
    pub(crate) fn bytes(&self) -> usize {
        self.iovec.iov_len
    }

    /// As much of it as `slots` pages hold, and how many of them it touches.
    pub(crate) fn within(mut self, slots: usize) -> (Self, usize) {
        let into_page = self.iovec.iov_base.addr() % PAGE_BYTES;
        self.iovec.iov_len = self.iovec.iov_len.min((slots * PAGE_BYTES).saturating_sub(into_page));
        (self, (into_page + self.iovec.iov_len).div_ceil(PAGE_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(into_page: usize, bytes: usize, slots: usize, expected: (usize, usize)) {
        let slice = Slice::new(ptr::without_provenance(PAGE_BYTES * 7 + into_page), bytes);
        let (within, touched) = slice.within(slots);
        assert_eq!((within.bytes(), touched), expected, "{bytes} bytes at {into_page} in {slots} slots");
    }

    #[test]
    fn a_slice_takes_a_slot_for_each_page_it_touches() {
        check(0, 16384, 256, (16384, 4));
        check(1, 16384, 256, (16384, 5));
        check(4095, 2, 256, (2, 2));
        check(1, 16384, 4, (16383, 4));
        check(4083, 13, 1, (13, 1));
        check(0, 1, 1, (1, 1));
    }
}
