//! SHA-256 of a whole file, by a reader that follows the pull in order.

use std::sync::Arc;
use std::time::Duration;

use millrace_pagecache::PieceIndex;
use millrace_pagecache::content::Content;
use ring::digest::{Context as Sha256, SHA256};

use super::context::Context;

/// Bytes hashed in one go.
const STEP_BYTES: u64 = 8 << 20;

/// How often a reader that has caught up looks again.
const POLL: Duration = Duration::from_millis(50);

/// The digest of the only file of `content`, as soon as all of it is here. Waits for as long as that takes.
///
/// # Errors
/// What the disk says.
pub(super) async fn whole(context: &Context, content: &Arc<Content>) -> std::io::Result<[u8; 32]> {
    let mut sha256 = Sha256::new(&SHA256);
    let mut at = 0;
    loop {
        let here = frontier(content, at);
        if here == at {
            if content.length() == Some(at) {
                break;
            }
            tokio::time::sleep(POLL).await;
            continue;
        }
        let (reading, end) = (Arc::clone(content), here.min(at + STEP_BYTES));
        sha256 = context.hash(move || hash_range(&reading, at, end, sha256)).await?;
        at = end;
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(sha256.finish().as_ref());
    Ok(digest)
}

/// How far the bytes from `at` on are here for good.
fn frontier(content: &Content, at: u64) -> u64 {
    if content.is_growing() {
        return content.visible_until(at, u64::MAX);
    }
    let layout = content.layout();
    let first = layout.piece_of(at).0;
    let good = (first..layout.piece_count())
        .take_while(|piece| content.has_piece(PieceIndex(*piece)))
        .take(1024)
        .last();
    good.map_or(at, |piece| layout.piece_range(PieceIndex(piece)).end.max(at))
}

fn hash_range(content: &Content, start: u64, end: u64, mut sha256: Sha256) -> std::io::Result<Sha256> {
    let mut buffer = vec![0; 256 << 10];
    let mut at = start;
    while at < end {
        let bytes = usize::try_from(end - at).unwrap_or(buffer.len()).min(buffer.len());
        content.read(at, &mut buffer[..bytes])?;
        sha256.update(&buffer[..bytes]);
        at += u64::try_from(bytes).unwrap_or(0);
    }
    Ok(sha256)
}
