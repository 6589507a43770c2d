//! Reading, writing and verifying the bytes of a content. Called by ingest threads: every call may wait for the disk.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitvec::prelude::{BitVec, Msb0};
use millrace_proto::merkle::{self, PieceHasher, leaf_width};

use super::{Content, Data};
use crate::disk::OpenFile;
use crate::hashes::{PieceHash, Verdict};
use crate::layout::{FileIndex, PieceIndex, SliceSource};

/// Bytes read at a time for hashing.
const READ_BYTES: usize = 256 * 1024;

impl Content {
    /// Writes `bytes` at `offset`. Nothing becomes visible by it.
    ///
    /// # Errors
    /// As [`Content::place`]; what the disk says, `StorageFull` among it.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let placement = self.place(offset, bytes.len())?;
        placement.write(bytes)?;
        self.written(placement)
    }

    /// Fills `buffer` with what is stored at `offset`, visible or not; padding reads as zeros.
    ///
    /// # Errors
    /// `InvalidInput` past the end; `UnexpectedEof` when a file is shorter than it should be; what the disk says.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = self.end_of(offset, buffer.len())?;
        let files = match &self.data {
            Data::Function(bytes_at) => {
                bytes_at(offset, buffer);
                return Ok(());
            }
            Data::Files(files) => files,
        };
        let mut rest = buffer;
        for slice in self.layout.slices(offset, end - offset) {
            let (now, later) = rest.split_at_mut(usize::try_from(slice.bytes).unwrap_or(0));
            match slice.source {
                SliceSource::File(file, at) => files.read(&self.layout, file, at, now)?,
                SliceSource::Padding => now.fill(0),
            }
            rest = later;
        }
        Ok(())
    }

    pub(super) fn end_of(&self, offset: u64, bytes: usize) -> io::Result<u64> {
        let end = u64::try_from(bytes).ok().and_then(|bytes| offset.checked_add(bytes));
        end.filter(|&end| end <= self.layout.length()).ok_or_else(|| {
            let text = format!("{}: {bytes} bytes at {offset} lie past the end", self.id);
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    /// Reads a piece back and compares it with every hash known of it: v1 and v2 of the metainfo, or what was learned.
    ///
    /// # Errors
    /// `InvalidInput` for a piece of which no hash is known; as [`Content::read`].
    pub fn verify_piece(&self, piece: PieceIndex) -> io::Result<Verdict> {
        self.verify_piece_of(piece, |at, buffer| self.read(at, buffer))
    }

    /// [`Content::verify_piece`] of bytes that `read` gives: it fills the buffer with those at the offset.
    pub(crate) fn verify_piece_of(
        &self,
        piece: PieceIndex,
        read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Verdict> {
        let expected = match self.metainfo() {
            Some(metainfo) => {
                metainfo.piece(piece.0).map(|piece| merkle::PieceHash { v1: piece.v1, v2: piece.v2 })
            }
            None => self.learned.hash(piece).map(Into::into),
        };
        let Some(expected) = expected.filter(|hash| hash.v1.is_some() || hash.v2.is_some()) else {
            let text = format!("{}: no hash is known of piece {}", self.id, piece.0);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        let found = self.hash(piece, expected.v1.is_some(), expected.v2.is_some(), read)?;
        Ok(if found == expected { Verdict::Good } else { Verdict::Bad })
    }

    /// Reads a piece back and records its hashes, for a content that came without.
    ///
    /// # Errors
    /// As [`Content::read`].
    pub fn hash_piece(&self, piece: PieceIndex) -> io::Result<PieceHash> {
        let found = self.hash(piece, true, true, |at, buffer| self.read(at, buffer))?;
        let hash = PieceHash { sha1: found.v1.unwrap_or_default(), layer: found.v2.unwrap_or_default() };
        self.learned.record(piece, hash);
        Ok(hash)
    }

    /// Records hashes that were computed as the bytes of the piece arrived.
    pub fn record_hash(&self, piece: PieceIndex, hash: PieceHash) {
        self.learned.record(piece, hash);
    }

    fn hash(
        &self,
        piece: PieceIndex,
        v1: bool,
        v2: bool,
        read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<merkle::PieceHash> {
        let range = self.layout.piece_range(piece);
        let mut hasher = PieceHasher::new(v1, v2);
        let piece_bytes = usize::try_from(range.end - range.start).unwrap_or(READ_BYTES);
        let mut buffer = vec![0; piece_bytes.min(READ_BYTES)];
        let mut at = range.start;
        let mut file_bytes = 0;
        for slice in self.layout.slices(range.start, range.end - range.start) {
            let end = at + slice.bytes;
            match slice.source {
                SliceSource::Padding => hasher.update_padding(u32::try_from(slice.bytes).unwrap_or(u32::MAX)),
                SliceSource::File(file, _) => {
                    file_bytes = file_bytes.max(self.layout.file(file).map_or(0, |file| file.length));
                    while at < end {
                        let bytes =
                            usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
                        read(at, &mut buffer[..bytes])?;
                        hasher.update(&buffer[..bytes]);
                        at += u64::try_from(bytes).unwrap_or(0);
                    }
                }
            }
            at = end;
        }
        Ok(hasher.finish(leaf_width(file_bytes, self.layout.piece_bytes())))
    }

    /// Makes a piece visible and offers it. Its bytes are written, and verified or hashed.
    /// Wake [`Content::take_parked`] and tell [`Content::listeners`] after this.
    pub fn mark_verified(&self, piece: PieceIndex) {
        if let Data::Files(files) = &self.data {
            // Before it is offered, so that a commit that finds the piece can also forget its record. A failure costs
            // nothing but pulling the piece again after a crash.
            let _ = files.journal.append((piece, self.learned.hash(piece)));
        }
        self.restore_piece(piece);
    }

    /// [`Content::mark_verified`] of a piece that needs no remembering.
    pub(crate) fn restore_piece(&self, piece: PieceIndex) {
        self.visible.reveal(self.layout.piece_range(piece));
        let index = u64::from(piece.0);
        self.have.set(index..index + 1, |_, newly| {
            self.have_count.fetch_add(u64::from(newly.count_ones()), Ordering::AcqRel);
        });
    }

    /// The pieces that are verified, in the order of BEP 3's bitfield.
    #[must_use]
    pub fn bitfield(&self) -> BitVec<u8, Msb0> {
        let pieces = if self.is_growing() { 0 } else { self.layout.piece_count() };
        (0..pieces).map(|piece| self.has_piece(PieceIndex(piece))).collect()
    }

    /// Makes the whole blocks in `range` visible without verifying them: only for contents whose hashes are unknown.
    pub fn reveal(&self, range: Range<u64>) {
        if !self.hashes_known {
            self.visible.reveal(range);
        }
    }

    /// Says that a growing content has come to its end.
    pub fn end_growth(&self) {
        self.visible.end_growth();
    }

    /// A file, opened; the same one for all who ask while somebody holds it. The fast path takes no lock;
    /// opening asks the disk for metadata.
    ///
    /// # Errors
    /// `NotFound` for padding, an unknown file, or one deleted under us; `Unsupported` in a simulation.
    pub fn file(&self, file: FileIndex) -> io::Result<Arc<OpenFile>> {
        match &self.data {
            Data::Files(files) => files.open(&self.layout, file, self.visible.bytes()),
            Data::Function(_) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "a simulated content has no files"))
            }
        }
    }
}
