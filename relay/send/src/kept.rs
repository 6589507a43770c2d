//! Files kept open between sends. The store closes a file when nobody holds it, and opening and mapping it anew for every batch would
//! cost more than sending does.

use std::sync::Arc;

use millrace_pagecache::OpenFile;

/// Files kept at most. Those of more contents than this, sent from at the same time, are opened more often.
const FILES_MAX: usize = 256;

/// The files that were sent from lately.
#[derive(Debug, Default)]
pub(crate) struct KeptFiles {
    files: Vec<Kept>,
    /// Which file makes room for the next one.
    hand: usize,
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

    /// Whether none is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Lets go of the files that were not used since the last call.
    pub(crate) fn close_idle(&mut self) {
        self.files.retain_mut(|kept| std::mem::take(&mut kept.used));
    }
}
