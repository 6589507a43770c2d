//! How the bytes of a content lie in its pieces and files.
//!
//! A content is one run of bytes (BEP 3 "as if concatenated"): files in order, with padding between them where BEP 47
//! or BEP 52 ask for alignment. Everything here is arithmetic on offsets in that run.

use std::ops::Range;

use millrace_proto::metainfo::Info;

/// Bytes of a block: the unit of BitTorrent requests (BEP 3) and the leaves of v2 hash trees (BEP 52).
pub const BLOCK_BYTES: u64 = 16 * 1024;

/// Largest content accepted, in bytes (16 TiB). It bounds what a hostile metainfo can make the store allocate: a bit
/// for each block, 128 MiB at most.
pub const CONTENT_BYTES_MAX: u64 = 1 << 44;

/// Number of a piece, from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(pub u32);

/// Number of a file within its content, padding files included, from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIndex(pub u32);

/// A length or piece size with which no content can be laid out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Longer than [`CONTENT_BYTES_MAX`], or offsets that overflow.
    #[error("the content is longer than the 16 TiB this store accepts")]
    TooLong,
    /// A piece size of zero.
    #[error("a piece size of zero")]
    NoPieceSize,
    /// More pieces than a 32-bit index counts.
    #[error("{0} pieces are more than a piece index can count: choose larger pieces")]
    TooManyPieces(u64),
    /// Files that overlap, or lie past the end of the content.
    #[error("file {0} overlaps the one before it or leaves the content")]
    Misplaced(usize),
}

/// One file of a content.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileSpan {
    /// Path components; for a torrent of several files the first one is the torrent's name.
    pub path: Vec<String>,
    /// Where the file begins in the content, in bytes.
    pub offset: u64,
    /// Bytes of the file.
    pub length: u64,
    /// A padding file (BEP 47): zeros that are not stored.
    #[serde(default)]
    pub padding: bool,
}

impl FileSpan {
    /// Where the file ends in the content (exclusive), in bytes.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Where each byte of a content is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    piece_bytes: u32,
    length: u64,
    files: Vec<FileSpan>,
}

/// What a run of bytes comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceSource {
    /// A file, from this offset within the file.
    File(FileIndex, u64),
    /// Zeros that are stored nowhere.
    Padding,
}

/// A run of bytes from one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Where the bytes are.
    pub source: SliceSource,
    /// How many, never zero.
    pub bytes: u64,
}

impl Layout {
    /// Lays out `files`, which must be in order and not overlap; gaps between them are padding.
    ///
    /// # Errors
    /// Sizes out of bounds, or files out of place.
    pub fn new(piece_bytes: u32, length: u64, files: Vec<FileSpan>) -> Result<Self, LayoutError> {
        if piece_bytes == 0 {
            return Err(LayoutError::NoPieceSize);
        }
        if length > CONTENT_BYTES_MAX {
            return Err(LayoutError::TooLong);
        }
        let pieces = length.div_ceil(u64::from(piece_bytes));
        if u32::try_from(pieces).is_err() {
            return Err(LayoutError::TooManyPieces(pieces));
        }
        let mut end = 0;
        for (index, file) in files.iter().enumerate() {
            let file_end = file.offset.checked_add(file.length).ok_or(LayoutError::TooLong)?;
            if file.offset < end || file_end > length {
                return Err(LayoutError::Misplaced(index));
            }
            end = file_end;
        }
        if u32::try_from(files.len()).is_err() {
            return Err(LayoutError::TooLong);
        }
        Ok(Layout { piece_bytes, length, files })
    }

