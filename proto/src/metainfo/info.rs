//! The info dictionary: its v1 file list (BEP 3), and what makes v1, v2 and hybrid torrents agree.

use super::names::{self, Attributes};
use super::{MetainfoError, tree};
use crate::bencode::{Dict, Value, decode_canonical};
use crate::merkle::{BLOCK_BYTES, Hash};

/// Longest piece accepted, in bytes.
pub const PIECE_BYTES_MAX: u32 = 64 << 20;

/// Most pieces of a torrent: what bitfields and piece states are sized for.
pub const PIECE_COUNT_MAX: u64 = 4 << 20;

/// An info dictionary, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The torrent's own name, a plain file name.
    pub name: String,
    /// Length of a piece, in bytes; 1 to [`PIECE_BYTES_MAX`], with a v2 part a power of two from 16 KiB.
    pub piece_bytes: u32,
    /// Only the trackers named may be asked for peers (BEP 27).
    pub private: bool,
    /// In the order of the linear space, explicit padding included.
    pub files: Vec<File>,
    /// Length of the linear space in bytes, padding included.
    pub length: u64,
    /// SHA-1 of every piece, if there is a v1 part.
    pub v1_pieces: Option<Vec<[u8; 20]>>,
    /// Whether there is a v2 part.
    pub v2: bool,
    /// Whether the files lie in a folder of the torrent's name.
    pub multi_file: bool,
}

/// A file of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The path with the torrent's name first; a single-file torrent has exactly `[name]`.
    pub path: Vec<String>,
    /// In bytes.
    pub length: u64,
    /// Where the file begins in the linear space, in bytes. In v2-only torrents the gap before it is implicit padding.
    pub offset: u64,
    /// Zeros that only align the next file (BEP 47 `p`): never written, never served.
    pub padding: bool,
    /// BEP 47 `x`.
    pub executable: bool,
    /// BEP 47 `h`.
    pub hidden: bool,
    /// Root of the file's hash tree (BEP 52); `None` without a v2 part, for empty files and for padding.
    pub pieces_root: Option<Hash>,
}

impl Info {
    /// Reads an info dictionary alone, as peers send it (BEP 9).
    ///
    /// # Errors
    /// Whatever [`MetainfoError`] lists, piece layers excepted.
    pub fn parse(info_bytes: &[u8]) -> Result<Self, MetainfoError> {
        let value = decode_canonical(info_bytes)?;
        Self::from_dict(value.as_dict().ok_or(MetainfoError::Invalid("info"))?)
    }

    /// Pieces of the linear space.
    #[must_use]
    pub fn piece_count(&self) -> u64 {
        self.length.div_ceil(u64::from(self.piece_bytes))
    }

    pub(super) fn from_dict(dict: &Dict<'_>) -> Result<Self, MetainfoError> {
        let v2 = match dict.get("meta version").map(Value::as_int) {
            None => false,
            Some(Some(2)) => true,
            Some(Some(version)) => return Err(MetainfoError::Version(version)),
            Some(None) => return Err(MetainfoError::Invalid("meta version")),
        };
        let raw = dict.get("name").ok_or(MetainfoError::Missing("name"))?;
        let raw = raw.as_bytes().ok_or(MetainfoError::Invalid("name"))?;
        let name = names::name(raw, dict.get("name.utf-8").and_then(Value::as_bytes))?;
        let piece_bytes = piece_bytes(dict, v2)?;
        let v1_pieces = v1_pieces(dict)?;
        if v1_pieces.is_none() && !v2 {
            return Err(MetainfoError::Missing("pieces"));
        }
        let mut info = Self {
            name,
            piece_bytes,
            private: dict.get("private").and_then(Value::as_int) == Some(1),
            files: Vec::new(),
            length: 0,
            v1_pieces,
            v2,
            multi_file: dict.get("files").is_some(),
        };
        if info.v1_pieces.is_some() {
            info.files = v1_files(dict, &info.name)?;
        }
        if v2 {
            let v2_files = tree::files(dict, &info)?;
            if info.v1_pieces.is_some() {
                tree::merge(&mut info, v2_files)?;
            } else {
                info.multi_file = !matches!(&v2_files[..], [only] if only.path.len() == 1);
                info.files = v2_files;
            }
        }
        info.check()?;
        Ok(info)
    }

