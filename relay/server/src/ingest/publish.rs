//! Making the torrent of a content whose hashes were learned while it arrived.

use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_proto::merkle;
use millrace_proto::metainfo::{Builder, Metainfo, MetainfoError, plan_files};

use crate::control::describe::Links;

/// The hybrid torrent of `content`, with this relay as tracker and web seed.
///
/// # Errors
/// Hashes that are missing, or names of which no torrent can be made.
pub(super) fn torrent(content: &Content, links: Option<&Links>, now: u64) -> Result<Metainfo, MetainfoError> {
    let layout = content.layout();
    let spans = layout.files().iter().filter(|file| !file.padding);
    // A path begins with the torrent's own name; of a single file it is nothing else.
    let files: Vec<_> =
        spans.map(|file| (file.path[1.min(file.path.len())..].to_vec(), file.length)).collect();
    let name =
        layout.files().first().and_then(|file| file.path.first()).map_or(content.name(), String::as_str);
    let plan = plan_files(name, layout.piece_bytes(), &files)?;
    if plan.length != layout.length() {
        return Err(MetainfoError::Invalid("layout"));
    }
    let mut builder = Builder::new(plan);
    if let Some(links) = links {
        builder.announce = links.trackers().into_iter().map(|tracker| vec![tracker]).collect();
        builder.web_seeds = vec![links.web_seed(content)];
    }
    builder.created_by = Some(concat!("millrace/", env!("CARGO_PKG_VERSION")).to_owned());
    builder.creation_date = i64::try_from(now).ok();
    let hashes: Option<Vec<_>> = content.hashes().into_iter().collect();
    let hashes = hashes.ok_or(MetainfoError::Missing("pieces"))?;
    let pieces: Vec<_> =
        hashes.iter().map(|hash| merkle::PieceHash { v1: Some(hash.sha1), v2: Some(hash.layer) }).collect();
    builder.build(&pieces)
}

/// Makes the torrent and puts it into the store, so that it is known by its infohashes.
///
/// # Errors
/// One line for people.
pub(super) fn publish(
    store: &millrace_pagecache::Store,
    content: &Arc<Content>,
    links: Option<&Links>,
    now: u64,
) -> Result<(), String> {
    let metainfo =
        torrent(content, links, now).map_err(|error| format!("no torrent can be made of it: {error}"))?;
    store.set_metainfo(content, Arc::new(metainfo)).map_err(|error| error.to_string())
}
