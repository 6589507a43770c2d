//! One origin of a content: where its files are, what is sent along, and what is kept of it across a restart.

use std::collections::BTreeMap;

use millrace_pagecache::layout::{FileIndex, Layout};
use serde::{Deserialize, Serialize};
use url::Url;

use super::answer::Validators;

/// Whether a URL may lead to an address that is not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// The operator gave this very URL.
    Named,
    /// It came from a user, a torrent or a metalink.
    Given,
}

/// An origin, as it is kept in the content's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The file, or the folder when it ends in `/` or has more than one file beneath it.
    pub url: Url,
    /// Where it may lead.
    pub trust: Trust,
    /// Header fields for this origin only: they do not follow a redirect to another host.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What the origin said of each file, by its number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub validators: BTreeMap<u32, Validators>,
}

/// A source that is no URL to pull from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Not a URL.
    #[error("{0:?} is no URL: {1}")]
    NoUrl(String, url::ParseError),
    /// A URL of another scheme.
    #[error("{0}: only http and https can be pulled from")]
    Scheme(String),
}

impl Origin {
    /// An origin without header fields.
    ///
    /// # Errors
    /// What is not an absolute http or https URL.
    pub fn new(url: &str, trust: Trust) -> Result<Self, OriginError> {
        let mut parsed = Url::parse(url).map_err(|error| OriginError::NoUrl(url.to_owned(), error))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(OriginError::Scheme(url.to_owned()));
        }
        parsed.set_fragment(None);
        Ok(Origin { url: parsed, trust, headers: BTreeMap::new(), validators: BTreeMap::new() })
    }

    /// Takes this origin for named by the operator if it lies beneath one of `named`: a torrent may then have its web seed there.
    pub fn trust_beneath(&mut self, named: &[Url]) {
        let beneath = |named: &Url| {
            let same_host = (self.url.scheme(), self.url.host(), self.url.port_or_known_default())
                == (named.scheme(), named.host(), named.port_or_known_default());
            let folder = named.path().trim_end_matches('/');
            let rest = self.url.path().strip_prefix(folder);
            same_host && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if named.iter().any(beneath) {
            self.trust = Trust::Named;
        }
    }

    /// Where a file of `layout` is (BEP 19): of several files under the URL, of one file at the URL, or under it where it ends in `/`.
    #[must_use]
    pub fn file_url(&self, layout: &Layout, file: FileIndex) -> Url {
        let mut url = self.url.clone();
        let Some(span) = layout.file(file) else { return url };
        let multi_file =
            span.path.len() > 1 || layout.files().iter().filter(|file| !file.padding).count() > 1;
        if !multi_file && !url.path().ends_with('/') {
            return url;
        }
        // An http URL always can be a base.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(&span.path);
        }
        url
    }

    /// The URL without what must not be shown: user and password.
    #[must_use]
    pub fn shown(&self) -> String {
        without_credentials(&self.url).to_string()
    }
}

/// The URL as it is sent and shown.
#[must_use]
pub fn without_credentials(url: &Url) -> Url {
    let mut url = url.clone();
    // Both succeed for any URL with a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// A file name from the last segment of a URL's path, made harmless.
#[must_use]
pub fn file_name(url: &Url) -> String {
    let last = url
        .path_segments()
        .and_then(|mut segments| segments.rfind(|segment| !segment.is_empty()))
        .unwrap_or_default();
    let decoded = percent_encoding::percent_decode_str(last).decode_utf8_lossy();
    let name: String = decoded
        .chars()
        .map(|c| if c == '/' || c == '\\' || c.is_control() { '_' } else { c })
        .take(200)
        .collect();
    match name.trim() {
        "" | "." | ".." => "download".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use millrace_pagecache::layout::FileSpan;

    use super::*;

    #[test]
    fn names_come_from_the_path_and_stay_in_their_folder() {
        for (url, name) in [
            ("http://h/a/big%20file.iso?x=1", "big file.iso"),
            ("http://h/%E5%A4%A7/", "大"),
            ("http://h/", "download"),
            ("http://h/a/%2e%2e", "download"),
            ("http://h/a/..%2fpasswd", ".._passwd"),
            ("http://h/a%00b", "a_b"),
        ] {
            assert_eq!(file_name(&url.parse().unwrap()), name, "{url}");
        }
    }

    #[test]
    fn what_lies_beneath_a_named_origin_is_trusted() {
        let check = |url: &str, named: &str, trust| {
            let mut origin = Origin::new(url, Trust::Given).unwrap();
            origin.trust_beneath(&[Url::parse(named).unwrap()]);
            assert_eq!(origin.trust, trust, "{url} beneath {named}");
        };
        check("http://h/files/a", "http://h/files/", Trust::Named);
        check("http://h/files", "http://h/files/", Trust::Named);
        check("http://h:80/a", "http://h", Trust::Named);
        check("http://h/files2/a", "http://h/files", Trust::Given);
        check("http://h/files/../a", "http://h/files/", Trust::Given);
        check("https://h/files/a", "http://h/files/", Trust::Given);
        check("http://h:81/files/a", "http://h/files/", Trust::Given);
        check("http://i/files/a", "http://h/files/", Trust::Given);
    }

    #[test]
    fn files_of_web_seeds() {
        let check = |base: &str, paths: &[&[&str]], expected: &str| {
            let span = |(at, path): (usize, &&[&str])| FileSpan {
                path: path.iter().map(|part| (*part).to_owned()).collect(),
                offset: u64::try_from(at).unwrap(),
                length: 1,
                padding: false,
            };
            let files: Vec<_> = paths.iter().enumerate().map(span).collect();
            let layout = Layout::new(16_384, 2, files).unwrap();
            let origin = Origin::new(base, Trust::Given).unwrap();
            assert_eq!(origin.file_url(&layout, FileIndex(0)).as_str(), expected);
        };
        check("http://h/x.iso", &[&["y.iso"]], "http://h/x.iso");
        check("http://h/dir/", &[&["y z?.iso"]], "http://h/dir/y%20z%3F.iso");
        check("http://h/dir", &[&["name", "a", "b#"], &["name", "c"]], "http://h/dir/name/a/b%23");
        check("http://h/dir/", &[&["name", "a"]], "http://h/dir/name/a");
    }

    #[test]
    fn only_web_urls_are_origins_and_passwords_are_not_shown() {
        assert!(Origin::new("ftp://h/x", Trust::Named).is_err());
        assert!(Origin::new("x.iso", Trust::Named).is_err());
        assert_eq!(Origin::new("http://me:secret@h/x#y", Trust::Named).unwrap().shown(), "http://h/x");
    }
}
