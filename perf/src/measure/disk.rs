//! Files and the disk: what a process read from it, how much of a file is in memory, and taking it out of there.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// Bytes that a process has had read from disks, readahead included (`read_bytes`); `None` where it may not be looked at.
pub(crate) fn read_by(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("read_bytes:"))?.trim().parse().ok()
}

/// Takes a file of ours out of the page cache: written back first, since what is dirty stays. Nothing else is touched, and pages that a
/// process has mapped stay as well; [`resident_share`] tells.
///
/// # Errors
/// Those of the file system.
pub(crate) fn drop_from_cache(path: &Path) -> std::io::Result<()> {
    let file = File::open(path)?;
    file.sync_data()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

/// Share of a file that is in the page cache, 0 to 1, by `fincore` of util-linux; `None` where that is missing.
#[expect(clippy::cast_precision_loss, reason = "files are far below 2^53 bytes")]
pub(crate) fn resident_share(path: &Path) -> Option<f64> {
    let output =
        Command::new("fincore").args(["--bytes", "--noheadings", "--output", "RES"]).arg(path).output();
    let resident: u64 = String::from_utf8_lossy(&output.ok()?.stdout).trim().parse().ok()?;
    let length = path.metadata().ok()?.len().max(1);
    Some((resident as f64 / length as f64).min(1.0))
}

/// Files below `folder` of at least `bytes_min`.
///
/// # Errors
/// Those of the file system.
pub(crate) fn files_below(folder: &Path, bytes_min: u64) -> std::io::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            found.extend(files_below(&entry.path(), bytes_min)?);
        } else if metadata.is_file() && metadata.len() >= bytes_min {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::scratch::Scratch;

    #[test]
    fn a_file_leaves_the_cache_and_comes_back() {
        let folder = Scratch::create(None).unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![7; 4 << 20]).unwrap();
        assert_eq!(files_below(folder.path(), 1 << 20).unwrap(), std::slice::from_ref(&path));
        assert!(files_below(folder.path(), 5 << 20).unwrap().is_empty());
        let Some(before) = resident_share(&path) else {
            eprintln!("skipped: fincore is not installed");
            return;
        };
        drop_from_cache(&path).unwrap();
        let after = resident_share(&path).unwrap();
        // A file system in memory keeps everything, by its nature.
        assert!(before > 0.9 && !(0.1..=0.9).contains(&after), "{before} {after}");
    }

    #[test]
    fn our_own_reads_can_be_seen() {
        assert!(read_by(std::process::id()).is_some());
        assert_eq!(read_by(u32::MAX), None);
    }
}
