//! A temporary folder that goes away with its value.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;

use super::LOOK;
use super::guard::Guarded;

/// Where file systems in memory are.
const IN_MEMORY: &str = "/dev/shm";

/// How often it is tried to remove a folder, every [`LOOK`].
const REMOVALS_MAX: u32 = 100;

/// The folder, readable by this user alone.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    /// Removes it where this value is never dropped. After the folder itself has gone, it is taken back.
    _guarded: Guarded,
}

impl Scratch {
    /// Makes one in `parent`, or where temporary files go.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn create(parent: Option<&Path>) -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // A short name: sockets lie in it, and their paths may have 107 bytes.
        let name = format!("millrace-perf-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = std::path::absolute(parent)?.join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("creating {}", path.display()))?;
        let guarded = Guarded::folder(&path);
        Ok(Scratch { path, _guarded: guarded })
    }

    /// Makes one in `parent`, or in memory: for what a disk would make slow that is not to be measured.
    ///
    /// # Errors
    /// As [`Scratch::create`].
    pub(crate) fn create_in_memory(parent: Option<&Path>) -> anyhow::Result<Self> {
        let memory = Path::new(IN_MEMORY);
        Self::create(parent.or(memory.is_dir().then_some(memory)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A program that was just killed may be in the middle of its last file. What is left in a temporary folder after that goes away
        // sooner or later anyway.
        for _ in 0..REMOVALS_MAX {
            match std::fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => std::thread::sleep(LOOK),
                _ => return,
            }
        }
    }
}
