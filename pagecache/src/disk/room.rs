//! Making room, and giving a content a new shape: eviction and settling.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bitvec::prelude::BitVec;
use millrace_proto::access::Access;
use millrace_proto::id::ContentId;
use millrace_proto::metainfo::choose_piece_bytes;

use super::creation::write_description;
use super::durable;
use super::error::StoreError;
use super::files::{FileSet, Place};
use super::state_file::Saved;
use super::store::{Options, Store};
use crate::content::{Content, Data, State};
use crate::eviction::{Budget, Candidate, Shortage, choose};
use crate::layout::Layout;
use crate::new_content::{NewContent, Shape};
use crate::occupied::{Occupied, Total};

/// The name that the data of a content has for a moment while it goes.
pub(super) const EVICTED_NAME: &str = "data.evicted";

impl Store {
    /// What the contents occupy: measured at the last commit, or what has become visible since if that is more.
    #[must_use]
    pub fn occupied(&self) -> Total {
        self.tally().total(|id| {
            let content = self.get(id)?;
            // Asked first: one that is complete by now may have had less when it was looked at.
            let rests = content.is_complete();
            Some((occupied(&content), rests))
        })
    }

    /// Evicts contents until `bytes` more fit the budget and the free-space floor, or nothing more may go: the caller
    /// looks at [`Store::fits`] afterwards. `now` is Unix seconds.
    ///
    /// # Errors
    /// What the disk says.
    pub fn make_room(&self, bytes: u64, now: u64) -> Result<Vec<ContentId>, StoreError> {
        // A store that has room enough is not looked through for who may go.
        if self.fits(bytes)? {
            return Ok(Vec::new());
        }
        let candidate = |content: &Arc<Content>| Candidate {
            id: content.id(),
            occupied: occupied(content),
            evictable: content.state() == State::Complete && !content.is_pinned() && content.is_refetchable(),
            last_used: content.counters().last_used.load(Relaxed).max(content.added()),
            uses: content.counters().uses.load(Relaxed),
        };
        let candidates: Vec<_> = self.contents().iter().map(candidate).collect();
        let chosen = choose(&candidates, &self.budget()?, bytes, now);
        chosen.iter().try_for_each(|&id| self.evict(id).map(drop))?;
        Ok(chosen)
    }

    /// Whether there is a most that contents may occupy, so that all of them are looked at before anything is said to fit.
    #[must_use]
    pub fn has_capacity(&self) -> bool {
        self.options.capacity.is_some()
    }

    /// Bytes of its file system that it leaves to others.
    #[must_use]
    pub fn free_floor(&self) -> u64 {
        self.options.free_floor
    }

    /// Whether `bytes` more fit.
    ///
    /// # Errors
    /// As [`Store::shortage`].
    pub fn fits(&self, bytes: u64) -> Result<bool, StoreError> {
        Ok(self.shortage(bytes)?.is_none())
    }

    /// What keeps `bytes` more from fitting.
    ///
    /// # Errors
    /// When the file system does not tell its free space.
    pub fn shortage(&self, bytes: u64) -> Result<Option<Shortage>, StoreError> {
        Ok(self.budget()?.shortage(bytes))
    }

    fn budget(&self) -> Result<Budget, StoreError> {
        let path = &self.contents_folder;
        let stat = nix::sys::statvfs::statvfs(path).map_err(|error| StoreError::at(path)(error.into()))?;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        let Options { capacity, free_floor } = self.options;
        // Without a capacity nobody asks, and every content would be looked at.
        let used = capacity.map_or(0, |_| self.occupied().used);
        Ok(Budget { capacity, used, free, free_floor })
    }

