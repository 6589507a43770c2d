//! The store: a folder of contents that one process has open.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use millrace_proto::id::{ContentId, InfoHashV1};
use millrace_proto::metainfo::Metainfo;

use super::creation::{METAINFO, write_description};
use super::durable;
use super::error::StoreError;
use super::files::Place;
use super::left::Guard;
use super::spare::Spares;
use super::state_file::Saved;
use crate::catalogue::Catalogue;
use crate::content::{Content, Data, State};
use crate::occupied::Tally;
use crate::twins::Twins;

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
    pub(super) infohashes: Catalogue<InfoHashV1, Arc<Content>>,
    pub(super) changing: Mutex<()>,
    /// Neither is held while the disk is waited for.
    pub(super) twins: Mutex<Twins>,
    pub(super) tally: Mutex<Tally>,
    pub(super) spares: Spares,
    pub(super) problems: Vec<Problem>,
    pub(super) interrupted: Vec<Interrupted>,
    pub(super) probe_works: bool,
    /// Asked before files lose their names.
    pub(super) guard: OnceLock<Guard>,
    /// Locked as long as the store is open, by this process or by one that it was given to.
    pub(super) lock: File,
}

impl Store {
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

    /// [`Store::save`], after which what is kept of the one before says the same: a disk that loses the new description falls back to
    /// nothing that was taken back.
    ///
    /// # Errors
    /// As [`Store::save`].
    pub fn save_for_good(&self, content: &Content) -> Result<(), StoreError> {
        self.save(content)?;
        self.save(content)
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
        self.tally().mark(content.id());
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
            self.check_nobody_opens(id)?;
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
        self.twins().remove(&content);
        self.tally().mark(id);
        let same: Vec<_> = match names(&content).first() {
            Some(name) => self.twins().with_name(*name).collect(),
            None => Vec::new(),
        };
        let mut same = same.into_iter().filter_map(|id| self.get(id));
        if let Some(other) = same.find(|other| is_same_torrent(other, &content)) {
            // It had the same names all along.
            self.enter(&other);
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
        self.note(content);
    }

    /// Notes what contents are looked for by, and that this one's bytes are to be counted.
    pub(super) fn note(&self, content: &Content) {
        let lends = matches!(&content.data, Data::Files(files) if matches!(files.place(), Place::Stored(_)));
        self.twins().insert(content, lends);
        self.tally().mark(content.id());
    }

    pub(super) fn twins(&self) -> MutexGuard<'_, Twins> {
        self.twins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(super) fn names(content: &Content) -> Vec<InfoHashV1> {
    content.swarm_names().collect()
}

fn is_same_torrent(one: &Content, other: &Content) -> bool {
    match (one.metainfo(), other.metainfo()) {
        (Some(one), Some(other)) => one.info_bytes == other.info_bytes,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use millrace_proto::metainfo::{Builder, plan_files};

    use super::*;
    use crate::PieceIndex;
    use crate::new_content::NewContent;

    const BYTES: [u8; 5] = *b"bytes";

    fn add(store: &Store, number: u8, name: &str) -> Arc<Content> {
        let mut hasher = millrace_proto::merkle::PieceHasher::new(true, true);
        hasher.update(&BYTES);
        let hash = hasher.finish(1);
        let plan = plan_files(name, 16_384, &[(vec![], BYTES.len() as u64)]).unwrap();
        let metainfo = Arc::new(Builder::new(plan).build(&[hash]).unwrap());
        store.add(NewContent::with_metainfo(ContentId([number; 16]), metainfo, "\"e\"")).unwrap()
    }

    #[test]
    fn no_content_is_looked_through_all_others_for() {
        let folder = std::env::temp_dir().join(format!("millrace-walks-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let store = Store::open(&folder, Options { capacity: Some(1 << 30), free_floor: 0 }).unwrap();
        let first = add(&store, 1, "one");
        first.write(0, &BYTES).unwrap();
        first.mark_verified(PieceIndex(0));
        store.commit(&first).unwrap();
        let walks = store.contents.walks();
        // The same bytes, and the same torrent as well.
        for (number, name) in [(2, "two"), (3, "one")] {
            let other = add(&store, number, name);
            assert_eq!(store.share(&other).unwrap(), BYTES.len() as u64);
            assert_eq!(store.make_room(1, 0).unwrap(), []);
        }
        assert!(store.occupied().saved > 0);
        let name = first.swarm_names().next().unwrap();
        store.remove(ContentId([1; 16])).unwrap();
        assert_eq!(store.by_infohash(&name).map(|other| other.id()), Some(ContentId([3; 16])));
        store.remove(ContentId([3; 16])).unwrap();
        assert!(store.by_infohash(&name).is_none());
        assert_eq!(store.contents.walks() - walks, 0);
        fs::remove_dir_all(&folder).unwrap();
    }
}
