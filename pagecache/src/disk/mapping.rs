//! The mapping of a file, and the two system calls that no safe library offers: `cachestat` and `FICLONE`.
//!
//! This is the only file of the crate with unsafe code.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use memmap2::{MmapOptions, MmapRaw};

/// A file mapped for reading, by the kernel only.
///
/// There is no way from here to a slice: a file that somebody truncates makes its pages a SIGBUS for whoever reads
/// them in user space, while `vmsplice` of them only fails. The pointer is for that call.
#[derive(Debug, Default)]
pub struct Mapped(Option<MmapRaw>);

impl Mapped {
    /// Maps the first `bytes` of a file, which may be more than it has yet. Nothing is mapped when `bytes` is zero.
    ///
    /// # Errors
    /// What `mmap` says: ENOMEM when the mappings of the process are used up (`vm.max_map_count`).
    pub(crate) fn of(file: &File, bytes: u64) -> io::Result<Mapped> {
        if bytes == 0 {
            return Ok(Mapped(None));
        }
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        MmapOptions::new().len(bytes).map_raw_read_only(file).map(|map| Mapped(Some(map)))
    }

    /// Where the mapping begins; null when it is empty. Valid while this lives. Only visible bytes may be referred to.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.0.as_ref().map_or(std::ptr::null(), |map| map.as_ptr())
    }

    /// Bytes mapped.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, |map| u64::try_from(map.len()).unwrap_or(u64::MAX))
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// `struct cachestat_range` of linux/mman.h.
#[repr(C)]
struct CachestatRange {
    offset: u64,
    bytes: u64,
}

/// `struct cachestat` of linux/mman.h.
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Number of the system call, the same on every architecture (Linux 6.5).
const SYS_CACHESTAT: libc::c_long = 451;

/// Pages of the range that are in the page cache, those being read among them.
///
/// # Errors
/// ENOSYS before Linux 6.5, EPERM for somebody else's file that we may not write, EBADF and the like.
pub(super) fn pages_cached(file: &File, offset: u64, bytes: u64) -> io::Result<u64> {
    let range = CachestatRange { offset, bytes };
    let mut found = Cachestat::default();
    // SAFETY: the kernel reads `range` and writes `found` during the call only; both are locals laid out as linux/mman.h
    // has them (`repr(C)`), and the descriptor is open as long as `file` is borrowed.
    let result =
        unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut found, 0) };
    if result == 0 { Ok(found.cached) } else { Err(io::Error::last_os_error()) }
}

/// Makes `to` share the extents of `from`, so that changing one later leaves the other as it is.
///
/// # Errors
/// EOPNOTSUPP or ENOTTY where the file system cannot, EXDEV between file systems.
pub(super) fn reflink(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: FICLONE takes a descriptor by value and touches no memory of ours; both descriptors are open as long as
    // the files are borrowed.
    let result = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
