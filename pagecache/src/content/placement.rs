//! A write in two halves: where its bytes go, checked before anything is written, and what follows once they are there. Between the
//! two, whoever asked puts the bytes there, by whatever means and in whatever time.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{Content, Data};
use crate::disk::OpenFile;
use crate::layout::{FileIndex, SliceSource};

/// Where the bytes of one write go. Once all of them are there, it is handed back to who gave it: [`Content::written`],
/// [`super::Stream::written`]. Dropped instead, nothing has happened for the store: the bytes count as not written.
///
/// The bytes must not become visible in between: whoever writes sees to it that no two write the same place at a time.
#[derive(Debug)]
#[must_use = "what is not handed back counts as not written"]
pub struct Placement {
    range: Range<u64>,
    parts: Vec<Part>,
}

/// Those bytes of a write that go to one file.
#[derive(Debug)]
pub struct Part {
    /// The file; it stays open as long as this does.
    pub file: Arc<OpenFile>,
    /// Where in the file the first of them goes.
    pub at: u64,
    /// Which of the bytes they are.
    pub bytes: Range<usize>,
    index: FileIndex,
}

impl Placement {
    /// Which bytes of the content are to be written.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The parts, in order; none for padding and in a simulation.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Writes all parts of `bytes`, which are as many as were placed.
    ///
    /// # Errors
    /// What the disk says; `InvalidInput` when bytes are missing.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        for part in &self.parts {
            let bytes = bytes.get(part.bytes.clone()).ok_or(io::ErrorKind::InvalidInput)?;
            part.file.file().write_all_at(bytes, part.at)?;
        }
        Ok(())
    }
}

impl Content {
    /// Says where `bytes` bytes at `offset` are to be written. Padding is skipped.
    ///
    /// # Errors
    /// `InvalidInput` when a byte of the range is visible already (what is visible never changes) or lies past the
    /// end; `ReadOnlyFilesystem` for files imported in place; what the disk says when a file is opened.
    pub fn place(&self, offset: u64, bytes: usize) -> io::Result<Placement> {
        let end = self.end_of(offset, bytes)?;
        if self.visible.intersects(offset..end) {
            let text = format!("{}: bytes {offset}..{end} are visible and may not change", self.id);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut parts = Vec::new();
        if let Data::Files(files) = &self.data {
            let mut from = 0;
            for slice in self.layout.slices(offset, end - offset) {
                let to = usize::try_from(slice.bytes).map_or(bytes, |slice| bytes.min(from + slice));
                if let SliceSource::File(index, at) = slice.source {
                    let file = files.open_to_write(&self.layout, index)?;
                    parts.push(Part { file, at, bytes: from..to, index });
                }
                from = to;
            }
        }
        Ok(Placement { range: offset..end, parts })
    }

    /// Notes that the bytes of `placement` are there. Nothing becomes visible by it.
    ///
    /// # Errors
    /// What the disk says when it is asked to sync early.
    pub fn written(&self, placement: Placement) -> io::Result<()> {
        match &self.data {
            Data::Function(_) => Ok(()),
            Data::Files(files) => {
                placement.parts.into_iter().try_for_each(|part| files.mark_written(part.index, part.file))
            }
        }
    }
}
