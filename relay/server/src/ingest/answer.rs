//! Judging an origin's answer before a byte of its body is taken: status, range, length, validators, coding.
//!
//! An origin that changed must never have its bytes mixed with those of its earlier self, so every answer is compared with the
//! first one. Pure: headers in, judgement out.

use std::fmt;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    LAST_MODIFIED, RETRY_AFTER,
};

/// Longest wait that `Retry-After` can impose.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What tells one version of a resource from another (RFC 9110 §8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Validators {
    /// `ETag`, as sent.
    pub etag: Option<String>,
    /// `Last-Modified`, as sent.
    pub last_modified: Option<String>,
    /// Length of the whole, in bytes.
    pub length: Option<u64>,
}

impl Validators {
    /// What `If-Range` may carry: a strong `ETag`, else the date (RFC 9110 §13.1.5).
    #[must_use]
    pub fn if_range(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        strong.or_else(|| self.last_modified.as_deref().filter(|_| self.etag.is_none()))
    }

    /// What differs from a later answer; a validator that only one of the two has says nothing.
    #[must_use]
    pub fn difference(&self, later: &Validators) -> Option<Difference> {
        let differs = |what, before: Option<String>, after: Option<String>| {
            let (before, after) = (before?, after?);
            (before != after).then_some(Difference { what, before, after })
        };
        let text = |length: Option<u64>| length.map(|length| length.to_string());
        // Mirrors behind one name often disagree about dates: an equal ETag has the last word.
        let same_etag = self.etag.is_some() && self.etag == later.etag;
        differs("ETag", self.etag.clone(), later.etag.clone())
            .or_else(|| differs("length", text(self.length), text(later.length)))
            .or_else(|| {
                differs("Last-Modified", self.last_modified.clone(), later.last_modified.clone())
                    .filter(|_| !same_etag)
            })
    }

    /// The validators of an answer.
    fn of(headers: &HeaderMap, length: Option<u64>) -> Self {
        let text =
            |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Validators { etag: text(ETAG), last_modified: text(LAST_MODIFIED), length }
    }
}

/// How an origin changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    what: &'static str,
    before: String,
    after: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (self.before.trim_matches('"'), self.after.trim_matches('"'));
        match self.what {
            "length" => write!(f, "length {before} became {after}"),
            what => write!(f, "{what} \"{before}\" became \"{after}\""),
        }
    }
}

/// What the body of an acceptable answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// These bytes of the resource, at most what was asked for, from its start.
    Part(Range<u64>),
    /// The resource from its first byte; its length where the origin tells.
    Whole(Option<u64>),
    /// Nothing: the resource is empty.
    Empty,
}

/// An answer that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What is in the body.
    pub body: Body,
    /// The version it is of.
    pub validators: Validators,
}

/// Why an answer was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The resource is another one than before.
    #[error("origin changed while pulling: {0}")]
    Changed(Difference),
    /// A status that may pass.
    #[error("origin answered {status}")]
    Later {
        /// The status.
        status: StatusCode,
        /// How long the origin asks us to wait.
        retry_after: Option<Duration>,
    },
    /// A status that will stay.
    #[error("origin answered {0}")]
    Status(StatusCode),
    /// The whole where a part was asked for, of an origin that had given parts before.
    #[error("origin no longer answers ranges")]
    RangeIgnored,
    /// An answer that breaks the protocol, or that we did not ask for.
    #[error("origin answered wrongly: {0}")]
    Wrong(String),
}

