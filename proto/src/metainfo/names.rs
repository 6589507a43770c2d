//! File names from strangers: taken as they are or refused, never mangled into something that was not meant.

use super::MetainfoError;
use super::info::File;
use crate::bencode::Dict;

/// Longest name of one file or folder, in bytes, on the file systems that hold a store.
const NAME_BYTES_MAX: usize = 255;

/// Most folders inside each other, the torrent's own included.
pub(super) const PATH_DEPTH_MAX: usize = 64;

/// The text of a name: `utf8` (a `….utf-8` key) where it is there, else `raw` with U+FFFD for what is not UTF-8.
///
/// Two names that become equal that way are refused as a collision.
pub(super) fn name(raw: &[u8], utf8: Option<&[u8]>) -> Result<String, MetainfoError> {
    let text = utf8
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .map_or_else(|| String::from_utf8_lossy(raw).into_owned(), str::to_owned);
    check(&text).map(|()| text)
}

/// Refuses names that are no plain file name.
pub(super) fn check(name: &str) -> Result<(), MetainfoError> {
    let reason = match name {
        "" => "empty",
        "." | ".." => "a step to another folder",
        _ if name.contains('/') => "a path, not a name",
        _ if name.contains('\\') => "a path on some systems",
        _ if name.contains('\0') => "cut off by a zero byte",
        _ if name.len() > NAME_BYTES_MAX => "longer than 255 bytes",
        _ => return Ok(()),
    };
    Err(MetainfoError::Name { name: name.chars().take(80).collect(), reason })
}

/// The path of an entry of `files`, without the torrent's name.
pub(super) fn path(entry: &Dict<'_>) -> Result<Vec<String>, MetainfoError> {
    let invalid = || MetainfoError::Invalid("path");
    let raw = entry.get("path").ok_or(MetainfoError::Missing("path"))?.as_list().ok_or_else(invalid)?;
    let utf8 =
        entry.get("path.utf-8").and_then(|value| value.as_list()).filter(|list| list.len() == raw.len());
    if raw.is_empty() || raw.len() >= PATH_DEPTH_MAX {
        return Err(invalid());
    }
    let part = |at: usize| {
        let better = utf8.and_then(|list| list.get(at)).and_then(|value| value.as_bytes());
        name(raw[at].as_bytes().ok_or_else(invalid)?, better)
    };
    (0..raw.len()).map(part).collect()
}

/// Refuses two files of one path, and a file whose path is a folder of another.
///
/// Padding is never written, so its names may repeat.
pub(super) fn check_collisions(files: &[File]) -> Result<(), MetainfoError> {
    let mut paths: Vec<&[String]> = files.iter().filter(|f| !f.padding).map(|f| f.path.as_slice()).collect();
    // In sorted order everything between a path and something inside of it is inside of it too.
    paths.sort_unstable();
    match paths.windows(2).find(|pair| pair[1].starts_with(pair[0])) {
        Some(pair) => Err(MetainfoError::Collision(pair[0].join("/"))),
        None => Ok(()),
    }
}

/// The letters of `attr` (BEP 47).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Attributes {
    pub(super) padding: bool,
    pub(super) executable: bool,
    pub(super) hidden: bool,
}

impl Attributes {
    /// Reads `attr`; unknown letters are left alone, as BEP 47 asks.
    pub(super) fn of(entry: &Dict<'_>, shown: &str) -> Result<Self, MetainfoError> {
        let letters = match entry.get("attr") {
            Some(value) => value.as_bytes().ok_or(MetainfoError::Invalid("attr"))?,
            None => &[],
        };
        if letters.contains(&b'l') || entry.get("symlink path").is_some() {
            return Err(MetainfoError::Symlink(shown.to_owned()));
        }
        Ok(Self {
            padding: letters.contains(&b'p'),
            executable: letters.contains(&b'x'),
            hidden: letters.contains(&b'h'),
        })
    }
}
