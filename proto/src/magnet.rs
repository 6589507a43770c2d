//! Magnet links: infohashes of v1 (BEP 9) and v2 (BEP 52), with trackers, web seeds and peers.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32;

use crate::id::{InfoHashV1, InfoHashV2};
use crate::metainfo::Metainfo;

/// Longest link accepted, in bytes.
pub const MAGNET_BYTES_MAX: usize = 64 << 10;

/// A magnet link to a torrent; at least one infohash is there when it was parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Magnet {
    /// `xt=urn:btih:`
    pub v1: Option<InfoHashV1>,
    /// `xt=urn:btmh:1220`
    pub v2: Option<InfoHashV2>,
    /// `dn`: for display only, nobody vouches for it.
    pub name: Option<String>,
    /// `tr`
    pub trackers: Vec<String>,
    /// `ws`: web seeds.
    pub web_seeds: Vec<String>,
    /// `x.pe`: `host:port` of peers.
    pub peers: Vec<String>,
    /// `xl`: length in bytes, for display only.
    pub length: Option<u64>,
}

/// Why a link is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// It does not begin with `magnet:?`.
    #[error("not a magnet link: it must begin with `magnet:?`")]
    Scheme,
    /// It is longer than [`MAGNET_BYTES_MAX`].
    #[error("magnet link is longer than 64 KiB")]
    TooLong,
    /// A `%` without two hexadecimal digits, or what is not UTF-8 after decoding.
    #[error("magnet link has an invalid percent escape or text that is not UTF-8")]
    Escape,
    /// An infohash that is neither 40 hex nor 32 base32 characters (btih), nor `1220` and 64 hex characters (btmh).
    #[error("magnet link has a malformed infohash")]
    InfoHash,
    /// Two different infohashes of one version.
    #[error("magnet link names two different torrents")]
    Ambiguous,
    /// No infohash.
    #[error("magnet link has no `xt=urn:btih:` or `xt=urn:btmh:`")]
    Missing,
}

impl FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(link: &str) -> Result<Self, MagnetError> {
        if link.len() > MAGNET_BYTES_MAX {
            return Err(MagnetError::TooLong);
        }
        let scheme = link.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("magnet:?"));
        let query = &link[scheme.ok_or(MagnetError::Scheme)?.len()..];
        let mut magnet = Self::default();
        for parameter in query.split('&') {
            let Some((key, value)) = parameter.split_once('=') else { continue };
            let value = decode(value)?;
            // `tr.1` and the like number repeated parameters.
            let key = key.trim_end_matches(|c: char| c.is_ascii_digit());
            match key.strip_suffix('.').unwrap_or(key) {
                "xt" => magnet.take_topic(&value)?,
                "dn" => magnet.name = Some(value),
                "tr" => magnet.trackers.push(value),
                "ws" => magnet.web_seeds.push(value),
                "x.pe" => magnet.peers.push(value),
                "xl" => magnet.length = value.parse().ok(),
                _ => {}
            }
        }
        if magnet.v1.is_none() && magnet.v2.is_none() { Err(MagnetError::Missing) } else { Ok(magnet) }
    }
}

impl Magnet {
    /// Reads `xt`; topics of other networks are left alone.
    fn take_topic(&mut self, topic: &str) -> Result<(), MagnetError> {
        if let Some(hash) = strip_prefix(topic, "urn:btih:") {
            let hash = btih(hash)?;
            if self.v1.replace(hash).is_some_and(|before| before != hash) {
                return Err(MagnetError::Ambiguous);
            }
        } else if let Some(multihash) = strip_prefix(topic, "urn:btmh:") {
            // 0x12: SHA-256, 0x20: 32 bytes.
            let hash = strip_prefix(multihash, "1220").and_then(|hex| hex.parse().ok());
            let hash = hash.ok_or(MagnetError::InfoHash)?;
            if self.v2.replace(hash).is_some_and(|before| before != hash) {
                return Err(MagnetError::Ambiguous);
            }
        }
        Ok(())
    }
}

fn btih(text: &str) -> Result<InfoHashV1, MagnetError> {
    if text.len() == 32 {
        let bytes = BASE32.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| MagnetError::InfoHash)?;
        return bytes.try_into().map(InfoHashV1).map_err(|_| MagnetError::InfoHash);
    }
    text.parse().map_err(|_| MagnetError::InfoHash)
}

/// What follows `prefix`, whose case does not matter.
fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix))?;
    text.get(prefix.len()..)
}

