//! Making a content: its files first, so that it can be written and served at once, and what makes it outlive a power cut after that,
//! beside its pull.
//!
//! [`Store::begin`] makes the folder and the data files, and syncs nothing. [`Store::make_durable`] syncs their names, writes the
//! description as every file of the store is written (beside its name, synced, renamed), and syncs the folder's own name. Whatever else
//! is written about a content (state, metainfo, a new description) makes it durable first. So:
//!
//! - A folder whose description has its name is whole.
//! - One without was never told to anybody as added, and nothing vouches for its bytes. After a kill or a power cut any part of it may be
//!   there. The next start finishes it where the description had been written to its end and says all there is to know, and removes it
//!   otherwise.
//! - A folder that has lost its description and holds more than a creation writes is damaged, and left alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::description::{DescribedShape, Description};
use super::durable::{self, Unreadable};
use super::error::StoreError;
use super::files::{FileSet, Place, is_name};
use super::open_file::Stamp;
use super::store::Store;
use crate::content::{Content, Data, State};
use crate::layout::{FileSpan, Layout};
use crate::new_content::{NewContent, Shape};

/// The description of a content, in its folder.
pub(super) const DESCRIPTION: &str = "content.json";

/// The torrent of a content, in its folder.
pub(super) const METAINFO: &str = "metainfo.torrent";

/// All that a folder has before its description is in place; `arrived` is the journal, which is written meanwhile.
const BEFORE_DURABLE: [&str; 6] =
    ["data", ".content.json.new", ".metainfo.torrent.new", METAINFO, "arrived", "arrived.new"];

/// How far the creation of a content has got.
#[derive(Debug, Default)]
pub(super) enum Creation {
    /// Its names are there; a power cut may take any of them.
    Begun,
    /// It outlives a power cut.
    #[default]
    Durable,
    /// The disk did not keep it, for this reason. A sync that succeeds later would mean nothing: the kernel reports an error once.
    Lost(String),
}

impl Store {
    /// Adds a content, or finds the one that has its id already; it outlives a power cut then. Its files are created sparse, at full
    /// length.
    ///
    /// # Errors
    /// Impossible layouts and names, and what the disk says; nothing is left behind then.
    pub fn add(&self, new: NewContent) -> Result<Arc<Content>, StoreError> {
        self.add_filled(new, |_| Ok(()))
    }

    /// [`Store::add`], with data files that `fill` writes below the folder it is given, and syncs.
    pub(super) fn add_filled(
        &self,
        new: NewContent,
        fill: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<Arc<Content>, StoreError> {
        let _changing = self.changing();
        if let Some(content) = self.get(new.id) {
            self.make_durable(&content)?;
            return Ok(content);
        }
        let content = self.make(new, fill)?;
        if let Data::Files(files) = &content.data {
            let durable = self.finish_creation(&content, files, &mut files.writing());
            durable.inspect_err(|_| self.unmake(&content))?;
            files.measure(content.layout());
        }
        if content.is_imported() && content.is_complete() {
            content.set_state(State::Complete);
        }
        self.enter(&content);
        Ok(content)
    }

    /// Adds a content as [`Store::add`] does, without waiting for the disk: it may be written and served at once, and a power cut may
    /// take it until [`Store::make_durable`] has returned.
    ///
    /// # Errors
    /// As [`Store::add`].
    pub fn begin(&self, new: NewContent) -> Result<Arc<Content>, StoreError> {
        if let Some(content) = self.get(new.id) {
            return Ok(content);
        }
        // Of two that begin the same content at once, one makes the folder. So no lock is held that others hold while they wait for
        // the disk.
        let content = self.make(new, |_| Ok(()))?;
        self.enter(&content);
        Ok(content)
    }

    /// Makes a content that was begun outlive a power cut; nothing is done where it does.
    ///
    /// # Errors
    /// [`StoreError::Absent`] for one that is not in the store any more. What the disk says: the content is quarantined then, its state
    /// is [`State::Failed`], and every further call says the same. Wake its readers, and remove it.
    pub fn make_durable(&self, content: &Content) -> Result<(), StoreError> {
        self.lock_durable(content).map(drop)
    }

    /// The files of a content, locked for writing about them, once the content is durable.
    ///
    /// # Errors
    /// As [`Store::make_durable`].
    pub(super) fn lock_durable<'a>(
        &self,
        content: &'a Content,
    ) -> Result<(&'a FileSet, MutexGuard<'a, Creation>), StoreError> {
        let Data::Files(files) = &content.data else { return Err(StoreError::Absent(content.id())) };
        let mut creation = files.writing();
        self.check_current(content)?;
        self.finish_creation(content, files, &mut creation)?;
        Ok((files, creation))
    }

