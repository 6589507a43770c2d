//! Request targets (RFC 9112 §3.2): a path that names one file however it is spelled, and its query.
//!
//! A path is checked once, when the request is parsed: dot segments, separators hidden in escapes, NUL and broken escapes
//! are refused, never resolved. After that its segments are compared with stored names byte by byte, without allocation.

use std::borrow::Cow;
use std::fmt;

use super::request::Method;

/// A target that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request target is not a path without dot segments, hidden separators and broken escapes")]
pub struct TargetError;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A resource: origin-form, or absolute-form of which the authority is dropped (RFC 9112 §3.2.1, §3.2.2).
    Resource {
        /// The path.
        path: Path<'a>,
        /// What follows the `?`, still escaped.
        query: Option<&'a str>,
    },
    /// `OPTIONS *`: the server as a whole (RFC 9112 §3.2.4).
    Server,
}

impl<'a> Target<'a> {
    /// Parses the target of a request.
    ///
    /// # Errors
    /// A target in another form, with bytes that RFC 3986 does not allow, or with a path that [`Path::parse`] refuses.
    pub fn parse(target: &'a str, method: Method) -> Result<Self, TargetError> {
        if target == "*" {
            return if method == Method::Options { Ok(Self::Server) } else { Err(TargetError) };
        }
        // Fragments are never sent, and everything else outside of these bytes must be escaped (RFC 3986 §2).
        if has(target, |b| !b.is_ascii_graphic() || b == b'#') {
            return Err(TargetError);
        }
        let resource = if target.starts_with('/') { target } else { strip_authority(target)? };
        let (path, query) = split_once(resource, b'?');
        // An absolute form may have no path at all, which is the root (RFC 9110 §4.2.3).
        let path = Path::parse(if path.is_empty() { "/" } else { path })?;
        Ok(Self::Resource { path, query })
    }
}

/// Whether such a byte occurs. It looks at every byte, which compilers turn into a look at many at a time.
fn has(text: &str, is_such: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(false, |has, byte| has | is_such(byte))
}

/// What is before an ASCII character, and what is behind it, if it occurs.
fn split_once(text: &str, ascii: u8) -> (&str, Option<&str>) {
    match memchr::memchr(ascii, text.as_bytes()) {
        Some(place) => (&text[..place], Some(&text[place + 1..])),
        None => (text, None),
    }
}

fn strip_authority(target: &str) -> Result<&str, TargetError> {
    let (scheme, rest) = target.split_once("://").ok_or(TargetError)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(TargetError);
    }
    let authority = rest.find(['/', '?']).unwrap_or(rest.len());
    // User information in a target is a trick played on people and log readers (RFC 9110 §4.2.4).
    if authority == 0 || rest[..authority].contains('@') {
        return Err(TargetError);
    }
    Ok(&rest[authority..])
}

/// An absolute path whose escapes are valid and whose segments cannot leave their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path<'a>(&'a str);

impl<'a> Path<'a> {
    /// Checks a path, which begins with `/`.
    ///
    /// # Errors
    /// An escape without two hexadecimal digits, an escaped NUL or `/`, a bare `\`, or a segment that is `.` or `..` once decoded.
    pub fn parse(path: &'a str) -> Result<Self, TargetError> {
        let segments = path.strip_prefix('/').ok_or(TargetError)?;
        // No bytes of a URI (RFC 3986 §2), and what reads URLs as browsers do takes `\` for a `/`.
        if has(path, |b| matches!(b, b'\\' | 0)) {
            return Err(TargetError);
        }
        let is_escaped = has(path, |b| b == b'%');
        let has_dot_first =
            path.bytes().zip(segments.bytes()).fold(false, |has, pair| has | (pair == (b'/', b'.')));
        if !is_escaped && !has_dot_first {
            return Ok(Self(path));
        }
        for segment in segments.split('/').map(Escaped) {
            if is_escaped && (!segment.is_valid() || segment.bytes().any(|b| matches!(b, 0 | b'/'))) {
                return Err(TargetError);
            }
            if segment == "." || segment == ".." {
                return Err(TargetError);
            }
        }
        Ok(Self(path))
    }

    /// The path as it was sent.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// The segments between the slashes, at least one; `/` has one empty segment, and `/a/` ends in an empty one.
    #[must_use]
    pub fn segments(&self) -> Segments<'a> {
        Segments { rest: self.0.strip_prefix('/') }
    }

    /// Whether this path, decoded, is exactly `stored`. See [`Segments::matches`].
    #[must_use]
    pub fn matches(&self, stored: &[impl AsRef<str>]) -> bool {
        self.segments().matches(stored)
    }
}

/// The segments of a [`Path`] that are left.
#[derive(Debug, Clone, Copy)]
pub struct Segments<'a> {
    rest: Option<&'a str>,
}

impl Segments<'_> {
    /// Whether the segments left are exactly the stored names, compared byte by byte after decoding.
    #[must_use]
    pub fn matches(mut self, stored: &[impl AsRef<str>]) -> bool {
        stored.iter().all(|name| self.next().is_some_and(|segment| segment == *name.as_ref()))
            && self.rest.is_none()
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Escaped<'a>;

    fn next(&mut self) -> Option<Escaped<'a>> {
        let (segment, rest) = split_once(self.rest?, b'/');
        self.rest = rest;
        Some(Escaped(segment))
    }
}

