//! Response heads, written into a fixed buffer of the caller without allocation (RFC 9112 §4, RFC 9110).
//!
//! Values cannot break out of their line: control bytes are written as spaces. A head that does not fit is an error
//! when it is finished, never a truncated head.

use std::fmt::{self, Write as _};

use data_encoding::BASE64;

use super::date::HttpDate;
use super::range::ByteRange;
use super::target::encode_segment;

/// The buffer is too small for the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response head does not fit its buffer")]
pub struct HeadTooLong;

/// Writes one response head. Begin with [`HeadWriter::new`], end with [`HeadWriter::finish`].
#[derive(Debug)]
pub struct HeadWriter<'b> {
    out: Cursor<'b>,
}

/// Whether a browser shows a file or saves it (RFC 6266 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Shown where possible.
    Inline,
    /// Saved.
    Attachment,
}

impl<'b> HeadWriter<'b> {
    /// Writes the status line, `Date` and `Server`.
    #[must_use]
    pub fn new(buffer: &'b mut [u8], status: u16, date: &HttpDate) -> Self {
        let mut out = Cursor { buffer, length: 0, overflow: false };
        out.put(b"HTTP/1.1 ");
        out.number(u64::from(status));
        out.put(b" ");
        out.put(reason_phrase(status).as_bytes());
        out.put(b"\r\nDate: ");
        out.put(date.as_bytes());
        out.put(b"\r\nServer: millrace\r\n");
        Self { out }
    }

    /// Writes field lines alone, to be kept and copied into heads by [`HeadWriter::prepared`]. End with [`HeadWriter::finish_lines`].
    #[must_use]
    pub fn lines(buffer: &'b mut [u8]) -> Self {
        Self { out: Cursor { buffer, length: 0, overflow: false } }
    }

    /// Writes a field whose name is ours.
    pub fn field(&mut self, name: &str, value: impl fmt::Display) -> &mut Self {
        self.out.put(name.as_bytes());
        self.out.put(b": ");
        self.out.value(|out| out.format(format_args!("{value}")));
        self.out.put(b"\r\n");
        self
    }

    /// Copies complete field lines, each with its CRLF, such as `Link` fields prepared when a content was added.
    pub fn prepared(&mut self, lines: &[u8]) -> &mut Self {
        debug_assert!(lines.is_empty() || lines.ends_with(b"\r\n"));
        self.out.put(lines);
        self
    }

    /// `Content-Length`: bytes of the body, or for `HEAD` and 304 what the body of a `GET` would have.
    pub fn content_length(&mut self, bytes: u64) -> &mut Self {
        self.out.put(b"Content-Length: ");
        self.out.number(bytes);
        self.out.put(b"\r\n");
        self
    }

    /// `Transfer-Encoding: chunked`, for content whose length is not known.
    pub fn chunked(&mut self) -> &mut Self {
        self.line("Transfer-Encoding: chunked\r\n")
    }

    /// `Content-Range` of a single 206 (RFC 9110 §14.4).
    pub fn content_range(&mut self, range: ByteRange, length: u64) -> &mut Self {
        self.out.put(b"Content-Range: ");
        self.out.content_range(range, length);
        self.out.put(b"\r\n");
        self
    }

    /// `Content-Range` of a 416: `bytes */length`.
    pub fn content_range_unsatisfied(&mut self, length: u64) -> &mut Self {
        self.field("Content-Range", format_args!("bytes */{length}"))
    }

    /// `Accept-Ranges: bytes` (RFC 9110 §14.3), or `none` while the length is unknown.
    pub fn accept_ranges(&mut self, accepted: bool) -> &mut Self {
        self.line(if accepted { "Accept-Ranges: bytes\r\n" } else { "Accept-Ranges: none\r\n" })
    }

    /// `ETag`, quotes included (RFC 9110 §8.8.3).
    pub fn etag(&mut self, etag: &[u8]) -> &mut Self {
        self.out.put(b"ETag: ");
        self.out.put(etag);
        self.out.put(b"\r\n");
        self
    }

    /// `Last-Modified`. Format the date when the content is opened, not for each answer.
    pub fn last_modified(&mut self, date: &HttpDate) -> &mut Self {
        self.out.put(b"Last-Modified: ");
        self.out.put(date.as_bytes());
        self.out.put(b"\r\n");
        self
    }

    /// `Content-Type`, which is ours, with `nosniff` because browsers otherwise guess (WHATWG Fetch §3.6).
    pub fn content_type(&mut self, media_type: &str) -> &mut Self {
        self.out.put(b"Content-Type: ");
        self.out.put(media_type.as_bytes());
        self.line("\r\nX-Content-Type-Options: nosniff\r\n")
    }

