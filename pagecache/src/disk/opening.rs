//! Opening a store: who has it, what wrote it, and what is in it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use millrace_proto::id::ContentId;

use super::durable;
use super::error::StoreError;
use super::left::{Left, VisibleRuns};
use super::load::{self, Loaded};
use super::residency;
use super::spare::Spares;
use super::store::{Interrupted, Options, Problem, Store, names};
use crate::catalogue::Catalogue;
use crate::content::Content;

/// First line of the `version` file.
const VERSION: &str = "millrace store 1\n";

impl Store {
    /// Opens the store in `folder`, or makes one there. Pieces are believed as committed; only those that arrived after
    /// the last commit are hashed.
    ///
    /// # Errors
    /// In use by another process, unreadable, or written by a later program. A content that is damaged is left out:
    /// see [`Store::problems`].
    pub fn open(folder: &Path, options: Options) -> Result<Store, StoreError> {
        Store::open_as(folder, options, None)
    }

    /// Opens the store in `folder` as another process leaves it, which gave us its lock, and has ended all its writing.
    ///
    /// # Errors
    /// As [`Store::open`], but never in use.
    pub fn take_over(folder: &Path, options: Options, left: Left) -> Result<Store, StoreError> {
        Store::open_as(folder, options, Some(left))
    }

    fn open_as(folder: &Path, options: Options, left: Option<Left>) -> Result<Store, StoreError> {
        let contents_folder = folder.join("contents");
        fs::create_dir_all(&contents_folder).map_err(StoreError::at(folder))?;
        let (lock, visible) = match left {
            Some(Left { lock, visible }) => (lock, visible),
            None => (lock(folder)?, HashMap::new()),
        };
        check_version(folder)?;
        let probe_works = residency::probe_works(folder).map_err(StoreError::at(folder))?;
        let mut store = Store {
            contents: Catalogue::default(),
            infohashes: Catalogue::default(),
            changing: Mutex::default(),
            twins: Mutex::default(),
            tally: Mutex::default(),
            spares: Spares::default(),
            problems: Vec::new(),
            interrupted: Vec::new(),
            contents_folder,
            options,
            probe_works,
            guard: OnceLock::new(),
            lock,
        };
        let folders = load::folders(&store.contents_folder, &mut store.problems)?;
        let mut contents = Vec::with_capacity(folders.len());
        for (folder, loaded) in load_all(&folders, &visible) {
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
        contents.iter().for_each(|content| store.note(content));
        store.contents.insert_all(contents.into_iter().map(|content| (content.id(), content)));
        Ok(store)
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
fn load_all(
    folders: &[(PathBuf, ContentId)],
    visible: &VisibleRuns,
) -> Vec<(PathBuf, Result<Loaded, StoreError>)> {
    const THREADS: usize = 8;
    let share = folders.len().div_ceil(THREADS).max(1);
    thread::scope(|scope| {
        let load_some = |some: &[(PathBuf, ContentId)]| {
            let load = |(folder, id): &(PathBuf, ContentId)| {
                let visible = visible.get(id).map_or(&[][..], Vec::as_slice);
                (folder.clone(), load::load(folder, *id, visible))
            };
            some.iter().map(load).collect::<Vec<_>>()
        };
        let threads: Vec<_> =
            folders.chunks(share).map(|some| scope.spawn(move || load_some(some))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}
