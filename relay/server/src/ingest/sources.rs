//! From what somebody asks for to what is pulled: URLs, local paths, torrents and metalinks.
//!
//! [`NewPull`](super::NewPull) is the request as it came; [`Sources`] is what is kept with the content, so that a restart goes on by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use millrace_proto::metainfo::Metainfo;
use millrace_proto::metalink;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::error::AddError;
use super::origin::{Origin, Trust};

/// Longest .torrent that is read, in bytes.
pub const TORRENT_BYTES_MAX: usize = 64 << 20;

/// Origins kept of one content.
const ORIGINS_MAX: usize = 64;

/// Where a content comes from, as it is kept in its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// See [`NewPull::key`](super::NewPull::key).
    #[serde(default)]
    pub key: String,
    /// Best first.
    #[serde(default)]
    pub origins: Vec<Origin>,
    /// URLs of equal copies, told to clients and never pulled from.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// The origin has a newer version, which is another content.
    #[serde(default)]
    pub superseded: bool,
    /// The SHA-256 that whoever added it said it must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256_wanted: Option<String>,
}

impl Sources {
    /// As a content keeps it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        // Strings, maps and numbers only: nothing of it can fail to be JSON.
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    /// From what a content kept; empty where that is nothing of ours.
    #[must_use]
    pub fn from_value(value: Value) -> Self {
        serde_json::from_value(value).unwrap_or_default()
    }
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file on the web.
    File(Origin),
    /// A .torrent or metalink on the web.
    Document(Origin, DocumentKind),
    /// A local file or folder.
    Path(PathBuf),
    /// A local .torrent or metalink.
    PathDocument(PathBuf, DocumentKind),
}

/// A document that says where a content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// BEP 3.
    Torrent,
    /// RFC 5854.
    Metalink,
}

fn document_kind(path: &str) -> Option<DocumentKind> {
    let extension = path.rsplit_once('.')?.1.to_ascii_lowercase();
    match extension.as_str() {
        "torrent" => Some(DocumentKind::Torrent),
        "meta4" | "metalink" => Some(DocumentKind::Metalink),
        _ => None,
    }
}

impl Source {
    /// Tells what a text names.
    ///
    /// # Errors
    /// Magnet links (which need a swarm), other schemes, and paths from somebody who is not the operator.
    pub fn parse(
        text: &str,
        headers: &BTreeMap<String, String>,
        operator_named: bool,
    ) -> Result<Self, AddError> {
        if text.starts_with("magnet:") {
            return Err(AddError::Magnet);
        }
        let trust = if operator_named { Trust::Named } else { Trust::Given };
        if Url::parse(text).is_ok_and(|url| url.has_host()) {
            let mut origin = Origin::new(text, trust)?;
            origin.headers.clone_from(headers);
            return Ok(match document_kind(origin.url.path()) {
                Some(kind) => Source::Document(origin, kind),
                None => Source::File(origin),
            });
        }
        if !operator_named {
            return Err(AddError::LocalPath);
        }
        let path = PathBuf::from(text.strip_prefix("file://").unwrap_or(text));
        Ok(match document_kind(text).filter(|_| path.is_file()) {
            Some(kind) => Source::PathDocument(path, kind),
            None => Source::Path(path),
        })
    }
}

/// What is to be pulled, as far as it is known without asking.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    /// Where the bytes are.
    pub sources: Sources,
    /// Hashes, where they are known.
    pub metainfo: Option<Arc<Metainfo>>,
    /// The name to serve it under.
    pub name: Option<String>,
    /// SHA-256 of the whole, where somebody said.
    pub sha256: Option<[u8; 32]>,
}

impl Recipe {
    /// Takes over a torrent, with its web seeds, which nobody but the torrent vouches for.
    ///
    /// # Errors
    /// What is no torrent.
    pub fn add_torrent(&mut self, bytes: &[u8]) -> Result<(), AddError> {
        let metainfo = Metainfo::parse(bytes).map_err(|error| AddError::Torrent(error.to_string()))?;
        if !metainfo.has_layers() {
            return Err(AddError::Torrent("it lacks piece layers".into()));
        }
        for url in &metainfo.web_seeds {
            // A torrent may name ftp seeds and worse: what cannot be used is left out.
            if let Ok(origin) = Origin::new(url, Trust::Given) {
                self.add_origin(origin);
            }
        }
        self.metainfo = Some(Arc::new(metainfo));
        Ok(())
    }

    /// Takes over a metalink of one file: its URLs and its SHA-256.
    ///
    /// Piece hashes of a metalink are SHA-1 *or* SHA-256 of plain pieces, which is no layout of this store; the whole's SHA-256 is
    /// what is checked.
    ///
    /// # Errors
    /// What is no metalink, or one of several files.
    pub fn add_metalink(&mut self, bytes: &[u8]) -> Result<(), AddError> {
        let text = std::str::from_utf8(bytes).map_err(|error| AddError::Metalink(error.to_string()))?;
        let document = metalink::parse(text).map_err(|error| AddError::Metalink(error.to_string()))?;
        let [file] = &document.files[..] else {
            return Err(AddError::Metalink(format!(
                "it has {} files: add them one by one",
                document.files.len()
            )));
        };
        let mut urls = file.urls.clone();
        urls.sort_by_key(|url| url.priority.unwrap_or(u32::MAX));
        for url in urls {
            if let Ok(origin) = Origin::new(&url.url, Trust::Given) {
                self.add_origin(origin);
            }
        }
        self.name.get_or_insert_with(|| file.name.rsplit('/').next().unwrap_or_default().to_owned());
        self.sha256 = self.sha256.or(file.sha256);
        Ok(())
    }

    /// Adds an origin, unless it is there already or there are too many.
    pub fn add_origin(&mut self, origin: Origin) {
        let origins = &mut self.sources.origins;
        if origins.len() < ORIGINS_MAX && origins.iter().all(|known| known.url != origin.url) {
            origins.push(origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, named: bool) -> Result<Source, AddError> {
        Source::parse(text, &BTreeMap::new(), named)
    }

    #[test]
    fn texts_name_what_they_name() {
        assert!(
            matches!(check("http://h/x.iso", true), Ok(Source::File(origin)) if origin.trust == Trust::Named)
        );
        assert!(
            matches!(check("https://h/x.TORRENT?k=1", false), Ok(Source::Document(origin, DocumentKind::Torrent)) if origin.trust == Trust::Given)
        );
        assert!(matches!(check("http://h/x.meta4", true), Ok(Source::Document(_, DocumentKind::Metalink))));
        assert!(matches!(check("/tmp", true), Ok(Source::Path(_))));
        assert!(matches!(check("/tmp", false), Err(AddError::LocalPath)));
        assert!(matches!(check("magnet:?xt=urn:btih:0", true), Err(AddError::Magnet)));
        assert!(matches!(check("ftp://h/x", true), Err(AddError::Origin(_))));
    }
}
