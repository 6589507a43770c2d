//! Request heads, parsed strictly (RFC 9112): what two recipients could read differently is refused, not repaired.
//!
//! `httparse` splits the head into tokens; this module decides what of that is acceptable, and keeps only the fields
//! that a file server acts upon. Nothing is copied or allocated: a [`Request`] borrows from the receive buffer.

use std::mem::MaybeUninit;

use super::framing::{self, Connection};
use super::target::Target;
use super::{parse_decimal, trim_ows};

/// Most field lines that any configuration may allow: the parser's table lives on the stack.
pub const HEADERS_MAX: usize = 64;

/// Most lines of one list-valued field (`If-Match`, `If-None-Match`) that are kept.
pub const FIELD_LINES_MAX: usize = 4;

/// What a request head may occupy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest request line or field line in bytes, without its CRLF.
    pub line_bytes_max: usize,
    /// Longest head in bytes: empty lines before it, request line, fields, and the empty line that ends it.
    pub head_bytes_max: usize,
    /// Most field lines, at most [`HEADERS_MAX`].
    pub headers_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line_bytes_max: 8 << 10, head_bytes_max: 16 << 10, headers_max: HEADERS_MAX }
    }
}

/// Why a request is refused. The answer carries [`Refusal::status`] and closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A CR or LF that is not part of CRLF, or a NUL (RFC 9112 §2.2).
    BareLineBreak,
    /// Not `method SP target SP version` (RFC 9112 §3), or not HTTP at all.
    RequestLine,
    /// A field line that breaks the grammar: whitespace before the colon, line folding, control bytes (RFC 9112 §5).
    FieldLine,
    /// The request line exceeds [`Limits::line_bytes_max`].
    TargetTooLong,
    /// A field line or the whole head exceeds its limit.
    HeadTooLarge,
    /// More field lines than [`Limits::headers_max`], or more than [`FIELD_LINES_MAX`] of one list.
    TooManyFields,
    /// `Host` missing in HTTP/1.1, repeated, or not a host (RFC 9112 §3.2).
    Host,
    /// A target with an invalid escape, a dot segment, a hidden separator or forbidden bytes.
    Target,
    /// `Content-Length` repeated or not a number (RFC 9112 §6.3).
    ContentLength,
    /// `Transfer-Encoding` beside `Content-Length`, in HTTP/1.0, or not ending in one `chunked` (RFC 9112 §6.1).
    TransferEncoding,
    /// A transfer coding other than `chunked`.
    UnknownCoding,
    /// A method that no resource of ours implements.
    UnknownMethod,
    /// A version other than 1.0 and 1.1.
    Version,
}

impl Refusal {
    /// Every reason once, for tables of counters; a reason's place in it is [`Refusal::index`].
    pub const ALL: [Self; 13] = [
        Self::BareLineBreak,
        Self::RequestLine,
        Self::FieldLine,
        Self::TargetTooLong,
        Self::HeadTooLarge,
        Self::TooManyFields,
        Self::Host,
        Self::Target,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::UnknownCoding,
        Self::UnknownMethod,
        Self::Version,
    ];

    /// The status code of the answer: 400, 414, 431, 501 or 505.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::UnknownCoding | Self::UnknownMethod => 501,
            Self::Version => 505,
            _ => 400,
        }
    }

    /// The reason as a metric label and as the `detail` of a problem document.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::BareLineBreak => "bare_line_break",
            Self::RequestLine => "request_line",
            Self::FieldLine => "field_line",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::Host => "host",
            Self::Target => "target",
            Self::ContentLength => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::UnknownCoding => "unknown_coding",
            Self::UnknownMethod => "unknown_method",
            Self::Version => "version",
        }
    }

    /// This reason's place in [`Refusal::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// The method of a request. Methods are case-sensitive (RFC 9110 §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `OPTIONS`
    Options,
    /// `POST`, `PUT`, `PATCH` or `DELETE`: known, and answered with 405 where they are not allowed.
    Other,
}

