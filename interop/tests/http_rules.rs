//! The rules of HTTP that downloads depend on, asked with curl, and with our own client where curl hides the wire.

use std::sync::OnceLock;

use millrace_interop::PATIENCE;
use millrace_interop::clients::curl::{self, Transfer, curl};
use millrace_interop::http::{Connection, End};
use millrace_interop::pattern::Pattern;
use millrace_interop::relay::Relay;
use millrace_interop::scratch::Scratch;
use millrace_interop::torrent::Tree;
use millrace_interop::until;
use millrace_proto::admin::{ContentState, ContentStatus};

const LENGTH: u64 = 3_000_001;

/// A relay with one complete file.
struct Served {
    relay: Relay,
    path: String,
    pattern: Pattern,
    scratch: Scratch,
}

impl Served {
    fn start() -> Option<Self> {
        static SKIPPED: OnceLock<bool> = OnceLock::new();
        if !*SKIPPED.get_or_init(curl::is_installed) {
            return None;
        }
        let scratch = Scratch::new();
        let tree = Tree::file("file.bin", LENGTH, 64 << 10);
        let import = scratch.folder("import");
        tree.write(&import);
        let relay = Relay::start(&scratch, &[]);
        let content = relay.add(&[&import.join("file.bin").display().to_string()]);
        relay.wait_for(&content.id, ContentState::Complete, PATIENCE);
        // Served before it is hashed: from here on its answers stay the same.
        let known = |status: &ContentStatus| status.sha256.is_some() && status.torrent_url.is_some();
        let content = until("the digest", PATIENCE, || Some(relay.status(&content.id)).filter(known));
        let path = relay.path_of(&content);
        Some(Served { relay, path, pattern: tree.pattern(""), scratch })
    }

    /// curl of the file with more arguments, which must succeed as a transfer.
    #[track_caller]
    fn curl(&self, arguments: &[&str]) -> Transfer {
        let url = self.relay.url(&self.path);
        let transfer = curl(self.scratch.path(), &[arguments, &[url.as_str()]].concat());
        assert_eq!(transfer.exit, 0, "{arguments:?}: {}", transfer.said);
        transfer
    }

    /// A range must answer with these bytes.
    #[track_caller]
    fn check_range(&self, range: &str, start: u64, end: u64) {
        let transfer = self.curl(&["--range", range]);
        assert_eq!(transfer.status, 206, "{range}");
        assert_eq!(
            transfer.field("content-range"),
            Some(&*format!("bytes {start}-{}/{LENGTH}", end - 1)),
            "{range}"
        );
        assert_eq!(transfer.field("content-length"), Some(&*(end - start).to_string()), "{range}");
        assert_eq!(transfer.body.len() as u64, end - start, "{range}");
        assert_eq!(self.pattern.first_wrong(start, &transfer.body), None, "{range}");
    }

    /// A condition must answer with this status, and a body only with 200 and 206.
    #[track_caller]
    fn check_status(&self, arguments: &[&str], status: u16) -> Transfer {
        let transfer = self.curl(arguments);
        assert_eq!(transfer.status, status, "{arguments:?}");
        if status == 304 {
            assert_eq!(transfer.body.len(), 0, "{arguments:?}");
        }
        transfer
    }
}

#[test]
fn get_and_head_say_the_same() {
    let Some(served) = Served::start() else { return };
    let get = served.curl(&[]);
    assert_eq!((get.status, served.pattern.first_wrong(0, &get.body)), (200, None));
    assert_eq!(get.body.len() as u64, LENGTH);
    let head = served.curl(&["--head"]);
    assert_eq!(head.status, 200);
    for name in
        ["content-length", "etag", "last-modified", "accept-ranges", "content-type", "repr-digest", "link"]
    {
        assert_eq!(head.field(name), get.field(name), "{name}");
    }
    assert_eq!(get.field("accept-ranges"), Some("bytes"));
    assert!(get.field("repr-digest").is_some_and(|digest| digest.starts_with("sha-256=:")), "{}", get.heads);
    assert!(get.field("etag").is_some_and(|etag| etag.starts_with('"')), "a strong ETag: {}", get.heads);
    assert!(get.field("last-modified").is_some() && get.field("date").is_some(), "{}", get.heads);
    assert!(get.heads.contains("describedby"), "Link to .torrent and metalink: {}", get.heads);
}

#[test]
fn ranges() {
    let Some(served) = Served::start() else { return };
    served.check_range("0-0", 0, 1);
    served.check_range("0-1048575", 0, 1 << 20);
    served.check_range("65535-65536", 65_535, 65_537);
    served.check_range("2999990-", 2_999_990, LENGTH);
    served.check_range("2999990-99999999999", 2_999_990, LENGTH);
    served.check_range("-5", LENGTH - 5, LENGTH);
    served.check_range("-99999999", 0, LENGTH);
}

#[test]
fn what_lies_past_the_end_is_416() {
    let Some(served) = Served::start() else { return };
    for range in ["3000001-", "3000001-3000002", "18446744073709551615-"] {
        let transfer = served.check_status(&["--range", range], 416);
        assert_eq!(transfer.field("content-range"), Some(&*format!("bytes */{LENGTH}")), "{range}");
    }
    // RFC 9110 §14.2: what is no valid range is as if it were not there.
    served.check_status(&["--header", "Range: bytes=5-4"], 200);
    served.check_status(&["--header", "Range: lines=1-2"], 200);
}

