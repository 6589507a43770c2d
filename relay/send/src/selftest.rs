//! Which send path this host allows, found out at start.
//!
//! `vmsplice` may be forbidden (some container profiles do) or made a copy (a kernel patch that was in linux-next in 2026 does). Then
//! nothing is won by it, and `sendfile` does the same work with fewer steps.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use memmap2::MmapOptions;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::read;

use crate::outcome::SendPath;
use crate::pipe::{PAGE_BYTES, Pipe};
use crate::slice::Slice;

/// What [`probe`] found, for the log and for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The way to send.
    pub path: SendPath,
    /// Why, in one sentence for an operator.
    pub reason: String,
    /// Bytes that the pipe of a shard holds; 0 when there is none.
    pub pipe_bytes: usize,
}

/// Sends a page by reference through a pipe and looks whether it was copied on the way.
#[must_use]
pub fn probe() -> Probe {
    let found = Pipe::new().and_then(|mut pipe| {
        let bytes = pipe.slots() * PAGE_BYTES;
        passes_references(&mut pipe).map(|references| (references, bytes))
    });
    let (path, reason, pipe_bytes) = match found {
        Ok((true, bytes)) => {
            let reason = format!("vmsplice passes page references, through a pipe of {} KiB", bytes / 1024);
            (SendPath::Reference, reason, bytes)
        }
        Ok((false, bytes)) => (SendPath::Sendfile, "this kernel's vmsplice copies pages".to_owned(), bytes),
        Err(error) => {
            let reason = format!(
                "vmsplice or splice is not to be had here ({error}); a seccomp profile may forbid it"
            );
            (SendPath::Sendfile, reason, 0)
        }
    };
    Probe { path, reason, pipe_bytes }
}

/// Whether a byte that changes while the page lies in the pipe comes out changed.
fn passes_references(pipe: &mut Pipe) -> nix::Result<bool> {
    let mut file = File::from(memfd_create("millrace-selftest", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&[b'a'; PAGE_BYTES]).map_err(|_| Errno::last())?;
    let map = MmapOptions::new().len(PAGE_BYTES).map_raw_read_only(&file).map_err(|_| Errno::last())?;
    pipe.reference(&[Slice::of_mapping(&map)])?;
    file.write_all_at(b"b", 0).map_err(|_| Errno::last())?;
    let mut byte = [0];
    read(&*pipe, &mut byte)?;
    pipe.note_read(1);
    pipe.drain()?;
    Ok(byte == *b"b")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_gives_a_reason_and_a_pipe() {
        let probe = probe();
        assert!(!probe.reason.is_empty());
        // Neither path is wrong on every kernel; but both must have been told apart by a pipe that works.
        assert!(probe.pipe_bytes >= PAGE_BYTES, "{probe:?}");
    }
}