/// How the bytes after the head are framed (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// The next request follows the head at once.
    None,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks. A caller that does not read them answers and closes.
    Chunked,
}

/// The lines of one list-valued field, in the order in which they came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FieldLines<'a> {
    lines: [&'a [u8]; FIELD_LINES_MAX],
    count: usize,
}

impl<'a> FieldLines<'a> {
    /// The lines, whitespace trimmed; together they are one comma-separated list (RFC 9110 §5.3).
    #[must_use]
    pub fn lines(&self) -> &[&'a [u8]] {
        &self.lines[..self.count]
    }

    /// Whether the field is absent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn push(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        *self.lines.get_mut(self.count).ok_or(Refusal::TooManyFields)? = line;
        self.count += 1;
        Ok(())
    }
}

/// A request head, borrowed from the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is to be done.
    pub method: Method,
    /// To what.
    pub target: Target<'a>,
    /// The minor version of HTTP/1: 0 or 1.
    pub minor_version: u8,
    /// Whether the connection stays open after the answer (RFC 9112 §9.3). HTTP/1.0 closes unless it asks.
    pub keep_alive: bool,
    /// What follows the head.
    pub body: Body,
    /// `Expect: 100-continue`, which HTTP/1.0 cannot say (RFC 9110 §10.1.1).
    pub expect_continue: bool,
    /// `Range`; absent too when it or `If-Range` is repeated, because a server may always ignore it (RFC 9110 §14.2).
    pub range: Option<&'a [u8]>,
    /// `If-Range`.
    pub if_range: Option<&'a [u8]>,
    /// `If-Match`.
    pub if_match: FieldLines<'a>,
    /// `If-None-Match`.
    pub if_none_match: FieldLines<'a>,
    /// `If-Modified-Since`; absent when repeated, as any invalid date is ignored (RFC 9110 §13.1.3).
    pub if_modified_since: Option<&'a [u8]>,
    /// `If-Unmodified-Since`; absent when repeated (RFC 9110 §13.1.4).
    pub if_unmodified_since: Option<&'a [u8]>,
    /// Whether `Want-Digest` (RFC 3230) names SHA-256, so that the old `Digest` field is worth its bytes.
    pub want_digest: bool,
    /// `Referer`, for the access log.
    pub referer: Option<&'a [u8]>,
    /// `User-Agent`, for the access log.
    pub user_agent: Option<&'a [u8]>,
}

impl Request<'_> {
    /// Whether it is to be carried out whatever the state of its target (RFC 9110 §13).
    #[must_use]
    pub fn is_unconditional(&self) -> bool {
        self.if_match.is_empty()
            && self.if_none_match.is_empty()
            && self.if_range.is_none()
            && self.if_modified_since.is_none()
            && self.if_unmodified_since.is_none()
    }
}

/// The outcome of [`parse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "boxing the request would allocate for each of them")]
pub enum Parsed<'a> {
    /// The head is not complete: call again with more bytes.
    NeedMore,
    /// A request, whose body or successor begins `head_bytes` into the input.
    Request {
        /// Bytes of the head, empty lines before it included.
        head_bytes: usize,
        /// The request.
        request: Request<'a>,
    },
    /// No request: answer with the status and close, since where the next one begins is unknown.
    Bad(Refusal),
}

/// Parses the request at the start of `bytes`, which may hold several (pipelining) or a part of one.
#[must_use]
pub fn parse<'a>(bytes: &'a [u8], limits: &Limits) -> Parsed<'a> {
    match head_end(bytes, limits) {
        Ok(None) => Parsed::NeedMore,
        Ok(Some((start, end))) => match parse_head(&bytes[start..end], limits) {
            Ok(request) => Parsed::Request { head_bytes: end, request },
            Err(refusal) => Parsed::Bad(refusal),
        },
        Err(refusal) => Parsed::Bad(refusal),
    }
}

