//! Bringing bytes of a file into the page cache, for a thread that may wait for the disk.

use std::io;
use std::os::fd::AsFd;

use millrace_pagecache::disk::residency::resident;
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::uio::pread;

use crate::outcome::Absent;
use crate::pipe::retry;

/// Between two places at which is looked whether a range has arrived: a page of each.
const STEP_BYTES: usize = 64 * 1024;

/// Announces the range, so that the disk sees all of it at once, then waits until it is there. Whether the kernel says so in the end.
pub(crate) fn bring_in(absent: &Absent, scratch: &mut [u8]) -> io::Result<bool> {
    let file = absent.file.as_fd();
    let offset = i64::try_from(absent.offset).map_err(io::Error::other)?;
    let bytes = i64::try_from(absent.bytes).map_err(io::Error::other)?;
    // Advice that is not taken costs speed, nothing else.
    let _ = posix_fadvise(file, offset, bytes, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    let is_resident = || resident(absent.file.file(), absent.offset, absent.bytes) == Some(true);
    let last = offset + bytes - 1;
    for place in (offset..last).step_by(STEP_BYTES).chain([last]) {
        read(absent, &mut scratch[..1], place)?;
    }
    // Pages on their way count as there, but what was announced first arrives first, or nearly so: a byte here and there saves copying all
    // of them. Where the advice was not taken, or the kernel does not tell, every byte is read.
    if is_resident() {
        return Ok(true);
    }
    let mut place = offset;
    while place <= last {
        let wanted = usize::try_from(last + 1 - place).map_or(scratch.len(), |left| left.min(scratch.len()));
        let taken = read(absent, &mut scratch[..wanted], place)?;
        place += i64::try_from(taken).map_err(io::Error::other)?;
    }
    Ok(is_resident())
}

/// Reads at least one byte.
fn read(absent: &Absent, into: &mut [u8], offset: i64) -> io::Result<usize> {
    loop {
        match retry(|| pread(&*absent.file, into, offset)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::EAGAIN) => {}
            result => return Ok(result?),
        }
    }
}
