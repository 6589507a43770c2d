//! Contents whose bytes are a function of their position, and a pull that reveals them bit by bit.

use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_pagecache::layout::{Layout, LayoutError, PieceIndex};
use millrace_pagecache::new_content::{NewContent, Shape};
use millrace_proto::id::ContentId;

use crate::bytes;

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