/// Finds where the head begins (after empty lines, RFC 9112 §2.2) and ends, checking line breaks and limits.
///
/// What is already wrong is refused before the head is complete, so that a client of another protocol gets its answer
/// at once and not at the timeout.
fn head_end(bytes: &[u8], limits: &Limits) -> Result<Option<(usize, usize)>, Refusal> {
    let window = &bytes[..bytes.len().min(limits.head_bytes_max)];
    let mut start = 0;
    while window[start..].starts_with(b"\r\n") {
        start += 2;
    }
    let head = &window[start..];
    // The start of a TLS handshake or of a BitTorrent one is no method.
    if head.first().is_some_and(|first| !first.is_ascii_uppercase() && !is_break(*first)) {
        return Err(Refusal::RequestLine);
    }
    let mut line_start = 0;
    for line_feed in memchr::memchr_iter(b'\n', head) {
        let line_bytes = line_feed - line_start;
        if line_bytes <= 1 {
            let end = line_feed + 1;
            return check_breaks(&head[..end]).map(|()| Some((start, start + end)));
        }
        check_line(line_start, line_bytes - 1, limits)?;
        line_start = line_feed + 1;
    }
    check_breaks(head)?;
    check_line(line_start, head.len() - line_start, limits)?;
    if window.len() == limits.head_bytes_max {
        return Err(if line_start == 0 { Refusal::TargetTooLong } else { Refusal::HeadTooLarge });
    }
    Ok(None)
}

fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n' | 0)
}

/// Checks that every CR is followed by LF, which comes nowhere else, and that there is no NUL. It looks at every byte, which compilers
/// turn into a look at many at a time.
fn check_breaks(head: &[u8]) -> Result<(), Refusal> {
    let ends_badly = head.first() == Some(&b'\n') || head.last() == Some(&0);
    let pairs = head.iter().zip(head.iter().skip(1));
    let is_bare = pairs
        .fold(ends_badly, |bare, (&byte, &next)| bare | (byte == 0) | ((byte == b'\r') != (next == b'\n')));
    if is_bare { Err(Refusal::BareLineBreak) } else { Ok(()) }
}

fn check_line(line_start: usize, line_bytes: usize, limits: &Limits) -> Result<(), Refusal> {
    match line_bytes > limits.line_bytes_max {
        true if line_start == 0 => Err(Refusal::TargetTooLong),
        true => Err(Refusal::HeadTooLarge),
        false => Ok(()),
    }
}

fn parse_head<'a>(head: &'a [u8], limits: &Limits) -> Result<Request<'a>, Refusal> {
    let mut table = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let headers_max = limits.headers_max.min(HEADERS_MAX);
    let mut raw = httparse::Request::new(&mut []);
    match raw.parse_with_uninit_headers(head, &mut table[..headers_max]) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Refusal::RequestLine),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooManyFields),
        Err(httparse::Error::Version) => return Err(version_refusal(head)),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => return Err(Refusal::FieldLine),
        // The request line is whole when this is about a line break: it cannot be another one's.
        Err(_) => return Err(Refusal::RequestLine),
    }
    let (Some(method), Some(target), Some(minor_version)) = (raw.method, raw.path, raw.version) else {
        return Err(Refusal::RequestLine);
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "OPTIONS" => Method::Options,
        "POST" | "PUT" | "PATCH" | "DELETE" => Method::Other,
        _ => return Err(Refusal::UnknownMethod),
    };
    let target = Target::parse(target, method).map_err(|_| Refusal::Target)?;
    Fields::collect(raw.headers)?.into_request(method, target, minor_version)
}

/// Tells a version that is not ours (505) from something that is no version (400).
fn version_refusal(head: &[u8]) -> Refusal {
    let line = head.split(|&b| b == b'\r').next().unwrap_or_default();
    match line {
        [.., b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit()
                && minor.is_ascii_digit()
                && line.iter().filter(|&&b| b == b' ').count() == 2 =>
        {
            Refusal::Version
        }
        _ => Refusal::RequestLine,
    }
}

/// A field that must not be repeated.
#[derive(Clone, Copy, Default)]
enum Single<'a> {
    #[default]
    Absent,
    One(&'a [u8]),
    Repeated,
}

impl<'a> Single<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::One(value),
            Self::One(_) | Self::Repeated => Self::Repeated,
        };
    }

    fn one(self) -> Option<&'a [u8]> {
        match self {
            Self::One(value) => Some(value),
            Self::Absent | Self::Repeated => None,
        }
    }
}

