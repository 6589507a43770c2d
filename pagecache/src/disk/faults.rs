//! A disk that does not keep what it was given, as far as a sync tells: for tests of what the store does then.

use std::cell::Cell;
use std::io;

thread_local! {
    static SYNCS_FAIL: Cell<bool> = const { Cell::new(false) };
}

/// Makes every sync of a data file on this thread fail, or none.
fn let_syncs_fail(fail: bool) {
    SYNCS_FAIL.set(fail);
}

/// What a sync on this thread says.
pub(super) fn sync() -> io::Result<()> {
    if SYNCS_FAIL.get() { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
}

mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::Arc;

    use millrace_proto::id::ContentId;

    use super::*;
    use crate::{Content, NewContent, Options, PieceIndex, State, Store, StoreError};

    const ID: ContentId = ContentId([5; 16]);
    const PIECE: usize = 16_384;

    struct Folder(PathBuf);

    impl Folder {
        /// A store with a content of four pieces, of which the first is committed.
        fn new(name: &str) -> (Folder, Store, Arc<Content>) {
            let path = std::env::temp_dir().join(format!("millrace-faults-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            let folder = Folder(path);
            let store = folder.store();
            let new = NewContent::single_of_length(ID, "f", 4 * PIECE as u64, 16_384, "\"e\"").unwrap();
            let content = store.add(new).unwrap();
            arrive(&content, 0);
            store.commit(&content).unwrap();
            (folder, store, content)
        }

        fn store(&self) -> Store {
            Store::open(&self.0, Options::default()).unwrap()
        }

        fn state(&self) -> Vec<u8> {
            fs::read(self.0.join("contents").join(ID.to_string()).join("state")).unwrap()
        }

        /// The pieces that a start finds.
        fn pieces(&self) -> Vec<u32> {
            let content = self.store().get(ID).unwrap();
            (0..4).filter(|piece| content.has_piece(PieceIndex(*piece))).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn arrive(content: &Arc<Content>, piece: u32) {
        let mut stream = content.stream(u64::from(piece) * PIECE as u64).unwrap();
        stream.write(&vec![u8::try_from(piece).unwrap() + 1; PIECE]).unwrap();
        content.hash_piece(PieceIndex(piece)).unwrap();
        content.mark_verified(PieceIndex(piece));
    }

    #[track_caller]
    fn check_lost(store: &Store, content: &Arc<Content>) {
        let error = store.commit(content).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert_eq!((content.state(), content.is_quarantined()), (State::Failed, true));
        let why = content.error().unwrap();
        assert!(
            why.starts_with("the disk did not keep what was written: ") && why.contains("os error 5"),
            "{why}"
        );
        assert_eq!(content.visible_until(0, u64::MAX), 0, "nothing of it is served");
    }

    #[test]
    fn a_sync_that_fails_leaves_the_state_as_it_was_and_no_later_one_mends_it() {
        let (folder, store, content) = Folder::new("sync");
        let before = folder.state();
        arrive(&content, 1);
        let_syncs_fail(true);
        check_lost(&store, &content);
        // The kernel tells an error once: what it says afterwards is of other pages.
        let_syncs_fail(false);
        check_lost(&store, &content);
        assert_eq!(folder.state(), before);
        drop((store, content));
        assert_eq!(folder.pieces(), [0], "what was lost is not even found again in memory");
    }

    #[test]
    fn pieces_found_again_after_a_kill_are_vouched_for_only_after_a_sync() {
        let (folder, store, content) = Folder::new("kill");
        arrive(&content, 1);
        // Without a commit, as when the process is killed: the bytes are in memory, and maybe on the disk.
        drop((store, content));
        let before = folder.state();
        let store = folder.store();
        let content = store.get(ID).unwrap();
        assert!(content.has_piece(PieceIndex(1)), "found again");
        let_syncs_fail(true);
        check_lost(&store, &content);
        let_syncs_fail(false);
        assert_eq!(folder.state(), before, "nothing vouches for the piece");
        drop((store, content));
        assert_eq!(folder.pieces(), [0]);
    }
}
