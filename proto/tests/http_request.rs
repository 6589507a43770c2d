//! Request heads, accepted and refused, and the corpora of both parsers replayed: nothing that arrives may panic, and a
//! head that comes in pieces must read as it does whole.

use millrace_proto::http::range;
use millrace_proto::http::request::{Body, Limits, Method, Parsed, Refusal, Request, parse};
use millrace_proto::http::target::Target;
use proptest::prelude::*;

fn accept(head: &str) -> Request<'_> {
    match parse(head.as_bytes(), &Limits::default()) {
        Parsed::Request { head_bytes, request } => {
            assert_eq!(head_bytes, head.len(), "{head:?}");
            request
        }
        other => panic!("{head:?} is {other:?}"),
    }
}

/// Expects the fields, put after the request line and `Host`, to be refused.
fn refuse(fields: &str, refusal: Refusal) {
    refuse_head(&format!("GET / HTTP/1.1\r\nHost: relay\r\n{fields}\r\n\r\n"), refusal);
}

fn refuse_head(head: &str, refusal: Refusal) {
    assert_eq!(parse(head.as_bytes(), &Limits::default()), Parsed::Bad(refusal), "{head:?}");
}

#[test]
fn a_request_is_read_and_its_successor_left() {
    let first = "\r\nGET /c/x?a=b HTTP/1.1\r\nhost: relay:8080\r\nRANGE:\t bytes=0-1 \r\n\r\n";
    let both = format!("{first}GET / HTTP/1.1\r\n");
    let Parsed::Request { head_bytes, request } = parse(both.as_bytes(), &Limits::default()) else {
        panic!("no request");
    };
    assert_eq!(head_bytes, first.len());
    assert_eq!(request.range, Some(&b"bytes=0-1"[..]));
    assert_eq!((request.method, request.body, request.keep_alive), (Method::Get, Body::None, true));
    let Target::Resource { path, query } = request.target else { panic!("no resource") };
    assert!(path.matches(&["c", "x"]) && query == Some("a=b"));
    assert_eq!(parse(&both.as_bytes()[head_bytes..], &Limits::default()), Parsed::NeedMore);
}

