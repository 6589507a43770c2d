//! A content is written and served before its creation outlives a crash. Whatever part of it a crash leaves, the store opens, goes on
//! with the content or removes it, and serves no wrong byte.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_pagecache::disk::Interrupted;
use millrace_pagecache::{Content, NewContent, Options, PieceIndex, State, Store};
use millrace_proto::id::ContentId;
use millrace_proto::merkle;
use millrace_proto::metainfo::{Builder, plan_files};

const PIECE: u64 = 16_384;
const PIECES: u32 = 3;
const ID: ContentId = ContentId([5; 16]);

/// A store's folder, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("millrace-creation-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn open(&self) -> Store {
        Store::open(&self.0, Options::default()).unwrap()
    }

    /// The folder of the content.
    fn content(&self) -> PathBuf {
        self.0.join("contents").join(ID.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bytes(piece: u32) -> Vec<u8> {
    (0..PIECE).map(|at| u8::try_from((at * 11 + at / 253 + u64::from(piece) * 17) % 256).unwrap()).collect()
}

fn new() -> NewContent {
    NewContent::single_of_length(ID, "名", u64::from(PIECES) * PIECE, 16_384, "\"e\"").unwrap()
}

fn arrive(content: &Arc<Content>, piece: u32) {
    let mut stream = content.stream(u64::from(piece) * PIECE).unwrap();
    stream.write(&bytes(piece)).unwrap();
    content.hash_piece(PieceIndex(piece)).unwrap();
    content.mark_verified(PieceIndex(piece));
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What a start finds of the content, after checking that every visible byte is right and that all of it can still arrive and be kept.
/// `None` when it was removed.
fn restart(folder: &Folder, context: &str) -> Option<Vec<u32>> {
    let store = folder.open();
    assert_eq!(store.problems().len(), 0, "{context}: {:?}", store.problems());
    let goes_on = store.get(ID).is_some();
    let known = [Interrupted { folder: folder.content(), goes_on }];
    if !goes_on {
        assert_eq!(store.interrupted(), known, "{context}");
        assert!(!folder.content().exists(), "{context}: its bytes still take room");
        arrive(&store.add(new()).unwrap(), 0);
        return None;
    }
    assert!(store.interrupted().is_empty() || store.interrupted() == known, "{context}");
    let content = store.get(ID).unwrap();
    assert_eq!(
        (content.etag(), content.name(), content.state()),
        ("\"e\"", "名", State::Queued),
        "{context}"
    );
    let have: Vec<u32> = (0..PIECES).filter(|&piece| content.has_piece(PieceIndex(piece))).collect();
    for piece in 0..PIECES {
        let start = u64::from(piece) * PIECE;
        assert_eq!(content.visible_until(start, start + PIECE) > start, have.contains(&piece), "{context}");
        if have.contains(&piece) {
            let mut found = vec![0; 16_384];
            content.read(start, &mut found).unwrap();
            assert_eq!(found, bytes(piece), "{context}: piece {piece}");
        } else {
            arrive(&content, piece);
        }
    }
    store.commit(&content).unwrap();
    drop((content, store));
    let store = folder.open();
    assert_eq!(store.interrupted(), [], "{context}: finished once");
    assert_eq!(store.get(ID).unwrap().state(), State::Complete, "{context}");
    Some(have)
}

#[test]
fn what_was_begun_is_served_at_once_and_survives_a_kill() {
    let folder = Folder::new("kill");
    let store = folder.open();
    let content = store.begin(new()).unwrap();
    assert_eq!(names(&folder.content()), ["data"], "nothing vouches for it yet");
    assert!(Arc::ptr_eq(&content, &store.get(ID).unwrap()));
    arrive(&content, 1);
    assert_eq!(content.visible_until(PIECE, u64::MAX), 2 * PIECE);
    store.make_durable(&content).unwrap();
    assert_eq!(names(&folder.content()), ["arrived", "content.json", "data"]);
    drop((content, store));
    assert_eq!(restart(&folder, "after a kill"), Some(vec![1]));
}

#[test]
fn everything_that_is_kept_of_a_content_comes_after_its_creation() {
    let folder = Folder::new("order");
    type Keep = fn(&Store, &Arc<Content>);
    let keep: [(&str, Keep); 3] = [
        ("commit", |store, content| store.commit(content).unwrap()),
        ("save", |store, content| store.save(content).unwrap()),
        ("evict", |store, content| drop(store.evict(content.id()).unwrap())),
    ];
    for (what, keep) in keep {
        let store = folder.open();
        let content = store.begin(new()).unwrap();
        keep(&store, &content);
        assert!(names(&folder.content()).contains(&"content.json".to_owned()), "{what}");
        assert!(!names(&folder.content()).contains(&".content.json.new".to_owned()), "{what}");
        store.remove(ID).unwrap();
    }
    let store = folder.open();
    let growing = store.begin(NewContent::growing(ID, "名", "\"e\"")).unwrap();
    growing.stream(0).unwrap().write(&bytes(0)).unwrap();
    growing.end_growth();
    store.settle(&growing, PIECE).unwrap();
    assert!(names(&folder.content()).contains(&"content.json".to_owned()));
}

/// What a power cut may leave of one thing that was not synced.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    Nothing,
    Empty,
    Part,
    Zeros,
    Whole,
}

const ALL: [Left; 5] = [Left::Nothing, Left::Empty, Left::Part, Left::Zeros, Left::Whole];

fn leave(path: &Path, left: Left) {
    let whole = fs::read(path).unwrap();
    match left {
        Left::Nothing => fs::remove_file(path).unwrap(),
        Left::Empty => fs::write(path, b"").unwrap(),
        Left::Part => fs::write(path, &whole[..whole.len() * 2 / 3]).unwrap(),
        Left::Zeros => fs::write(path, vec![0; whole.len()]).unwrap(),
        Left::Whole => {}
    }
}

/// Begins a content, of which two pieces arrive; its folder is as it is when the description is written, and has no name yet.
fn begin(folder: &Folder) {
    let store = folder.open();
    let content = store.begin(new()).unwrap();
    arrive(&content, 0);
    arrive(&content, 2);
    store.make_durable(&content).unwrap();
    let folder = folder.content();
    fs::rename(folder.join("content.json"), folder.join(".content.json.new")).unwrap();
}

#[test]
fn any_part_of_a_creation_is_finished_or_removed() {
    let folder = Folder::new("parts");
    for description in ALL {
        for journal in ALL {
            for data in ALL {
                let context = format!("description {description:?}, journal {journal:?}, data {data:?}");
                let _ = fs::remove_dir_all(folder.content());
                begin(&folder);
                leave(&folder.content().join(".content.json.new"), description);
                leave(&folder.content().join("arrived"), journal);
                leave(&folder.content().join("data/名"), data);
                let have = restart(&folder, &context);
                let expected = (description == Left::Whole).then(|| match (journal, data) {
                    (Left::Whole, Left::Whole) => vec![0, 2],
                    // The first of two records is whole, or none is.
                    (Left::Part, Left::Whole) => vec![0],
                    _ => vec![],
                });
                // A file that was cut is not trusted, whatever the journal says.
                assert_eq!(have, expected, "{context}");
            }
        }
    }
}

#[test]
fn a_cut_of_the_description_is_noticed() {
    let folder = Folder::new("cuts");
    begin(&folder);
    let whole = fs::read(folder.content().join(".content.json.new")).unwrap();
    for at in (0..whole.len()).step_by(5) {
        let _ = fs::remove_dir_all(folder.content());
        begin(&folder);
        fs::write(folder.content().join(".content.json.new"), &whole[..at]).unwrap();
        let store = folder.open();
        let removed = Interrupted { folder: folder.content(), goes_on: false };
        assert_eq!((store.problems().len(), store.interrupted()), (0, &[removed][..]), "cut at {at}");
        assert!(!folder.content().exists(), "cut at {at}");
    }
}

#[test]
fn a_folder_without_its_data_is_finished_too() {
    let folder = Folder::new("bare");
    begin(&folder);
    fs::remove_dir_all(folder.content().join("data")).unwrap();
    assert_eq!(restart(&folder, "no data folder"), Some(vec![]));
    let _ = fs::remove_dir_all(folder.content());
    fs::create_dir(folder.content()).unwrap();
    assert_eq!(restart(&folder, "nothing but the folder"), None);
}

#[test]
fn a_crash_while_it_is_made_durable_loses_nothing() {
    let folder = Folder::new("steps");
    // Between the two names: the new one is there, and maybe the old one as well.
    for keeps_old in [false, true] {
        let _ = fs::remove_dir_all(folder.content());
        begin(&folder);
        let (new, old) = (folder.content().join("content.json"), folder.content().join(".content.json.new"));
        fs::copy(&old, &new).unwrap();
        if !keeps_old {
            fs::remove_file(&old).unwrap();
        }
        assert_eq!(restart(&folder, &format!("old name kept: {keeps_old}")), Some(vec![0, 2]));
    }
}

#[test]
fn what_was_durable_is_never_taken_for_interrupted() {
    let folder = Folder::new("damaged");
    for name in ["state", "metainfo.torrent.previous", "data.evicted", "content.json.previous"] {
        let _ = fs::remove_dir_all(folder.content());
        begin(&folder);
        fs::remove_file(folder.content().join(".content.json.new")).unwrap();
        fs::write(folder.content().join(name), b"?").unwrap();
        let store = folder.open();
        assert_eq!(
            (store.problems().len(), store.interrupted().len(), store.get(ID).is_none()),
            (1, 0, true)
        );
        assert!(folder.content().join("data/名").exists(), "{name}: left alone");
    }
}

#[test]
fn a_torrent_that_was_not_added_to_its_end_is_removed() {
    let folder = Folder::new("torrent");
    let mut hasher = merkle::PieceHasher::new(true, true);
    hasher.update(&bytes(0));
    let plan = plan_files("t", 16_384, &[(vec![], PIECE)]).unwrap();
    let metainfo = Arc::new(Builder::new(plan).build(&[hasher.finish(1)]).unwrap());
    let new = NewContent::with_metainfo(ID, metainfo, "\"t\"");
    folder.open().add(new.clone()).unwrap();
    fs::rename(folder.content().join("content.json"), folder.content().join(".content.json.new")).unwrap();
    // Whole as it is, it may be half of what it was, and so vouch for nothing.
    let store = folder.open();
    assert_eq!(store.interrupted(), [Interrupted { folder: folder.content(), goes_on: false }]);
    assert_eq!((store.contents().len(), folder.content().exists()), (0, false));
    store.add(new).unwrap();
    drop(store);
    assert_eq!(folder.open().contents().len(), 1);
}

#[test]
fn a_disk_that_does_not_keep_the_creation_fails_the_content() {
    let folder = Folder::new("lost");
    let store = folder.open();
    let content = store.begin(new()).unwrap();
    arrive(&content, 0);
    // A folder in its place: the description cannot get its name.
    let obstacle = folder.content().join("content.json");
    fs::create_dir(&obstacle).unwrap();
    let error = store.make_durable(&content).unwrap_err().to_string();
    assert_eq!((content.state(), content.is_quarantined()), (State::Failed, true));
    assert_eq!(content.visible_until(0, u64::MAX), 0, "nothing of it is served any more");
    // The next sync may succeed, and would mean nothing.
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(store.make_durable(&content).unwrap_err().to_string(), error);
    assert!(store.commit(&content).is_err() && store.save(&content).is_err());
    store.remove(ID).unwrap();
    assert!(!folder.content().exists());
    assert!(store.make_durable(&content).is_err(), "gone");
    store.add(new()).unwrap();
}

#[test]
fn an_addition_that_fails_leaves_nothing_behind_and_touches_nothing() {
    let folder = Folder::new("exists");
    let store = folder.open();
    fs::create_dir(folder.content()).unwrap();
    fs::write(folder.content().join("kept"), b"by somebody").unwrap();
    assert!(store.add(new()).is_err() && store.begin(new()).is_err());
    assert_eq!(names(&folder.content()), ["kept"]);
    fs::remove_dir_all(folder.content()).unwrap();
    let bad = NewContent { name: "a/b".to_owned(), ..NewContent::growing(ID, "a/b", "\"x\"") };
    assert!(store.begin(bad).is_err());
    assert!(!folder.content().exists() && store.get(ID).is_none());
}

#[test]
fn two_that_begin_the_same_content_make_it_once() {
    let folder = Folder::new("twice");
    let store = folder.open();
    let made = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| store.begin(new()))).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect::<Vec<_>>()
    });
    assert!(!made.is_empty());
    assert!(made.iter().all(|content| Arc::ptr_eq(content, &store.get(ID).unwrap())));
    let file = OpenOptions::new().read(true).open(folder.content().join("data/名")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), u64::from(PIECES) * PIECE);
}