    /// The layout that an info dictionary describes.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn from_info(info: &Info) -> Result<Self, LayoutError> {
        let files = info.files.iter().map(|file| FileSpan {
            path: file.path.clone(),
            offset: file.offset,
            length: file.length,
            padding: file.padding,
        });
        Layout::new(info.piece_bytes, info.length, files.collect())
    }

    /// One file of `length` bytes.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn single(name: &str, length: u64, piece_bytes: u32) -> Result<Self, LayoutError> {
        let file = FileSpan { path: vec![name.to_owned()], offset: 0, length, padding: false };
        Layout::new(piece_bytes, length, vec![file])
    }

    /// One file whose length its origin does not tell: as long as this store accepts, until it is settled.
    #[must_use]
    pub fn growing(name: &str) -> Self {
        let length = CONTENT_BYTES_MAX;
        let file = FileSpan { path: vec![name.to_owned()], offset: 0, length, padding: false };
        Layout { piece_bytes: 1 << 24, length, files: vec![file] }
    }

    /// Bytes of each piece except the last, which may be shorter.
    #[must_use]
    pub fn piece_bytes(&self) -> u32 {
        self.piece_bytes
    }

    /// Bytes of the content, padding included.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// All files in order, padding files included.
    #[must_use]
    pub fn files(&self) -> &[FileSpan] {
        &self.files
    }

    /// Bytes of the blocks that visibility is kept in: [`BLOCK_BYTES`], or a whole piece where a piece of odd size
    /// would end inside a block.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        let piece = u64::from(self.piece_bytes);
        if piece.is_multiple_of(BLOCK_BYTES) { BLOCK_BYTES } else { piece }
    }

    /// Number of pieces.
    #[must_use]
    pub fn piece_count(&self) -> u32 {
        u32::try_from(self.length.div_ceil(u64::from(self.piece_bytes))).unwrap_or(u32::MAX)
    }

    /// The bytes of a piece; empty for an index past the last.
    #[must_use]
    pub fn piece_range(&self, piece: PieceIndex) -> Range<u64> {
        let bytes = u64::from(self.piece_bytes);
        let start = u64::from(piece.0) * bytes;
        start.min(self.length)..(start + bytes).min(self.length)
    }

    /// The piece that holds the byte at `offset`, which must be below [`CONTENT_BYTES_MAX`].
    #[must_use]
    pub fn piece_of(&self, offset: u64) -> PieceIndex {
        PieceIndex(u32::try_from(offset / u64::from(self.piece_bytes)).unwrap_or(u32::MAX))
    }

    /// A file; `None` for an index past the last.
    #[must_use]
    pub fn file(&self, file: FileIndex) -> Option<&FileSpan> {
        self.files.get(usize::try_from(file.0).ok()?)
    }

    /// The pieces that hold bytes of a file; none for an index past the last.
    pub fn pieces_of_file(&self, file: FileIndex) -> impl Iterator<Item = PieceIndex> + use<> {
        let span = self.file(file).filter(|span| span.length > 0);
        let pieces = span.map(|span| self.piece_of(span.offset).0..self.piece_of(span.end() - 1).0 + 1);
        pieces.unwrap_or_default().map(PieceIndex)
    }

    /// The first file whose path satisfies `is_it`; padding files (BEP 47), which some clients ask web seeds for, among them.
    pub fn file_index_at_path(&self, is_it: impl Fn(&[String]) -> bool) -> Option<FileIndex> {
        let at = self.files.iter().position(|file| is_it(&file.path))?;
        u32::try_from(at).ok().map(FileIndex)
    }

    /// Where the bytes from `offset` on are, in order and covering exactly `bytes` (less where the content ends).
    #[must_use]
    pub fn slices(&self, offset: u64, bytes: u64) -> Slices<'_> {
        let end = offset.saturating_add(bytes).min(self.length);
        // Ends never decrease, so the first file that ends past the offset is found by halving; files of zero length
        // before it end at or before the offset.
        let next = self.files.partition_point(|file| file.end() <= offset);
        Slices { layout: self, next, offset, end }
    }
}

/// See [`Layout::slices`].
#[derive(Debug, Clone)]
pub struct Slices<'a> {
    layout: &'a Layout,
    next: usize,
    offset: u64,
    end: u64,
}

