//! Memory that can never change again: a sealed memfd, mapped.

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::{Mmap, MmapOptions};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes that the kernel itself keeps from being written, shrunk or grown, so that pages of them may lie in sockets for as long as
/// readers please. Dropping the mapping frees each page when its last reader is through.
#[derive(Debug)]
pub(crate) struct Sealed {
    map: Mmap,
}

impl Sealed {
    /// Memory named `name` (for `/proc/<pid>/maps`), as `fill` writes it.
    pub(crate) fn new(name: &str, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Self> {
        let memfd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let mut file = File::from(memfd);
        fill(&mut file)?;
        let seals =
            SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        // Private, since kernels before 6.7 refuse shared mappings of what is sealed against writing. Nobody writes, so these are
        // the memfd's own pages all the same.
        // SAFETY: a mapping must not change under its readers: the seals just applied make the kernel uphold that.
        let map = unsafe { MmapOptions::new().populate().map_copy_read_only(&file) }?;
        Ok(Sealed { map })
    }
}

impl Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_filled_in_is_what_is_mapped_and_no_one_can_write_it() {
        let mut kept = None;
        let sealed = Sealed::new("millrace-test", |file| {
            kept = Some(file.try_clone()?);
            file.write_all(b"for ever")
        });
        assert_eq!(&sealed.unwrap()[..], b"for ever");
        let refused = kept.unwrap().write_all(b"!").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
