//! A simulated disk: what was written reads as it should, and everything else as garbage.
//!
//! So a byte that is sent too early, or from a piece that failed its hash, reaches a client as a wrong byte.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use millrace_pagecache::content::{BytesAt, Content};
use millrace_pagecache::layout::Layout;
use millrace_pagecache::new_content::NewContent;

use crate::bytes;

/// Bytes that are written together. Writes begin and end at multiples of it, or at the end of the content.
pub const GRAIN_BYTES: u64 = 1024;

/// What a byte that was never written reads as, mixed into what it should be.
const NEVER_WRITTEN: u8 = 0x5a;

/// What a byte that arrived wrong reads as, mixed into what it should be.
const WRONG: u8 = 0xa5;

/// The bytes of one content, right and stored.
#[derive(Debug)]
pub struct Disk {
    seed: u64,
    padding: Vec<Range<u64>>,
    /// By grain: what is mixed into the right bytes. Nothing beyond the end was ever written.
    stored: Mutex<Vec<u8>>,
}

impl Disk {
    /// An empty disk for the content of this seed.
    #[must_use]
    pub fn new(seed: u64, layout: &Layout) -> Arc<Self> {
        let padding = layout.files().iter().filter(|file| file.padding).map(|file| file.offset..file.end());
        Arc::new(Disk { seed, padding: padding.collect(), stored: Mutex::new(Vec::new()) })
    }

    /// A content on this disk.
    #[must_use]
    pub fn content(self: &Arc<Self>, new: NewContent, layout: Layout) -> Arc<Content> {
        let disk = Arc::clone(self);
        let bytes_at: Box<BytesAt> = Box::new(move |offset, buffer| disk.read(offset, buffer));
        Content::simulated(new, layout, bytes_at)
    }

    /// What the content holds in `count` bytes from `offset` on; padding is zeros.
    #[must_use]
    pub fn truth(&self, offset: u64, count: usize) -> Vec<u8> {
        let mut bytes = bytes::read(self.seed, offset, count);
        self.clear_padding(offset, &mut bytes);
        bytes
    }

    /// Stores the bytes of a range, as they should be or wrong.
    pub fn write(&self, range: Range<u64>, right: bool) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, end) = (grain(range.start), grain(range.end.next_multiple_of(GRAIN_BYTES)));
        if stored.len() < end {
            stored.resize(end, NEVER_WRITTEN);
        }
        stored[first..end].fill(if right { 0 } else { WRONG });
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) {
        bytes::fill(self.seed, offset, buffer);
        self.clear_padding(offset, buffer);
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let end = (at + 1).next_multiple_of(GRAIN_BYTES);
            let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            let mixed_in = stored.get(grain(at)).copied().unwrap_or(NEVER_WRITTEN);
            if mixed_in != 0 {
                now.iter_mut().for_each(|byte| *byte ^= mixed_in);
            }
            at = end;
            rest = later;
        }
    }

    fn clear_padding(&self, offset: u64, bytes: &mut [u8]) {
        let end = offset + bytes.len() as u64;
        for gap in self.padding.iter().filter(|gap| gap.start < end && gap.end > offset) {
            let inside = |at: u64| usize::try_from(at.clamp(offset, end) - offset).unwrap_or(usize::MAX);
            bytes[inside(gap.start)..inside(gap.end)].fill(0);
        }
    }
}

fn grain(offset: u64) -> usize {
    usize::try_from(offset / GRAIN_BYTES).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_right_reads_right() {
        let layout = Layout::single("file", 5_000, 16_384).unwrap();
        let disk = Disk::new(3, &layout);
        let check = |offset: u64, count: usize, right: bool| {
            let mut buffer = vec![0; count];
            disk.read(offset, &mut buffer);
            assert_eq!(buffer == disk.truth(offset, count), right, "{count} bytes at {offset}");
        };
        check(0, 8, false);
        disk.write(1024..2048, true);
        disk.write(2048..5_000, false);
        check(1024, 1024, true);
        check(1000, 1000, false);
        check(2047, 2, false);
        disk.write(2048..5_000, true);
        check(1024, 3_976, true);
    }
}
