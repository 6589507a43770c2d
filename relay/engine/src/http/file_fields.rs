//! The field lines that every answer about a file carries. They change only when the content learns something, so they are written
//! once and copied into each head.

use foldhash::HashMap;
use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_pagecache::layout::FileIndex;
use millrace_proto::http::date::HttpDate;
use millrace_proto::http::media_type;
use millrace_proto::http::response::{Disposition, HeadWriter};
use millrace_proto::id::ContentId;

use super::answer::HEAD_BYTES;
use super::route::Place;

/// Files whose lines are kept. Those of a file take less than a kibibyte.
const FILES_MAX: usize = 4096;

/// What answers say about a file.
#[derive(Debug)]
pub(super) struct FileFields {
    learnt: Learnt,
    /// Strong, and fixed before the first byte: the content's tag, and which of its files.
    pub(super) etag: String,
    /// The media type of the file.
    pub(super) media_type: &'static str,
    /// Complete lines.
    pub(super) lines: Box<[u8]>,
}

/// What a content comes to know after its first answer, and who may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Learnt {
    metainfo: bool,
    links: bool,
    public: bool,
    signed: bool,
    sha256: bool,
    last_modified: Option<u64>,
}

impl Learnt {
    fn of(content: &Content) -> Self {
        let public = content.is_public();
        Learnt {
            public,
            signed: !public && content.access().takes_signatures(),
            metainfo: content.metainfo().is_some(),
            links: !content.links().is_empty(),
            sha256: content.sha256().is_some(),
            last_modified: content.last_modified(),
        }
    }
}

/// The lines of the files that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Prepared(HashMap<(ContentId, FileIndex), Arc<FileFields>>);

impl Prepared {
    /// What to say about a file now.
    pub(super) fn of(&mut self, place: &Place) -> Arc<FileFields> {
        let key = (place.content.id(), place.file);
        let learnt = Learnt::of(&place.content);
        if let Some(known) = self.0.get(&key).filter(|known| known.learnt == learnt) {
            return Arc::clone(known);
        }
        // Which of them will be asked for again is not worth the book-keeping.
        if self.0.len() >= FILES_MAX {
            self.0.clear();
        }
        let fields = Arc::new(FileFields::new(place, learnt));
        self.0.insert(key, Arc::clone(&fields));
        fields
    }
}

impl FileFields {
    fn new(Place { content, file }: &Place, learnt: Learnt) -> Self {
        let files = content.layout().files();
        let tag = content.etag().trim_matches('"');
        let etag = match files.len() {
            1 => format!("\"{tag}\""),
            _ => format!("\"{tag}-{}\"", file.0),
        };
        let name = content.layout().file(*file).and_then(|file| file.path.last());
        let name = name.map_or("download", String::as_str);
        let mut buffer = vec![0; HEAD_BYTES];
        let mut lines = HeadWriter::lines(&mut buffer);
        lines.etag(etag.as_bytes());
        if let Some(modified) = learnt.last_modified {
            lines.last_modified(&HttpDate::from_unix(modified));
        }
        // A cache that others use must not hand out what is not for them.
        let cache_control = if learnt.public { "public, no-transform" } else { "private, no-transform" };
        lines.content_disposition(Disposition::Inline, name).cache_control(cache_control);
        let id = content.id();
        let described =
            |what, media_type| format!("</c/{id}.{what}>; rel=describedby; type=\"{media_type}\"");
        // A signature opens bytes alone: neither the documents about them nor the mirrors are for who has no more than that.
        if !learnt.signed {
            lines.field("Link", described("meta4", "application/metalink4+xml"));
            if learnt.metainfo {
                lines.field("Link", described("torrent", "application/x-bittorrent"));
            }
            lines.prepared(content.links());
        }
        if let Some(sha256) = content.sha256().filter(|_| files.len() == 1) {
            lines.repr_digest(sha256);
        }
        // A name of 255 bytes, each escaped, fits.
        let bytes = lines.finish_lines().unwrap_or(0);
        buffer.truncate(bytes);
        FileFields { learnt, etag, media_type: media_type::of(name), lines: buffer.into() }
    }
}
