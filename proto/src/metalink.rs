//! Metalink 4 documents (RFC 5854) and Metalink/HTTP links (RFC 6249): the same files by URL, by torrent and by hash.
//!
//! Reading is bounded and refuses names that could leave the folder they are saved in. Elements that are not understood
//! are skipped, as RFC 5854 §5 asks; DTDs are refused.

use std::fmt::{self, Write as _};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use quick_xml::escape::escape;

mod read;

pub use read::parse;

/// Longest document that is read, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// Most files, URLs of a file, and piece hashes of a file that are read.
pub const FILES_MAX: usize = 100_000;
/// Most URLs (and metaurls) of one file that are read.
pub const URLS_MAX: usize = 1_000;
/// Most piece hashes of one file that are read.
pub const PIECES_MAX: usize = 1 << 20;

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetalinkError {
    /// Not well-formed XML in UTF-8, or with a DTD.
    #[error("the metalink is not well-formed XML: {0}")]
    Xml(String),
    /// Well-formed, but no Metalink 4 document.
    #[error("the metalink is not valid: {0}")]
    Invalid(&'static str),
    /// More than this reader takes.
    #[error("the metalink has too many {0}")]
    TooMany(&'static str),
    /// A file name that could leave its folder.
    #[error("the metalink names a file that could leave its folder")]
    HostileName,
}

/// A document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metalink {
    /// Where the document itself is found (RFC 5854 §4.2.9).
    pub origin: Option<String>,
    /// Whether what is found at `origin` may change.
    pub dynamic: bool,
    /// Its files.
    pub files: Vec<File>,
}

/// A file of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// Relative path with `/` between segments, checked by [`is_safe_name`].
    pub name: String,
    /// Length in bytes.
    pub size: Option<u64>,
    /// SHA-256 of the whole file.
    pub sha256: Option<[u8; 32]>,
    /// Hashes of its pieces.
    pub pieces: Option<Pieces>,
    /// Where its bytes are.
    pub urls: Vec<Url>,
    /// Where .torrent files that describe it are.
    pub torrents: Vec<Url>,
}

/// A URL with its priority, 1 (best) to 999999 (RFC 5854 §4.2.16.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// The URL.
    pub url: String,
    /// Its priority; `None` is the worst.
    pub priority: Option<u32>,
}

/// Piece hashes of a file (RFC 5854 §4.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces {
    /// Bytes of each piece but the last; at least one.
    pub length: u64,
    /// The hashes, in order.
    pub hashes: PieceHashes,
}

/// Piece hashes of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PieceHashes {
    /// `sha-1`
    Sha1(Vec<[u8; 20]>),
    /// `sha-256`
    Sha256(Vec<[u8; 32]>),
}

/// Whether a name stays within its folder (RFC 5854 §4.1.2.1): relative, without empty, `.` or `..` segments, backslashes
/// and control characters.
#[must_use]
pub fn is_safe_name(name: &str) -> bool {
    name.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
        && !name.chars().any(|c| c == '\\' || c.is_control())
        && name.as_bytes().get(1) != Some(&b':')
}

impl fmt::Display for Metalink {
    /// Writes the document.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")?;
        f.write_str(
            "<metalink xmlns=\"urn:ietf:params:xml:ns:metalink\">\n  <generator>millrace</generator>\n",
        )?;
        if let Some(origin) = &self.origin {
            writeln!(f, "  <origin dynamic=\"{}\">{}</origin>", self.dynamic, escape(origin.as_str()))?;
        }
        self.files.iter().try_for_each(|file| file.write(f))?;
        f.write_str("</metalink>\n")
    }
}

impl File {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  <file name=\"{}\">", escape(self.name.as_str()))?;
        if let Some(size) = self.size {
            writeln!(f, "    <size>{size}</size>")?;
        }
        if let Some(sha256) = &self.sha256 {
            writeln!(f, "    <hash type=\"sha-256\">{}</hash>", HEXLOWER.encode(sha256))?;
        }
        match self.pieces.as_ref().map(|pieces| (pieces.length, &pieces.hashes)) {
            Some((length, PieceHashes::Sha1(hashes))) => write_pieces(f, length, "sha-1", hashes)?,
            Some((length, PieceHashes::Sha256(hashes))) => write_pieces(f, length, "sha-256", hashes)?,
            None => {}
        }
        for Url { url, priority } in &self.urls {
            writeln!(f, "    <url{}>{}</url>", Priority(*priority), escape(url.as_str()))?;
        }
        for Url { url, priority } in &self.torrents {
            let priority = Priority(*priority);
            writeln!(f, "    <metaurl mediatype=\"torrent\"{priority}>{}</metaurl>", escape(url.as_str()))?;
        }
        f.write_str("  </file>\n")
    }
}

fn write_pieces<H: AsRef<[u8]>>(
    f: &mut fmt::Formatter<'_>,
    length: u64,
    kind: &str,
    hashes: &[H],
) -> fmt::Result {
    writeln!(f, "    <pieces length=\"{length}\" type=\"{kind}\">")?;
    for hash in hashes {
        writeln!(f, "      <hash>{}</hash>", HEXLOWER.encode(hash.as_ref()))?;
    }
    f.write_str("    </pieces>\n")
}

struct Priority(Option<u32>);

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |priority| write!(f, " priority=\"{priority}\""))
    }
}

/// Prepares the `Link` field lines of a file answer (RFC 6249 §3 and §4), each with its CRLF.
///
/// URLs are those of the relay and of mirrors an operator named; one with a control character, a space or `>` is left out,
/// since it would break its line.
#[must_use]
pub fn link_fields(torrent_url: Option<&str>, metalink_url: Option<&str>, mirrors: &[Url]) -> String {
    let mut lines = String::new();
    let mut add = |url: &str, rest: fmt::Arguments<'_>| {
        if url.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"')) {
            // Writing to a String cannot fail.
            let _ = write!(lines, "Link: <{url}>; {rest}\r\n");
        }
    };
    if let Some(url) = torrent_url {
        add(url, format_args!("rel=describedby; type=\"application/x-bittorrent\""));
    }
    if let Some(url) = metalink_url {
        add(url, format_args!("rel=describedby; type=\"application/metalink4+xml\""));
    }
    for Url { url, priority } in mirrors {
        match priority {
            Some(priority) => add(url, format_args!("rel=duplicate; pri={priority}")),
            None => add(url, format_args!("rel=duplicate")),
        }
    }
    lines
}

/// A hexadecimal hash of exactly `N` bytes.
fn hash<const N: usize>(text: &str) -> Result<[u8; N], MetalinkError> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes());
    bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or(MetalinkError::Invalid("hash"))
}
