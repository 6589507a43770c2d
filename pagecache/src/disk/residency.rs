//! Whether bytes of a file are in memory, so that sending them cannot wait for the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::mapping::pages_cached;

/// The smallest page of any supported machine. Where pages are larger the kernel counts fewer, and the answer errs
/// towards "absent".
const PAGE_BYTES: u64 = 4096;

/// Whether all pages of the range are in the page cache, pages still being read among them; `None` where the kernel
/// does not tell. A hint, not a promise: memory may be reclaimed the moment after.
#[must_use]
pub fn resident(file: &File, offset: u64, bytes: u64) -> Option<bool> {
    if bytes == 0 {
        return Some(true);
    }
    let first = offset / PAGE_BYTES;
    let end = offset.saturating_add(bytes).div_ceil(PAGE_BYTES);
    let cached = pages_cached(file, first * PAGE_BYTES, (end - first) * PAGE_BYTES).ok()?;
    Some(cached >= end - first)
}

/// Whether [`resident`] can be believed in the file system of `folder`: what was just written is reported present and
/// a hole that nobody read absent. Overlay file systems count their pages elsewhere and fail this.
///
/// # Errors
/// When the file for the test cannot be written.
pub fn probe_works(folder: &Path) -> io::Result<bool> {
    let path = folder.join(format!(".probe-{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    // Without a name from here on, so that nothing is left behind.
    std::fs::remove_file(&path)?;
    file.set_len(64 * PAGE_BYTES)?;
    file.write_all_at(&[1; 8192], 0)?;
    let present = resident(&file, 1, 8000);
    let hole = resident(&file, 32 * PAGE_BYTES, PAGE_BYTES);
    Ok(present == Some(true) && hole == Some(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_past_what_was_written_is_absent() {
        let folder = std::env::temp_dir();
        if !probe_works(&folder).unwrap() {
            use std::io::Write as _;
            writeln!(std::io::stderr(), "skipped: cachestat does not work in {}", folder.display()).ok();
            return;
        }
        let path = folder.join(format!("millrace-resident-{}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[1; 4097], 0).unwrap();
        assert_eq!(resident(&file, 4096, 1), Some(true));
        assert_eq!(resident(&file, 0, 8193), Some(false));
        assert_eq!(resident(&file, 1 << 19, 0), Some(true));
    }
}
