//! The fields of a request head that decide about the connection: `Connection`, `Transfer-Encoding`, `Host`.

use super::request::{Body, Refusal};
use super::trim_ows;

/// What the `Connection` fields of a message said (RFC 9110 §7.6.1).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Connection {
    close: bool,
    keep_alive: bool,
}

impl Connection {
    pub(super) fn add(&mut self, value: &[u8]) {
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9112 §9.3: `close` wins; without any option 1.1 persists and 1.0 does not.
    pub(super) fn keep_alive(self, minor_version: u8) -> bool {
        !self.close && (minor_version == 1 || self.keep_alive)
    }
}

/// The elements of a comma-separated list without quoted strings; empty ones are skipped (RFC 9110 §5.6.1.2).
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim_ows).filter(|element| !element.is_empty())
}

/// RFC 9112 §6.1 and §7: `chunked` once and last; other codings before it are not implemented.
pub(super) fn chunked(lines: &[&[u8]]) -> Result<Body, Refusal> {
    let mut codings = lines.iter().flat_map(|line| list(line)).peekable();
    let mut others = false;
    while let Some(coding) = codings.next() {
        match (coding.eq_ignore_ascii_case(b"chunked"), codings.peek().is_none()) {
            (true, true) if others => return Err(Refusal::UnknownCoding),
            (true, true) => return Ok(Body::Chunked),
            (true, false) => return Err(Refusal::TransferEncoding),
            (false, _) => others = true,
        }
    }
    Err(Refusal::TransferEncoding)
}

/// Whether `host` has only characters of `uri-host [":" port]` (RFC 3986 §3.2.2); it may be empty.
pub(super) fn is_host(host: &[u8]) -> bool {
    host.iter().all(|b| {
        matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'
            | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b'%' | b':' | b'[' | b']')
    })
}

/// Whether a `Want-Digest` value (RFC 3230 §4.3.1) accepts SHA-256.
pub(super) fn wants_sha256(value: &[u8]) -> bool {
    list(value).any(|element| {
        let mut parts = element.split(|&b| b == b';').map(trim_ows);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"sha-256"));
        let refused = parts.any(|parameter| match parameter {
            [b'q' | b'Q', b'=', weight @ ..] => weight.iter().all(|b| matches!(b, b'0' | b'.')),
            _ => false,
        });
        named && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_final_chunked_is_understood() {
        let check = |lines: &[&[u8]], expected| assert_eq!(chunked(lines), expected, "{lines:?}");
        check(&[b"chunked"], Ok(Body::Chunked));
        check(&[b" , Chunked ,"], Ok(Body::Chunked));
        check(&[b"gzip, chunked"], Err(Refusal::UnknownCoding));
        check(&[b"gzip", b"chunked"], Err(Refusal::UnknownCoding));
        check(&[b"chunked", b"chunked"], Err(Refusal::TransferEncoding));
        check(&[b"chunked, identity"], Err(Refusal::TransferEncoding));
        check(&[b"identity"], Err(Refusal::TransferEncoding));
        check(&[b""], Err(Refusal::TransferEncoding));
        check(&[b"\x0bchunked"], Err(Refusal::TransferEncoding));
    }

    #[test]
    fn digests_are_wanted_unless_weighed_zero() {
        assert!(wants_sha256(b"SHA-512;q=1, SHA-256;q=1, SHA;q=0.1"));
        assert!(wants_sha256(b"sha-256"));
        assert!(!wants_sha256(b"sha-256;q=0.0"));
        assert!(!wants_sha256(b"SHA-512;q=1"));
    }
}
