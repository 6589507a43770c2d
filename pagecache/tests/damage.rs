//! What `verify` found stays known: nothing of a damaged content is good again after a restart.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use millrace_pagecache::{Content, NewContent, Options, PieceIndex, State, Store};
use millrace_proto::id::ContentId;

const ID: ContentId = ContentId([3; 16]);
const PIECES: u32 = 4;
const PIECE: usize = 16_384;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("millrace-damage-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn store(&self) -> Store {
        Store::open(&self.0, Options::default()).unwrap()
    }

    /// A complete content, whose third piece was changed on disk after it was committed.
    fn damaged(name: &str) -> Folder {
        let folder = Folder::new(name);
        let store = folder.store();
        let length = u64::from(PIECES) * PIECE as u64;
        let content =
            store.add(NewContent::single_of_length(ID, "f", length, 16_384, "\"e\"").unwrap()).unwrap();
        content.stream(0).unwrap().write(&vec![7; PIECES as usize * PIECE]).unwrap();
        for piece in (0..PIECES).map(PieceIndex) {
            content.hash_piece(piece).unwrap();
            content.mark_verified(piece);
        }
        store.commit(&content).unwrap();
        let path = folder.0.join("contents").join(ID.to_string()).join("data/f");
        let mut bytes = fs::read(&path).unwrap();
        bytes[2 * PIECE + 5] ^= 1;
        fs::write(&path, bytes).unwrap();
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn check_stopped(content: &Arc<Content>) {
    assert_eq!((content.state(), content.is_complete()), (State::Failed, false));
    assert!(content.error().unwrap().contains("verify found damage"), "{:?}", content.error());
    assert_eq!(content.visible_until(0, u64::MAX), 0, "nothing of it is served");
    assert!((0..PIECES).all(|piece| !content.has_piece(PieceIndex(piece))), "nothing of it is offered");
}

#[test]
fn a_restart_knows_of_damage_and_verify_finds_it_again() {
    let folder = Folder::damaged("restart");
    for _ in 0..2 {
        let store = folder.store();
        let report = store.verify(|_, _, _| ()).remove(0);
        assert_eq!((report.good, report.bad, report.absent), (3, vec![PieceIndex(2)], 0));
        assert!(report.forgettable.is_none());
        drop(store);
        let store = folder.store();
        let content = store.get(ID).unwrap();
        check_stopped(&content);
        // Whatever is written of it later does not forget it.
        content.set_pinned(true);
        store.save(&content).unwrap();
        assert!(store.commit(&content).is_ok());
        drop(store);
        check_stopped(&folder.store().get(ID).unwrap());
    }
}

#[test]
fn damage_goes_with_the_bytes() {
    let folder = Folder::damaged("evicted");
    let store = folder.store();
    store.verify(|_, _, _| ());
    let fresh = store.evict(ID).unwrap();
    assert_eq!((fresh.state(), fresh.damage()), (State::Queued, None));
    drop(store);
    let store = folder.store();
    let content = store.get(ID).unwrap();
    assert_eq!((content.state(), content.pieces_have(), content.damage()), (State::Queued, 0, None));
}
