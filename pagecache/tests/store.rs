//! What the store promises of contents of every shape: unaligned files, none at all, beyond 32 bits, growing, imported.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_pagecache::layout::FileSpan;
use millrace_pagecache::new_content::Shape;
use millrace_pagecache::{
    Content, FileIndex, Layout, NewContent, Options, PieceIndex, State, Store, Verdict,
};
use millrace_proto::access::Access;
use millrace_proto::id::ContentId;
use millrace_proto::merkle;
use millrace_proto::metainfo::{Builder, plan_files};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("millrace-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    fn store(&self) -> Store {
        Store::open(&self.0.join("store"), Options::default()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn id(number: u8) -> ContentId {
    ContentId([number; 16])
}

fn bytes(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|at| u8::try_from((at * 31 + at / 250 + seed) % 256).unwrap()).collect()
}

/// Hashes and offers every piece.
fn hash_all(content: &Arc<Content>) {
    for piece in (0..content.layout().piece_count()).map(PieceIndex) {
        content.hash_piece(piece).unwrap();
        content.mark_verified(piece);
    }
    assert!(content.is_complete());
}

#[test]
fn files_that_end_inside_pieces() {
    let folder = Folder::new("unaligned");
    let store = folder.store();
    let span = |name: &str, offset, length| FileSpan {
        path: vec!["电影".into(), "子".into(), name.into()],
        offset,
        length,
        padding: false,
    };
    let files = vec![span("空", 0, 0), span("a", 0, 20_001), span("b", 20_001, 3), span("c", 20_004, 60_000)];
    let layout = Layout::new(16_384, 80_004, files).unwrap();
    let content = store.add(NewContent::new(id(1), "电影", Shape::Layout(layout), "\"m\"")).unwrap();
    let whole = bytes(80_004, 1);
    let mut stream = content.stream(0).unwrap();
    whole.chunks(7_001).for_each(|chunk| stream.write(chunk).unwrap());
    assert_eq!(content.visible_until(0, u64::MAX), 80_004);
    assert!(content.write(30_000, b"x").is_err(), "what is visible never changes");
    hash_all(&content);
    store.commit(&content).unwrap();
    let data = folder.0.join("store/contents").join(id(1).to_string()).join("data/电影/子");
    assert_eq!(fs::read(data.join("a")).unwrap(), whole[..20_001]);
    assert_eq!(fs::read(data.join("c")).unwrap(), whole[20_004..]);
    assert_eq!(fs::read(data.join("空")).unwrap(), b"");
    assert!(content.file(FileIndex(0)).unwrap().mapped().is_empty());
    drop((stream, store));
    let store = folder.store();
    assert_eq!(store.get(id(1)).unwrap().state(), State::Complete);
    assert_eq!(store.verify(|_, _, _| ()).iter().map(|report| report.good).sum::<u32>(), 5);
}

#[test]
fn offsets_past_32_bits() {
    let folder = Folder::new("large");
    let store = folder.store();
    let length = 5 * (1 << 30) + 77;
    let new = NewContent::single_of_length(id(1), "big", length, 1 << 20, "\"b\"").unwrap();
    let content = store.add(new).unwrap();
    let start = 5 << 30;
    let mut stream = content.stream(start).unwrap();
    stream.write(&bytes(77, 9)).unwrap();
    assert_eq!(content.visible_until(start, u64::MAX), length);
    content.hash_piece(PieceIndex(5120)).unwrap();
    content.mark_verified(PieceIndex(5120));
    store.commit(&content).unwrap();
    assert_eq!(content.file(FileIndex(0)).unwrap().mapped().len(), length);
    assert!(store.occupied().used < 1 << 20, "sparse");
    drop((stream, store));
    let content = folder.store().get(id(1)).unwrap();
    assert_eq!((content.pieces_have(), content.visible_until(start, u64::MAX)), (1, length));
    assert_eq!(content.visible_until(start - 1, u64::MAX), start - 1);
}

#[test]
fn known_hashes_of_both_kinds_decide() {
    let folder = Folder::new("hybrid");
    let store = folder.store();
    let plan = plan_files("t", 16_384, &[(vec!["a".into()], 20_000), (vec!["b".into()], 5)]).unwrap();
    let (a, b) = (bytes(20_000, 1), bytes(5, 2));
    let hash = |data: &[u8], padding, width| {
        let mut hasher = merkle::PieceHasher::new(true, true);
        hasher.update(data);
        hasher.update_padding(padding);
        hasher.finish(width)
    };
    let pieces = [hash(&a[..16_384], 0, 1), hash(&a[16_384..], 32_768 - 20_000, 1), hash(&b, 0, 1)];
    let metainfo = Arc::new(Builder::new(plan).build(&pieces).unwrap());
    let infohash = metainfo.infohash_v1().unwrap();
    let content = store.add(NewContent::with_metainfo(id(1), metainfo, "\"t\"")).unwrap();
    assert!(content.stream(0).is_none(), "nothing is visible before it is verified");
    let mut whole = a;
    whole.resize(32_768, 0);
    whole.extend(b);
    content.write(0, &whole).unwrap();
    content.write(16_384, b"?").unwrap();
    assert_eq!(content.verify_piece(PieceIndex(0)).unwrap(), Verdict::Good);
    assert_eq!(content.verify_piece(PieceIndex(1)).unwrap(), Verdict::Bad);
    assert_eq!(content.verify_piece(PieceIndex(2)).unwrap(), Verdict::Good);
    assert_eq!(content.visible_bytes(), 0);
    content.write(16_384, &whole[16_384..]).unwrap();
    assert_eq!(content.verify_piece(PieceIndex(1)).unwrap(), Verdict::Good);
    content.mark_verified(PieceIndex(1));
    assert_eq!((content.visible_until(16_384, u64::MAX), content.has_piece(PieceIndex(0))), (32_768, false));
    drop((content, store));
    let store = folder.store();
    let content = store.by_infohash(&infohash).unwrap();
    assert_eq!((content.pieces_have(), content.has_piece(PieceIndex(1))), (1, true), "found by its record");
}

#[test]
fn a_length_nobody_told() {
    let folder = Folder::new("growing");
    let store = folder.store();
    let growing = store.add(NewContent::growing(id(1), "流", "\"g\"")).unwrap();
    let mut stream = growing.stream(0).unwrap();
    let whole = bytes(40_000, 3);
    stream.write(&whole[..10]).unwrap();
    assert_eq!((growing.length(), growing.visible_until(0, 100)), (None, 10));
    stream.write(&whole[10..]).unwrap();
    growing.end_growth();
    assert_eq!(growing.length(), Some(40_000));
    let content = store.settle(&growing, 40_000).unwrap();
    assert_eq!((content.id(), content.etag(), content.visible_until(0, u64::MAX)), (id(1), "\"g\"", 40_000));
    hash_all(&content);
    store.commit(&content).unwrap();
    assert!(store.commit(&growing).is_err());
    drop((stream, store));
    let store = folder.store();
    let content = store.get(id(1)).unwrap();
    let mut found = vec![0; 40_000];
    content.read(0, &mut found).unwrap();
    assert_eq!((content.is_complete(), found), (true, whole));
}

#[test]
fn nothing_at_all_is_complete() {
    let folder = Folder::new("empty");
    let store = folder.store();
    let content = store.add(NewContent::single_of_length(id(1), "e", 0, 16_384, "\"0\"").unwrap()).unwrap();
    assert!(content.is_complete());
    assert_eq!((content.length(), content.visible_until(0, 9)), (Some(0), 0));
    assert!(Arc::ptr_eq(&content, &store.add(NewContent::growing(id(1), "again", "")).unwrap()));
    store.commit(&content).unwrap();
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    let folder = Folder::new("names");
    let store = folder.store();
    for name in ["..", "a/b", "", "."] {
        let new = NewContent::single_of_length(id(1), name, 1, 16_384, "\"x\"").unwrap();
        assert!(store.add(new).is_err(), "{name:?}");
    }
    assert!(fs::read_dir(folder.0.join("store/contents")).unwrap().next().is_none());
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_folder_is_imported_and_its_changes_noticed() {
    let folder = Folder::new("import");
    let from = folder.0.join("来源");
    write(&from.join("b/c"), &bytes(20_000, 1));
    write(&from.join("a"), &bytes(3, 2));
    write(&from.join("none"), b"");
    std::os::unix::fs::symlink("a", from.join("link")).unwrap();
    let store = folder.store();
    assert!(store.import(id(2), &from.join("link"), "x", "\"x\"", Access::Public).is_err());
    let error =
        store.import(id(2), &from.join("absent"), "x", "\"x\"", Access::Public).unwrap_err().to_string();
    assert!(error.contains("absent"), "{error}");
    let imported = store.import(id(1), &from, "来源", "\"i\"", Access::Public).unwrap();
    assert_eq!(imported.skipped, [from.join("link")]);
    let content = imported.content;
    assert_eq!(content.visible_bytes(), content.layout().length());
    hash_all(&content);
    store.commit(&content).unwrap();
    drop(store);
    let store = folder.store();
    let content = store.get(id(1)).unwrap();
    assert!(content.is_complete());
    assert_eq!(store.verify(|_, _, _| ())[0].bad, []);
    let file = content.layout().file_index_at_path(|path| path.ends_with(&["c".to_owned()])).unwrap();
    let open = content.file(file).unwrap();
    assert!(open.unchanged().unwrap());
    assert_eq!(open.imported(), !imported.reflinked);
    if !imported.reflinked {
        fs::OpenOptions::new().append(true).open(from.join("b/c")).unwrap().set_len(20_001).unwrap();
        assert!(!open.unchanged().unwrap());
        assert!(content.write(0, b"x").is_err());
        drop((content, open, store));
        assert!(folder.store().get(id(1)).unwrap().is_quarantined());
    }
}

#[test]
fn the_least_used_makes_room() {
    let folder = Folder::new("room");
    let options = Options { capacity: Some(100_000), free_floor: 0 };
    let store = Store::open(&folder.0, options).unwrap();
    for number in 1..=3 {
        let new = NewContent::single_of_length(id(number), "f", 30_000, 16_384, "\"f\"").unwrap();
        let content = store.add(new).unwrap();
        content.stream(0).unwrap().write(&bytes(30_000, 0)).unwrap();
        hash_all(&content);
        store.commit(&content).unwrap();
        content.set_state(State::Complete);
        content.counters().touch(u64::from(number));
    }
    store.get(id(1)).unwrap().set_pinned(true);
    assert!(!store.fits(30_000).unwrap());
    assert_eq!(store.make_room(30_000, 100).unwrap(), [id(2)]);
    assert!(store.fits(30_000).unwrap());
    assert_eq!(store.get(id(2)).unwrap().pieces_have(), 0);
}

#[test]
fn who_may_have_a_content_is_kept_through_all_that_becomes_of_it() {
    let folder = Folder::new("access");
    let (insiders, nobody): (Access, Access) =
        ("signed,10.0.0.0/8".parse().unwrap(), "none".parse().unwrap());
    let description = folder.0.join("store/contents").join(id(1).to_string()).join("content.json");
    let version = || serde_json::from_slice::<serde_json::Value>(&fs::read(&description).unwrap()).unwrap();
    let store = folder.store();
    let new = NewContent::single_of_length(id(1), "f", 30_000, 16_384, "\"f\"").unwrap();
    let content = store.add(NewContent { access: insiders.clone(), ..new }).unwrap();
    assert!(
        !content.is_public()
            && !content.admits([192, 0, 2, 1].into())
            && content.admits([10, 0, 0, 1].into())
    );
    // A program that does not know what this means refuses the file.
    let restricted = version();
    assert_eq!(restricted["version"], 2);
    let evicted = store.evict(id(1)).unwrap();
    assert_eq!(*evicted.access(), insiders);
    evicted.set_access(nobody.clone());
    store.save(&evicted).unwrap();
    let growing = NewContent { access: insiders.clone(), ..NewContent::growing(id(2), "two", "\"2\"") };
    let growing = store.add(growing).unwrap();
    growing.stream(0).unwrap().write(&bytes(20_000, 2)).unwrap();
    growing.end_growth();
    assert_eq!(*store.settle(&growing, 20_000).unwrap().access(), insiders);
    drop(store);
    let store = folder.store();
    assert_eq!(*store.get(id(1)).unwrap().access(), nobody);
    assert_eq!(*store.get(id(2)).unwrap().access(), insiders);
    let content = store.get(id(1)).unwrap();
    content.set_access(Access::Public);
    store.save(&content).unwrap();
    assert!(version()["version"] == 1 && version().get("access").is_none());
    // What a disk falls back to that loses the newest word is no more open than that.
    content.set_access(nobody.clone());
    store.save_for_good(&content).unwrap();
    drop((content, store));
    fs::write(&description, "torn").unwrap();
    assert_eq!(*folder.store().get(id(1)).unwrap().access(), nobody);
    // A file that says that it restricts somebody, and not whom, opens nothing.
    fs::remove_file(description.with_extension("json.previous")).unwrap();
    let mut pretends = restricted;
    pretends["access"] = serde_json::json!(["public"]);
    fs::write(&description, pretends.to_string()).unwrap();
    assert!(folder.store().get(id(1)).is_none());
}

/// Nobody holds a file of `old` open; `fresh` lies under the same paths. Neither reads nor writes cross over.
fn check_apart(old: &Arc<Content>, fresh: &Arc<Content>) {
    assert!(!Arc::ptr_eq(old, fresh));
    let file = FileIndex(0);
    assert!(old.file(file).is_err(), "its path leads to a file in which nothing has arrived");
    assert!(old.write(0, &[1; 100]).is_err(), "nor may what still arrives for it be written there");
    assert!(fresh.file(file).is_ok());
}

#[test]
fn what_was_dropped_is_not_opened_by_its_old_path() {
    let folder = Folder::new("dropped");
    let store = folder.store();
    let of_length = || NewContent::single_of_length(id(1), "one", 20_000, 16_384, "\"1\"").unwrap();
    let removed = store.add(of_length()).unwrap();
    removed.stream(0).unwrap().write(&bytes(20_000, 1)).unwrap();
    store.commit(&removed).unwrap();
    store.remove(id(1)).unwrap();
    let added = store.add(of_length()).unwrap();
    check_apart(&removed, &added);
    added.stream(0).unwrap().write(&bytes(20_000, 1)).unwrap();
    store.commit(&added).unwrap();
    let evicted = added;
    check_apart(&evicted, &store.evict(id(1)).unwrap());

    let growing = store.add(NewContent::growing(id(2), "two", "\"2\"")).unwrap();
    growing.stream(0).unwrap().write(&bytes(20_000, 2)).unwrap();
    growing.end_growth();
    let settled = store.settle(&growing, 20_000).unwrap();
    assert!(growing.file(FileIndex(0)).is_ok(), "the same file");
    let fresh = store.evict(id(2)).unwrap();
    check_apart(&settled, &fresh);
    check_apart(&growing, &fresh);
}
