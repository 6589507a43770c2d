//! A store that goes from one process to another while both serve from it: what the one leaves, and what the other asks before it
//! takes files away.
//!
//! The one that leaves reads on, and may have to open a file. As long as it does, no path may lead to another file than it did: so
//! whoever has the store now asks before files lose their names, and the other opens none of them after it has answered.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;

use millrace_proto::id::ContentId;

use super::error::StoreError;
use super::store::Store;
use crate::content::{Content, Data, State};
use crate::layout::PieceIndex;

/// What may be served of each content beyond the pieces that its state vouches for.
pub type VisibleRuns = HashMap<ContentId, Vec<Range<u64>>>;

/// What a process leaves to the next besides the folder.
#[derive(Debug)]
pub struct Left {
    /// The lock; see [`Store::lock`].
    pub lock: File,
    /// What is being served and must not be written again.
    pub visible: VisibleRuns,
}

/// Asks whether a content's files may lose their names.
pub(super) struct Guard(Box<dyn Fn(ContentId) -> bool + Send + Sync>);

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl Store {
    /// The lock once more, to be given to another process: the store is locked until all who have it have closed it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn lock(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    /// From now on `may_go` is asked before the files of a content lose their names; it may wait. Only the first call counts.
    pub fn ask_before_unlinking(&self, may_go: impl Fn(ContentId) -> bool + Send + Sync + 'static) {
        let _ = self.guard.set(Guard(Box::new(may_go)));
    }

    /// Whether the files of a content may lose their names: see [`Store::ask_before_unlinking`].
    #[must_use]
    pub fn may_unlink(&self, id: ContentId) -> bool {
        self.guard.get().is_none_or(|Guard(may_go)| may_go(id))
    }

    pub(super) fn check_nobody_opens(&self, id: ContentId) -> Result<(), StoreError> {
        if self.may_unlink(id) {
            return Ok(());
        }
        let why = "the program before an upgrade still serves it and does not answer: try again";
        Err(StoreError::Refused { path: self.folder(id), why })
    }
}

impl Content {
    /// What may be served of it beyond its verified pieces: where hashes are not known, pulls that stopped in the middle.
    #[must_use]
    pub fn visible_beyond_pieces(&self) -> Vec<Range<u64>> {
        if self.is_growing() {
            let here = std::iter::once(0..self.visible_bytes());
            return here.filter(|run| !run.is_empty()).collect();
        }
        if self.hashes_known() || self.is_imported() {
            return Vec::new();
        }
        let (layout, mut runs) = (self.layout(), Vec::<Range<u64>>::new());
        for piece in (0..layout.piece_count()).map(PieceIndex).filter(|piece| !self.has_piece(*piece)) {
            let range = layout.piece_range(piece);
            if !self.is_visible_anywhere(range.clone()) {
                continue;
            }
            let mut at = range.start;
            while at < range.end {
                let end = self.visible_until(at, range.end);
                match runs.last_mut().filter(|last| last.end == at) {
                    Some(last) => last.end = end,
                    None if end > at => runs.push(at..end),
                    None => {}
                }
                at = if end > at { end } else { (at / layout.block_bytes() + 1) * layout.block_bytes() };
            }
        }
        runs
    }

    /// The last it is told by another process that has the store now: its files lose their names, and whoever has none of them open
    /// gets it no more.
    pub fn leave(&self) {
        if let Data::Files(files) = &self.data {
            files.mark_unlinked();
        }
        self.set_state(State::Removed);
    }
}
