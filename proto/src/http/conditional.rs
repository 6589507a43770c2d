//! Conditional requests (RFC 9110 §13): whether a `GET` or `HEAD` of a file proceeds, and whether its `Range` counts.

use super::date;
use super::request::{FieldLines, Method, Request};
use super::trim_ows;

/// The validators of a file as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Validators<'a> {
    /// The opaque tag with its quotes. It is strong: a version's bytes never change under its tag.
    pub etag: &'a [u8],
    /// `Last-Modified` in seconds since 1970, where one is known.
    pub last_modified: Option<u64>,
}

/// What the conditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were no conditions.
    Proceed {
        /// Whether `Range` counts: a `GET` that has one, whose `If-Range` holds.
        use_range: bool,
    },
    /// Answer 304.
    NotModified,
    /// Answer 412.
    PreconditionFailed,
}

/// Evaluates the conditions in the order of RFC 9110 §13.2.2.
///
/// The caller asks only when the answer would be 200 without them (§13.2.1). Methods other than `GET` and `HEAD` select
/// no file and always proceed.
#[must_use]
pub fn evaluate(request: &Request<'_>, validators: &Validators<'_>) -> Outcome {
    if !matches!(request.method, Method::Get | Method::Head) {
        return Outcome::Proceed { use_range: false };
    }
    if !request.if_match.is_empty() {
        if !any_tag(&request.if_match, |tag| tag.matches_strongly(validators.etag)) {
            return Outcome::PreconditionFailed;
        }
    } else if let Some(since) = request.if_unmodified_since.and_then(date::parse)
        && validators.last_modified.is_some_and(|modified| modified > since)
    {
        return Outcome::PreconditionFailed;
    }
    if !request.if_none_match.is_empty() {
        if any_tag(&request.if_none_match, |tag| tag.matches_weakly(validators.etag)) {
            return Outcome::NotModified;
        }
    } else if let Some(since) = request.if_modified_since.and_then(date::parse)
        && validators.last_modified.is_some_and(|modified| modified <= since)
    {
        return Outcome::NotModified;
    }
    let use_range = request.method == Method::Get
        && request.range.is_some()
        && request.if_range.is_none_or(|value| if_range_holds(value, validators));
    Outcome::Proceed { use_range }
}

/// RFC 9110 §13.1.5: the same strong tag, or exactly the date of `Last-Modified`.
///
/// That date is a strong validator here: bytes under one content id never change, so no two versions share the date.
fn if_range_holds(value: &[u8], validators: &Validators<'_>) -> bool {
    match EntityTag::split_first(value) {
        Some((tag, rest)) => rest.is_empty() && tag.matches_strongly(validators.etag),
        None => date::parse(value).is_some_and(|date| validators.last_modified == Some(date)),
    }
}

/// An entity-tag of a request (RFC 9110 §8.8.3), or the `*` that stands for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntityTag<'a> {
    Any,
    Strong(&'a [u8]),
    Weak(&'a [u8]),
}

impl<'a> EntityTag<'a> {
    /// Takes `[W/]"…"` off the front. `W` is case-sensitive; commas may stand within the quotes.
    fn split_first(value: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let opaque = value.strip_prefix(b"W/").unwrap_or(value);
        let [b'"', inner @ ..] = opaque else { return None };
        let end = inner.iter().position(|&b| b == b'"')?;
        if inner[..end].iter().any(|&b| b <= b' ' || b == 0x7f) {
            return None;
        }
        let (tag, rest) = opaque.split_at(end + 2);
        Some((if opaque.len() == value.len() { Self::Strong(tag) } else { Self::Weak(tag) }, rest))
    }

    /// RFC 9110 §8.8.3.2, strong comparison; the file's own tag is strong.
    fn matches_strongly(self, etag: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Strong(tag) => tag == etag,
            Self::Weak(_) => false,
        }
    }

    /// RFC 9110 §8.8.3.2, weak comparison.
    fn matches_weakly(self, etag: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Strong(tag) | Self::Weak(tag) => tag == etag,
        }
    }
}

