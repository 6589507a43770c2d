//! Equal files of two contents are one file on disk, and nobody notices: not after a crash, not when one of them goes.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_pagecache::occupied::Total;
use millrace_pagecache::{Content, FileIndex, NewContent, Options, PieceIndex, State, Store};
use millrace_proto::access::Access;
use millrace_proto::id::ContentId;
use millrace_proto::merkle::{PieceHash, PieceHasher, leaf_width};
use millrace_proto::metainfo::{Builder, Metainfo, plan_files};

const LENGTH: u64 = 300_000;
const ONE: ContentId = ContentId([1; 16]);
const OTHER: ContentId = ContentId([2; 16]);

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("millrace-share-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn store(&self) -> Store {
        Store::open(&self.0, Options::default()).unwrap()
    }

    /// A store that has the bytes as content `ONE`, named `one`, of unknown hashes once.
    fn with_one(name: &str) -> (Folder, Store) {
        let folder = Folder::new(name);
        let store = folder.store();
        pulled(&store, ONE, "one");
        (folder, store)
    }

    fn of(&self, id: ContentId) -> PathBuf {
        self.0.join("contents").join(id.to_string())
    }

    /// The data file of a content of this name.
    fn data(&self, id: ContentId, name: &str) -> PathBuf {
        self.of(id).join("data").join(name)
    }

    fn is_one_file(&self) -> bool {
        inode(&self.data(ONE, "one")) == inode(&self.data(OTHER, "other"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

fn bytes() -> Vec<u8> {
    (0..LENGTH).map(|at| u8::try_from((at * 31 + at / 250) % 256).unwrap()).collect()
}

/// A torrent of the bytes as a file of this name, with this mixed into the v1 hashes.
fn torrent(name: &str, piece_bytes: u32, lie: u8) -> Arc<Metainfo> {
    let plan = plan_files(name, piece_bytes, &[(vec![], LENGTH)]).unwrap();
    let bytes = bytes();
    let pieces = bytes.chunks(usize::try_from(piece_bytes).unwrap()).map(|piece| {
        let mut hasher = PieceHasher::new(true, true);
        hasher.update(piece);
        let mut hash: PieceHash = hasher.finish(leaf_width(LENGTH, piece_bytes));
        hash.v1.iter_mut().for_each(|v1| v1[0] ^= lie);
        hash
    });
    Arc::new(Builder::new(plan).build(&pieces.collect::<Vec<_>>()).unwrap())
}

/// Adds the bytes as a pull of unknown hashes does, to its end.
fn pulled(store: &Store, id: ContentId, name: &str) -> Arc<Content> {
    let new = NewContent::single_of_length(id, name, LENGTH, 16_384, "\"e\"").unwrap();
    let content = store.add(new).unwrap();
    content.stream(0).unwrap().write(&bytes()).unwrap();
    for piece in (0..content.layout().piece_count()).map(PieceIndex) {
        content.hash_piece(piece).unwrap();
        content.mark_verified(piece);
    }
    store.set_metainfo(&content, torrent(name, 16_384, 0)).unwrap();
    store.commit(&content).unwrap();
    content.set_state(State::Complete);
    content
}

fn add_torrent(store: &Store, piece_bytes: u32, lie: u8) -> Arc<Content> {
    store.add(NewContent::with_metainfo(OTHER, torrent("other", piece_bytes, lie), "\"t\"")).unwrap()
}

fn check_bytes(content: &Content) {
    assert!(content.is_complete(), "{content:?}");
    let mut found = vec![0; usize::try_from(LENGTH).unwrap()];
    content.read(0, &mut found).unwrap();
    assert!(found == bytes(), "{content:?} has wrong bytes");
    assert_eq!(content.visible_until(0, LENGTH), LENGTH);
}

#[test]
fn a_torrent_of_what_is_here_needs_no_pull() {
    for piece_bytes in [16_384, 65_536] {
        let (folder, store) = Folder::with_one(&format!("torrent-{piece_bytes}"));
        let used = store.occupied().used;
        let other = add_torrent(&store, piece_bytes, 0);
        assert_eq!(store.share(&other).unwrap(), LENGTH);
        check_bytes(&other);
        assert!(folder.is_one_file());
        let total = store.occupied();
        assert!(total.saved >= LENGTH);
        assert_eq!(total.used, used);
        assert_eq!(store.share(&other).unwrap(), 0, "once is enough");
        drop((store, other));
        let store = folder.store();
        assert_eq!(store.occupied(), total, "known from the disk alone");
        check_bytes(&store.get(OTHER).unwrap());
        store.remove(ONE).unwrap();
        check_bytes(&store.get(OTHER).unwrap());
        assert_eq!(store.occupied(), Total { used, saved: 0 });
        assert_eq!(store.verify(|_, _, _| ())[0].bad, []);
    }
}

#[test]
fn what_came_a_second_time_becomes_the_first() {
    let (folder, store) = Folder::with_one("again");
    let other = pulled(&store, OTHER, "other");
    let held = other.file(FileIndex(0)).unwrap();
    assert!(!folder.is_one_file() && store.occupied().used >= 2 * LENGTH);
    assert_eq!(store.share(&other).unwrap(), LENGTH);
    assert!(folder.is_one_file() && store.occupied().used < 2 * LENGTH);
    check_bytes(&other);
    let mut found = vec![0; usize::try_from(LENGTH).unwrap()];
    held.file().read_exact_at(&mut found, 0).unwrap();
    assert!(found == bytes(), "who had it open goes on with the old one");
    let opened = other.file(FileIndex(0)).unwrap();
    assert_eq!(opened.file().metadata().unwrap().ino(), inode(&folder.data(ONE, "one")));
    drop((store, other));
    let store = folder.store();
    store.evict(OTHER).unwrap();
    check_bytes(&store.get(ONE).unwrap());
    assert_eq!(store.get(OTHER).unwrap().visible_bytes(), 0);
}

#[test]
fn a_torrent_that_two_have_is_known_until_both_are_gone() {
    let (_folder, store) = Folder::with_one("same");
    pulled(&store, OTHER, "one");
    let infohash = torrent("one", 16_384, 0).infohash_v1().unwrap();
    let known = || store.by_infohash(&infohash).map(|content| content.id());
    store.remove(OTHER).unwrap();
    assert_eq!(known(), Some(ONE));
    store.remove(ONE).unwrap();
    assert_eq!(known(), None);
}

#[test]
fn what_is_partly_here_comes_to_its_end_first() {
    let (folder, store) = Folder::with_one("partly");
    let other = add_torrent(&store, 16_384, 0);
    other.write(0, &bytes()[..16_384]).unwrap();
    other.mark_verified(PieceIndex(0));
    assert_eq!(store.share(&other).unwrap(), 0);
    other.write(16_384, &bytes()[16_384..]).unwrap();
    (1..other.layout().piece_count()).for_each(|piece| other.mark_verified(PieceIndex(piece)));
    store.commit(&other).unwrap();
    assert_eq!(store.share(&other).unwrap(), LENGTH);
    assert!(folder.is_one_file());
    check_bytes(&other);
}

#[test]
fn a_torrent_that_lies_gets_nothing() {
    for (piece_bytes, lie) in [(16_384, 1), (65_536, 1)] {
        let (_folder, store) = Folder::with_one(&format!("lie-{piece_bytes}"));
        let other = add_torrent(&store, piece_bytes, lie);
        assert_eq!(store.share(&other).unwrap(), 0);
        assert_eq!(other.visible_bytes(), 0);
    }
}

#[test]
fn what_is_served_in_place_is_left_alone() {
    let folder = Folder::new("in-place");
    let store = folder.store();
    let outside = folder.0.join("other");
    fs::write(&outside, bytes()).unwrap();
    let imported = store.import(OTHER, &outside, "other", "\"i\"", Access::Public).unwrap();
    for piece in (0..imported.content.layout().piece_count()).map(PieceIndex) {
        imported.content.hash_piece(piece).unwrap();
        imported.content.mark_verified(piece);
    }
    store.set_metainfo(&imported.content, torrent("other", 16_384, 0)).unwrap();
    store.commit(&imported.content).unwrap();
    let before = inode(&outside);
    let one = pulled(&store, ONE, "one");
    if !imported.reflinked {
        assert_eq!((store.share(&one).unwrap(), store.share(&imported.content).unwrap()), (0, 0));
    }
    assert_eq!((inode(&outside), fs::metadata(&outside).unwrap().nlink()), (before, 1));
    // Nor does it stand in the way of who has the bytes in the store.
    let new = NewContent::with_metainfo(ContentId([3; 16]), torrent("third", 16_384, 0), "\"t\"");
    assert_eq!(store.share(&store.add(new).unwrap()).unwrap(), LENGTH);
}

#[test]
fn a_crash_before_the_state_costs_only_the_link() {
    let (folder, store) = Folder::with_one("crash");
    add_torrent(&store, 16_384, 0);
    drop(store);
    let (data, spare) = (folder.data(OTHER, "other"), folder.of(OTHER).join("linking"));
    fs::remove_file(&data).unwrap();
    fs::hard_link(folder.data(ONE, "one"), &data).unwrap();
    fs::hard_link(folder.data(ONE, "one"), &spare).unwrap();
    let store = folder.store();
    let other = store.get(OTHER).unwrap();
    assert!(!folder.is_one_file() && !spare.exists());
    assert_eq!((other.visible_bytes(), other.pieces_have()), (0, 0));
    other.write(0, &[0xff; 16_384]).unwrap();
    check_bytes(&store.get(ONE).unwrap());
    assert_eq!(store.share(&other).unwrap(), LENGTH);
    assert!(folder.is_one_file());
    check_bytes(&other);
}

#[test]
fn a_file_of_two_names_is_never_written() {
    let (folder, store) = Folder::with_one("names");
    let other = add_torrent(&store, 16_384, 0);
    let data = folder.data(OTHER, "other");
    fs::remove_file(&data).unwrap();
    fs::hard_link(folder.data(ONE, "one"), &data).unwrap();
    assert!(other.write(0, &[0xff; 16_384]).is_err());
    check_bytes(&store.get(ONE).unwrap());
}

#[test]
fn a_lost_state_never_writes_where_another_reads() {
    let (folder, store) = Folder::with_one("torn");
    let other = add_torrent(&store, 16_384, 0);
    store.share(&other).unwrap();
    drop((store, other));
    for name in ["state", "state.previous", "arrived"] {
        let _ = fs::remove_file(folder.of(ONE).join(name));
    }
    let store = folder.store();
    let one = store.get(ONE).unwrap();
    assert_eq!(one.visible_bytes(), 0);
    one.write(0, &[0xff; 16_384]).unwrap();
    check_bytes(&store.get(OTHER).unwrap());
    // A name made beside a running pull is as good as one that another content has.
    fs::hard_link(folder.data(ONE, "one"), folder.0.join("backup")).unwrap();
    drop(one);
    drop(store);
    let store = folder.store();
    let one = store.get(ONE).unwrap();
    one.write(0, &bytes()[..100]).unwrap();
    assert_eq!(fs::read(folder.0.join("backup")).unwrap()[..2], [0xff; 2]);
}

#[test]
fn a_file_that_was_cut_is_lost_to_all_who_have_it_and_stays_lost() {
    let (folder, store) = Folder::with_one("cut");
    let other = add_torrent(&store, 16_384, 0);
    store.share(&other).unwrap();
    drop((store, other));
    let data = fs::OpenOptions::new().write(true).open(folder.data(ONE, "one")).unwrap();
    data.set_len(LENGTH - 1).unwrap();
    for _ in 0..2 {
        let store = folder.store();
        for id in [ONE, OTHER] {
            assert_eq!(store.get(id).unwrap().visible_bytes(), 0);
        }
    }
}

#[test]
fn damage_is_everybodys_who_has_the_file() {
    let (folder, store) = Folder::with_one("damage");
    let other = add_torrent(&store, 65_536, 0);
    store.share(&other).unwrap();
    let data = fs::OpenOptions::new().write(true).open(folder.data(ONE, "one")).unwrap();
    data.write_all_at(b"?", 100_000).unwrap();
    let reports = store.verify(|_, _, _| ());
    assert_eq!(reports[0].bad, [PieceIndex(6)]);
    assert_eq!(reports[1].bad, [PieceIndex(1)]);
    let sharing = |pieces: &[PieceIndex]| -> Vec<_> {
        store.sharing(&store.get(ONE).unwrap(), pieces).iter().map(|content| content.id()).collect()
    };
    assert_eq!(sharing(&reports[0].bad), [OTHER]);
    assert_eq!(sharing(&[]), []);
}

#[test]
fn room_is_made_by_the_last_name() {
    let (folder, store) = Folder::with_one("room");
    let other = add_torrent(&store, 16_384, 0);
    store.share(&other).unwrap();
    other.set_state(State::Complete);
    drop((store, other));
    let options = Options { capacity: Some(LENGTH * 5 / 3), free_floor: 0 };
    let store = Store::open(&folder.0, options).unwrap();
    assert!(store.fits(LENGTH / 3).unwrap(), "both are 60 % of the capacity each, and fit");
    store.get(OTHER).unwrap().set_pinned(true);
    assert_eq!(store.make_room(LENGTH, 100).unwrap(), [], "to evict one frees nothing");
    store.get(OTHER).unwrap().set_pinned(false);
    assert_eq!(store.make_room(LENGTH, 100).unwrap(), [ONE, OTHER]);
}
