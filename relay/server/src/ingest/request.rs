//! What somebody asks for, as it came: checked as far as that takes no look at anything else.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use millrace_proto::access::Access;
use millrace_proto::admin::{AddContent, SOURCES_MAX};
use millrace_proto::id::ContentId;
use millrace_proto::metalink;
use reqwest::header::{self, HeaderName, HeaderValue};
use url::Url;

use super::error::AddError;

/// A content that somebody asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPull {
    /// Where from: http(s) URLs, one local path, or a .torrent or metalink by URL or path.
    pub sources: Vec<String>,
    /// The id to use; drawn when absent.
    pub id: Option<ContentId>,
    /// The name to serve it under; by default that of the source.
    pub name: Option<String>,
    /// A .torrent.
    pub metainfo: Option<Vec<u8>>,
    /// SHA-256 of the whole.
    pub sha256: Option<[u8; 32]>,
    /// Header fields for the origins of `sources`.
    pub headers: BTreeMap<String, String>,
    /// URLs of equal copies, told to clients.
    pub mirrors: Vec<String>,
    /// Never evicted.
    pub pin: bool,
    /// Larger is pulled earlier.
    pub priority: u8,
    /// Who may have it; where nobody says, who may have what was added without a word.
    pub access: Option<Access>,
    /// The operator gave these sources: they may lead to any address, and to local files.
    pub operator_named: bool,
}

impl NewPull {
    /// One source from the command line.
    ///
    /// # Errors
    /// An empty source.
    pub fn from_operator(source: &str) -> Result<Self, AddError> {
        match source.is_empty() {
            true => Err(AddError::NoSource),
            false => {
                Ok(NewPull { sources: vec![source.to_owned()], operator_named: true, ..NewPull::default() })
            }
        }
    }

    /// A request to the admin socket, whose user is the operator.
    ///
    /// # Errors
    /// Ids, hashes, paths, fields and metainfo that cannot be read, and too many sources.
    pub fn from_request(request: AddContent) -> Result<Self, AddError> {
        let wrong = |key: &'static str| AddError::BadRequest(format!("`{key}` cannot be read"));
        let sha256 = request.sha256.map(|hex| {
            let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok();
            bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| wrong("sha256"))
        });
        if request.sources.is_empty() && request.metainfo.is_none() {
            return Err(AddError::NoSource);
        }
        for (key, count) in [("sources", request.sources.len()), ("mirrors", request.mirrors.len())] {
            if count > SOURCES_MAX {
                return Err(AddError::BadRequest(format!("`{key}` has more than {SOURCES_MAX} entries")));
            }
        }
        if let Some(relative) = request.sources.iter().find(|source| !is_absolute(source)) {
            let detail = format!("`sources`: `{relative}` is neither a URL nor an absolute path");
            return Err(AddError::BadRequest(detail));
        }
        if let Some((name, _)) = request.headers.iter().find(|(name, value)| !is_field(name, value)) {
            return Err(AddError::BadRequest(format!(
                "`headers`: `{name}` and its value are nothing that can be sent to an origin"
            )));
        }
        if request.name.as_deref().is_some_and(|name| !is_file_name(name)) {
            return Err(wrong("name"));
        }
        if !request.mirrors.iter().all(|mirror| is_web_url(mirror)) {
            return Err(wrong("mirrors"));
        }
        Ok(NewPull {
            sources: request.sources,
            id: request.id.map(|id| id.parse().map_err(|_| wrong("id"))).transpose()?,
            name: request.name,
            metainfo: request
                .metainfo
                .map(|text| BASE64.decode(text.as_bytes()).map_err(|_| wrong("metainfo")))
                .transpose()?,
            sha256: sha256.transpose()?,
            headers: request.headers,
            mirrors: request.mirrors,
            pin: request.pin,
            priority: request.priority.unwrap_or(0),
            access: request.access,
            operator_named: true,
        })
    }

    /// A file below an origin of the configuration (pull-through).
    #[must_use]
    pub fn from_origin(url: String, headers: Vec<(String, String)>) -> Self {
        NewPull {
            sources: vec![url],
            headers: headers.into_iter().collect(),
            operator_named: true,
            ..NewPull::default()
        }
    }

    /// Equal for requests that mean the same content.
    #[must_use]
    pub fn key(&self) -> String {
        let metainfo = self.metainfo.as_ref().map(|bytes| {
            let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
            data_encoding::HEXLOWER.encode(digest.as_ref())
        });
        match (self.id, metainfo) {
            (Some(id), _) => format!("id {id}"),
            (None, Some(metainfo)) => format!("torrent {metainfo}"),
            (None, None) => format!("from {}", self.sources.join(" ")),
        }
    }
}

