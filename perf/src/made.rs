//! Stores that are made instead of pulled, complete and with torrents, to see what the number of contents costs, or their length. They are
//! written as the relay writes its own, by the page cache, each content synced; many of them take hours on some disks and a minute in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use millrace_pagecache::{Content, NewContent, Options, PieceIndex, Store};
use millrace_proto::id::ContentId;
use millrace_proto::merkle::{PieceHash, PieceHasher, leaf_width};
use millrace_proto::metainfo::{Builder, choose_piece_bytes, plan_files};

use crate::interrupt::Interrupt;
use crate::payload::Payload;

const PIECE_BYTES: u32 = 1 << 20;

/// What a relay of our own has, and what of it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StorePlan {
    /// Contents, all of the same length.
    pub(crate) contents: usize,
    /// Those of them that are asked for.
    pub(crate) asked: usize,
    /// Whether the test file is a hole.
    pub(crate) sparse: bool,
    /// Different ranges that are asked for; `None` is all.
    pub(crate) ranges: Option<u64>,
}

impl StorePlan {
    /// Whether the store is made, and the relay started on it, rather than a file given to it.
    pub(crate) fn is_made(&self) -> bool {
        self.contents > 1 || self.sparse
    }

    /// Paths of what is asked for, where there are many contents.
    pub(crate) fn paths(&self) -> Arc<[String]> {
        let asked = if self.contents > 1 { self.asked } else { 0 };
        (0..asked as u64).map(path).collect()
    }
}

/// Where a content lies under HTTP.
pub(crate) fn path(number: u64) -> String {
    format!("/c/{}/{}", id(number), name(number))
}

fn name(number: u64) -> String {
    format!("content-{number}.bin")
}

/// Ids follow from the number. Odd factors keep them apart and spread them.
fn id(number: u64) -> ContentId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    ContentId(id)
}

/// Makes a store in `folder` of `count` contents of `bytes` each; content `n` is the payload of seed `seed + n`.
///
/// # Errors
/// Those of the file system, and Ctrl-C.
pub(crate) fn build_many(
    folder: &Path,
    count: u64,
    bytes: u64,
    seed: u64,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let store = Store::open(folder, Options::default()).context("a store of many contents")?;
    let next = AtomicU64::new(0);
    let work = || -> anyhow::Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            interrupt.check()?;
            add(&store, number, bytes, Payload::new(seed.wrapping_add(number)))?;
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| anyhow::anyhow!("a thread that makes contents panicked"))?
        })
    })
}

fn add(store: &Store, number: u64, bytes: u64, payload: Payload) -> anyhow::Result<()> {
    let mut data = vec![0; usize::try_from(bytes)?];
    payload.fill(0, &mut data);
    let hashes = data.chunks(PIECE_BYTES as usize).map(|piece| hash(piece, bytes, PIECE_BYTES)).collect();
    put(store, number, bytes, (PIECE_BYTES, hashes), |content| content.write(0, &data))
}

/// Makes a store in `folder` of one content that is a hole of `bytes`, which takes neither the time nor the room that reading it would.
///
/// # Errors
/// Those of the file system.
pub(crate) fn build_hole(folder: &Path, bytes: u64) -> anyhow::Result<()> {
    let store = Store::open(folder, Options::default()).context("a store of one hole")?;
    let piece_bytes = choose_piece_bytes(bytes);
    let zeros = vec![0; piece_bytes as usize];
    let (whole, rest) = (bytes / u64::from(piece_bytes), usize::try_from(bytes % u64::from(piece_bytes))?);
    let mut hashes = vec![hash(&zeros, bytes, piece_bytes); usize::try_from(whole)?];
    hashes.extend((rest > 0).then(|| hash(&zeros[..rest], bytes, piece_bytes)));
    // The last byte gives the file its length.
    put(&store, 0, bytes, (piece_bytes, hashes), |content| content.write(bytes - 1, &[0]))
}

fn hash(piece: &[u8], bytes: u64, piece_bytes: u32) -> PieceHash {
    let mut hasher = PieceHasher::new(true, true);
    hasher.update(piece);
    hasher.finish(leaf_width(bytes, piece_bytes))
}

/// Adds a content whose every piece is there once `write` is done.
fn put(
    store: &Store,
    number: u64,
    bytes: u64,
    (piece_bytes, hashes): (u32, Vec<PieceHash>),
    write: impl FnOnce(&Content) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let plan = plan_files(&name(number), piece_bytes, &[(vec![], bytes)])?;
    let metainfo = Arc::new(Builder::new(plan).build(&hashes)?);
    let id = id(number);
    let content = store.add(NewContent::with_metainfo(id, metainfo, &format!("\"{id}\"")))?;
    write(&content)?;
    (0..content.layout().piece_count()).for_each(|piece| content.mark_verified(PieceIndex(piece)));
    store.commit(&content)?;
    Ok(())
}
