//! The store: a folder of contents that one process has open.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use millrace_proto::id::{ContentId, InfoHashV1};
use millrace_proto::metainfo::Metainfo;

use super::creation::{METAINFO, write_description};
use super::durable;
use super::error::StoreError;
use super::load::{self, Loaded};
use super::residency;
use super::spare::Spares;
use super::state_file::Saved;
use crate::catalogue::Catalogue;
use crate::content::{Content, Data, State};

/// First line of the `version` file.
const VERSION: &str = "millrace store 1\n";

/// What the configuration says about a store.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Most bytes that contents may occupy; `None` for no limit.
    pub capacity: Option<u64>,
    /// Bytes that must stay free on its file system.
    pub free_floor: u64,
}

/// A content that could not be loaded; its files are left alone.
#[derive(Debug)]
pub struct Problem {
    /// Its folder.
    pub folder: PathBuf,
    /// Why.
    pub error: StoreError,
}

/// A content whose creation a crash interrupted: nobody had been told that it was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupted {
    /// Its folder.
    pub folder: PathBuf,
    /// Whether it is in the store now, with the pieces that had arrived; if not, it was removed.
    pub goes_on: bool,
}

/// The open store. Lookups take no lock; changes take one, and wait for the disk.
#[derive(Debug)]
pub struct Store {
    pub(super) contents_folder: PathBuf,
    pub(super) options: Options,
    pub(super) contents: Catalogue<ContentId, Arc<Content>>,
    infohashes: Catalogue<InfoHashV1, Arc<Content>>,
    changing: Mutex<()>,
    pub(super) spares: Spares,
    problems: Vec<Problem>,
    interrupted: Vec<Interrupted>,
    probe_works: bool,
    /// Locked as long as the store is open.
    _lock: File,
}

impl Store {
    /// Opens the store in `folder`, or makes one there. Pieces are believed as committed; only those that arrived after
    /// the last commit are hashed.
    ///
    /// # Errors
    /// In use by another process, unreadable, or written by a later program. A content that is damaged is left out:
    /// see [`Store::problems`].
    pub fn open(folder: &Path, options: Options) -> Result<Store, StoreError> {
        let contents_folder = folder.join("contents");
        fs::create_dir_all(&contents_folder).map_err(StoreError::at(folder))?;
        let lock = lock(folder)?;
        check_version(folder)?;
        let probe_works = residency::probe_works(folder).map_err(StoreError::at(folder))?;
        let mut store = Store {
            contents: Catalogue::default(),
            infohashes: Catalogue::default(),
            changing: Mutex::default(),
            spares: Spares::default(),
            problems: Vec::new(),
            interrupted: Vec::new(),
            contents_folder,
            options,
            probe_works,
            _lock: lock,
        };
        let folders = load::folders(&store.contents_folder, &mut store.problems)?;
        let mut contents = Vec::with_capacity(folders.len());
        for (folder, loaded) in load_all(&folders) {
            match loaded {
                Ok(Loaded::Whole(content)) => contents.push(content),
                Ok(Loaded::Finished(content)) => {
                    contents.push(content);
                    store.interrupted.push(Interrupted { folder, goes_on: true });
                }
                Ok(Loaded::Removed) => store.interrupted.push(Interrupted { folder, goes_on: false }),
                Err(error @ StoreError::Version { .. }) => return Err(error),
                Err(error) => store.problems.push(Problem { folder, error }),
            }
        }
        let named =
            |content: &Arc<Content>| names(content).into_iter().zip(iter::repeat(Arc::clone(content)));
        store.infohashes.insert_all(contents.iter().flat_map(named));
        store.contents.insert_all(contents.into_iter().map(|content| (content.id(), content)));
        Ok(store)
    }

    /// Contents that could not be loaded.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Contents whose creation was interrupted by a crash.
    #[must_use]
    pub fn interrupted(&self) -> &[Interrupted] {
        &self.interrupted
    }

    /// Whether [`residency::resident`] can be believed on this store's file system.
    #[must_use]
    pub fn residency_works(&self) -> bool {
        self.probe_works
    }

    /// All contents, in no order.
    #[must_use]
    pub fn contents(&self) -> Vec<Arc<Content>> {
        self.contents.all()
    }

    /// The content of this id.
    #[must_use]
    pub fn get(&self, id: ContentId) -> Option<Arc<Content>> {
        self.contents.find(&id)
    }

    /// The content of this infohash: v1, or the first 20 bytes of v2.
    #[must_use]
    pub fn by_infohash(&self, infohash: &InfoHashV1) -> Option<Arc<Content>> {
        self.infohashes.find(infohash)
    }

    /// Writes the description of a content (sources, pins, counters) anew.
    ///
    /// # Errors
    /// [`StoreError::Absent`] for a content that was removed, evicted or settled; what the disk says.
    pub fn save(&self, content: &Content) -> Result<(), StoreError> {
        let _writing = self.lock_durable(content)?;
        write_description(&self.folder(content.id()), content)
    }

    /// Gives a content the metainfo that was made of it, keeps it, and makes it known by infohash.
    ///
    /// # Errors
    /// As [`Store::save`].
    pub fn set_metainfo(&self, content: &Arc<Content>, metainfo: Arc<Metainfo>) -> Result<(), StoreError> {
        // No other lock is held while the disk is waited for: whoever takes the content away takes this one.
        let _writing = self.lock_durable(content)?;
        let folder = self.folder(content.id());
        durable::replace(&folder, METAINFO, &metainfo.to_bytes()).map_err(StoreError::at(&folder))?;
        content.set_metainfo(metainfo);
        self.enter(content);
        Ok(())
    }

