//! Anonymous memory that the kernel writes to on its own time.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Zeroed pages, named by address only: no reference to them exists, so the kernel may write at any time.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<c_void>,
    bytes: usize,
    leaked: bool,
}

// SAFETY: the pages belong to the process, not to the thread that mapped them, and only the owner of this reads them.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `bytes`, at least 1, rounded up to whole pages.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: no address is asked for, so the new mapping replaces nothing.
        let start = unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE) }?;
        Ok(Mapping { start, bytes, leaked: false })
    }

    /// Where it starts: aligned to a page.
    pub(crate) fn start<T>(&self) -> NonNull<T> {
        self.start.cast()
    }

    /// Leaves the memory in place when this is dropped, since the kernel may still write to it.
    pub(crate) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: start and length are those that `new` mapped. The owner has called `leak` where the kernel may still write here,
        // and whoever read through `start` did so while it held the owner.
        let unmapped = unsafe { munmap(self.start, self.bytes) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours cannot be unmapped");
    }
}
