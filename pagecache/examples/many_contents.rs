//! Makes a store of many small contents, complete and with torrents, to see what their number costs:
//! `cargo run --release -p millrace-pagecache --example many_contents -- FOLDER COUNT BYTES`.
//!
//! Each content is synced as one that was pulled is, which is what takes the time on a disk; under `eatmydata`, or in memory,
//! 100,000 are made in a minute or two.

use std::path::Path;
use std::sync::Arc;

use millrace_pagecache::{NewContent, Options, PieceIndex, Store};
use millrace_proto::id::ContentId;
use millrace_proto::merkle::{PieceHasher, leaf_width};
use millrace_proto::metainfo::{Builder, plan_files};

const PIECE_BYTES: u32 = 1 << 20;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, count, bytes] = &arguments[..] else { return Err("usage: FOLDER COUNT BYTES".into()) };
    let (count, bytes): (u64, usize) = (count.parse()?, bytes.parse()?);
    let store = Store::open(Path::new(folder), Options::default())?;
    for number in 0..count {
        add(&store, number, bytes)?;
    }
    Ok(())
}

/// Ids and bytes follow from the number.
fn add(store: &Store, number: u64, bytes: usize) -> Result<(), Failure> {
    let mut id = [0; 16];
    // Odd and of full length, so that ids are spread and no two are equal.
    id[..8].copy_from_slice(&(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    let data: Vec<u8> = (number + 1).to_le_bytes().into_iter().cycle().take(bytes).collect();
    let plan = plan_files(&format!("content-{number}.bin"), PIECE_BYTES, &[(vec![], bytes as u64)])?;
    let hash = |piece: &[u8]| {
        let mut hasher = PieceHasher::new(true, true);
        hasher.update(piece);
        hasher.finish(leaf_width(bytes as u64, PIECE_BYTES))
    };
    let hashes: Vec<_> = data.chunks(PIECE_BYTES as usize).map(hash).collect();
    let metainfo = Arc::new(Builder::new(plan).build(&hashes)?);
    let id = ContentId(id);
    let content = store.add(NewContent::with_metainfo(id, metainfo, &format!("\"{id}\"")))?;
    content.write(0, &data)?;
    (0..content.layout().piece_count()).for_each(|piece| content.mark_verified(PieceIndex(piece)));
    store.commit(&content)?;
    Ok(())
}