    /// Makes the pieces verified so far outlive a power cut: syncs the data, then the state that vouches for it.
    ///
    /// # Errors
    /// When the data could not be synced, the content is quarantined: its state is [`State::Failed`], nothing of it is
    /// served any more, and after a restart it has the pieces committed before. Wake its readers.
    pub fn commit(&self, content: &Content) -> Result<(), StoreError> {
        let folder = self.folder(content.id());
        let (files, _writing) = self.lock_durable(content)?;
        if content.damage().is_some() {
            // What it had is still what is to be hashed when somebody looks at the damage.
            return Ok(());
        }
        // What is marked after this line is not vouched for, since it may be written after the sync.
        let good = content.bitfield();
        if let Err(error) = files.sync() {
            content.quarantine(&error.to_string());
            // The records would have it re-hashed from a cache that may differ from the disk.
            let _ = files.journal.retain(|_| false);
            return Err(StoreError::at(&folder)(error));
        }
        let layout = content.layout();
        let saved = Saved {
            id: content.id(),
            piece_bytes: layout.piece_bytes(),
            length: layout.length(),
            learned: if content.metainfo().is_some() { Vec::new() } else { content.hashes() },
            good,
        };
        durable::replace(&folder, "state", &saved.encode()).map_err(StoreError::at(&folder))?;
        let vouched =
            |piece: u32| usize::try_from(piece).is_ok_and(|at| saved.good.get(at).is_some_and(|bit| *bit));
        files.journal.retain(|piece| !vouched(piece.0)).map_err(StoreError::at(&folder))?;
        files.measure(layout);
        Ok(())
    }

    /// Removes a content. Who holds it may finish reading: files are unlinked, never cut. Files imported in place are
    /// left alone.
    ///
    /// # Errors
    /// [`StoreError::Absent`], or what the disk says.
    pub fn remove(&self, id: ContentId) -> Result<Arc<Content>, StoreError> {
        let _changing = self.changing();
        let content = self.get(id).ok_or(StoreError::Absent(id))?;
        let (folder, removed) = (self.folder(id), self.contents_folder.join(format!(".removed-{id}")));
        {
            let Data::Files(files) = &content.data else { return Err(StoreError::Absent(id)) };
            let _writing = files.writing();
            // Forgotten before its folder is free: `begin` may make another content of this id there, without the lock above.
            self.contents.remove(&id);
            fs::rename(&folder, &removed).map_err(|error| {
                self.contents.insert(id, Arc::clone(&content));
                StoreError::at(&folder)(error)
            })?;
            files.mark_unlinked();
        }
        names(&content).iter().for_each(|name| self.infohashes.remove(name));
        if let Some(other) = self.contents().iter().find(|other| is_same_torrent(other, &content)) {
            // It had the same names all along.
            self.enter(other);
        }
        content.set_state(State::Removed);
        durable::sync_folder(&self.contents_folder).map_err(StoreError::at(&folder))?;
        fs::remove_dir_all(&removed).map_err(StoreError::at(&removed))?;
        Ok(content)
    }

    /// Makes a content known by its names, instead of an older object of it.
    pub(super) fn enter(&self, content: &Arc<Content>) {
        names(content).into_iter().for_each(|name| self.infohashes.insert(name, Arc::clone(content)));
        self.contents.insert(content.id(), Arc::clone(content));
    }

    pub(super) fn check_current(&self, content: &Content) -> Result<(), StoreError> {
        let current =
            self.get(content.id()).is_some_and(|current| std::ptr::eq(&raw const *current, content));
        if current { Ok(()) } else { Err(StoreError::Absent(content.id())) }
    }

    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn folder(&self, id: ContentId) -> PathBuf {
        self.contents_folder.join(id.to_string())
    }
}

/// The infohashes of a content, cut to the 20 bytes of handshakes.
fn names(content: &Content) -> Vec<InfoHashV1> {
    content.swarm_names().collect()
}

fn is_same_torrent(one: &Content, other: &Content) -> bool {
    match (one.metainfo(), other.metainfo()) {
        (Some(one), Some(other)) => one.info_bytes == other.info_bytes,
        _ => false,
    }
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(StoreError::at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(folder.to_path_buf())),
        Err(TryLockError::Error(error)) => Err(StoreError::at(&path)(error)),
    }
}

fn check_version(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join("version");
    match fs::read_to_string(&path) {
        Ok(text) if text == VERSION => Ok(()),
        Ok(text) => match text.strip_prefix("millrace store ").and_then(|rest| rest.trim().parse().ok()) {
            Some(found) => Err(StoreError::Version { path, found }),
            None => Err(StoreError::Damaged { path, why: "this is no store of ours".to_owned() }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            durable::replace(folder, "version", VERSION.as_bytes()).map_err(StoreError::at(&path))
        }
        Err(error) => Err(StoreError::at(&path)(error)),
    }
}

/// Reads contents on several threads, since each is a few small reads that wait for the disk.
fn load_all(folders: &[(PathBuf, ContentId)]) -> Vec<(PathBuf, Result<Loaded, StoreError>)> {
    const THREADS: usize = 8;
    let share = folders.len().div_ceil(THREADS).max(1);
    thread::scope(|scope| {
        let load_some = |some: &[(PathBuf, ContentId)]| {
            some.iter().map(|(folder, id)| (folder.clone(), load::load(folder, *id))).collect::<Vec<_>>()
        };
        let threads: Vec<_> =
            folders.chunks(share).map(|some| scope.spawn(move || load_some(some))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}