    /// `Content-Disposition`: an ASCII name for all, and `filename*` where that loses something (RFC 6266, RFC 8187).
    pub fn content_disposition(&mut self, disposition: Disposition, name: &str) -> &mut Self {
        let kind = match disposition {
            Disposition::Inline => "inline",
            Disposition::Attachment => "attachment",
        };
        self.out.format(format_args!("Content-Disposition: {kind}; filename=\""));
        // Backslash and percent are left out as well: browsers disagree on unescaping them (RFC 6266 appendix D).
        let is_plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\' | '%');
        for c in name.chars() {
            let mut utf8 = [0; 4];
            self.out.put(if is_plain(c) { c.encode_utf8(&mut utf8).as_bytes() } else { b"_" });
        }
        self.out.put(b"\"");
        if !name.chars().all(is_plain) {
            // The unreserved characters of a URI are a subset of attr-char (RFC 8187 §3.2.1).
            self.out.format(format_args!("; filename*=UTF-8''{}", encode_segment(name)));
        }
        self.out.put(b"\r\n");
        self
    }

    /// `Repr-Digest` of the whole file (RFC 9530 §3); it is the same on 200, 206 and `HEAD`.
    pub fn repr_digest(&mut self, sha256: &[u8; 32]) -> &mut Self {
        self.digest_field(b"Repr-Digest: sha-256=:", sha256, b":\r\n")
    }

    /// The older `Digest` (RFC 3230), for requests with `want_digest`: aria2 asks for it and verifies by it.
    pub fn digest(&mut self, sha256: &[u8; 32]) -> &mut Self {
        self.digest_field(b"Digest: SHA-256=", sha256, b"\r\n")
    }

    fn digest_field(&mut self, before: &[u8], sha256: &[u8; 32], after: &[u8]) -> &mut Self {
        let mut base64 = [0; 44];
        BASE64.encode_mut(sha256, &mut base64);
        for bytes in [before, &base64, after] {
            self.out.put(bytes);
        }
        self
    }

    /// `Retry-After` in seconds (RFC 9110 §10.2.3).
    pub fn retry_after(&mut self, seconds: u32) -> &mut Self {
        self.field("Retry-After", seconds)
    }

    /// `Connection`, where the default of the request's version would say something else (RFC 9112 §9.3).
    pub fn connection(&mut self, keep_alive: bool, minor_version: u8) -> &mut Self {
        match (keep_alive, minor_version) {
            (false, _) => self.line("Connection: close\r\n"),
            (true, 0) => self.line("Connection: keep-alive\r\n"),
            (true, _) => self,
        }
    }

    /// Lets pages of any site read the answer and the fields that a downloader needs (WHATWG Fetch §3.3).
    pub fn cors(&mut self) -> &mut Self {
        self.line(concat!(
            "Access-Control-Allow-Origin: *\r\n",
            "Access-Control-Expose-Headers: Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ",
            "ETag, Link, Repr-Digest, Retry-After\r\n",
        ))
    }

    /// The answer to a preflight: reading methods, and the fields of ranges and conditions, for a day.
    pub fn cors_preflight(&mut self) -> &mut Self {
        self.field("Access-Control-Allow-Origin", "*")
            .field("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
            .field(
                "Access-Control-Allow-Headers",
                "Range, If-Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since",
            )
            .field("Access-Control-Max-Age", 86_400)
    }

    /// `Cache-Control` (RFC 9111 §5.2), such as `public, max-age=31536000, immutable`.
    pub fn cache_control(&mut self, directives: &str) -> &mut Self {
        self.field("Cache-Control", directives)
    }

    /// Writes whole lines of ours.
    fn line(&mut self, line: &str) -> &mut Self {
        self.out.put(line.as_bytes());
        self
    }

    /// Ends the head and tells its length in bytes.
    ///
    /// # Errors
    /// [`HeadTooLong`] when the buffer could not hold it; what it holds is then not to be sent.
    pub fn finish(mut self) -> Result<usize, HeadTooLong> {
        self.out.put(b"\r\n");
        self.finish_lines()
    }

    /// Ends what [`HeadWriter::lines`] began, and tells its length in bytes.
    ///
    /// # Errors
    /// As [`HeadWriter::finish`].
    pub fn finish_lines(self) -> Result<usize, HeadTooLong> {
        if self.out.overflow { Err(HeadTooLong) } else { Ok(self.out.length) }
    }
}

/// A write position in a fixed buffer that remembers when something did not fit.
#[derive(Debug)]
pub(super) struct Cursor<'b> {
    pub(super) buffer: &'b mut [u8],
    pub(super) length: usize,
    pub(super) overflow: bool,
}

