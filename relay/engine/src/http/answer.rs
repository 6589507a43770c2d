//! The heads of answers: which status, which fields, and what follows.

use std::fmt::Write as _;

use millrace_pagecache::content::{Content, State};
use millrace_proto::http::conditional::{self, Outcome, Validators};
use millrace_proto::http::multipart::Boundary;
use millrace_proto::http::problem;
use millrace_proto::http::range::{self, ByteRange, Ranges};
use millrace_proto::http::request::{Method, Refusal, Request};
use millrace_proto::http::response::HeadWriter;
use millrace_proto::http::target::encode_segment;

use crate::event::Document;
use crate::op::Question;
use crate::session::{Context, End};

use super::body::{Body, Parts};
use super::file_fields::FileFields;
use super::route::Place;

/// Room for a head. The longest holds a redirect to a name of 255 bytes, each escaped.
pub(super) const HEAD_BYTES: usize = 4096;

/// Seconds after which a client should ask again for a paused content.
const PAUSED_RETRY_S: u32 = 30;

/// How an answer is to be given: all that counts of a request once it is known what to answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) keep_alive: bool,
    minor_version: u8,
    want_digest: bool,
}

impl Manner {
    pub(super) fn of(request: &Request<'_>) -> Self {
        let Request { keep_alive, minor_version, want_digest, .. } = *request;
        Manner { keep_alive, minor_version, want_digest }
    }
}

/// What became of a request.
pub(super) enum Reply {
    /// The whole answer is in the output.
    Whole,
    /// The head is in the output; the body follows.
    Body(Body),
    /// The answer begins with bytes that are on their way.
    Wait(Option<Place>),
    /// The control thread answers.
    Ask(Box<Question>),
}