#[test]
fn connections_persist_as_the_version_says() {
    let check = |version: &str, fields: &str, expected: bool| {
        let head = format!("GET / HTTP/{version}\r\nHost: relay\r\n{fields}\r\n");
        assert_eq!(accept(&head).keep_alive, expected, "{head:?}");
    };
    check("1.1", "", true);
    check("1.1", "Connection: te, Close\r\n", false);
    check("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false);
    check("1.0", "", false);
    check("1.0", "Connection: Keep-Alive\r\n", true);
    check("1.0", "Connection: keep-alive, close\r\n", false);
}

#[test]
fn hosts_are_asked_for_once() {
    refuse_head("GET / HTTP/1.1\r\n\r\n", Refusal::Host);
    refuse("Host: relay", Refusal::Host);
    for host in ["a b", "a/b", "user@a", "a\u{e4}", "a,b/"] {
        refuse_head(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), Refusal::Host);
    }
    accept("GET / HTTP/1.0\r\n\r\n");
    accept("GET / HTTP/1.1\r\nHost:\r\n\r\n");
    accept("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n");
    refuse_head("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Refusal::Host);
}

#[test]
fn ambiguous_framing_is_refused() {
    refuse("Content-Length: 1\r\nContent-Length: 2", Refusal::ContentLength);
    refuse("Content-Length: 1\r\nContent-Length: 1", Refusal::ContentLength);
    refuse("Content-Length: 1, 1", Refusal::ContentLength);
    refuse("Content-Length: +1", Refusal::ContentLength);
    refuse("Content-Length: 0x1", Refusal::ContentLength);
    refuse("Content-Length:", Refusal::ContentLength);
    refuse("Content-Length: 18446744073709551616", Refusal::ContentLength);
    refuse("Content-Length: 1\r\nTransfer-Encoding: chunked", Refusal::TransferEncoding);
    refuse("Transfer-Encoding: chunked\r\nContent-Length: 0", Refusal::TransferEncoding);
    refuse("Transfer-Encoding: chunked, chunked", Refusal::TransferEncoding);
    refuse("Transfer-Encoding: xchunked", Refusal::TransferEncoding);
    refuse("Transfer-Encoding: gzip, chunked", Refusal::UnknownCoding);
    refuse_head("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::TransferEncoding);
}

#[test]
fn bodies_are_announced() {
    let check = |fields: &str, expected: Body| {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\nExpect: 100-Continue\r\n\r\n");
        let request = accept(&head);
        assert_eq!((request.body, request.expect_continue), (expected, true));
    };
    check("Content-Length: 0", Body::None);
    check("Content-Length: 18446744073709551615", Body::Length(u64::MAX));
    check("Transfer-Encoding: Chunked", Body::Chunked);
    let old = "POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    assert!(!accept(old).expect_continue);
}

#[test]
fn line_breaks_and_field_lines_are_strict() {
    refuse("A: b\nC: d", Refusal::BareLineBreak);
    refuse("A: b\rC: d", Refusal::BareLineBreak);
    refuse("A: b\0", Refusal::BareLineBreak);
    refuse_head("GET / HTTP/1.1\nHost: a\n\n", Refusal::BareLineBreak);
    refuse("A : b", Refusal::FieldLine);
    refuse("A: b\r\n c", Refusal::FieldLine);
    refuse("A: b\r\n\tc", Refusal::FieldLine);
    refuse("A", Refusal::FieldLine);
    refuse(": b", Refusal::FieldLine);
    refuse("A: \u{1}", Refusal::FieldLine);
    refuse_head("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refusal::FieldLine);
}

#[test]
fn request_lines_are_strict() {
    for line in
        ["GET  / HTTP/1.1", "GET / HTTP/1.1 ", "GET /", "GET /a b HTTP/1.1", "GET / http/1.1", "GET / HTTP/1"]
    {
        refuse_head(&format!("{line}\r\nHost: a\r\n\r\n"), Refusal::RequestLine);
    }
    refuse_head("\x16\x03\x01\x02", Refusal::RequestLine);
    refuse_head("\x13BitTorrent protocol", Refusal::RequestLine);
    refuse_head("PRI * HTTP/2.0\r\n\r\n", Refusal::Version);
    refuse_head("GET / HTTP/1.2\r\n\r\n", Refusal::Version);
    refuse_head("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::UnknownMethod);
    refuse_head("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", Refusal::UnknownMethod);
    refuse_head("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Target);
    refuse_head("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Target);
    assert_eq!(accept("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target, Target::Server);
    accept("GET http://relay/c/x HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn limits_hold_to_the_byte() {
    let limits = Limits { line_bytes_max: 40, head_bytes_max: 100, headers_max: 3 };
    let check = |head: String, expected: Option<Refusal>| match (parse(head.as_bytes(), &limits), expected) {
        (Parsed::Bad(refusal), Some(expected)) => assert_eq!(refusal, expected, "{head:?}"),
        (Parsed::Request { .. }, None) => {}
        (other, _) => panic!("{head:?} is {other:?}"),
    };
    let line = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n", "x".repeat(bytes - 14));
    check(format!("{}\r\n", line(40)), None);
    check(format!("{}\r\n", line(41)), Some(Refusal::TargetTooLong));
    check(format!("GET /{}", "x".repeat(36)), Some(Refusal::TargetTooLong));
    check(format!("{}A: {}\r\n\r\n", line(20), "x".repeat(37)), None);
    check(format!("{}A: {}\r\n\r\n", line(20), "x".repeat(38)), Some(Refusal::HeadTooLarge));
    check(format!("{}A:\r\nB:\r\n\r\n", line(20)), None);
    check(format!("{}A:\r\nB:\r\nC:\r\n\r\n", line(20)), Some(Refusal::TooManyFields));
    let full = format!("{}A: {}\r\nB: {}\r\n\r\n", line(20), "x".repeat(30), "x".repeat(27));
    assert_eq!(full.len(), 100);
    check(full, None);
    check(
        format!("{}A: {}\r\nB: {}\r\n\r\n", line(20), "x".repeat(30), "x".repeat(28)),
        Some(Refusal::HeadTooLarge),
    );
    check("\r\n".repeat(60), Some(Refusal::TargetTooLong));
    let repeated = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "If-Match: \"a\"\r\n".repeat(5));
    refuse_head(&repeated, Refusal::TooManyFields);
}

#[test]
fn refusals_are_counted_in_their_place() {
    for (place, refusal) in Refusal::ALL.iter().enumerate() {
        assert_eq!(refusal.index(), place);
        assert!(matches!(refusal.status(), 400 | 414 | 431 | 501 | 505));
    }
}

/// However the bytes are cut, the answer is the one to all of them, and it never changes back.
fn check_prefixes(bytes: &[u8]) {
    let limits = Limits::default();
    let whole = parse(bytes, &limits);
    for cut in 0..bytes.len() {
        match (parse(&bytes[..cut], &limits), whole) {
            (Parsed::NeedMore, _) => {}
            (prefix, whole) => {
                assert_eq!(prefix, whole, "cut at {cut} of {:?}", bytes.escape_ascii().to_string())
            }
        }
    }
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = format!("{}/tests/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(folder).expect("the corpus");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let files: Vec<_> =
        paths.map(|path| (path.display().to_string(), std::fs::read(&path).expect("a file"))).collect();
    assert!(!files.is_empty());
    files
}

/// Files named `ok-*` are requests, `NNN-*` are refused with that status.
#[test]
fn the_request_corpus_is_answered_as_named() {
    for (path, bytes) in corpus("http") {
        let name = path.rsplit('/').next().unwrap_or_default();
        match parse(&bytes, &Limits::default()) {
            Parsed::Request { .. } => assert!(name.starts_with("ok-"), "{name} is accepted"),
            Parsed::Bad(refusal) => {
                assert!(name.starts_with(&refusal.status().to_string()), "{name}: {refusal:?}");
            }
            Parsed::NeedMore => assert!(name.starts_with("more-"), "{name} is incomplete"),
        }
        check_prefixes(&bytes);
    }
}

/// Files named `whole-*`, `partial-*` and `unsatisfiable-*` for a file of 1000 bytes.
#[test]
fn the_range_corpus_is_answered_as_named() {
    for (path, bytes) in corpus("range") {
        let expected = match range::select(&bytes, 1000) {
            range::Ranges::Whole => "/whole-",
            range::Ranges::Single(_) | range::Ranges::Several(_) => "/partial-",
            range::Ranges::Unsatisfiable => "/unsatisfiable-",
        };
        assert!(path.contains(expected), "{path} is {expected}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_prefixes(&bytes);
    }

    #[test]
    fn mutated_requests_do_not_panic(
        at in 0usize..90,
        byte: u8,
        insert: bool,
    ) {
        let mut bytes =
            b"GET /c/x%20?q HTTP/1.1\r\nHost: relay\r\nRange: bytes=0-1\r\nContent-Length: 12\r\n\r\n".to_vec();
        let at = at.min(bytes.len() - 1);
        if insert { bytes.insert(at, byte) } else { bytes[at] = byte };
        check_prefixes(&bytes);
    }
}