/// Text that may contain percent escapes (RFC 3986 §2.1). Equality with a `str` is by decoded bytes.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl<'a> Escaped<'a> {
    /// Whether every `%` is followed by two hexadecimal digits.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.0.split('%').skip(1).all(|after| {
            matches!(after.as_bytes(), [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
        })
    }

    /// The decoded bytes. A broken escape stands for itself; `+` is a plus sign.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + use<'a> {
        let mut rest = self.0.as_bytes();
        std::iter::from_fn(move || {
            let (byte, after) = match *rest {
                [b'%', high, low, ..] => match (hex_digit(high), hex_digit(low)) {
                    (Some(high), Some(low)) => (high << 4 | low, 3),
                    _ => (b'%', 1),
                },
                [byte, ..] => (byte, 1),
                [] => return None,
            };
            rest = &rest[after..];
            Some(byte)
        })
    }

    /// The decoded text, borrowed when nothing was escaped; `None` when it is not UTF-8.
    #[must_use]
    pub fn decode(&self) -> Option<Cow<'a, str>> {
        if !has(self.0, |b| b == b'%') {
            return Some(Cow::Borrowed(self.0));
        }
        String::from_utf8(self.bytes().collect()).ok().map(Cow::Owned)
    }
}

impl PartialEq<str> for Escaped<'_> {
    fn eq(&self, other: &str) -> bool {
        // Nearly all names arrive as they are.
        (self.0 == other && !has(other, |b| b == b'%')) || self.bytes().eq(other.bytes())
    }
}

impl PartialEq<&str> for Escaped<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The `name=value` pairs of a query, still escaped; a name without `=` has an empty value.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (Escaped<'_>, Escaped<'_>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (Escaped(name), Escaped(value))
    })
}

/// Formats `name` as one path segment: everything but the unreserved characters of RFC 3986 §2.3 is escaped.
#[must_use]
pub fn encode_segment(name: &str) -> impl fmt::Display + '_ {
    EncodedSegment(name)
}

struct EncodedSegment<'a>(&'a str);

impl fmt::Display for EncodedSegment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    fmt::Write::write_char(f, char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(target: &str, stored: Option<&[&str]>) {
        let matched = match Target::parse(target, Method::Get) {
            Ok(Target::Resource { path, .. }) => stored.is_some_and(|stored| path.matches(stored)),
            Ok(Target::Server) | Err(_) => stored.is_none(),
        };
        assert!(matched, "{target}: expected {stored:?}");
    }

    #[test]
    fn paths_match_whatever_their_spelling() {
        check("/", Some(&[""]));
        check("/c/a%20b", Some(&["c", "a b"]));
        check("/%63/%C3%A4.bin", Some(&["c", "ä.bin"]));
        check("/c//x/", Some(&["c", "", "x", ""]));
        check("/a+b", Some(&["a+b"]));
        check("/...", Some(&["..."]));
        check("http://relay:8080/c/x?y", Some(&["c", "x"]));
        check("HTTPS://relay", Some(&[""]));
        check("http://relay?q", Some(&[""]));
    }

    #[test]
    fn what_could_leave_its_place_is_refused() {
        for target in ["/..", "/a/../b", "/a/.", "/%2e%2E/x", "/.%2e", "/%2e", "/a%2fb", "/a%2Fb", "/%00"] {
            check(target, None);
        }
        for target in ["/..\\x", "/a\\..\\..\\b", "/\\"] {
            check(target, None);
        }
        check("/..%5Cx", Some(&["..\\x"]));
        for target in ["/%", "/%4", "/%zz", "/a#b", "/ä", "/\u{7f}", "", "c/x", "*", "ftp://x/", "http:///x"]
        {
            check(target, None);
        }
        check("http://user@relay/", None);
        assert_eq!(Target::parse("*", Method::Options), Ok(Target::Server));
    }

    #[test]
    fn nothing_matches_in_part() {
        let path = Path::parse("/c/x").expect("a path");
        for stored in [&["c"][..], &["c", "x", ""], &["c", "xx"], &["c", ""], &[]] {
            assert!(!path.matches(stored), "{stored:?}");
        }
        assert!(Escaped("%41") != "%41", "an escape stands for what it escapes alone");
        let mut segments = path.segments();
        assert!(segments.next().is_some_and(|segment| segment == "c"));
        assert!(segments.matches(&["x"]));
    }

    #[test]
    fn queries_split_into_pairs() {
        let pairs: Vec<_> = query_pairs("info_hash=%00%ff&&q=a%20b=&flag")
            .map(|(name, value)| (name.0, value.bytes().collect::<Vec<_>>()))
            .collect();
        let expected = [("info_hash", vec![0, 0xff]), ("q", b"a b=".to_vec()), ("flag", vec![])];
        assert_eq!(pairs, expected);
    }

    proptest! {
        #[test]
        fn encoded_segments_decode_to_themselves(name in "[^/\0]{1,40}") {
            prop_assume!(name != "." && name != "..");
            let path = format!("/{}", encode_segment(&name));
            prop_assert!(Path::parse(&path).is_ok_and(|path| path.matches(&[name.as_str()])));
            let decoded = Escaped(&path[1..]).decode();
            prop_assert_eq!(decoded.as_deref(), Some(name.as_str()));
        }

        #[test]
        fn arbitrary_targets_do_not_panic(target in "[%/.?0-9a-fA-F:\\PC]{0,60}") {
            if let Ok(Target::Resource { path, .. }) = Target::parse(&target, Method::Get) {
                for segment in path.segments() {
                    prop_assert!(segment != ".." && segment.bytes().all(|b| b != 0 && b != b'/'));
                }
            }
        }
    }
}
