//! Contents and the relay itself in the words of the API, with every link built on `--public-url`.

use std::sync::atomic::Ordering;

use data_encoding::HEXLOWER;
use millrace_pagecache::content::Content;
use millrace_pagecache::layout::FileSpan;
use millrace_proto::access::Access;
use millrace_proto::admin::{ContentFile, ContentStatus, PerProtocol};
use millrace_proto::http::target::encode_segment;
use millrace_proto::magnet::Magnet;
use url::Url;

use super::index::{Entry, state_of};

/// Where this relay is found, for links.
#[derive(Debug, Clone)]
pub struct Links {
    /// Ends in `/`.
    pub base: Url,
    /// The BitTorrent port, where the UDP tracker is as well.
    pub bittorrent_port: u16,
}

impl Links {
    fn to(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Where people and programs get the bytes: the file, or for several files the page that lists them.
    #[must_use]
    pub fn http(&self, content: &Content) -> String {
        match single_file(content) {
            Some(file) => self.file(content, file),
            None => self.to(&format!("c/{}", content.id())),
        }
    }

    /// One file.
    #[must_use]
    pub fn file(&self, content: &Content, file: &FileSpan) -> String {
        self.to(&file_path(content, file))
    }

    /// The URL to put into a torrent (BEP 19): clients append the torrent's path to one that ends in `/`.
    #[must_use]
    pub fn web_seed(&self, content: &Content) -> String {
        match single_file(content) {
            Some(file) => self.file(content, file),
            None => self.to(&format!("c/{}/", content.id())),
        }
    }

    /// A document about a content.
    #[must_use]
    pub fn document(&self, content: &Content, extension: &str) -> String {
        self.to(&format!("c/{}.{extension}", content.id()))
    }

    /// The built-in tracker, over HTTP and over UDP: one tier, since both are the same tracker.
    #[must_use]
    pub fn trackers(&self) -> Vec<String> {
        let udp = self.base.host_str().map(|host| format!("udp://{host}:{}/announce", self.bittorrent_port));
        std::iter::once(self.to("announce")).chain(udp).collect()
    }

    /// A magnet link, once there is an infohash and the index has it.
    #[must_use]
    pub fn magnet(&self, entry: &Entry) -> Option<String> {
        let metainfo = entry.content.metainfo().filter(|_| entry.v1.is_some() || entry.v2.is_some())?;
        let trackers = if metainfo.info.private {
            metainfo.announce.concat()
        } else {
            [self.trackers(), metainfo.announce.concat()].concat()
        };
        let magnet = Magnet {
            v1: entry.v1,
            v2: entry.v2,
            name: Some(metainfo.info.name.clone()),
            trackers: without_repetition(trackers),
            web_seeds: vec![self.web_seed(&entry.content)],
            peers: Vec::new(),
            length: entry.content.length(),
        };
        Some(magnet.to_string())
    }

    /// A content as `/index.json` shows it; with its files, as `/c/{id}.json` does.
    #[must_use]
    pub fn content(&self, entry: &Entry, with_files: bool) -> ContentStatus {
        let content = &entry.content;
        let has_metainfo = content.metainfo().is_some();
        let counters = content.counters();
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        ContentStatus {
            id: content.id().to_string(),
            name: content.name().to_owned(),
            length: content.length(),
            have_bytes: content.visible_bytes(),
            state: state_of(content),
            http_url: self.http(content),
            torrent_url: has_metainfo.then(|| self.document(content, "torrent")),
            metalink_url: content.length().map(|_| self.document(content, "meta4")),
            magnet: self.magnet(entry),
            infohash_v1: entry.v1.map(|v1| v1.to_string()),
            infohash_v2: entry.v2.map(|v2| v2.to_string()),
            sha256: content.sha256().map(|sha256| HEXLOWER.encode(sha256)),
            rates: entry.rates(),
            served: PerProtocol {
                http: load(&counters.served_http),
                bittorrent: load(&counters.served_bittorrent),
            },
            origin_bytes: load(&counters.origin_bytes),
            pinned: content.is_pinned(),
            priority: content.priority(),
            error: content.error(),
            supersedes: content.supersedes().map(|id| id.to_string()),
            files: if with_files { files(content) } else { Vec::new() },
            access: None,
            pull: None,
        }
    }

    /// A content as the operator sees it, who is told who else does.
    #[must_use]
    pub fn content_of_operator(&self, entry: &Entry, with_files: bool) -> ContentStatus {
        let access = Some(Access::clone(&entry.content.access()));
        ContentStatus { access, ..self.content(entry, with_files) }
    }
}

/// The path of a file under this relay, without the first `/`.
#[must_use]
pub fn file_path(content: &Content, file: &FileSpan) -> String {
    let mut path = format!("c/{}", content.id());
    for segment in &file.path {
        path.push('/');
        path.push_str(&encode_segment(segment).to_string());
    }
    path
}

/// The only file of a content that is no folder.
#[must_use]
pub fn single_file(content: &Content) -> Option<&FileSpan> {
    match content.layout().files() {
        [only] if only.path.len() == 1 => Some(only),
        _ => None,
    }
}

fn files(content: &Content) -> Vec<ContentFile> {
    let files = content.layout().files().iter().filter(|file| !file.padding);
    let length = |file: &FileSpan| if content.is_growing() { content.length() } else { Some(file.length) };
    files.map(|file| ContentFile { path: file.path.join("/"), length: length(file) }).collect()
}

/// The first of each, in order.
#[must_use]
pub fn without_repetition(texts: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    texts.into_iter().filter(|text| seen.insert(text.clone())).collect()
}