#[test]
fn several_ranges_are_multipart_byteranges() {
    let Some(served) = Served::start() else { return };
    let ranges: [(u64, u64); 3] = [(0, 10), (1_000_000, 1_100_001), (2_999_000, LENGTH)];
    let asked: Vec<String> = ranges.iter().map(|(start, end)| format!("{start}-{}", end - 1)).collect();
    let transfer = served.check_status(&["--range", &asked.join(",")], 206);
    let kind = transfer.field("content-type").expect("a content type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect(kind).trim_matches('"');
    let mut rest = &transfer.body[..];
    for (start, end) in ranges {
        let head_bytes = find(rest, b"\r\n\r\n").expect("the head of a part") + 4;
        let head = String::from_utf8_lossy(&rest[..head_bytes]).into_owned();
        assert!(head.contains(&format!("--{boundary}\r\n")), "{head}");
        assert!(
            head.to_ascii_lowercase()
                .contains(&format!("content-range: bytes {start}-{}/{LENGTH}\r\n", end - 1))
        );
        let count = usize::try_from(end - start).expect("small");
        assert_eq!(served.pattern.first_wrong(start, &rest[head_bytes..head_bytes + count]), None);
        rest = &rest[head_bytes + count..];
    }
    assert_eq!(String::from_utf8_lossy(rest).trim(), format!("--{boundary}--"));
    assert_eq!(transfer.field("content-length"), Some(&*transfer.body.len().to_string()));
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[test]
fn conditions() {
    let Some(served) = Served::start() else { return };
    let head = served.curl(&["--head"]);
    let etag = head.field("etag").expect("an ETag");
    let date = head.field("last-modified").expect("a date");
    let (long_ago, later) = ("Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT");
    let check = |fields: &[String], status| {
        let arguments: Vec<&str> = fields.iter().flat_map(|field| ["--header", field.as_str()]).collect();
        served.check_status(&arguments, status)
    };
    check(&[format!("If-None-Match: {etag}")], 304);
    check(&["If-None-Match: *".into()], 304);
    check(&["If-None-Match: \"other\"".into()], 200);
    check(&[format!("If-Modified-Since: {date}")], 304);
    check(&[format!("If-Modified-Since: {long_ago}")], 200);
    // RFC 9110 §13.1.3: with If-None-Match there, the date does not count.
    check(&["If-None-Match: \"other\"".into(), format!("If-Modified-Since: {later}")], 200);
    check(&[format!("If-Match: {etag}")], 200);
    check(&["If-Match: \"other\"".into()], 412);
    check(&[format!("If-Unmodified-Since: {long_ago}")], 412);
    check(&[format!("If-Unmodified-Since: {later}")], 200);
    let range = "Range: bytes=10-19".to_owned();
    assert_eq!(check(&[range.clone(), format!("If-Range: {etag}")], 206).body.len(), 10);
    assert_eq!(check(&[range.clone(), format!("If-Range: {date}")], 206).body.len(), 10);
    assert_eq!(check(&[range.clone(), "If-Range: \"other\"".into()], 200).body.len() as u64, LENGTH);
    assert_eq!(check(&[range, format!("If-Range: {long_ago}")], 200).body.len() as u64, LENGTH);
}

#[test]
fn a_connection_is_kept() {
    let Some(served) = Served::start() else { return };
    let url = served.relay.url(&served.path);
    let both =
        ["--verbose", "--range", "0-99", &url, "--next", "--silent", "--verbose", "--range", "100-199", &url];
    let transfer = curl(served.scratch.path(), &both);
    assert_eq!((transfer.exit, transfer.body.len()), (0, 200), "{}", transfer.said);
    assert!(transfer.said.contains("Re-using existing connection"), "{}", transfer.said);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let Some(served) = Served::start() else { return };
    let mut connection = Connection::open(served.relay.http).expect("a connection");
    let starts = [2_000_000_u64, 0, 1_234_567];
    for start in starts {
        connection
            .request("GET", &served.path, &[&format!("Range: bytes={start}-{}", start + 99_999)])
            .expect("sent");
    }
    for start in starts {
        let answer = connection.answer().expect("an answer");
        assert_eq!((answer.status, answer.end, answer.body.len()), (206, End::Clean, 100_000));
        assert_eq!(served.pattern.first_wrong(start, &answer.body), None);
    }
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let Some(served) = Served::start() else { return };
    let file = served.scratch.file("part.bin", &served.pattern.bytes(0, 1_111_111));
    let name = file.display().to_string();
    let transfer = served.curl(&["--continue-at", "-", "--output", &name]);
    assert_eq!(transfer.status, 206);
    let whole = std::fs::read(&file).expect("a download");
    assert_eq!((whole.len() as u64, served.pattern.first_wrong(0, &whole)), (LENGTH, None));
}

#[test]
fn what_is_not_there_is_404_and_what_is_not_allowed_is_405() {
    let Some(served) = Served::start() else { return };
    let scratch = served.scratch.path();
    assert_eq!(curl(scratch, &[&served.relay.url("/c/aaaaaaaaaaaaaaaaaaaaaaaaaa/x")]).status, 404);
    assert_eq!(curl(scratch, &[&served.relay.url("/nothing")]).status, 404);
    assert_eq!(curl(scratch, &["--path-as-is", &served.relay.url("/c/../../etc/passwd")]).status / 100, 4);
    let refused = curl(scratch, &["--request", "DELETE", &served.relay.url(&served.path)]);
    assert!(matches!(refused.status, 405 | 501), "{}", refused.heads);
}
