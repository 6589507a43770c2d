//! Folders made in advance. A folder, one within and a file in that are three inodes to be found and written, which takes longer than
//! the first bytes of a pull need for all the rest of their way; renaming what is there takes a tenth of it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Most that are kept. Contents that begin faster than new ones are made get their folders the slow way.
const SPARES: usize = 4;

/// The only file of a spare folder, below `data`.
const FILE: &str = "spare";

/// Folders that wait for the names of contents of one file each. A start removes those that are left.
#[derive(Debug, Default)]
pub(super) struct Spares {
    folders: Mutex<Vec<PathBuf>>,
    /// Numbers those that were made.
    made: AtomicU64,
}

impl Spares {
    /// Makes as many as are missing, below `contents`. Nothing is synced.
    pub(super) fn fill(&self, contents: &Path) -> io::Result<()> {
        while self.folders().len() < SPARES {
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            let folder = contents.join(format!(".new-spare-{number}"));
            let made = fs::create_dir(&folder)
                .and_then(|()| fs::create_dir(folder.join("data")))
                .and_then(|()| File::create_new(folder.join("data").join(FILE)).map(drop));
            if let Err(error) = made {
                let _ = fs::remove_dir_all(&folder);
                return Err(error);
            }
            self.folders().push(folder);
        }
        Ok(())
    }

    /// Makes one of them `folder`, with an empty file of this name below `data`. `false` where there is none, or it cannot be done:
    /// nothing is at `folder` then that was not there before.
    pub(super) fn take(&self, folder: &Path, file: &str) -> bool {
        let Some(spare) = self.folders().pop() else { return false };
        let data = spare.join("data");
        // A folder may replace an empty one otherwise, which is not ours.
        let taken = fs::rename(data.join(FILE), data.join(file)).is_ok()
            && renameat2(AT_FDCWD, &spare, AT_FDCWD, folder, RenameFlags::RENAME_NOREPLACE).is_ok();
        if !taken {
            let _ = fs::remove_dir_all(&spare);
        }
        taken
    }

    fn folders(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