#[test]
fn a_folder_made_in_advance_becomes_that_of_a_content() {
    let folder = Folder::new("spare");
    let store = folder.open();
    store.make_spares().unwrap();
    let spares = || names(&folder.0.join("contents")).iter().filter(|name| name.starts_with(".new-")).count();
    let made = spares();
    let content = store.begin(new()).unwrap();
    assert_eq!((spares(), names(&folder.content())), (made - 1, vec!["data".to_owned()]));
    assert_eq!(names(&folder.content().join("data")), ["名"]);
    arrive(&content, 1);
    // A folder that is there already is somebody else's, even an empty one.
    let other = ContentId([6; 16]);
    fs::create_dir(folder.0.join("contents").join(other.to_string())).unwrap();
    assert!(store.begin(NewContent { id: other, ..new() }).is_err());
    fs::remove_dir(folder.0.join("contents").join(other.to_string())).unwrap();
    // More contents than spares, of which one has a name that no file can have.
    assert!(store.begin(NewContent::single_of_length(other, "..", 1, 16_384, "\"x\"").unwrap()).is_err());
    let more = (10..20).map(|number| ContentId([number; 16]));
    more.clone().for_each(|id| drop(store.begin(NewContent { id, ..new() }).unwrap()));
    assert_eq!(spares(), 0);
    more.for_each(|id| drop(store.remove(id).unwrap()));
    store.make_durable(&content).unwrap();
    store.make_spares().unwrap();
    drop((content, store));
    assert_eq!(restart(&folder, "from a spare"), Some(vec![1]));
    assert_eq!(spares(), 0, "a start begins without");
}
