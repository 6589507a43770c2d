//! Files kept open between sends. The store closes a file when nobody holds it, and opening and mapping it anew for every batch would
//! cost more than sending does.

use std::sync::Arc;

use millrace_engine::ids::Now;
use millrace_pagecache::OpenFile;

/// Files kept at most. Those of more contents than this, sent from at the same time, are opened more often.
const FILES_MAX: usize = 256;

/// A file is closed when nothing was sent from it for this long, or up to twice as long.
const IDLE_NS: u64 = 1_000_000_000;

/// The files that were sent from lately.
#[derive(Debug, Default)]
pub(crate) struct KeptFiles {
    files: Vec<Kept>,
    /// Which file makes room for the next one.
    hand: usize,
    /// When idle files are closed next, in monotonic nanoseconds.
    close_at_ns: u64,
}

#[derive(Debug)]
struct Kept {
    file: Arc<OpenFile>,
    used: bool,
}

impl KeptFiles {
    /// Keeps `files` open until they have not been used for a while.
    pub(crate) fn keep(&mut self, files: &[Arc<OpenFile>]) {
        for file in files {
            if let Some(kept) = self.files.iter_mut().find(|kept| Arc::ptr_eq(&kept.file, file)) {
                kept.used = true;
                continue;
            }
            let kept = Kept { file: Arc::clone(file), used: true };
            if self.files.len() < FILES_MAX {
                self.files.push(kept);
            } else {
                self.hand = (self.hand + 1) % FILES_MAX;
                self.files[self.hand] = kept;
            }
        }
    }

    /// When [`close_idle`](KeptFiles::close_idle) has something to do, in monotonic nanoseconds.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        (!self.files.is_empty()).then_some(self.close_at_ns)
    }

    /// When it is time, lets go of the files that were not used since the last time.
    pub(crate) fn close_idle(&mut self, now: Now) {
        if now.monotonic_ns >= self.close_at_ns {
            self.close_at_ns = now.monotonic_ns + IDLE_NS;
            self.files.retain_mut(|kept| std::mem::take(&mut kept.used));
        }
    }
}