/// Whether a name can be that of one file, everywhere.
fn is_file_name(name: &str) -> bool {
    metalink::is_safe_name(name) && !name.contains('/') && name.len() <= 255
}

/// Whether it means the same wherever the relay looks from.
fn is_absolute(source: &str) -> bool {
    let here = ["/", "file:///", "magnet:"].iter().any(|start| source.starts_with(start));
    here || Url::parse(source).is_ok_and(|url| url.has_host())
}

/// Whether it may be sent to an origin: what decides how a connection is used, or what is read, is this relay's own.
fn is_field(name: &str, value: &str) -> bool {
    const OWN: [HeaderName; 12] = [
        header::ACCEPT_ENCODING,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::HOST,
        header::IF_RANGE,
        header::PROXY_AUTHORIZATION,
        header::RANGE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| !OWN.contains(&name))
        && HeaderValue::from_str(value).is_ok()
}

fn is_web_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_mirrors_that_nobody_should_be_given_are_refused() {
        let given = |name: Option<&str>, mirror: &str| {
            let sources = vec!["http://h/x".to_owned()];
            let name = name.map(str::to_owned);
            NewPull::from_request(AddContent {
                sources,
                name,
                mirrors: vec![mirror.to_owned()],
                ..AddContent::default()
            })
        };
        assert!(given(Some("文件.iso"), "https://mirror/x").is_ok());
        for name in ["../x", "a/b", "..", "", "a\\b", "nul\0"] {
            assert!(given(Some(name), "https://mirror/x").is_err(), "{name:?}");
        }
        for mirror in ["javascript:alert(1)", "file:///etc/passwd", "mirror"] {
            assert!(given(None, mirror).is_err(), "{mirror}");
        }
    }

    #[test]
    fn requests_that_lead_nowhere_are_refused() {
        let given = |sources: &[&str], field: (&str, &str)| {
            NewPull::from_request(AddContent {
                sources: sources.iter().map(|source| (*source).to_owned()).collect(),
                headers: [(field.0.to_owned(), field.1.to_owned())].into(),
                ..AddContent::default()
            })
        };
        let field = ("Authorization", "Bearer x");
        assert!(given(&["http://h/x", "https://other/x"], field).is_ok());
        assert!(given(&["/srv/x.iso"], field).is_ok() && given(&["file:///srv/x.iso"], field).is_ok());
        for sources in
            [&[][..], &["x.iso"], &["../x.iso"], &["c:x"], &[""], &["http://h/x", "x"], &["http://h/x"; 65]]
        {
            assert!(given(sources, field).is_err(), "{sources:?}");
        }
        for field in [("", "x"), ("a b", "x"), ("X-Y", "a\r\nEvil: 1"), ("range", "bytes=0-")] {
            assert!(given(&["http://h/x"], field).is_err(), "{field:?}");
        }
    }

    #[test]
    fn equal_requests_have_equal_keys() {
        let one = NewPull::from_operator("http://h/x").unwrap();
        let other = NewPull { pin: true, ..one.clone() };
        assert_eq!(one.key(), other.key());
        assert_ne!(one.key(), NewPull::from_operator("http://h/y").unwrap().key());
        assert!(NewPull::from_operator("").is_err());
    }
}