    /// Sets the length and checks what concerns the torrent as a whole.
    fn check(&mut self) -> Result<(), MetainfoError> {
        // Trailing empty files of a v2 torrent do not end behind the last byte.
        self.length = self.files.iter().map(|file| file.offset + file.length).max().unwrap_or(0);
        let expected = self.piece_count();
        if let Some(pieces) = &self.v1_pieces {
            let found = u64::try_from(pieces.len()).unwrap_or(u64::MAX);
            if found != expected {
                return Err(MetainfoError::PieceCount { expected, found });
            }
        }
        if expected > PIECE_COUNT_MAX {
            return Err(MetainfoError::TooLong);
        }
        if self.files.iter().all(|file| file.padding) {
            return Err(MetainfoError::Missing("files"));
        }
        names::check_collisions(&self.files)
    }
}

fn piece_bytes(dict: &Dict<'_>, v2: bool) -> Result<u32, MetainfoError> {
    let value = dict.get("piece length").ok_or(MetainfoError::Missing("piece length"))?;
    let int = value.as_int().ok_or(MetainfoError::Invalid("piece length"))?;
    let bytes = u32::try_from(int).map_err(|_| MetainfoError::PieceBytes(int))?;
    let fits_v2 = bytes.is_power_of_two() && bytes >= BLOCK_BYTES;
    if bytes == 0 || bytes > PIECE_BYTES_MAX || (v2 && !fits_v2) {
        return Err(MetainfoError::PieceBytes(int));
    }
    Ok(bytes)
}

fn v1_pieces(dict: &Dict<'_>) -> Result<Option<Vec<[u8; 20]>>, MetainfoError> {
    let Some(value) = dict.get("pieces") else { return Ok(None) };
    let bytes = value.as_bytes().ok_or(MetainfoError::Invalid("pieces"))?;
    let (hashes, rest) = bytes.as_chunks::<20>();
    if rest.is_empty() { Ok(Some(hashes.to_vec())) } else { Err(MetainfoError::Invalid("pieces")) }
}

/// A length in bytes; negative ones are refused.
pub(super) fn length(entry: &Dict<'_>) -> Result<u64, MetainfoError> {
    let value = entry.get("length").ok_or(MetainfoError::Missing("length"))?;
    value.as_int().and_then(|int| u64::try_from(int).ok()).ok_or(MetainfoError::Invalid("length"))
}

/// The end of a file; the linear space fits 63 bits, as file offsets do.
pub(super) fn end_of(offset: u64, length: u64) -> Result<u64, MetainfoError> {
    offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok()).ok_or(MetainfoError::TooLong)
}

/// The files of the v1 part: one after the other without gaps.
fn v1_files(dict: &Dict<'_>, name: &str) -> Result<Vec<File>, MetainfoError> {
    let Some(list) = dict.get("files") else {
        let attributes = Attributes::of(dict, name)?;
        let length = length(dict)?;
        end_of(0, length)?;
        return Ok(vec![file(vec![name.to_owned()], length, 0, attributes)]);
    };
    if dict.get("length").is_some() {
        return Err(MetainfoError::Invalid("files"));
    }
    let mut files = Vec::new();
    let mut offset = 0;
    for entry in list.as_list().ok_or(MetainfoError::Invalid("files"))? {
        let entry = entry.as_dict().ok_or(MetainfoError::Invalid("files"))?;
        let mut path = vec![name.to_owned()];
        path.extend(names::path(entry)?);
        let attributes = Attributes::of(entry, &path.join("/"))?;
        let length = length(entry)?;
        files.push(file(path, length, offset, attributes));
        offset = end_of(offset, length)?;
    }
    Ok(files)
}

pub(super) fn file(path: Vec<String>, length: u64, offset: u64, attributes: Attributes) -> File {
    let Attributes { padding, executable, hidden } = attributes;
    File { path, length, offset, padding, executable, hidden, pieces_root: None }
}
