//! One data file, open and mapped where that is needed, shared by all who send from it.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};

use super::mapping::Mapped;

/// What tells that a file imported in place was changed by its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    inode: (u64, u64),
}

impl Stamp {
    /// The stamp of a file as it is now.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        }
    }
}

/// How a file is to be opened.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    /// Our own: read and written.
    Stored,
    /// Somebody else's: read only, and as it was when imported.
    InPlace(Stamp),
}

/// An open data file, and its mapping where somebody needs one.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    /// Mapped when somebody asks: most files of a store of many are sent from without.
    mapped: OnceLock<Mapped>,
    map_bytes: u64,
    bytes: u64,
    /// The same file opened for reading past the page cache, when somebody asks; none where the file system refuses.
    direct: OnceLock<Option<File>>,
    /// A read past the page cache was refused, though opening was not.
    refuses_direct: AtomicBool,
    stamp: Option<Stamp>,
    shared: bool,
    /// Device and inode.
    identity: (u64, u64),
}

impl OpenFile {
    /// Opens a file that has `bytes` (its final length), of which `map_bytes` are to be mapped.
    pub(super) fn open(path: &Path, bytes: u64, map_bytes: u64, access: Access) -> io::Result<OpenFile> {
        let in_place =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(matches!(access, Access::Stored))
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        let file = options.open(path).map_err(in_place)?;
        let metadata = file.metadata().map_err(in_place)?;
        if !metadata.is_file() || metadata.size() < bytes {
            let text = format!("{}: {} bytes where {bytes} were", path.display(), metadata.size());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        // Only the store decides what is read ahead; a file system that knows no advice is as good.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
        let stamp = match access {
            Access::Stored => None,
            Access::InPlace(stamp) => Some(stamp),
        };
        Ok(OpenFile {
            file,
            mapped: OnceLock::new(),
            map_bytes,
            bytes: metadata.size(),
            direct: OnceLock::new(),
            refuses_direct: AtomicBool::new(false),
            stamp,
            shared: metadata.nlink() > 1,
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    /// Its mapping, made by the first call. Empty where the process may have no more mappings (`vm.max_map_count`): the file
    /// is there all the same.
    #[must_use]
    pub fn mapped(&self) -> &Mapped {
        self.mapped.get_or_init(|| Mapped::of(&self.file, self.map_bytes).unwrap_or_default())
    }

    /// Bytes of the mapping, made or not.
    pub(super) fn map_bytes(&self) -> u64 {
        self.map_bytes
    }

    /// Bytes of the file when it was opened; it may have grown since.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file, for positioned reads and for the residency probe.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Has the disk keep what was written to it.
    ///
    /// # Errors
    /// What the disk says, once: the next call knows nothing of it.
    pub(super) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        super::faults::sync()?;
        self.file.sync_data()
    }

    /// The same file for reads past the page cache (`O_DIRECT`), which need offsets, lengths and memory aligned to the blocks of its
    /// device; opened by the first call. None where the file system refuses, or [`refuse_direct`](OpenFile::refuse_direct) was
    /// called. Such a read waits for what is still to be written of its range.
    #[must_use]
    pub fn direct(&self) -> Option<&File> {
        if self.refuses_direct.load(Ordering::Relaxed) {
            return None;
        }
        let open = || {
            // By descriptor, since the name may be gone, or somebody else's by now.
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            OpenOptions::new().read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path).ok()
        };
        self.direct.get_or_init(open).as_ref()
    }

    /// Notes that reads past the page cache fail here, so that nobody tries again.
    pub fn refuse_direct(&self) {
        self.refuses_direct.store(true, Ordering::Relaxed);
    }

    /// Device and inode: the same for every name of the same bytes, and after the file was closed and opened again.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Whether it belongs to somebody else, who may change it: ask [`OpenFile::unchanged`] at each lease.
    #[must_use]
    pub fn imported(&self) -> bool {
        self.stamp.is_some()
    }

    /// Whether it had several names when it was opened.
    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }

    /// Whether it is still as it was when imported (size, times of change, inode). Files of our own always are. A change
    /// within the clock's tick of the import, or through a writable mapping, can go unnoticed.
    ///
    /// # Errors
    /// What `fstat` says.
    pub fn unchanged(&self) -> io::Result<bool> {
        match self.stamp {
            None => Ok(true),
            Some(stamp) => Ok(Stamp::of(&self.file.metadata()?) == stamp),
        }
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
