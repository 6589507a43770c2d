//! What is being brought into the page cache just now. The kernel counts pages as there from the moment they are asked for, and whoever sends
//! from one before it has arrived waits for the disk.

use crate::outcome::Absent;

/// Reads into the page cache that are under way: as many as there are threads, and what is handed to them.
#[derive(Debug, Default)]
pub(crate) struct Coming(Vec<Place>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The file's [identity](millrace_pagecache::OpenFile::identity).
    file: (u64, u64),
    start: u64,
    end: u64,
}

impl Place {
    fn of(absent: &Absent) -> Self {
        let start = absent.offset;
        Place { file: absent.file.identity(), start, end: start.saturating_add(absent.bytes) }
    }
}

impl Coming {
    /// A read begins.
    pub(super) fn begin(&mut self, absent: &Absent) {
        self.0.push(Place::of(absent));
    }

    /// A read has ended.
    pub(super) fn end(&mut self, absent: &Absent) {
        let ended = Place::of(absent);
        if let Some(at) = self.0.iter().position(|place| *place == ended) {
            self.0.swap_remove(at);
        }
    }

    /// Whether a part of these bytes is being read.
    pub(super) fn has(&self, file: (u64, u64), offset: u64, bytes: u64) -> bool {
        let end = offset.saturating_add(bytes);
        self.0.iter().any(|place| place.file == file && place.start < end && offset < place.end)
    }
}
