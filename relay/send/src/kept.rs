//! Files kept between sends, and what was learnt about them. The store closes a file when nobody holds it, and opening and mapping it
//! anew for every batch would cost more than sending does; so would asking the kernel before each 16 KiB.

use std::sync::Arc;

use millrace_engine::ids::Now;
use millrace_pagecache::OpenFile;
use millrace_pagecache::disk::residency::resident;

/// Files kept at most. Those of more contents than this, sent from at the same time, are opened more often.
const FILES_MAX: usize = 256;

/// A file is closed when nothing was sent from it for this long, or up to twice as long.
const IDLE_NS: u64 = 1_000_000_000;

/// Unit in which is remembered what was found in memory. Sends of at least as much ask each time: there it costs nothing measurable.
const WINDOW_BYTES: u64 = 256 * 1024;

/// How long a window counts as in memory. The kernel reclaims what was not used for longer, unless it is pressed hard; then a shard
/// waits for the disk, for less than a window, once.
const RESIDENT_MS: u64 = 1_000;

/// The files that were sent from lately.
#[derive(Debug, Default)]
pub(crate) struct KeptFiles {
    files: Vec<Kept>,
    /// Which file makes room for the next one.
    hand: usize,
    /// When idle files are closed next, in monotonic nanoseconds.
    close_at_ns: u64,
    /// The loop that is under way, and when it began.
    turn: u64,
    now_ms: u64,
}

#[derive(Debug)]
struct Kept {
    file: Arc<OpenFile>,
    used: bool,
    /// The loop in which it was last seen unchanged.
    unchanged_in: Option<u64>,
    /// Until when each window counts as in memory, in monotonic milliseconds; as many as were needed so far.
    resident_until_ms: Vec<u64>,
}

impl KeptFiles {
    /// Whether `file` is as it was when it was imported, asked once a loop; keeps it until it has not been used for a while.
    pub(crate) fn lease(&mut self, file: &Arc<OpenFile>) -> bool {
        let turn = self.turn;
        let kept = self.kept(file);
        kept.used = true;
        if kept.unchanged_in != Some(turn) {
            if !kept.file.unchanged().unwrap_or(false) {
                return false;
            }
            kept.unchanged_in = Some(turn);
        }
        true
    }

    /// Whether a range of `file` is in memory, as far as anybody can tell; `false` where the kernel does not.
    pub(crate) fn resident(&mut self, file: &Arc<OpenFile>, offset: u64, bytes: u64) -> bool {
        let is_resident = |offset, bytes| resident(file.file(), offset, bytes) == Some(true);
        if bytes >= WINDOW_BYTES {
            return is_resident(offset, bytes);
        }
        let now_ms = self.now_ms;
        let kept = self.kept(file);
        let windows = offset / WINDOW_BYTES..(offset + bytes).div_ceil(WINDOW_BYTES);
        for window in windows {
            let Ok(index) = usize::try_from(window) else { return is_resident(offset, bytes) };
            if kept.resident_until_ms.len() <= index {
                kept.resident_until_ms.resize(index + 1, 0);
            }
            let until_ms = &mut kept.resident_until_ms[index];
            if *until_ms <= now_ms {
                if !is_resident(window * WINDOW_BYTES, WINDOW_BYTES) {
                    return is_resident(offset, bytes);
                }
                *until_ms = now_ms + RESIDENT_MS;
            }
        }
        true
    }

    fn kept(&mut self, file: &Arc<OpenFile>) -> &mut Kept {
        let index = self.files.iter().position(|kept| Arc::ptr_eq(&kept.file, file)).unwrap_or_else(|| {
            let kept = Kept {
                file: Arc::clone(file),
                used: true,
                unchanged_in: None,
                resident_until_ms: Vec::new(),
            };
            if self.files.len() < FILES_MAX {
                self.files.push(kept);
                self.files.len() - 1
            } else {
                self.hand = (self.hand + 1) % FILES_MAX;
                self.files[self.hand] = kept;
                self.hand
            }
        });
        &mut self.files[index]
    }

    /// When [`begin_turn`](KeptFiles::begin_turn) has something to do, in monotonic nanoseconds.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        (!self.files.is_empty()).then_some(self.close_at_ns)
    }

    /// A loop begins. When it is time, lets go of the files that were not used since the last time.
    pub(crate) fn begin_turn(&mut self, now: Now) {
        self.turn += 1;
        self.now_ms = now.monotonic_ms();
        if now.monotonic_ns >= self.close_at_ns {
            self.close_at_ns = now.monotonic_ns + IDLE_NS;
            self.files.retain_mut(|kept| std::mem::take(&mut kept.used));
        }
    }
}
