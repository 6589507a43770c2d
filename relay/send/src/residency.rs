//! Bringing bytes of a file into the page cache, for a thread that may wait for the disk.

use std::io;
use std::os::fd::AsFd;

use millrace_pagecache::disk::residency::resident;
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::uio::pread;

use crate::outcome::Absent;
use crate::pipe::retry;

/// Announces the range, so that the disk sees all of it at once, then reads through it until it is there.
pub(crate) fn bring_in(absent: &Absent, scratch: &mut [u8]) -> io::Result<bool> {
    let file = absent.file.as_fd();
    let mut offset = i64::try_from(absent.offset).map_err(io::Error::other)?;
    let bytes = i64::try_from(absent.bytes).map_err(io::Error::other)?;
    let end = offset + bytes;
    // Advice that is not taken costs speed, nothing else.
    let _ = posix_fadvise(file, offset, bytes, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    while offset < end {
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(scratch.len());
        match retry(|| pread(file, &mut scratch[..wanted], offset)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => offset += i64::try_from(read).map_err(io::Error::other)?,
            Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let is_resident = resident(absent.file.file(), absent.offset, absent.bytes);
    Ok(is_resident == Some(true))
}
