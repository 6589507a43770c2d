//! Hashing everything again: what `millrace verify` does, beside a running relay or without one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use millrace_proto::id::ContentId;

use super::creation::write_description;
use super::error::StoreError;
use super::store::{Options, Store};
use crate::content::Content;
use crate::hashes::Verdict;
use crate::layout::PieceIndex;

/// What is said of a content with damage from then on.
const DAMAGE: &str = "verify found damage: remove the content and add it again";

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
    /// The contents of which nothing is served any more because of the bad pieces: this one, and those that have them from the
    /// same file. Wake their readers.
    pub stopped: Vec<Arc<Content>>,
    /// Why a restart may forget that, where the disk did not take the note of it.
    pub forgettable: Option<StoreError>,
}

impl Store {
    /// Hashes every piece of `content` that it has. Where one is bad, nothing is served any more of any content that has it, and
    /// [`Store::open`] will know. `progress` is told pieces done and pieces in all.
    ///
    /// A piece that cannot be read is a bad piece. Of a content that was found damaged before, those pieces are hashed again that it
    /// had then.
    pub fn verify_content(&self, content: &Arc<Content>, mut progress: impl FnMut(u32, u32)) -> Report {
        let pieces = if content.is_growing() { 0 } else { content.layout().piece_count() };
        let mut report = Report {
            id: content.id(),
            name: content.name().to_owned(),
            good: 0,
            bad: Vec::new(),
            absent: 0,
            stopped: Vec::new(),
            forgettable: None,
        };
        let is_held = |piece| match content.damage() {
            Some(_) => content.held_piece(piece),
            None => content.has_piece(piece),
        };
        for piece in (0..pieces).map(PieceIndex) {
            if is_held(piece) {
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
        if !report.bad.is_empty() {
            report.stopped = self.sharing(content, &report.bad);
            report.stopped.push(Arc::clone(content));
            let condemned = report.stopped.iter().map(|content| self.condemn(content));
            report.forgettable = condemned.filter_map(Result::err).last();
        }
        report
    }

    /// [`Store::verify_content`] of every content. `progress` is told the content, pieces done and pieces in all.
    pub fn verify(&self, mut progress: impl FnMut(&Arc<Content>, u32, u32)) -> Vec<Report> {
        let mut contents = self.contents();
        contents.sort_by_key(|content| content.id());
        contents
            .iter()
            .map(|content| self.verify_content(content, |done, all| progress(content, done, all)))
            .collect()
    }

    /// Stops serving a content for good, until its bytes are dropped.
    fn condemn(&self, content: &Content) -> Result<(), StoreError> {
        content.mark_damaged(DAMAGE);
        match self.lock_durable(content) {
            Ok(_writing) => write_description(&self.folder(content.id()), content),
            // Removed or evicted meanwhile, and the damage with it.
            Err(StoreError::Absent(_)) => Ok(()),
            Err(error) => Err(error),
        }
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