/// Judges an answer to a request for `asked` (in bytes of the resource), given the `known` validators of earlier answers.
///
/// # Errors
/// See [`Refused`].
pub fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    asked: &Range<u64>,
    known: Option<&Validators>,
) -> Result<Accepted, Refused> {
    match status {
        StatusCode::PARTIAL_CONTENT | StatusCode::OK => {}
        StatusCode::RANGE_NOT_SATISFIABLE => return not_satisfiable(headers, asked, known),
        _ => return Err(refuse_status(status, headers)),
    }
    check_coding(headers)?;
    let length = content_length(headers)?;
    let (body, total) = if status == StatusCode::OK {
        (Body::Whole(length), length)
    } else {
        let (part, total) = content_range(headers)?;
        if part.start != asked.start || part.end > asked.end {
            return Err(wrong(format!("asked for {}, got {}", show(asked), show(&part))));
        }
        if part.end < asked.end && part.end != total {
            return Err(wrong(format!("asked for {}, got only {} of {total}", show(asked), show(&part))));
        }
        if length.is_some_and(|length| length != part.end - part.start) {
            return Err(wrong("Content-Length and Content-Range disagree".into()));
        }
        (Body::Part(part), Some(total))
    };
    let validators = Validators::of(headers, total);
    if let Some(difference) = known.and_then(|known| known.difference(&validators)) {
        return Err(Refused::Changed(difference));
    }
    Ok(Accepted { body, validators })
}

/// 416: an empty resource has no first byte; otherwise it became shorter.
fn not_satisfiable(
    headers: &HeaderMap,
    asked: &Range<u64>,
    known: Option<&Validators>,
) -> Result<Accepted, Refused> {
    let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let total = text.strip_prefix("bytes */").and_then(|total| total.parse::<u64>().ok());
    let validators = Validators::of(headers, total);
    if let Some(difference) = known.and_then(|known| known.difference(&validators)) {
        return Err(Refused::Changed(difference));
    }
    match total {
        Some(0) if asked.start == 0 => Ok(Accepted { body: Body::Empty, validators }),
        _ => Err(wrong(format!("416 for {}", show(asked)))),
    }
}

fn refuse_status(status: StatusCode, headers: &HeaderMap) -> Refused {
    let passing = status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY
        );
    match passing {
        true => Refused::Later { status, retry_after: retry_after(headers, SystemTime::now()) },
        false => Refused::Status(status),
    }
}

/// `Retry-After` in either form (RFC 9110 §10.2.3), bounded.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

fn check_coding(headers: &HeaderMap) -> Result<(), Refused> {
    for coding in headers.get_all(CONTENT_ENCODING) {
        if !coding.as_bytes().eq_ignore_ascii_case(b"identity") {
            return Err(wrong(format!("Content-Encoding {coding:?} although identity was asked for")));
        }
    }
    let multipart =
        headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/byteranges"));
    if multipart && headers.get(CONTENT_RANGE).is_none() {
        return Err(wrong("multipart/byteranges, which was not asked for".into()));
    }
    Ok(())
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    let Some(value) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| wrong("unreadable Content-Length".into()))
}

/// `bytes first-last/total` (RFC 9110 §14.4).
fn content_range(headers: &HeaderMap) -> Result<(Range<u64>, u64), Refused> {
    let value = headers.get(CONTENT_RANGE).ok_or_else(|| wrong("206 without Content-Range".into()))?;
    let text = value.to_str().unwrap_or_default();
    let parse = || {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let total: u64 = total.trim().parse().ok()?;
        (first <= last && last < total).then(|| (first..last + 1, total))
    };
    parse().ok_or_else(|| wrong(format!("Content-Range {text:?}")))
}

fn wrong(what: String) -> Refused {
    Refused::Wrong(what)
}

