//! Contents to serve.

use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_pagecache::layout::{Layout, PieceIndex, SliceSource};
use millrace_pagecache::new_content::NewContent;
use millrace_proto::id::ContentId;
use millrace_proto::merkle::{PieceHasher, leaf_width};
use millrace_proto::metainfo::{Builder, Metainfo, plan_files};

pub(crate) const PIECE_BYTES: u32 = 64 * 1024;
pub(crate) const BLOCK_BYTES: u32 = 16 * 1024;

/// The byte at `offset` of every content.
pub(crate) fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// `count` bytes of a content from `offset` on: zeros where there is no file.
pub(crate) fn bytes_of(content: &Content, offset: u64, count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count);
    for slice in content.layout().slices(offset, count as u64) {
        let at = offset + bytes.len() as u64;
        match slice.source {
            SliceSource::Padding => bytes.extend((0..slice.bytes).map(|_| 0)),
            SliceSource::File(..) => bytes.extend((at..at + slice.bytes).map(byte_at)),
        }
    }
    bytes.resize(count, 0);
    bytes
}

fn fill(offset: u64, buffer: &mut [u8]) {
    for (at, byte) in buffer.iter_mut().enumerate() {
        *byte = byte_at(offset + at as u64);
    }
}

/// One file of `pieces` pieces, of which the last has 100 bytes; hybrid, nothing of it there yet.
pub(crate) fn hybrid(pieces: u32) -> Arc<Content> {
    hybrid_in_pieces_of(PIECE_BYTES, pieces)
}

/// The same in pieces of another length.
pub(crate) fn hybrid_in_pieces_of(piece_bytes: u32, pieces: u32) -> Arc<Content> {
    let length = u64::from(pieces - 1) * u64::from(piece_bytes) + 100;
    let plan = plan_files("film.mkv", piece_bytes, &[(Vec::new(), length)]).unwrap();
    let hashes: Vec<_> = (0..u64::from(pieces))
        .map(|piece| {
            let offset = piece * u64::from(piece_bytes);
            let mut bytes = vec![0; (length - offset).min(u64::from(piece_bytes)) as usize];
            fill(offset, &mut bytes);
            let mut hasher = PieceHasher::new(true, true);
            hasher.update(&bytes);
            hasher.finish(leaf_width(length, piece_bytes))
        })
        .collect();
    content(Builder::new(plan).build(&hashes).unwrap())
}

/// Two files of 100 bytes, each in a piece of its own, without a v1 part: between them are no bytes.
pub(crate) fn v2_only() -> Arc<Content> {
    let file = |name: &str, root: u8| {
        let root = String::from(char::from(root)).repeat(32);
        format!("{}:{name}d0:d6:lengthi100e11:pieces root32:{root}ee", name.len())
    };
    let tree = format!("9:file treed{}{}e", file("a", b'a'), file("b", b'b'));
    let info = format!("d{tree}12:meta versioni2e4:name1:t12:piece lengthi{PIECE_BYTES}ee");
    content(Metainfo::from_info_bytes(info.into_bytes()).unwrap())
}

fn content(metainfo: Metainfo) -> Arc<Content> {
    let layout = Layout::from_info(&metainfo.info).unwrap();
    let new = NewContent::with_metainfo(ContentId([7; 16]), Arc::new(metainfo), "\"tag\"");
    Content::simulated(new, layout, Box::new(fill))
}

/// The content with these pieces verified.
pub(crate) fn having(content: Arc<Content>, pieces: impl IntoIterator<Item = u32>) -> Arc<Content> {
    pieces.into_iter().for_each(|piece| content.mark_verified(PieceIndex(piece)));
    content
}

pub(crate) fn complete(pieces: u32) -> Arc<Content> {
    having(hybrid(pieces), 0..pieces)
}