    /// Drops the bytes of a content and keeps everything else: a fresh, empty content of the same id, queued. Who has a file
    /// of the old one open may finish reading it: files are unlinked, never cut. Who would have to open one is refused.
    ///
    /// # Errors
    /// [`StoreError::Absent`]; [`StoreError::Refused`] for imports, which nobody could pull again; what the disk says.
    pub fn evict(&self, id: ContentId) -> Result<Arc<Content>, StoreError> {
        let _changing = self.changing();
        let old = self.get(id).ok_or(StoreError::Absent(id))?;
        let folder = self.folder(id);
        if old.is_imported() || old.is_growing() {
            return Err(StoreError::Refused {
                path: folder,
                why: "only an origin's bytes can be pulled again",
            });
        }
        self.check_nobody_opens(id)?;
        let shape = match old.metainfo() {
            Some(metainfo) => Shape::Metainfo(Arc::clone(metainfo)),
            None => Shape::Layout(old.layout().clone()),
        };
        let layout = old.layout().clone();
        let place = Place::Stored(folder.join("data"));
        let fresh_files = FileSet::new(&folder, place, &layout, false);
        let fresh =
            Arc::new(Content::assemble(again(&old, shape), layout, Data::Files(Box::new(fresh_files))));
        {
            let (files, _writing) = self.lock_durable(&old)?;
            // First nothing vouches for the bytes any more, then they go: a crash in between loses nothing but them.
            let error = StoreError::at;
            write_empty_state(&folder, &old, old.layout()).map_err(error(&folder))?;
            let gone = folder.join(EVICTED_NAME);
            fs::rename(folder.join("data"), &gone).map_err(error(&gone))?;
            files.mark_unlinked();
            fs::remove_dir_all(&gone).map_err(error(&gone))?;
            if let Data::Files(files) = &fresh.data {
                let created = files.create(fresh.layout()).and_then(|()| files.sync_folders(fresh.layout()));
                created.map_err(error(&folder))?;
            }
            write_description(&folder, &fresh)?;
            self.enter(&fresh);
        }
        old.set_state(State::Removed);
        Ok(fresh)
    }

    /// Gives a growing content that came to its end after `length` bytes its pieces: a new content of the same id over
    /// the same file, all of it visible, with no piece hashed yet. The old one serves on for who holds it.
    ///
    /// # Errors
    /// [`StoreError::Absent`], lengths out of bounds, or what the disk says.
    pub fn settle(&self, growing: &Content, length: u64) -> Result<Arc<Content>, StoreError> {
        let _changing = self.changing();
        let folder = self.folder(growing.id());
        if !growing.is_growing() || growing.visible_bytes() < length {
            return Err(StoreError::Refused {
                path: folder,
                why: "not a growing content of that many bytes",
            });
        }
        let layout = Layout::single(growing.name(), length, choose_piece_bytes(length))?;
        let (files, _writing) = self.lock_durable(growing)?;
        files.sync().map_err(StoreError::at(&folder))?;
        let fresh_files = files.settled(&folder, &layout);
        let shape = Shape::Layout(layout.clone());
        let fresh =
            Arc::new(Content::assemble(again(growing, shape), layout, Data::Files(Box::new(fresh_files))));
        fresh.reveal(0..length);
        fresh.set_state(growing.state());
        write_empty_state(&folder, growing, fresh.layout()).map_err(StoreError::at(&folder))?;
        write_description(&folder, &fresh)?;
        self.enter(&fresh);
        Ok(fresh)
    }
}

/// Writes a state that vouches for nothing, and leaves no earlier one that does.
fn write_empty_state(folder: &std::path::Path, content: &Content, layout: &Layout) -> std::io::Result<()> {
    let pieces = usize::try_from(layout.piece_count()).unwrap_or(0);
    let saved = Saved {
        id: content.id(),
        piece_bytes: layout.piece_bytes(),
        length: layout.length(),
        good: BitVec::repeat(false, pieces),
        learned: Vec::new(),
    };
    durable::replace_for_good(folder, "state", &saved.encode())?;
    durable::remove(&folder.join("arrived"))?;
    durable::sync_folder(folder)
}

/// What is said of `content`, for a new object of it.
fn again(content: &Content, shape: Shape) -> NewContent {
    NewContent {
        id: content.id(),
        name: content.name().to_owned(),
        shape,
        etag: content.etag().to_owned(),
        last_modified: content.last_modified(),
        added: content.added(),
        pinned: content.is_pinned(),
        priority: content.priority(),
        paused: content.state() == State::Paused,
        refetchable: content.is_refetchable(),
        access: Access::clone(&content.access()),
        sources: content.sources(),
        supersedes: content.supersedes(),
        sha256: content.sha256().copied(),
    }
}

fn occupied(content: &Content) -> Occupied {
    let Data::Files(files) = &content.data else { return Occupied::default() };
    let mut occupied = Occupied::clone(&files.occupied());
    if matches!(files.place(), Place::Stored(_)) && !content.is_imported() {
        // Padding is visible and not stored.
        let stored = content.layout().files().iter().filter(|file| !file.padding).map(|file| file.length);
        let arrived = content.visible_bytes().min(stored.sum());
        occupied.own_bytes += arrived.saturating_sub(occupied.bytes());
    }
    occupied
}
