//! The data files of one content: created sparse, opened on demand, synced before anything vouches for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arc_swap::{ArcSwap, ArcSwapWeak};

use super::creation::Creation;
use super::durable;
use super::journal::Journal;
use super::open_file::{Access, OpenFile, Stamp};
use crate::layout::{FileIndex, FileSpan, Layout, PieceIndex, SliceSource};
use crate::occupied::{FileId, Occupied, SharedFile};

/// Files written since the last commit that are kept open for it, before the oldest is synced early.
const DIRTY_MAX: usize = 64;

/// Least bytes of address space for a growing file.
const GROWING_MAP_BYTES: u64 = 1 << 30;

/// The data files of a content. Each is opened once for all who use it, and closed when the last lets go.
pub(crate) struct FileSet {
    place: Place,
    pub(crate) journal: Journal,
    /// Locked while anything is written about the content: see [`FileSet::writing`].
    pub(super) creation: Mutex<Creation>,
    growing: bool,
    open: Box<[ArcSwapWeak<OpenFile>]>,
    /// Whether the files were unlinked: their paths may lead to others' by now. Held while a path is followed, and shared by all
    /// objects of the same files.
    unlinked: Arc<Mutex<bool>>,
    dirty: Mutex<BTreeMap<u32, Arc<OpenFile>>>,
    /// As of the last time it was measured.
    occupied: ArcSwap<Occupied>,
    /// Set by the first sync that failed. The kernel reports such an error once; afterwards it takes the lost pages for
    /// clean, so no later success means anything.
    lost: OnceLock<String>,
}

/// Where the files are.
#[derive(Debug, Clone)]
pub(in crate::disk) enum Place {
    /// Below this folder, by their torrent paths.
    Stored(PathBuf),
    /// Wherever they were when imported; `None` for padding.
    InPlace(Vec<Option<(PathBuf, Stamp)>>),
}

impl FileSet {
    /// The files of the content in `folder`, which outlives a power cut.
    pub(super) fn new(folder: &Path, place: Place, layout: &Layout, growing: bool) -> FileSet {
        let open = layout.files().iter().map(|_| ArcSwapWeak::from(Weak::new())).collect();
        FileSet {
            place,
            journal: Journal::at(folder.join("arrived")),
            creation: Mutex::default(),
            growing,
            open,
            unlinked: Arc::default(),
            dirty: Mutex::default(),
            occupied: ArcSwap::default(),
            lost: OnceLock::new(),
        }
    }

    /// The same files, for a content in `folder` that has come to its end.
    pub(super) fn settled(&self, folder: &Path, layout: &Layout) -> FileSet {
        FileSet {
            unlinked: Arc::clone(&self.unlinked),
            ..FileSet::new(folder, self.place.clone(), layout, false)
        }
    }

    /// Notes that the stored files have lost their names. Who has one open may read on; nobody opens one again, as the path may
    /// lead to a fresh file, in which nothing has arrived. Files imported in place keep their names.
    pub(super) fn mark_unlinked(&self) {
        if matches!(self.place, Place::Stored(_)) {
            *self.unlinked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        }
    }

