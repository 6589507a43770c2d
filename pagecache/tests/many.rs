//! What the number of contents must not cost: hashing at start, and a mapping for each file that is open.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::sync::Arc;

use millrace_pagecache::{FileIndex, NewContent, Options, PieceIndex, State, Store};
use millrace_proto::id::{ContentId, InfoHashV1};
use millrace_proto::merkle::{PieceHasher, leaf_width};
use millrace_proto::metainfo::{Builder, Metainfo, plan_files};

const CONTENTS: u8 = 50;
const PIECE_BYTES: u32 = 16_384;

fn id(number: u8) -> ContentId {
    ContentId([number; 16])
}

fn metainfo(number: u8) -> (Vec<u8>, Arc<Metainfo>) {
    let data = vec![number; 1_000];
    let mut hasher = PieceHasher::new(true, true);
    hasher.update(&data);
    let hash = hasher.finish(leaf_width(1_000, PIECE_BYTES));
    let plan = plan_files(&format!("file-{number}"), PIECE_BYTES, &[(vec![], 1_000)]).unwrap();
    (data, Arc::new(Builder::new(plan).build(&[hash]).unwrap()))
}

/// Mappings of this process that are of files below `folder`.
fn mappings(folder: &std::path::Path) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(folder.to_str().unwrap())).count()
}

#[test]
fn many_contents_start_unhashed_and_are_mapped_only_where_somebody_asks() {
    let folder = std::env::temp_dir().join(format!("millrace-many-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    let mut infohashes: Vec<InfoHashV1> = Vec::new();
    let store = Store::open(&folder, Options::default()).unwrap();
    for number in 0..CONTENTS {
        let (data, metainfo) = metainfo(number);
        infohashes.push(metainfo.infohash_v1().unwrap());
        let content = store.add(NewContent::with_metainfo(id(number), metainfo, "\"e\"")).unwrap();
        content.write(0, &data).unwrap();
        content.mark_verified(PieceIndex(0));
        store.commit(&content).unwrap();
        // What was vouched for is believed: damage shows to `verify` alone.
        let path = folder.join(format!("contents/{}/data/file-{number}", id(number)));
        fs::write(path, [!number; 1_000]).unwrap();
    }
    drop(store);

    let store = Store::open(&folder, Options::default()).unwrap();
    assert_eq!((store.contents().len(), store.problems().len()), (usize::from(CONTENTS), 0));
    let mut open = Vec::new();
    for (number, infohash) in (0..CONTENTS).zip(&infohashes) {
        let content = store.get(id(number)).unwrap();
        assert_eq!(content.state(), State::Complete, "content {number}");
        assert!(store.by_infohash(infohash).is_some_and(|found| found.id() == id(number)));
        open.push(content.file(FileIndex(0)).unwrap());
    }
    assert_eq!(mappings(&folder), 0, "files that are open and not asked for their mapping");
    assert_eq!(open[7].mapped().len(), 1_000);
    assert_eq!(mappings(&folder), 1);
    fs::remove_dir_all(&folder).unwrap();
}