impl Iterator for Slices<'_> {
    type Item = Slice;

    fn next(&mut self) -> Option<Slice> {
        if self.offset >= self.end {
            return None;
        }
        while self.layout.files.get(self.next).is_some_and(|file| file.end() <= self.offset) {
            self.next += 1;
        }
        let (source, end) = match self.layout.files.get(self.next) {
            Some(file) if file.offset > self.offset => (SliceSource::Padding, file.offset),
            Some(file) if file.padding => (SliceSource::Padding, file.end()),
            Some(file) => {
                let index = FileIndex(u32::try_from(self.next).unwrap_or(u32::MAX));
                (SliceSource::File(index, self.offset - file.offset), file.end())
            }
            None => (SliceSource::Padding, self.end),
        };
        let bytes = end.min(self.end) - self.offset;
        self.offset += bytes;
        Some(Slice { source, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &str, offset: u64, length: u64, padding: bool) -> FileSpan {
        FileSpan { path: vec!["名".into(), name.into()], offset, length, padding }
    }

    fn layout() -> Layout {
        let files = vec![
            span("empty first", 0, 0, false),
            span("a", 0, 10, false),
            span("empty", 10, 0, false),
            span("pad", 10, 6, true),
            span("b", 16, 5, false),
            span("c", 24, 8, false), // a gap of three before it
            span("empty last", 32, 0, false),
        ];
        Layout::new(16, 32, files).unwrap()
    }

    fn check(offset: u64, bytes: u64, expected: &[(Option<(u32, u64)>, u64)]) {
        let found: Vec<_> = layout()
            .slices(offset, bytes)
            .map(|slice| match slice.source {
                SliceSource::File(file, at) => (Some((file.0, at)), slice.bytes),
                SliceSource::Padding => (None, slice.bytes),
            })
            .collect();
        assert_eq!(found, expected, "offset {offset}, {bytes} bytes");
    }

    #[test]
    fn slices_cover_exactly_the_range() {
        let whole = [(Some((1, 0)), 10), (None, 6), (Some((4, 0)), 5), (None, 3), (Some((5, 0)), 8)];
        check(0, 32, &whole);
        check(0, u64::MAX, &whole);
        check(9, 2, &[(Some((1, 9)), 1), (None, 1)]);
        check(10, 6, &[(None, 6)]);
        check(20, 5, &[(Some((4, 4)), 1), (None, 3), (Some((5, 0)), 1)]);
        check(32, 1, &[]);
        check(100, 1, &[]);
        check(5, 0, &[]);
        for offset in 0..32 {
            for bytes in 0..=32 - offset {
                assert_eq!(layout().slices(offset, bytes).map(|s| s.bytes).sum::<u64>(), bytes);
            }
        }
    }

    #[test]
    fn pieces_past_32_bits_of_offset() {
        let five_gib = 5 << 30;
        let layout = Layout::single("大", five_gib + 1, 1 << 20).unwrap();
        assert_eq!(layout.piece_count(), 5 * 1024 + 1);
        assert_eq!(layout.piece_range(PieceIndex(5 * 1024)), five_gib..five_gib + 1);
        assert!(layout.piece_range(PieceIndex(u32::MAX)).is_empty());
        assert_eq!(layout.piece_of(five_gib), PieceIndex(5 * 1024));
        let source = SliceSource::File(FileIndex(0), five_gib - 1);
        assert_eq!(layout.slices(five_gib - 1, 9).collect::<Vec<_>>(), [Slice { source, bytes: 2 }]);
    }

    #[test]
    fn impossible_layouts_are_refused() {
        assert_eq!(Layout::single("x", 1, 0), Err(LayoutError::NoPieceSize));
        assert_eq!(Layout::single("x", u64::MAX, 1 << 24), Err(LayoutError::TooLong));
        assert_eq!(Layout::single("x", 1 << 40, 16), Err(LayoutError::TooManyPieces(1 << 36)));
        let overlapping = vec![span("a", 0, 10, false), span("b", 9, 1, false)];
        assert_eq!(Layout::new(16, 10, overlapping), Err(LayoutError::Misplaced(1)));
        assert_eq!(Layout::new(16, 9, vec![span("a", 0, 10, false)]), Err(LayoutError::Misplaced(0)));
        assert_eq!(Layout::new(16, 9, vec![span("a", u64::MAX, 2, false)]), Err(LayoutError::TooLong));
    }

    #[test]
    fn files_have_pieces() {
        let pieces = |file| layout().pieces_of_file(FileIndex(file)).map(|piece| piece.0).collect::<Vec<_>>();
        assert_eq!([0, 1, 4, 5, 9].map(pieces), [vec![], vec![0], vec![1], vec![1], vec![]]);
        let layout = Layout::single("x", 33, 16).unwrap();
        assert_eq!(layout.pieces_of_file(FileIndex(0)).count(), 3);
    }

    #[test]
    fn files_are_found_by_path() {
        let found = layout().file_index_at_path(|path| path.last().is_some_and(|name| name == "c"));
        assert_eq!(found, Some(FileIndex(5)));
        let pad = layout().file_index_at_path(|path| path.last().is_some_and(|name| name == "pad"));
        assert_eq!(pad, Some(FileIndex(3)));
    }
}
