//! Hashing everything again: what `millrace verify` does, beside a running relay or without one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use millrace_proto::id::ContentId;

use super::error::StoreError;
use super::store::{Options, Store};
use crate::content::Content;
use crate::hashes::Verdict;
use crate::layout::PieceIndex;

/// What verifying a content found.
#[derive(Debug)]
pub struct Report {
    /// Which content.
    pub id: ContentId,
    /// Its name for people.
    pub name: String,
    /// Pieces whose hashes match.
    pub good: u32,
    /// Pieces that were vouched for and do not match or cannot be read.
    pub bad: Vec<PieceIndex>,
    /// Pieces that nobody vouches for: not arrived, or no hash known.
    pub absent: u32,
}

/// Hashes every piece of `content` that it has. `progress` is told pieces done and pieces in all.
///
/// # Errors
/// None for a piece that cannot be read: that is a bad piece.
pub fn verify_content(content: &Content, mut progress: impl FnMut(u32, u32)) -> Report {
    let pieces = if content.is_growing() { 0 } else { content.layout().piece_count() };
    let mut report =
        Report { id: content.id(), name: content.name().to_owned(), good: 0, bad: vec![], absent: 0 };
    for piece in (0..pieces).map(PieceIndex) {
        if content.has_piece(piece) {
            match content.verify_piece(piece) {
                Ok(Verdict::Good) => report.good += 1,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => report.absent += 1,
                Ok(Verdict::Bad) | Err(_) => report.bad.push(piece),
            }
        } else {
            report.absent += 1;
        }
        progress(piece.0 + 1, pieces);
    }
    report
}

impl Store {
    /// Hashes every piece of every content. `progress` is told the content, pieces done and pieces in all.
    pub fn verify(&self, mut progress: impl FnMut(&Arc<Content>, u32, u32)) -> Vec<Report> {
        let mut contents = self.contents();
        contents.sort_by_key(|content| content.id());
        contents
            .iter()
            .map(|content| verify_content(content, |done, all| progress(content, done, all)))
            .collect()
    }
}

/// Opens the store in `folder`, which no process may have open, and verifies it.
///
/// # Errors
/// As [`Store::open`].
pub fn verify(
    folder: &Path,
    progress: impl FnMut(&Arc<Content>, u32, u32),
) -> Result<Vec<Report>, StoreError> {
    Ok(Store::open(folder, Options::default())?.verify(progress))
}