/// Whether any tag of a list satisfies `matches`. A list ends where its syntax breaks: what came before still counts.
fn any_tag(lines: &FieldLines<'_>, matches: impl Fn(EntityTag<'_>) -> bool) -> bool {
    if let [line] = lines.lines()
        && *line == b"*"
    {
        return matches(EntityTag::Any);
    }
    lines.lines().iter().any(|line| {
        let mut rest: &[u8] = line;
        loop {
            while let [b',' | b' ' | b'\t', after @ ..] = rest {
                rest = after;
            }
            let Some((tag, after)) = EntityTag::split_first(rest) else { return false };
            if matches(tag) {
                return true;
            }
            rest = trim_ows(after);
            if !rest.starts_with(b",") {
                return false;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{Limits, Parsed, parse};

    const OLDER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEWER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const WHOLE: Outcome = Outcome::Proceed { use_range: false };
    const PARTIAL: Outcome = Outcome::Proceed { use_range: true };

    /// Evaluates fields written as `name: value; …` against the tag `"v1"`, modified at [`MODIFIED`].
    fn outcome(method: &str, fields: &str) -> Outcome {
        let fields = fields.replace("; ", "\r\n");
        let head = format!("{method} / HTTP/1.1\r\nHost: relay\r\n{fields}\r\n\r\n");
        let Parsed::Request { request, .. } = parse(head.as_bytes(), &Limits::default()) else {
            panic!("no request: {head}");
        };
        evaluate(&request, &Validators { etag: b"\"v1\"", last_modified: Some(784_111_777) })
    }

    fn check(fields: &str, expected: Outcome) {
        assert_eq!(outcome("GET", fields), expected, "{fields}");
    }

    #[test]
    fn if_match_compares_strongly() {
        check("If-Match: \"v1\"", WHOLE);
        check("If-Match: *", WHOLE);
        check("If-Match: \"a,b\" , W/\"v2\",\"v1\"", WHOLE);
        check("If-Match: \"x\"; If-Match: \"v1\"", WHOLE);
        check("If-Match: W/\"v1\"", Outcome::PreconditionFailed);
        check("If-Match: \"v2\"", Outcome::PreconditionFailed);
        check("If-Match: v1", Outcome::PreconditionFailed);
        check("If-Match: ", Outcome::PreconditionFailed);
        check("If-Match: \"v2\" \"v1\"", Outcome::PreconditionFailed);
    }

    #[test]
    fn if_none_match_compares_weakly() {
        check("If-None-Match: \"v1\"", Outcome::NotModified);
        check("If-None-Match: W/\"v1\"", Outcome::NotModified);
        check("If-None-Match: *", Outcome::NotModified);
        check("If-None-Match: \"v2\", \"v1\"", Outcome::NotModified);
        check("If-None-Match: \"v2\"", WHOLE);
        check("If-None-Match: w/\"v1\"", WHOLE);
        assert_eq!(outcome("HEAD", "If-None-Match: *"), Outcome::NotModified);
        assert_eq!(outcome("OPTIONS", "If-None-Match: *"), WHOLE);
    }

    #[test]
    fn dates_count_only_without_tags() {
        check(&format!("If-Modified-Since: {MODIFIED}"), Outcome::NotModified);
        check(&format!("If-Modified-Since: {NEWER}"), Outcome::NotModified);
        check(&format!("If-Modified-Since: {OLDER}"), WHOLE);
        check("If-Modified-Since: yesterday", WHOLE);
        check(&format!("If-Modified-Since: {MODIFIED}; If-Modified-Since: {MODIFIED}"), WHOLE);
        check(&format!("If-Modified-Since: {MODIFIED}; If-None-Match: \"v2\""), WHOLE);
        check(&format!("If-Unmodified-Since: {MODIFIED}"), WHOLE);
        check(&format!("If-Unmodified-Since: {OLDER}"), Outcome::PreconditionFailed);
        check(&format!("If-Unmodified-Since: {OLDER}; If-Match: \"v1\""), WHOLE);
        check("If-Unmodified-Since: yesterday", WHOLE);
    }

    #[test]
    fn failed_preconditions_come_before_not_modified() {
        check("If-Match: \"v2\"; If-None-Match: \"v1\"", Outcome::PreconditionFailed);
        check("If-Match: \"v1\"; If-None-Match: \"v1\"", Outcome::NotModified);
    }

    #[test]
    fn if_range_needs_the_same_version() {
        let check_range =
            |value: &str, expected| check(&format!("Range: bytes=0-1; If-Range: {value}"), expected);
        check("Range: bytes=0-1", PARTIAL);
        check("If-Range: \"v1\"", WHOLE);
        check_range("\"v1\"", PARTIAL);
        check_range("W/\"v1\"", WHOLE);
        check_range("\"v2\"", WHOLE);
        check_range("\"v1\", \"v1\"", WHOLE);
        check_range("*", WHOLE);
        check_range(MODIFIED, PARTIAL);
        check_range(NEWER, WHOLE);
        check_range(OLDER, WHOLE);
        check("Range: bytes=0-1; Range: bytes=2-3", WHOLE);
        check("Range: bytes=0-1; If-Range: \"v1\"; If-Range: \"v1\"", WHOLE);
        assert_eq!(outcome("HEAD", "Range: bytes=0-1"), WHOLE);
    }
}
