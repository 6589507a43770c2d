//! Where the demo's clients put what they download, and how they find out whether it is right.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file being downloaded.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    received: AtomicU64,
}

impl Sink {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Sink { file, received: AtomicU64::new(0) })
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes received so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// SHA-256 of the first `length` bytes, read back from the file.
    pub(super) fn sha256(&self, length: u64) -> io::Result<[u8; 32]> {
        sha256_of(&self.file, length)
    }
}

/// SHA-256 of the first `length` bytes of a file.
pub(super) fn sha256_of(file: &File, length: u64) -> io::Result<[u8; 32]> {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let count = usize::try_from(length - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        file.read_exact_at(&mut buffer[..count], at)?;
        hash.update(&buffer[..count]);
        at += count as u64;
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(hash.finish().as_ref());
    Ok(sha256)
}
