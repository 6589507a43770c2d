//! Contents whose bytes are a function of their position, and the torrents of them.

use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_pagecache::layout::{FileSpan, Layout, LayoutError, PieceIndex};
use millrace_pagecache::new_content::{NewContent, Shape};
use millrace_proto::id::ContentId;
use millrace_proto::metainfo::{Builder, Metainfo, MetainfoError, Plan, plan_files};

use crate::bytes;
use crate::disk::Disk;

/// The id of the content that a seed stands for.
#[must_use]
pub fn id(seed: u64) -> ContentId {
    let mut id = [0; 16];
    bytes::fill(seed, u64::MAX / 2, &mut id);
    ContentId(id)
}

/// A single file of `length` bytes, none of it there yet.
///
/// # Errors
/// A length or piece size with which no content can be laid out.
pub fn single_file(
    seed: u64,
    name: &str,
    length: u64,
    piece_bytes: u32,
) -> Result<Arc<Content>, LayoutError> {
    let layout = Layout::single(name, length, piece_bytes)?;
    let new = NewContent::new(id(seed), name, Shape::Layout(layout.clone()), "\"sim\"");
    Ok(Content::simulated(new, layout, Box::new(move |offset, buffer| bytes::fill(seed, offset, buffer))))
}

/// A single file that came without a length.
#[must_use]
pub fn growing(seed: u64, name: &str) -> Arc<Content> {
    let new = NewContent::new(id(seed), name, Shape::Growing, "\"sim\"");
    let layout = Layout::growing(name);
    Content::simulated(new, layout, Box::new(move |offset, buffer| bytes::fill(seed, offset, buffer)))
}

/// Makes every piece of a content verified and visible.
pub fn complete(content: &Content) {
    for piece in 0..content.layout().piece_count() {
        content.mark_verified(PieceIndex(piece));
    }
}

/// A hybrid torrent of files with these paths and lengths, hashed. One file with an empty path is a single-file torrent.
///
/// # Errors
/// What cannot be a torrent.
pub fn torrent(
    seed: u64,
    name: &str,
    files: &[(Vec<String>, u64)],
    piece_bytes: u32,
) -> Result<Arc<Metainfo>, MetainfoError> {
    let plan = plan_files(name, piece_bytes, files)?;
    let spans = plan.files.iter().map(|file| FileSpan {
        path: file.path.clone(),
        offset: file.offset,
        length: file.length,
        padding: file.padding,
    });
    let layout =
        Layout::new(piece_bytes, plan.length, spans.collect()).map_err(|_| MetainfoError::TooLong)?;
    let disk = Disk::new(seed, &layout);
    disk.write(0..plan.length, true);
    let new = NewContent::new(id(seed), name, Shape::Layout(layout.clone()), "\"sim\"");
    let content = disk.content(new, layout);
    metainfo(&content, plan).map(Arc::new)
}

/// The hybrid torrent of a content of which every byte is there.
///
/// # Errors
/// As [`torrent`].
pub fn metainfo(content: &Content, plan: Plan) -> Result<Metainfo, MetainfoError> {
    let mut hashes = Vec::new();
    for piece in 0..content.layout().piece_count() {
        let hash = content.hash_piece(PieceIndex(piece)).map_err(|_| MetainfoError::TooLong)?;
        hashes.push(hash.into());
    }
    Builder::new(plan).build(&hashes)
}