/// The fields we act upon, as they came.
#[derive(Default)]
struct Fields<'a> {
    host: Single<'a>,
    content_length: Single<'a>,
    transfer_encoding: FieldLines<'a>,
    connection: Connection,
    expect_continue: bool,
    range: Single<'a>,
    if_range: Single<'a>,
    if_match: FieldLines<'a>,
    if_none_match: FieldLines<'a>,
    if_modified_since: Single<'a>,
    if_unmodified_since: Single<'a>,
    want_digest: bool,
    referer: Single<'a>,
    user_agent: Single<'a>,
}

impl<'a> Fields<'a> {
    fn collect(headers: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for header in headers {
            fields.add(header.name, trim_ows(header.value))?;
        }
        Ok(fields)
    }

    fn add(&mut self, name: &str, value: &'a [u8]) -> Result<(), Refusal> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // Names are compared by length first, so that most fields cost one jump and no comparison.
        match name.len() {
            4 if is("host") => self.host.add(value),
            5 if is("range") => self.range.add(value),
            6 if is("expect") => self.expect_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            7 if is("referer") => self.referer.add(value),
            8 if is("if-match") => self.if_match.push(value)?,
            8 if is("if-range") => self.if_range.add(value),
            10 if is("user-agent") => self.user_agent.add(value),
            10 if is("connection") => self.connection.add(value),
            11 if is("want-digest") => self.want_digest |= framing::wants_sha256(value),
            13 if is("if-none-match") => self.if_none_match.push(value)?,
            14 if is("content-length") => self.content_length.add(value),
            17 if is("transfer-encoding") => self.transfer_encoding.push(value)?,
            17 if is("if-modified-since") => self.if_modified_since.add(value),
            19 if is("if-unmodified-since") => self.if_unmodified_since.add(value),
            _ => {}
        }
        Ok(())
    }

    fn into_request(
        self,
        method: Method,
        target: Target<'a>,
        minor_version: u8,
    ) -> Result<Request<'a>, Refusal> {
        match self.host {
            Single::One(host) if framing::is_host(host) => {}
            Single::Absent if minor_version == 0 => {}
            _ => return Err(Refusal::Host),
        }
        let body = self.body(minor_version)?;
        // A repeated If-Range cannot be said to hold, and then Range is ignored.
        let range = if matches!(self.if_range, Single::Repeated) { None } else { self.range.one() };
        Ok(Request {
            method,
            target,
            minor_version,
            keep_alive: self.connection.keep_alive(minor_version),
            body,
            expect_continue: self.expect_continue && minor_version == 1,
            range,
            if_range: self.if_range.one(),
            if_match: self.if_match,
            if_none_match: self.if_none_match,
            if_modified_since: self.if_modified_since.one(),
            if_unmodified_since: self.if_unmodified_since.one(),
            want_digest: self.want_digest,
            referer: self.referer.one(),
            user_agent: self.user_agent.one(),
        })
    }

    /// RFC 9112 §6.3, where it lets a server choose between repairing and refusing: refusing.
    fn body(&self, minor_version: u8) -> Result<Body, Refusal> {
        match (self.transfer_encoding.is_empty(), self.content_length) {
            (true, Single::Absent) => Ok(Body::None),
            // Equal repeated lengths may be refused as well (RFC 9112 §6.3): no client of ours sends them.
            (true, Single::Repeated) => Err(Refusal::ContentLength),
            (true, Single::One(value)) => match parse_decimal(value) {
                Some(0) => Ok(Body::None),
                Some(length) => Ok(Body::Length(length)),
                None => Err(Refusal::ContentLength),
            },
            (false, Single::Absent) if minor_version == 1 => framing::chunked(self.transfer_encoding.lines()),
            (false, _) => Err(Refusal::TransferEncoding),
        }
    }
}
