//! A store that one process leaves to another: what was visible stays visible, the lock goes along, and files keep their names as long as
//! somebody may open them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_pagecache::disk::{Left, Options, Store, StoreError, VisibleRuns};
use millrace_pagecache::layout::Layout;
use millrace_pagecache::new_content::{NewContent, Shape};
use millrace_pagecache::{Content, PieceIndex, State};
use millrace_proto::id::ContentId;

const PIECE: u64 = 64 << 10;
const LENGTH: u64 = 10 * PIECE + 5;
const ID: ContentId = ContentId([3; 16]);

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millrace-left-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn add(store: &Store, shape: Shape) -> Arc<Content> {
    store.add(NewContent::new(ID, "file", shape, "\"e\"")).unwrap()
}

fn of_layout() -> Shape {
    Shape::Layout(Layout::single("file", LENGTH, u32::try_from(PIECE).unwrap()).unwrap())
}

/// Writes so many bytes from `start` on, which is a block's start.
fn write(content: &Arc<Content>, start: u64, bytes: usize) {
    content.stream(start).unwrap().write(&vec![7; bytes]).unwrap();
}

/// Another store over the same folder, as another process would take it over.
fn taken(store: &Store, folder: &Folder, content: &Content) -> Store {
    let visible = VisibleRuns::from([(ID, content.visible_beyond_pieces())]);
    let left = Left { lock: store.lock().unwrap(), visible };
    Store::take_over(&folder.0, Options::default(), left).unwrap()
}

#[test]
fn what_was_visible_stays_visible() {
    let folder = Folder::new("visible");
    let store = Store::open(&folder.0, Options::default()).unwrap();
    let content = add(&store, of_layout());
    // A verified piece, the beginning of the next, and something further on that ends within a block.
    write(&content, 0, 70_000);
    content.hash_piece(PieceIndex(0)).unwrap();
    content.mark_verified(PieceIndex(0));
    write(&content, 4 * PIECE, 20_000);
    store.commit(&content).unwrap();
    assert_eq!(content.visible_beyond_pieces(), [PIECE..70_000, 4 * PIECE..4 * PIECE + 20_000]);
    let other = taken(&store, &folder, &content).get(ID).unwrap();
    assert!(other.has_piece(PieceIndex(0)) && !other.has_piece(PieceIndex(1)));
    assert_eq!(other.visible_bytes(), content.visible_bytes());
    for at in [0, 69_999, 4 * PIECE + 19_999] {
        assert_eq!(other.visible_until(at, LENGTH), content.visible_until(at, LENGTH), "from {at}");
    }
    // It goes on right there.
    write(&other, 70_000, 10_000);
    assert_eq!(other.visible_until(0, LENGTH), 80_000);
    // And the first follows, as it is told.
    content.follow(PIECE..80_000);
    content.follow(4 * PIECE..LENGTH);
    assert_eq!(
        (content.visible_until(0, LENGTH), content.visible_until(4 * PIECE, LENGTH)),
        (80_000, LENGTH)
    );
}

#[test]
fn what_grows_goes_on_growing() {
    let folder = Folder::new("growing");
    let store = Store::open(&folder.0, Options::default()).unwrap();
    let content = add(&store, Shape::Growing);
    write(&content, 0, 100_000);
    let other = taken(&store, &folder, &content).get(ID).unwrap();
    let mut bytes = vec![0; 100_000];
    other.read(0, &mut bytes).unwrap();
    assert!(other.visible_bytes() == 100_000 && bytes.iter().all(|byte| *byte == 7));
    write(&other, 100_000, 5);
    content.follow(0..100_005);
    content.end_growth();
    assert_eq!(content.length(), Some(100_005));
}

#[test]
fn the_store_is_locked_until_the_last_has_left() {
    let folder = Folder::new("lock");
    let first = Store::open(&folder.0, Options::default()).unwrap();
    let content = add(&first, of_layout());
    let second = taken(&first, &folder, &content);
    drop(first);
    let third = || Store::open(&folder.0, Options::default());
    assert!(matches!(third(), Err(StoreError::InUse(_))));
    drop(second);
    third().unwrap();
}

#[test]
fn files_keep_their_names_until_nobody_opens_them() {
    let folder = Folder::new("names");
    let store = Store::open(&folder.0, Options::default()).unwrap();
    let content = add(&store, of_layout());
    let answers = Arc::new(AtomicBool::new(false));
    let answer = Arc::clone(&answers);
    store.ask_before_unlinking(move |id| id == ID && answer.load(Ordering::Relaxed));
    for refused in [store.evict(ID).map(drop), store.remove(ID).map(drop)] {
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    }
    assert!(content.file(millrace_pagecache::FileIndex(0)).is_ok());
    answers.store(true, Ordering::Relaxed);
    store.evict(ID).unwrap();
    store.remove(ID).unwrap();
}

#[test]
fn who_has_left_opens_nothing_any_more() {
    let folder = Folder::new("leaves");
    let store = Store::open(&folder.0, Options::default()).unwrap();
    let content = add(&store, of_layout());
    let open = content.file(millrace_pagecache::FileIndex(0)).unwrap();
    content.leave();
    assert_eq!(content.state(), State::Removed);
    // Who has it goes on with it.
    assert!(content.file(millrace_pagecache::FileIndex(0)).is_ok());
    drop(open);
    assert!(content.file(millrace_pagecache::FileIndex(0)).is_err());
}