impl Cursor<'_> {
    pub(super) fn put(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.length..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(place) if !self.overflow => {
                place.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            _ => self.overflow = true,
        }
    }

    /// Writes a number in decimal. `write!` would cost as much as the rest of a head.
    pub(super) fn number(&mut self, number: u64) {
        self.put(itoa::Buffer::new().format(number).as_bytes());
    }

    /// Writes the value of `Content-Range`, whose last position is inclusive (RFC 9110 §14.4).
    pub(super) fn content_range(&mut self, range: ByteRange, length: u64) {
        self.put(b"bytes ");
        self.number(range.start);
        self.put(b"-");
        self.number(range.end.saturating_sub(1));
        self.put(b"/");
        self.number(length);
    }

    /// Writes text of ours, line breaks included.
    pub(super) fn format(&mut self, arguments: fmt::Arguments<'_>) {
        // Writing never fails: overflow is remembered.
        let _ = self.write_fmt(arguments);
    }

    /// Writes a field value, whose control bytes become spaces so that it cannot end its line (RFC 9110 §5.5).
    fn value(&mut self, write: impl FnOnce(&mut Self)) {
        let start = self.length;
        write(self);
        for byte in &mut self.buffer[start..self.length] {
            *byte = if byte.is_ascii_control() { b' ' } else { *byte };
        }
    }
}

impl fmt::Write for Cursor<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

/// The reason phrase of the statuses that a relay answers with; empty for others, which RFC 9112 §4 allows.
#[must_use]
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(write: impl FnOnce(&mut HeadWriter<'_>), expected: &str) {
        let mut buffer = [0; 1024];
        let mut head = HeadWriter::new(&mut buffer, 206, &HttpDate::from_unix(784_111_777));
        write(&mut head);
        let length = head.finish().expect("fits");
        let text = std::str::from_utf8(&buffer[..length]).expect("text");
        let start =
            "HTTP/1.1 206 Partial Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: millrace\r\n";
        assert_eq!(text, format!("{start}{expected}\r\n"));
    }

    #[test]
    fn fields_are_written_as_the_standards_spell_them() {
        check(
            |head| {
                head.content_length(5).content_range(ByteRange { start: 0, end: 5 }, 10).etag(b"\"v\"");
                head.last_modified(&HttpDate::from_unix(0)).accept_ranges(true).retry_after(3);
            },
            "Content-Length: 5\r\nContent-Range: bytes 0-4/10\r\nETag: \"v\"\r\n\
             Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nAccept-Ranges: bytes\r\nRetry-After: 3\r\n",
        );
        check(
            |head| {
                head.content_range_unsatisfied(10).repr_digest(&[0; 32]).digest(&[0xff; 32]);
            },
            "Content-Range: bytes */10\r\nRepr-Digest: sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\r\n\
             Digest: SHA-256=//////////////////////////////////////////8=\r\n",
        );
    }

    #[test]
    fn connection_is_said_only_where_it_is_not_the_default() {
        check(|head| _ = head.connection(true, 1), "");
        check(|head| _ = head.connection(true, 0), "Connection: keep-alive\r\n");
        check(|head| _ = head.connection(false, 1), "Connection: close\r\n");
    }

    #[test]
    fn names_keep_to_their_quotes() {
        let check_name = |name: &str, expected: &str| {
            let expected = format!("Content-Disposition: attachment; filename={expected}\r\n");
            check(|head| _ = head.content_disposition(Disposition::Attachment, name), &expected);
        };
        check_name("a b.iso", "\"a b.iso\"");
        check_name("ä.iso", "\"_.iso\"; filename*=UTF-8''%C3%A4.iso");
        check_name("a\"\r\nX: y", "\"a___X: y\"; filename*=UTF-8''a%22%0D%0AX%3A%20y");
    }

    #[test]
    fn values_cannot_end_their_line() {
        check(|head| _ = head.field("Location", "/a\r\nSet-Cookie: b"), "Location: /a  Set-Cookie: b\r\n");
    }

    #[test]
    fn a_head_that_does_not_fit_is_an_error_at_every_length() {
        let date = HttpDate::from_unix(0);
        let write = |buffer: &mut [u8]| {
            let mut head = HeadWriter::new(buffer, 200, &date);
            head.content_length(12).content_disposition(Disposition::Inline, "ä").cors();
            head.finish()
        };
        let length = write(&mut [0; 1024]).expect("fits");
        for short in 0..length {
            assert_eq!(write(&mut vec![0; short]), Err(HeadTooLong), "{short}");
        }
        assert_eq!(write(&mut vec![0; length]), Ok(length));
    }
}
