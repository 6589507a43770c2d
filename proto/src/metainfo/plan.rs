//! Where the files of a new torrent will lie, known before any byte is hashed.

use super::info::{File, PIECE_BYTES_MAX, PIECE_COUNT_MAX, end_of};
use super::names::{self, Attributes, PATH_DEPTH_MAX};
use super::{MetainfoError, info};
use crate::merkle::BLOCK_BYTES;

/// The linear layout of a hybrid torrent to be made: its pieces are hashed by this and given to [`super::Builder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The torrent's own name.
    pub name: String,
    /// Length of a piece in bytes: a power of two from 16 KiB to [`PIECE_BYTES_MAX`].
    pub piece_bytes: u32,
    /// Sorted as BEP 52 wants it, with padding in between (BEP 47); `executable` and `hidden` may still be set.
    pub files: Vec<File>,
    /// Length of the linear space in bytes, padding included.
    pub length: u64,
    /// Whether the files lie in a folder of the torrent's name.
    pub multi_file: bool,
}

/// Lays out files of the given paths and lengths.
///
/// Paths are those inside of the torrent's folder, without `name`. One file with an empty path makes a single-file
/// torrent. Files that have bytes start at a piece; padding named `.pad/N` fills the gaps.
///
/// # Errors
/// Names that [`super::Metainfo::parse`] would refuse, collisions, an empty list, a piece length that v2 does not
/// allow, and lengths that overflow or give more than [`PIECE_COUNT_MAX`] pieces.
pub fn plan_files(name: &str, piece_bytes: u32, files: &[(Vec<String>, u64)]) -> Result<Plan, MetainfoError> {
    if !piece_bytes.is_power_of_two() || !(BLOCK_BYTES..=PIECE_BYTES_MAX).contains(&piece_bytes) {
        return Err(MetainfoError::PieceBytes(i64::from(piece_bytes)));
    }
    if files.is_empty() {
        return Err(MetainfoError::Missing("files"));
    }
    let multi_file = !matches!(files, [(path, _)] if path.is_empty());
    let mut sorted: Vec<&(Vec<String>, u64)> = files.iter().collect();
    sorted.sort_unstable();
    names::check(name)?;
    let mut plan = Plan { name: name.to_owned(), piece_bytes, files: Vec::new(), length: 0, multi_file };
    for (path, length) in sorted {
        if (multi_file && path.is_empty()) || path.len() >= PATH_DEPTH_MAX {
            return Err(MetainfoError::Invalid("path"));
        }
        path.iter().try_for_each(|part| names::check(part))?;
        plan.push(path, *length)?;
    }
    names::check_collisions(&plan.files)?;
    if plan.piece_count() > PIECE_COUNT_MAX {
        return Err(MetainfoError::TooLong);
    }
    Ok(plan)
}

impl Plan {
    /// Pieces to be hashed.
    #[must_use]
    pub fn piece_count(&self) -> u64 {
        self.length.div_ceil(u64::from(self.piece_bytes))
    }

    fn push(&mut self, path: &[String], length: u64) -> Result<(), MetainfoError> {
        let gap = self.length.checked_next_multiple_of(u64::from(self.piece_bytes));
        let gap = gap.ok_or(MetainfoError::TooLong)? - self.length;
        if length > 0 && gap > 0 {
            self.append(&[".pad".to_owned(), gap.to_string()], gap, true)?;
        }
        self.append(path, length, false)
    }

    fn append(&mut self, path: &[String], length: u64, padding: bool) -> Result<(), MetainfoError> {
        let mut whole = vec![self.name.clone()];
        whole.extend_from_slice(path);
        let attributes = Attributes { padding, ..Attributes::default() };
        self.files.push(info::file(whole, length, self.length, attributes));
        self.length = end_of(self.length, length)?;
        Ok(())
    }
}

/// A piece length for `length` bytes: a power of two from 16 KiB to 16 MiB, for 1000 to 2000 pieces where that is
/// possible.
#[must_use]
pub fn choose_piece_bytes(length: u64) -> u32 {
    let mut piece_bytes = BLOCK_BYTES;
    while piece_bytes < 16 << 20 && length.div_ceil(u64::from(piece_bytes)) > 2000 {
        piece_bytes *= 2;
    }
    piece_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, u64)], expected: Result<&[(&str, u64)], MetainfoError>) {
        let path = |text: &str| text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let files: Vec<(Vec<String>, u64)> =
            files.iter().map(|(text, length)| (path(text), *length)).collect();
        let plan = plan_files("t", 16_384, &files);
        let shown = plan
            .map(|plan| plan.files.iter().map(|file| (file.path.join("/"), file.offset)).collect::<Vec<_>>());
        let expected =
            expected.map(|files| files.iter().map(|(p, o)| ((*p).to_owned(), *o)).collect::<Vec<_>>());
        assert_eq!(shown, expected);
    }

    #[test]
    fn files_with_bytes_start_at_a_piece() {
        check(&[("", 5)], Ok(&[("t", 0)]));
        check(
            &[("b", 1), ("a/z", 16_384), ("a-", 0), ("c", 2)],
            Ok(&[("t/a/z", 0), ("t/a-", 16_384), ("t/b", 16_384), ("t/.pad/16383", 16_385), ("t/c", 32_768)]),
        );
        check(&[("a", 1), ("b", 0)], Ok(&[("t/a", 0), ("t/b", 1)]));
    }

    #[test]
    fn what_could_not_be_read_back_is_not_planned() {
        check(&[], Err(MetainfoError::Missing("files")));
        check(&[("a", 1), ("a", 2)], Err(MetainfoError::Collision("t/a".into())));
        check(&[("a", 1), ("a/b", 2)], Err(MetainfoError::Collision("t/a".into())));
        check(&[("a", 1 << 37)], Err(MetainfoError::TooLong));
        check(&[("a", u64::MAX)], Err(MetainfoError::TooLong));
        check(&[("a", 1), ("", 2)], Err(MetainfoError::Invalid("path")));
    }

    #[test]
    fn pieces_are_one_to_two_thousand() {
        for (length, piece_bytes) in [
            (0, 16 << 10),
            (2000 * (16 << 10), 16 << 10),
            (2000 * (16 << 10) + 1, 32 << 10),
            (1 << 30, 1 << 20),
        ] {
            assert_eq!(choose_piece_bytes(length), piece_bytes, "{length}");
        }
        assert_eq!(choose_piece_bytes(u64::MAX), 16 << 20);
    }
}