fn show(range: &Range<u64>) -> String {
    format!("bytes {}-{}", range.start, range.end.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        status: u16,
        fields: &[(&'static str, &'static str)],
        known: Option<&Validators>,
    ) -> Result<Body, Refused> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        judge(StatusCode::from_u16(status).unwrap(), &headers, &(100..200), known)
            .map(|accepted| accepted.body)
    }

    fn version(etag: Option<&str>, date: Option<&str>, length: u64) -> Validators {
        Validators { etag: etag.map(Into::into), last_modified: date.map(Into::into), length: Some(length) }
    }

    #[test]
    fn a_part_is_exactly_what_was_asked_for() {
        assert_eq!(check(206, &[("content-range", "bytes 100-199/1000")], None), Ok(Body::Part(100..200)));
        assert_eq!(check(206, &[("content-range", "bytes 100-149/150")], None), Ok(Body::Part(100..150)));
        for wrong in [
            "bytes 99-199/1000",
            "bytes 100-200/1000",
            "bytes 100-150/1000",
            "bytes 0-99/1000",
            "bytes 100-199/*",
            "bytes 199-100/1000",
            "bytes 100-199/199",
            "items 100-199/1000",
            "",
            "bytes 100-18446744073709551615/18446744073709551615",
        ] {
            assert!(
                matches!(check(206, &[("content-range", wrong)], None), Err(Refused::Wrong(_))),
                "{wrong}"
            );
        }
        assert!(check(206, &[], None).is_err());
        assert!(
            check(206, &[("content-range", "bytes 100-199/1000"), ("content-length", "99")], None).is_err()
        );
    }

    #[test]
    fn a_change_is_found_by_whatever_tells() {
        let known = version(Some("\"a\""), Some("Sat, 01 Jan 2000 00:00:00 GMT"), 1000);
        let with = |etag, date, range| {
            check(206, &[("content-range", range), ("etag", etag), ("last-modified", date)], Some(&known))
        };
        let (date, later) = ("Sat, 01 Jan 2000 00:00:00 GMT", "Sun, 02 Jan 2000 00:00:00 GMT");
        assert!(with("\"a\"", date, "bytes 100-199/1000").is_ok());
        // The same strong ETag from a mirror with another date.
        assert!(with("\"a\"", later, "bytes 100-199/1000").is_ok());
        let changed = with("\"b\"", date, "bytes 100-199/1000").unwrap_err();
        assert_eq!(changed.to_string(), "origin changed while pulling: ETag \"a\" became \"b\"");
        let changed = with("\"a\"", date, "bytes 100-199/1001").unwrap_err();
        assert_eq!(changed.to_string(), "origin changed while pulling: length 1000 became 1001");
        let dated = version(None, Some(date), 1000);
        let fields = [("content-range", "bytes 100-199/1000"), ("last-modified", later)];
        assert!(matches!(check(206, &fields, Some(&dated)), Err(Refused::Changed(_))));
        assert!(matches!(
            check(200, &[("content-length", "1000"), ("etag", "\"b\"")], Some(&known)),
            Err(Refused::Changed(_))
        ));
        assert!(matches!(
            check(416, &[("content-range", "bytes */50")], Some(&known)),
            Err(Refused::Changed(_))
        ));
        // An answer that tells less contradicts nothing.
        assert!(check(206, &[("content-range", "bytes 100-199/1000")], Some(&known)).is_ok());
    }

    #[test]
    fn codings_and_multiparts_are_refused() {
        let range = ("content-range", "bytes 100-199/1000");
        assert!(check(206, &[range, ("content-encoding", "identity")], None).is_ok());
        assert!(check(206, &[range, ("content-encoding", "gzip")], None).is_err());
        assert!(check(206, &[("content-type", "multipart/byteranges; boundary=x")], None).is_err());
    }

    #[test]
    fn whole_empty_and_refusing_answers() {
        assert_eq!(check(200, &[("content-length", "7")], None), Ok(Body::Whole(Some(7))));
        assert_eq!(check(200, &[], None), Ok(Body::Whole(None)));
        assert!(matches!(check(404, &[], None), Err(Refused::Status(_))));
        let later = check(503, &[("retry-after", "7")], None);
        assert!(
            matches!(later, Err(Refused::Later { retry_after: Some(wait), .. }) if wait == Duration::from_secs(7))
        );
        let forever = check(429, &[("retry-after", "99999999")], None);
        assert!(matches!(forever, Err(Refused::Later { retry_after: Some(RETRY_AFTER_MAX), .. })));
        let mut headers = HeaderMap::new();
        headers.insert("content-range", "bytes */0".parse().unwrap());
        let empty = judge(StatusCode::RANGE_NOT_SATISFIABLE, &headers, &(0..10), None).unwrap();
        assert_eq!(empty.body, Body::Empty);
    }

    #[test]
    fn if_range_takes_only_what_is_strong() {
        assert_eq!(version(Some("\"a\""), Some("d"), 1).if_range(), Some("\"a\""));
        assert_eq!(version(Some("W/\"a\""), Some("d"), 1).if_range(), None);
        assert_eq!(version(None, Some("d"), 1).if_range(), Some("d"));
        assert_eq!(Validators::default().if_range(), None);
    }
}
