//! Replacing a small file so that a crash leaves the old one or the new one, never a mixture.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes `name` in `folder` anew: beside it, synced, renamed over it, and the folder synced. What was there before
/// stays as `<name>.previous`, for the case that the disk loses the new one.
///
/// # Errors
/// What the disk says; what was there before is still there then.
pub fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (path, new) = (folder.join(name), unfinished(folder, name));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let previous = previous(folder, name);
    // A second name is a precaution, and not every file system has them: going on without it is right.
    let _ = fs::remove_file(&previous)
        .and_then(|()| fs::hard_link(&path, &previous))
        .or_else(|_| fs::hard_link(&path, &previous));
    fs::rename(&new, &path)?;
    sync_folder(folder)
}

/// [`replace`], after which nothing can fall back to what was there before.
pub(super) fn replace_for_good(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    replace(folder, name, bytes)?;
    remove(&previous(folder, name))?;
    sync_folder(folder)
}

/// Where [`replace`] writes before it renames.
pub(super) fn unfinished(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.new"))
}

/// Where [`replace`] keeps the one before.
pub(super) fn previous(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.previous"))
}

/// Removes a file that may be absent.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a folder that may be absent, with all that is in it.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the names in a folder outlive a power cut.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Reads `name`, or the one before where that is missing or `decode` calls it torn.
pub(super) fn read_either<T>(
    folder: &Path,
    name: &str,
    decode: impl Fn(&[u8]) -> Result<T, Unreadable>,
) -> Result<T, Unreadable> {
    let read = |path: PathBuf| match fs::read(&path) {
        Ok(bytes) => decode(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Unreadable::Torn("missing")),
        Err(error) => Err(Unreadable::Io(error)),
    };
    match read(folder.join(name)) {
        Err(Unreadable::Torn(why)) => read(previous(folder, name)).map_err(|error| match error {
            Unreadable::Torn(_) => Unreadable::Torn(why),
            other => other,
        }),
        other => other,
    }
}

/// Why a file of the store cannot be used.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// Missing, cut short or changed.
    Torn(&'static str),
    /// Written by a later program.
    Version(u64),
    /// The disk says so.
    Io(io::Error),
}
