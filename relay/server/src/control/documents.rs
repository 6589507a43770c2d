//! The documents about a content: `.torrent`, `.meta4`, `.json`, and the index.

use std::collections::HashSet;
use std::sync::Arc;

use millrace_engine::event::Document;
use millrace_pagecache::content::Content;
use millrace_proto::admin::{Index as IndexDocument, Problem};
use millrace_proto::http::problem;
use millrace_proto::http::target::encode_segment;
use millrace_proto::metainfo::Metainfo;
use millrace_proto::metalink::{File, Metalink, PieceHashes, Pieces, Url, link_fields};

use super::describe::{Links, single_file};
use super::index::{Entry, Filter, Index};
use super::viewer::Viewer;

/// What may change from one request to the next.
const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");

/// A document of this type; whoever sends it says beside the type that browsers must not take it for another.
#[must_use]
pub fn document(status: u16, content_type: &'static str, body: impl Into<Arc<[u8]>>) -> Document {
    Document { status, content_type, fields: vec![(NO_STORE.0, NO_STORE.1.to_owned())], body: body.into() }
}

/// A problem document (RFC 9457).
#[must_use]
pub fn problem_document(status: u16, detail: impl Into<String>) -> Document {
    json_as(status, problem::MEDIA_TYPE, &Problem::new(status, detail))
}

/// A JSON document.
#[must_use]
pub fn json(value: &impl serde::Serialize) -> Document {
    json_as(200, "application/json", value)
}

fn json_as(status: u16, content_type: &'static str, value: &impl serde::Serialize) -> Document {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            document(status, content_type, body)
        }
        // Only a map with keys that are no strings cannot be written, and the API has none.
        Err(error) => document(500, "text/plain; charset=utf-8", error.to_string().into_bytes()),
    }
}

/// `/index.json`. What follows is named by a `Link` field (RFC 8288).
#[must_use]
pub fn index(index: &Index, links: &Links, filter: &Filter, viewer: Viewer, query_of_next: &str) -> Document {
    let page = index.page(filter, viewer);
    let contents = page.entries.iter().map(|entry| links.content(entry, false)).collect();
    let mut document = json(&IndexDocument { contents });
    if page.more
        && let Some(last) = page.entries.last()
    {
        let next =
            format!("<{}index.json?{query_of_next}after={}>; rel=\"next\"", links.base, last.content.id());
        document.fields.push(("Link", next));
    }
    document
}

/// The torrent with this relay as tracker and web seed. The info dictionary is as it came, so the infohashes stay.
///
/// A private torrent keeps its own trackers alone (BEP 27).
#[must_use]
pub fn torrent(links: &Links, content: &Content, metainfo: &Metainfo) -> Document {
    let mut torrent = metainfo.clone();
    if !metainfo.info.private {
        let own = links.trackers();
        let known: HashSet<&String> = own.iter().collect();
        let mut tiers = torrent.announce;
        tiers.iter_mut().for_each(|tier| tier.retain(|tracker| !known.contains(tracker)));
        tiers.retain(|tier| !tier.is_empty());
        tiers.push(own);
        torrent.announce = tiers;
    }
    let own = links.web_seed(content);
    torrent.web_seeds.retain(|seed| *seed != own);
    torrent.web_seeds.insert(0, own);
    let mut document = document(200, "application/x-bittorrent", torrent.to_bytes());
    document.fields.push(attachment(content, "torrent"));
    document
}

/// The metalink: each file by URL, with its hashes as far as they are known.
#[must_use]
pub fn metalink(links: &Links, entry: &Entry) -> Document {
    let content = &entry.content;
    let single = single_file(content).is_some();
    // The v1 half first: every client that reads metalinks can use it, and not all of them can use a hybrid.
    let half = content.v1_half().map(|_| "v1.torrent");
    let extensions = content.metainfo().map(|_| half.into_iter().chain(["torrent"]));
    let torrents: Vec<Url> = (1..)
        .zip(extensions.into_iter().flatten())
        .map(|(priority, extension)| Url {
            url: links.document(content, extension),
            priority: Some(priority),
        })
        .collect();
    let files = content.layout().files().iter().filter(|file| !file.padding).map(|file| File {
        name: file.path.join("/"),
        size: if content.is_growing() { content.length() } else { Some(file.length) },
        sha256: content.sha256().copied().filter(|_| single),
        // Pieces of a folder run across its files, which a metalink has no word for.
        pieces: content.metainfo().filter(|_| single).and_then(|metainfo| pieces(metainfo)),
        urls: std::iter::once(Url { url: links.file(content, file), priority: Some(1) })
            .chain(mirrors(content).into_iter().filter(|_| single))
            .collect(),
        torrents: torrents.clone(),
    });
    let metalink =
        Metalink { origin: Some(links.document(content, "meta4")), dynamic: true, files: files.collect() };
    let mut document = document(200, "application/metalink4+xml", metalink.to_string().into_bytes());
    document.fields.push(attachment(content, "meta4"));
    document
}

fn pieces(metainfo: &Metainfo) -> Option<Pieces> {
    let hashes = metainfo.info.v1_pieces.clone()?;
    Some(Pieces { length: u64::from(metainfo.info.piece_bytes), hashes: PieceHashes::Sha1(hashes) })
}

/// Bytes of mirrors' URLs named in one answer.
const LINKS_BYTES_MAX: usize = 1024;

/// The URLs of equal copies that the operator told clients of.
fn mirrors(content: &Content) -> Vec<Url> {
    let sources = content.sources();
    let mirrors = sources.get("mirrors").and_then(|mirrors| mirrors.as_array());
    let urls = mirrors.into_iter().flatten().filter_map(|mirror| mirror.as_str());
    urls.map(|url| Url { url: url.to_owned(), priority: Some(2) }).collect()
}

/// `Link` field lines that name the mirrors in every answer about a single file (RFC 6249 §3): as many as fit beside the other fields.
pub(super) fn duplicates(content: &Content) -> Box<[u8]> {
    let mut mirrors = if content.layout().files().len() == 1 { mirrors(content) } else { Vec::new() };
    let mut room = LINKS_BYTES_MAX;
    mirrors.retain(|mirror| {
        let fits = mirror.url.len() <= room;
        room -= if fits { mirror.url.len() } else { 0 };
        fits
    });
    link_fields(None, None, &mirrors).into_bytes().into_boxed_slice()
}

/// A name to save the document under (RFC 6266, RFC 8187); everything that is not plain is escaped.
fn attachment(content: &Content, extension: &str) -> (&'static str, String) {
    let name = encode_segment(content.name());
    ("Content-Disposition", format!("attachment; filename*=UTF-8''{name}.{extension}"))
}