    /// Makes the folder of a content, and its data files.
    fn make(
        &self,
        new: NewContent,
        fill: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<Arc<Content>, StoreError> {
        let folder = self.folder(new.id);
        let (layout, in_place) = lay_out(&new)?;
        let growing = matches!(new.shape, Shape::Growing);
        let place = in_place.unwrap_or_else(|| Place::Stored(folder.join("data")));
        let files = FileSet::begun(&folder, place, &layout, growing);
        let content = Arc::new(Content::assemble(new, layout, Data::Files(Box::new(files))));
        // What is there already may be a content that could not be loaded: it is not touched.
        if !self.take_spare(&folder, &content) {
            fs::create_dir(&folder).map_err(StoreError::at(&folder))?;
        }
        let made = fill(&folder.join("data")).and_then(|()| match &content.data {
            Data::Files(files) => files.create(content.layout()).map_err(StoreError::at(&folder)),
            Data::Function(_) => Ok(()),
        });
        made.inspect_err(|_| self.unmake(&content))?;
        Ok(content)
    }

    /// Makes folders in advance, of which [`Store::begin`] takes one instead of making it. Call it at the start and after each content
    /// that was begun.
    ///
    /// # Errors
    /// What the disk says; nothing but time is lost by it.
    pub fn make_spares(&self) -> Result<(), StoreError> {
        self.spares.fill(&self.contents_folder).map_err(StoreError::at(&self.contents_folder))
    }

    /// Makes a spare folder that of a content of one stored file that is to be pulled.
    fn take_spare(&self, folder: &Path, content: &Content) -> bool {
        let is_stored =
            matches!(&content.data, Data::Files(files) if matches!(files.place(), Place::Stored(_)));
        match content.layout().files() {
            [FileSpan { path, padding: false, .. }] if is_stored && !content.is_imported() => {
                matches!(&path[..], [name] if is_name(name) && self.spares.take(folder, name))
            }
            _ => false,
        }
    }

    /// Takes away what [`Store::make`] made, as far as the disk lets us: the next start does the rest.
    fn unmake(&self, content: &Content) {
        let _ = fs::remove_dir_all(self.folder(content.id()));
    }

    fn finish_creation(
        &self,
        content: &Content,
        files: &FileSet,
        creation: &mut Creation,
    ) -> Result<(), StoreError> {
        let synced = match creation {
            Creation::Durable => return Ok(()),
            Creation::Begun => sync(&self.folder(content.id()), content, files),
            Creation::Lost(why) => return Err(StoreError::Lost(why.clone())),
        };
        *creation = match &synced {
            Ok(()) => Creation::Durable,
            Err(error) => {
                content.quarantine(&error.to_string());
                Creation::Lost(error.to_string())
            }
        };
        synced
    }
}

impl FileSet {
    /// The files of a content whose creation has begun.
    fn begun(folder: &Path, place: Place, layout: &Layout, growing: bool) -> FileSet {
        let files = FileSet::new(folder, place, layout, growing);
        *files.writing() = Creation::Begun;
        files
    }

    /// Locks what is written about a content, so that one thing follows the other.
    pub(super) fn writing(&self) -> MutexGuard<'_, Creation> {
        self.creation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes what is in `folder` outlive a power cut. The description gets its name last but for that of the folder.
fn sync(folder: &Path, content: &Content, files: &FileSet) -> Result<(), StoreError> {
    files.sync_folders(content.layout()).map_err(StoreError::at(folder))?;
    if let Some(metainfo) = content.metainfo() {
        durable::replace(folder, METAINFO, &metainfo.to_bytes()).map_err(StoreError::at(folder))?;
    }
    write_description(folder, content)?;
    folder.parent().map_or(Ok(()), durable::sync_folder).map_err(StoreError::at(folder))
}

/// Whether the creation of the content in `folder`, whose description is missing or torn, was interrupted.
pub(super) fn is_interrupted(folder: &Path) -> io::Result<bool> {
    let names: io::Result<Vec<_>> = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect();
    Ok(names?.iter().all(|name| BEFORE_DURABLE.iter().any(|known| name == known)))
}

/// What the content of an interrupted creation is; `None` where that is not known for certain. With hashes known, or imported, it was
/// shown to nobody before it was durable; else the description is all that is known of it.
pub(super) fn interrupted_description(folder: &Path) -> Result<Option<Description>, Unreadable> {
    let found = match fs::read(durable::unfinished(folder, DESCRIPTION)) {
        Ok(bytes) => Description::decode(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(Unreadable::Io(error)),
    };
    match found {
        Ok(described) => {
            let is_all = matches!(described.shape, DescribedShape::Layout(_) | DescribedShape::Growing);
            Ok(is_all.then_some(described))
        }
        Err(Unreadable::Torn(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Finishes the creation of a content that was interrupted.
pub(super) fn finish_interrupted(folder: &Path, content: &Content) -> Result<(), StoreError> {
    let Data::Files(files) = &content.data else { return Ok(()) };
    files.create(content.layout()).map_err(StoreError::at(folder))?;
    sync(folder, content, files)
}

/// Writes the description of a content anew.
pub(super) fn write_description(folder: &Path, content: &Content) -> Result<(), StoreError> {
    let path = folder.join(DESCRIPTION);
    let json = Description::of(content).encode();
    let json = json.map_err(|error| StoreError::Damaged { path: path.clone(), why: error.to_string() })?;
    durable::replace(folder, DESCRIPTION, &json).map_err(StoreError::at(&path))
}

/// Where the bytes of a new content lie, and which files those are that are served in place.
fn lay_out(new: &NewContent) -> Result<(Layout, Option<Place>), StoreError> {
    Ok(match &new.shape {
        Shape::Metainfo(metainfo) => (Layout::from_info(&metainfo.info)?, None),
        Shape::Layout(layout) | Shape::Imported(layout) => (layout.clone(), None),
        Shape::Growing => (Layout::growing(&new.name), None),
        Shape::InPlace { layout, paths } => {
            let mut files = Vec::new();
            for (at, file) in layout.files().iter().enumerate() {
                let path: PathBuf = paths.get(at).cloned().unwrap_or_default();
                files.push(match file.padding {
                    true => None,
                    false => {
                        let metadata = fs::symlink_metadata(&path).map_err(StoreError::at(&path))?;
                        Some((path, Stamp::of(&metadata)))
                    }
                });
            }
            (layout.clone(), Some(Place::InPlace(files)))
        }
    })
}