/// Queues a head, and an answer without body is whole. `write` adds the fields.
fn head(cx: &mut Context<'_>, manner: Option<Manner>, status: u16, write: impl FnOnce(&mut HeadWriter<'_>)) {
    let mut buffer = std::mem::take(&mut cx.shared.head);
    buffer.resize(HEAD_BYTES, 0);
    let mut writer = HeadWriter::new(&mut buffer, status, cx.shared.date(cx.now));
    write(&mut writer);
    writer.cors();
    let keep_alive = manner.is_some_and(|manner| manner.keep_alive) && !cx.shared.draining;
    writer.connection(keep_alive, manner.map_or(1, |manner| manner.minor_version));
    let class = usize::from(status / 100);
    cx.shared.counters.responses[class.min(5)].increment();
    match writer.finish() {
        Ok(bytes) => cx.output.push_bytes(&buffer[..bytes]),
        // Only a field longer than the buffer leads here; the client is told, not cut off.
        Err(_) => cx.output.push_bytes(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"),
    }
    cx.shared.head = buffer;
}

/// A problem document (RFC 9457).
pub(super) fn problem(
    cx: &mut Context<'_>,
    request: &Request<'_>,
    status: u16,
    detail: &str,
    retry_after_s: Option<u32>,
) -> Reply {
    problem_with(cx, Some(request), status, detail, |head| {
        if let Some(seconds) = retry_after_s {
            head.retry_after(seconds);
        }
    });
    Reply::Whole
}

fn problem_with(
    cx: &mut Context<'_>,
    request: Option<&Request<'_>>,
    status: u16,
    detail: &str,
    fields: impl FnOnce(&mut HeadWriter<'_>),
) {
    let mut body = [0; 512];
    let bytes = problem::write(&mut body, status, detail).unwrap_or(0);
    head(cx, request.map(Manner::of), status, |head| {
        head.content_type(problem::MEDIA_TYPE).content_length(bytes as u64).cache_control("no-store");
        fields(head);
    });
    if request.is_none_or(|request| request.method != Method::Head) {
        cx.output.push_bytes(&body[..bytes]);
    }
}

/// A head that could not be read as a request.
pub(super) fn refusal(cx: &mut Context<'_>, refusal: Refusal) {
    problem_with(cx, None, refusal.status(), refusal.reason(), |_| {});
}

pub(super) fn options(cx: &mut Context<'_>, request: &Request<'_>) -> Reply {
    head(cx, Some(Manner::of(request)), 204, |head| {
        head.field("Allow", "GET, HEAD, OPTIONS").cors_preflight();
    });
    Reply::Whole
}

pub(super) fn method_not_allowed(cx: &mut Context<'_>, request: &Request<'_>) -> Reply {
    let detail = "Contents are read with GET and HEAD; they are added through the admin socket.";
    problem_with(cx, Some(request), 405, detail, |head| {
        head.field("Allow", "GET, HEAD, OPTIONS");
    });
    Reply::Whole
}

/// A document that the control thread made.
#[expect(clippy::unnecessary_wraps, reason = "all ways to answer a request look the same to the session")]
pub(super) fn document(
    cx: &mut Context<'_>,
    request: &Request<'_>,
    document: &Document,
) -> Result<Reply, End> {
    head(cx, Some(Manner::of(request)), document.status, |head| {
        head.content_type(document.content_type).content_length(document.body.len() as u64);
        for (name, value) in &document.fields {
            head.field(name, value);
        }
    });
    if request.method != Method::Head {
        cx.output.push_shared(&document.body);
    }
    Ok(Reply::Whole)
}

/// `/c/{id}` of a single file leads to the file.
/// One that was signed for all that is below takes its
/// signature along.
pub(super) fn to_single_file(
    cx: &mut Context<'_>,
    request: &Request<'_>,
    content: &Content,
    signed: Option<&str>,
) -> Reply {
    let mut location = format!("/c/{}", content.id());
    for segment in &content.layout().files()[0].path {
        // Writing to a String cannot fail.
        let _ = write!(location, "/{}", encode_segment(segment));
    }
    if let Some(query) = signed {
        let _ = write!(location, "?{query}");
    }
    head(cx, Some(Manner::of(request)), 302, |head| {
        head.field("Location", location).content_length(0);
    });
    Reply::Whole
}

/// Bytes of a file: conditions first, then the range, then the head (RFC 9110 §13.2.2).
pub(super) fn file(cx: &mut Context<'_>, request: &Request<'_>, place: Place) -> Result<Reply, End> {
    let content = &place.content;
    match content.state() {
        State::Paused => {
            let detail = "This content is paused by the operator.";
            return Ok(problem(cx, request, 503, detail, Some(PAUSED_RETRY_S)));
        }
        State::Removed => return Ok(problem(cx, request, 404, "This content was removed.", None)),
        State::Queued | State::Pulling | State::Complete | State::Failed => {}
    }
    let fields = cx.shared.prepared.of(&place);
    let validators = Validators { etag: fields.etag.as_bytes(), last_modified: content.last_modified() };
    match conditional::evaluate(request, &validators) {
        Outcome::NotModified => {
            file_head(cx, Manner::of(request), content, 304, &fields, |_| {});
            Ok(Reply::Whole)
        }
        Outcome::PreconditionFailed => {
            Ok(problem(cx, request, 412, "The file is not the one that the conditions name.", None))
        }
        Outcome::Proceed { use_range } => match content.layout().file(place.file) {
            // It ends where it ends, also for those who ask between its end and its settling.
            _ if content.is_growing() => growing(cx, request, place, &fields),
            Some(span) => {
                let (base, length) = (span.offset, span.length);
                let wanted = request.range.filter(|_| use_range);
                let ranges = wanted.map_or(Ranges::Whole, |value| range::select(value, length));
                sized(cx, request, place, &fields, Sized { base, length, ranges })
            }
            None => Ok(problem(cx, request, 404, "No file of this name is here.", None)),
        },
    }
}

/// What is asked of a file whose length is known.
struct Sized {
    /// Where the file begins in the content.
    base: u64,
    length: u64,
    ranges: Ranges,
}

fn sized(
    cx: &mut Context<'_>,
    request: &Request<'_>,
    place: Place,
    fields: &FileFields,
    Sized { base, length, ranges }: Sized,
) -> Result<Reply, End> {
    let whole = ByteRange { start: 0, end: length };
    let (status, parts) = match ranges {
        Ranges::Unsatisfiable => {
            problem_with(cx, Some(request), 416, "The file ends before the first byte asked for.", |head| {
                head.content_range_unsatisfied(length).accept_ranges(true);
            });
            return Ok(Reply::Whole);
        }
        Ranges::Whole => (200, Parts::single(whole)),
        Ranges::Single(range) => (206, Parts::single(range)),
        Ranges::Several(set) => {
            let bits = u128::from(cx.shared.random.next()) << 64 | u128::from(cx.shared.random.next());
            (206, Parts::multi(set, length, fields.media_type, Boundary::from_random(bits)))
        }
    };
    let body = Body::new(place, base, parts);
    if request.method == Method::Get
        && let Some(reply) = wait_for_first_byte(cx, request, &body)
    {
        return Ok(reply);
    }
    sized_head(cx, Manner::of(request), status, fields, &body, length);
    Ok(begin(cx, request, body))
}

/// The head of an answer with bytes of a file of `length`: 200 with all of them, or 206.
pub(super) fn sized_head(
    cx: &mut Context<'_>,
    manner: Manner,
    status: u16,
    fields: &FileFields,
    body: &Body,
    length: u64,
) {
    file_head(cx, manner, body.content(), status, fields, |head| {
        head.accept_ranges(true).content_length(body.content_length());
        match body.parts() {
            Parts::Single(range) if status == 206 => {
                head.content_type(fields.media_type).content_range(*range, length);
            }
            Parts::Multi(multi) => {
                head.content_type(&multi.content_type());
            }
            _ => {
                head.content_type(fields.media_type);
            }
        }
    });
}

/// A file whose origin tells no length: whole and chunked, without ranges (RFC 9112 §7.1).
fn growing(
    cx: &mut Context<'_>,
    request: &Request<'_>,
    place: Place,
    fields: &FileFields,
) -> Result<Reply, End> {
    let chunked = request.minor_version > 0;
    // Without chunks only the end of the connection says where the file ends (RFC 9112 §6.3).
    let request = &Request { keep_alive: request.keep_alive && chunked, ..*request };
    let body = Body::new(place, 0, Parts::Growing { chunked });
    if request.method == Method::Get
        && let Some(reply) = wait_for_first_byte(cx, request, &body)
    {
        return Ok(reply);
    }
    file_head(cx, Manner::of(request), body.content(), 200, fields, |head| {
        head.accept_ranges(false).content_type(fields.media_type);
        if chunked {
            head.chunked();
        }
    });
    Ok(begin(cx, request, body))
}

fn begin(cx: &mut Context<'_>, request: &Request<'_>, body: Body) -> Reply {
    if request.method == Method::Head {
        return Reply::Whole;
    }
    cx.output.lease(body.content());
    Reply::Body(body)
}

/// As long as nothing was sent, a failure can still be told by its status. `None` when the answer can begin.
fn wait_for_first_byte(cx: &mut Context<'_>, request: &Request<'_>, body: &Body) -> Option<Reply> {
    let content = body.content();
    let (offset, end) = body.next_bytes()?;
    content.counters().touch(cx.now.unix_s);
    if content.visible_until(offset, end) > offset {
        return None;
    }
    if content.state() == State::Failed {
        let detail = "The origin could not be read; the relay's status and log say why.";
        return Some(problem(cx, request, 502, detail, Some(PAUSED_RETRY_S)));
    }
    if cx.park(content, offset, end) > offset {
        return None;
    }
    cx.shared.counters.parked.increment();
    Some(Reply::Wait(Some(body.place().clone())))
}

/// The head of an answer about a file; `write` adds what this answer alone carries.
fn file_head(
    cx: &mut Context<'_>,
    manner: Manner,
    content: &Content,
    status: u16,
    fields: &FileFields,
    write: impl FnOnce(&mut HeadWriter<'_>),
) {
    let sha256 = content.sha256().filter(|_| manner.want_digest && content.layout().files().len() == 1);
    head(cx, Some(manner), status, |head| {
        head.prepared(&fields.lines);
        if let Some(sha256) = sha256 {
            head.digest(sha256);
        }
        write(head);
    });
}