impl From<&Metainfo> for Magnet {
    /// A link that leads to the same torrent, with its trackers and web seeds.
    fn from(metainfo: &Metainfo) -> Self {
        let files = metainfo.info.files.iter().filter(|file| !file.padding);
        Self {
            v1: metainfo.infohash_v1(),
            v2: metainfo.infohash_v2(),
            name: Some(metainfo.info.name.clone()),
            trackers: metainfo.announce.concat(),
            web_seeds: metainfo.web_seeds.clone(),
            peers: Vec::new(),
            length: Some(files.map(|file| file.length).sum()),
        }
    }
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "magnet:?";
        let mut put = |key: &str, value: fmt::Arguments<'_>| {
            write!(f, "{separator}{key}={value}")?;
            separator = "&";
            Ok(())
        };
        if let Some(v1) = self.v1 {
            put("xt", format_args!("urn:btih:{v1}"))?;
        }
        if let Some(v2) = self.v2 {
            put("xt", format_args!("urn:btmh:1220{v2}"))?;
        }
        if let Some(name) = &self.name {
            put("dn", format_args!("{}", Escaped(name)))?;
        }
        if let Some(length) = self.length {
            put("xl", format_args!("{length}"))?;
        }
        for (key, values) in [("tr", &self.trackers), ("ws", &self.web_seeds), ("x.pe", &self.peers)] {
            values.iter().try_for_each(|value| put(key, format_args!("{}", Escaped(value))))?;
        }
        Ok(())
    }
}

/// Text with everything but RFC 3986 §2.3 unreserved characters percent-encoded.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    write!(f, "{}", char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

/// Undoes percent-encoding; `+` is a space, as in forms and in the links people paste.
fn decode(text: &str) -> Result<String, MagnetError> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let decoded = match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit(), digit());
                let value = high.zip(low).map(|(high, low)| high * 16 + low);
                value.and_then(|value| u8::try_from(value).ok()).ok_or(MagnetError::Escape)?
            }
            other => other,
        };
        out.push(decoded);
    }
    String::from_utf8(out).map_err(|_| MagnetError::Escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "0123456789abcdef0123456789abcdef01234567";

    fn check(link: &str, expected: Result<&str, MagnetError>) {
        assert_eq!(link.parse::<Magnet>().map(|m| m.to_string()), expected.map(str::to_owned), "{link}");
    }

    #[test]
    fn links_come_back_in_one_spelling() {
        let plain = format!("magnet:?xt=urn:btih:{V1}");
        check(&plain, Ok(&plain));
        check(&plain.to_ascii_uppercase().replace("XT", "xt"), Ok(&plain));
        check("magnet:?xt=urn:btih:AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH", Ok(&plain));
        let v2 = format!("urn:btmh:1220{}", "ab".repeat(32));
        check(&format!("magnet:?xt.1=urn:btih:{V1}&xt.2={v2}"), Ok(&format!("{plain}&xt={v2}")));
        check(
            &format!("{plain}&dn=a+b%2B%e4%b8%ad&tr.1=http://t/a?b%26c&xl=9&x.pe=[::1]:1&ws=http://w/&so=0"),
            Ok(&format!(
                "{plain}&dn=a%20b%2B%E4%B8%AD&xl=9&tr=http%3A%2F%2Ft%2Fa%3Fb%26c&ws=http%3A%2F%2Fw%2F&x.pe=%5B%3A%3A1%5D%3A1"
            )),
        );
    }

    #[test]
    fn bad_links_are_refused() {
        check("http://x/", Err(MagnetError::Scheme));
        check("magnet:", Err(MagnetError::Scheme));
        check("magnet:?dn=x", Err(MagnetError::Missing));
        check("magnet:?xt=urn:sha1:x", Err(MagnetError::Missing));
        check("magnet:?xt=urn:btih:12", Err(MagnetError::InfoHash));
        check(&format!("magnet:?xt=urn:btmh:1220{V1}"), Err(MagnetError::InfoHash));
        check(&format!("magnet:?xt=urn:btih:{V1}&dn=%4"), Err(MagnetError::Escape));
        check(&format!("magnet:?xt=urn:btih:{V1}&dn=%+1"), Err(MagnetError::Escape));
        check(&format!("magnet:?xt=urn:btih:{V1}&dn=%ff"), Err(MagnetError::Escape));
        check(
            &format!("magnet:?xt=urn:btih:{V1}&xt=urn:btih:{}", V1.replace('0', "1")),
            Err(MagnetError::Ambiguous),
        );
        check(&"x".repeat(MAGNET_BYTES_MAX + 1), Err(MagnetError::TooLong));
    }
}
