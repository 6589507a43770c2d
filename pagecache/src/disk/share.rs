//! Equal files of two contents are stored once: as two names of one file (hard links).
//!
//! Equal means the same length and the same root of the BEP 52 tree. What makes it safe is that nothing visible is ever
//! written: a file that was verified as a whole is only read from then on, whatever its names, and eviction takes names
//! away. The file system counts those, so no state of ours has to agree with the disk, and a crash leaves a name on the
//! old file or on the new one. Three rules keep that true:
//!
//! - Only a file whose every piece is verified and vouched for on disk lends its bytes, and only one of the store: files
//!   served in place are neither linked nor replaced.
//! - A file takes another's bytes when all of its own are visible, which are the same, or none. One that is partly there
//!   comes to its end first, since readers may have it open.
//! - A file of several names is never written (`FileSet::open_to_write` sees to it). A content that finds one of its own with a
//!   piece missing, after a crash, takes its name away and begins that file anew (`load`).

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_proto::id::ContentId;

use super::error::StoreError;
use super::store::Store;
use crate::content::{Content, Data};
use crate::hashes::Verdict;
use crate::layout::{FileIndex, PieceIndex};

/// The name that a file has for a moment, in the folder of the content.
pub(super) const SPARE_NAME: &str = "linking";

/// A content, and the files of it that another has as well.
struct Lender {
    content: Arc<Content>,
    twins: Vec<Twin>,
}

/// A file of the one who borrows, and its equal of the lender.
#[derive(Clone, Copy)]
struct Twin {
    file: FileIndex,
    lent: FileIndex,
}

impl Store {
    /// Stores the files of `content` that another content has as well only once. Files of which nothing was there become
    /// visible by it: wake [`Content::take_parked`] and tell [`Content::listeners`] after this. How many bytes need not be
    /// pulled, or are not stored twice any more.
    ///
    /// # Errors
    /// As [`Store::commit`]; the content is quarantined then.
    pub fn share(&self, content: &Arc<Content>) -> Result<u64, StoreError> {
        let mut shared_bytes = 0;
        for lender in self.lenders(content) {
            shared_bytes += self.borrow_from(&lender.content, content, lender.twins)?;
        }
        if shared_bytes > 0 {
            self.commit(content)?;
        }
        Ok(shared_bytes)
    }

    /// The contents that have one of these pieces from the same file of the disk, so that damage to it is theirs too.
    #[must_use]
    pub fn sharing(&self, content: &Content, pieces: &[PieceIndex]) -> Vec<Arc<Content>> {
        let Data::Files(files) = &content.data else { return Vec::new() };
        let mut shared = files.occupied().shared.clone();
        shared.retain(|file| content.layout().pieces_of_file(file.file).any(|piece| pieces.contains(&piece)));
        let has_one = |other: &Arc<Content>| match &other.data {
            Data::Files(files) => {
                files.occupied().shared.iter().any(|file| shared.iter().any(|damaged| damaged.id == file.id))
            }
            Data::Function(_) => false,
        };
        let mut contents = if shared.is_empty() { Vec::new() } else { self.contents() };
        contents.retain(|other| other.id() != content.id() && has_one(other));
        contents
    }

    /// Who has files of `content` as well; each file once.
    fn lenders(&self, content: &Content) -> Vec<Lender> {
        let mut lenders: BTreeMap<ContentId, Lender> = BTreeMap::new();
        for (file, length, root) in content.roots() {
            let holders: Vec<_> = self.twins().with_file(length, root).collect();
            let others = holders.into_iter().filter(|id| *id != content.id()).filter_map(|id| self.get(id));
            let Some((other, lent)) = others.filter(|other| other.is_complete()).find_map(|other| {
                let mut files = other.roots();
                let (lent, ..) =
                    files.find(|(_, lent_length, lent)| (*lent_length, *lent) == (length, root))?;
                drop(files);
                Some((other, lent))
            }) else {
                continue;
            };
            let lender = lenders.entry(other.id()).or_insert(Lender { content: other, twins: Vec::new() });
            lender.twins.push(Twin { file, lent });
        }
        lenders.into_values().collect()
    }

    /// Makes the files of `content` names of those of `lender`; the bytes of those for which that was possible, and new.
    fn borrow_from(
        &self,
        lender: &Arc<Content>,
        content: &Arc<Content>,
        mut twins: Vec<Twin>,
    ) -> Result<u64, StoreError> {
        let (Data::Files(files), Data::Files(lent_files)) = (&content.data, &lender.data) else {
            return Ok(0);
        };
        let layout = content.layout();
        let is_whole = |twin: &Twin| layout.pieces_of_file(twin.file).all(|piece| content.has_piece(piece));
        twins.retain(|twin| {
            let (own, lent) = (files.id(layout, twin.file), lent_files.id(lender.layout(), twin.lent));
            let is_one = own == lent && is_whole(twin);
            own.is_some() && lent.is_some() && !is_one && (is_whole(twin) || twin.suits(content, lender))
        });
        // Before the lock, since both read or wait for the disk.
        if twins.is_empty() || self.commit(lender).is_err() {
            return Ok(0);
        }
        let _changing = self.changing();
        self.check_current(content)?;
        if self.check_current(lender).is_err() || !lender.is_complete() || content.is_quarantined() {
            return Ok(0);
        }
        let (folder, mut shared_bytes) = (self.folder(content.id()), 0);
        for twin in twins {
            let (Some(span), Some(path)) =
                (layout.file(twin.file), lent_files.path(lender.layout(), twin.lent))
            else {
                continue;
            };
            let is_untouched = !content.is_visible_anywhere(span.offset..span.end());
            if !(is_whole(&twin) || is_untouched) || lender.file(twin.lent).is_err() {
                continue;
            }
            let linked = files.link(layout, twin.file, &path, &folder.join(SPARE_NAME));
            let linked = linked.inspect_err(|error| content.quarantine(&error.to_string()));
            if linked.map_err(StoreError::at(&folder))? {
                layout.pieces_of_file(twin.file).for_each(|piece| content.restore_piece(piece));
                shared_bytes += span.length;
            }
        }
        for (files, content) in [(files, content), (lent_files, lender)] {
            let _writing = files.writing();
            files.measure(content.layout());
            self.tally().mark(content.id());
        }
        Ok(shared_bytes)
    }
}

impl Twin {
    /// Whether the lender's bytes fit every hash that `content` has of the file. Equal roots say so of v2; v1 hashes that
    /// are for other bytes are found out by reading, unless the lender has the very same ones.
    fn suits(self, content: &Content, lender: &Content) -> bool {
        let (layout, lent_layout) = (content.layout(), lender.layout());
        let (Some(span), Some(lent)) = (layout.file(self.file), lent_layout.file(self.lent)) else {
            return false;
        };
        let v1 = |content: &Content, piece: PieceIndex| content.metainfo()?.piece(piece.0)?.v1;
        let read = |at: u64, buffer: &mut [u8]| lender.read(lent.offset + (at - span.offset), buffer);
        // Pieces of equal size are the same pieces: in v2 each file begins with one.
        let same_size = layout.piece_bytes() == lent_layout.piece_bytes();
        let first = lent_layout.piece_of(lent.offset).0;
        layout.pieces_of_file(self.file).zip(first..).all(|(piece, lent_piece)| match v1(content, piece) {
            None => true,
            known if same_size && known == v1(lender, PieceIndex(lent_piece)) => true,
            Some(_) => matches!(content.verify_piece_of(piece, read), Ok(Verdict::Good)),
        })
    }
}