    /// The file, opened. `visible` is how far the mapping of a growing file must reach.
    pub(crate) fn open(&self, layout: &Layout, file: FileIndex, visible: u64) -> io::Result<Arc<OpenFile>> {
        let slot = usize::try_from(file.0).ok().and_then(|index| self.open.get(index));
        let (Some(slot), Some(span)) = (slot, layout.file(file)) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no file {}", file.0)));
        };
        let usable = |open: &Arc<OpenFile>| !self.growing || open.map_bytes() >= visible;
        if let Some(open) = slot.load().upgrade().filter(usable) {
            return Ok(open);
        }
        let unlinked = self.unlinked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = slot.load().upgrade().filter(usable) {
            return Ok(open);
        }
        if *unlinked {
            return Err(io::Error::new(io::ErrorKind::NotFound, "dropped from the store"));
        }
        let open = Arc::new(self.open_again(file, span, visible)?);
        slot.store(Arc::downgrade(&open));
        Ok(open)
    }

    fn open_again(&self, file: FileIndex, span: &FileSpan, visible: u64) -> io::Result<OpenFile> {
        if span.padding {
            return Err(io::Error::new(io::ErrorKind::NotFound, "padding is not stored"));
        }
        match &self.place {
            // A growing file is mapped past its end: those pages come to be as it grows, and only what is visible is
            // ever referred to. One that outgrows its mapping is opened anew; the older mapping stays right.
            Place::Stored(folder) if self.growing => {
                let map_bytes = visible.saturating_mul(2).max(GROWING_MAP_BYTES);
                OpenFile::open(&path_below(folder, span)?, visible, map_bytes, Access::Stored)
            }
            Place::Stored(folder) => {
                OpenFile::open(&path_below(folder, span)?, span.length, span.length, Access::Stored)
            }
            Place::InPlace(files) => {
                let found = usize::try_from(file.0).ok().and_then(|index| files.get(index)?.as_ref());
                let (path, stamp) = found.ok_or(io::ErrorKind::NotFound)?;
                OpenFile::open(path, span.length, span.length, Access::InPlace(*stamp))
            }
        }
    }

    pub(crate) fn read(
        &self,
        layout: &Layout,
        file: FileIndex,
        at: u64,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        self.open(layout, file, 0)?.file().read_exact_at(buffer, at)
    }

    /// The file, opened for who is going to write to it.
    pub(crate) fn open_to_write(&self, layout: &Layout, file: FileIndex) -> io::Result<Arc<OpenFile>> {
        if matches!(self.place, Place::InPlace(_)) {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "imported in place: never written",
            ));
        }
        let open = self.open(layout, file, 0)?;
        // What it holds may be visible through its other name. See `Store::share`.
        if open.is_shared() {
            let text = "this file has a second name (a hard link) and is never written";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(open)
    }

    /// Notes what the next commit has to sync. Only after the write: a commit that takes the list now syncs what was
    /// written, and one that took it before vouches for no piece that is marked later.
    pub(crate) fn mark_written(&self, file: FileIndex, open: Arc<OpenFile>) -> io::Result<()> {
        let oldest = {
            let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
            dirty.insert(file.0, open);
            if dirty.len() > DIRTY_MAX { dirty.pop_first() } else { None }
        };
        match oldest {
            Some((_, open)) => self.sync_one(&open),
            None => Ok(()),
        }
    }

    /// Notes that the bytes of a piece may not have reached the disk, although they can be read.
    pub(super) fn mark_unsynced(&self, layout: &Layout, piece: PieceIndex) -> io::Result<()> {
        let range = layout.piece_range(piece);
        for slice in layout.slices(range.start, range.end - range.start) {
            if let SliceSource::File(file, _) = slice.source {
                self.mark_written(file, self.open(layout, file, 0)?)?;
            }
        }
        Ok(())
    }

    /// Writes everything back to the disk that was written before this call.
    ///
    /// # Errors
    /// What a sync said, now or ever before: then nothing that is not committed may be trusted.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let dirty = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        for open in dirty.values() {
            // An error is noted, and told below as every later one.
            let _ = self.sync_one(open);
        }
        match self.lost.get() {
            Some(why) => Err(io::Error::other(why.clone())),
            None => Ok(()),
        }
    }

    fn sync_one(&self, open: &OpenFile) -> io::Result<()> {
        open.sync().inspect_err(|error| self.mark_lost(error))
    }

    /// Notes that the disk did not keep what was written.
    pub(crate) fn mark_lost(&self, error: &io::Error) {
        let _ = self.lost.set(format!(
            "the disk did not keep what was written: {error}; check it, then restart the relay"
        ));
    }

    /// Creates the stored files, sparse and at full length; those that exist keep what they have. Nothing is synced.
    pub(super) fn create(&self, layout: &Layout) -> io::Result<()> {
        let Place::Stored(folder) = &self.place else { return Ok(()) };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW);
        let mut stored = layout.files().iter().filter(|span| !span.padding).peekable();
        if stored.peek().is_none() {
            fs::create_dir_all(folder)?;
        }
        for span in stored {
            let path = path_below(folder, span)?;
            // Mostly the folder is there, of the file before or of one made in advance.
            let file = options.open(&path).or_else(|error| match (error.kind(), path.parent()) {
                (io::ErrorKind::NotFound, Some(parent)) => {
                    fs::create_dir_all(parent)?;
                    options.open(&path)
                }
                _ => Err(error),
            })?;
            // Up, never down: what is there may be in flight.
            if !self.growing && file.metadata()?.size() < span.length {
                file.set_len(span.length)?;
            }
        }
        Ok(())
    }

    /// Syncs the folders of the stored files, so that a state that vouches for bytes never outlives the name of their file.
    pub(super) fn sync_folders(&self, layout: &Layout) -> io::Result<()> {
        let Place::Stored(folder) = &self.place else { return Ok(()) };
        let mut folders = BTreeSet::from([folder.clone()]);
        for span in layout.files().iter().filter(|span| !span.padding) {
            let path = path_below(folder, span)?;
            let mut above = path.parent();
            while let Some(parent) = above.filter(|parent| parent.starts_with(folder)) {
                if !folders.insert(parent.to_path_buf()) {
                    break;
                }
                above = parent.parent();
            }
        }
        folders.iter().try_for_each(|folder| durable::sync_folder(folder))
    }

    /// Looks at what the files occupy. Returns those that are missing, shorter than they should be, or (in place) changed.
    pub(super) fn measure(&self, layout: &Layout) -> Vec<FileIndex> {
        let (mut occupied, mut short) = (Occupied::default(), Vec::new());
        for (index, span) in (0..).zip(layout.files()).filter(|(_, span)| !span.padding) {
            let file = FileIndex(index);
            let size = match &self.place {
                Place::Stored(folder) => stored(folder, span).map(|metadata| {
                    let (bytes, size) = (metadata.blocks() * 512, metadata.size());
                    if metadata.nlink() > 1 {
                        // At least what is visible, as while it arrives: the file system may have compressed it.
                        let bytes = bytes.max(size);
                        occupied.shared.push(SharedFile { file, id: id(&metadata), bytes });
                    } else {
                        occupied.own_bytes += bytes;
                    }
                    size
                }),
                Place::InPlace(files) => usize::try_from(index).ok().and_then(|index| {
                    let (path, stamp) = files.get(index)?.as_ref()?;
                    let metadata = fs::symlink_metadata(path).ok()?;
                    (Stamp::of(&metadata) == *stamp).then_some(metadata.size())
                }),
            };
            if size.is_none_or(|size| size < span.length) && !self.growing {
                short.push(file);
            }
        }
        self.occupied.store(Arc::new(occupied));
        short
    }

    /// What the files occupied when they were last measured.
    pub(super) fn occupied(&self) -> Arc<Occupied> {
        self.occupied.load_full()
    }

    /// Which file of the disk it is; none for what is not a file of the store.
    pub(super) fn id(&self, layout: &Layout, file: FileIndex) -> Option<FileId> {
        match &self.place {
            Place::Stored(folder) => Some(id(&stored(folder, layout.file(file)?)?)),
            Place::InPlace(_) => None,
        }
    }

    /// Where it is; none for what is not a file of the store.
    pub(super) fn path(&self, layout: &Layout, file: FileIndex) -> Option<PathBuf> {
        match &self.place {
            Place::Stored(folder) => path_below(folder, layout.file(file)?).ok(),
            Place::InPlace(_) => None,
        }
    }

    /// Makes `file` another name of the file at `lender`, by way of a name at `spare`; it must be as long. Whoever has it
    /// open goes on with what it was. `false` where that cannot be done, and nothing has changed.
    ///
    /// # Errors
    /// When it is done and may not outlive a power cut.
    pub(super) fn link(
        &self,
        layout: &Layout,
        file: FileIndex,
        lender: &Path,
        spare: &Path,
    ) -> io::Result<bool> {
        let slot = usize::try_from(file.0).ok().and_then(|index| self.open.get(index));
        let (Some(path), Some(slot)) = (self.path(layout, file), slot) else { return Ok(false) };
        // Nobody follows the path meanwhile.
        let unlinked = self.unlinked.lock().unwrap_or_else(PoisonError::into_inner);
        if *unlinked {
            return Ok(false);
        }
        let made = durable::remove(spare)
            .and_then(|()| fs::hard_link(lender, spare))
            .and_then(|()| fs::rename(spare, &path));
        if made.is_err() {
            // No hard links on this file system, or no more of this file: each keeps its own.
            let _ = durable::remove(spare);
            return Ok(false);
        }
        slot.store(Weak::new());
        path.parent().map_or(Ok(()), durable::sync_folder)?;
        Ok(true)
    }

    /// Takes the names away of those of `files` that have others, so that [`FileSet::create`] makes them anew.
    pub(super) fn unlink_shared(&self, layout: &Layout, files: &[FileIndex]) -> io::Result<()> {
        let Place::Stored(folder) = &self.place else { return Ok(()) };
        for span in files.iter().filter_map(|&file| layout.file(file)) {
            if stored(folder, span).is_some_and(|metadata| metadata.nlink() > 1) {
                durable::remove(&path_below(folder, span)?)?;
            }
        }
        Ok(())
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

/// What the disk says of a file below a folder; none where that is no file.
fn stored(folder: &Path, span: &FileSpan) -> Option<Metadata> {
    let metadata = path_below(folder, span).and_then(fs::symlink_metadata).ok();
    metadata.filter(Metadata::is_file)
}

fn id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// Whether it can be the name of one file.
pub(super) fn is_name(name: &str) -> bool {
    !(name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']))
}

/// The path of a file below a folder. The names come from a torrent that was checked; they are checked again here,
/// where they become paths.
fn path_below(folder: &Path, span: &FileSpan) -> io::Result<PathBuf> {
    if span.path.is_empty() || !span.path.iter().all(|name| is_name(name)) {
        let text = format!("{:?} is no path inside a content", span.path);
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, text));
    }
    Ok(folder.join(span.path.iter().collect::<PathBuf>()))
}
