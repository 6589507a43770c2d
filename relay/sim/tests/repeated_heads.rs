//! An answer depends on its request alone, not on the requests before it on the same connection, of which a session remembers the last.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::sync::Arc;

use millrace_engine::event::News;
use millrace_engine::ids::{ConnId, Protocol};
use millrace_engine::limits::Limits;
use millrace_pagecache::content::{Content, State};
use millrace_pagecache::layout::Layout;
use millrace_pagecache::new_content::{NewContent, Shape};
use millrace_sim::kernel::{Faults, Kernel};
use millrace_sim::{bytes, pull};

const SEED: u64 = 5;
const LENGTH: u64 = 2_000;

/// What follows the request line and `Host`, of heads that are much alike.
const FIELDS: &[&str] = &[
    "",
    "Range: bytes=0-9\r\n",
    "Range: bytes=10-19\r\n",
    "Range: bytes=10-9\r\n",
    "Range: bytes=1990-20000\r\n",
    "Range: bytes=0-1999\r\n",
    "Range: bytes=2000-2009\r\n",
    "Range: bytes=0000000000000000000000000010-19\r\n",
    "Range: bytes=10-99999999999999999999999\r\n",
    "Range: bytes=10-\r\n",
    "Range: bytes=-10\r\n",
    "Range: bytes=10-19,30-39\r\n",
    "Range: bytes=10-19 \r\n",
    "Range: bytes= 10-19\r\n",
    "Range: bytes=1o-19\r\n",
    "Range: Bytes=10-19\r\n",
    "Range: lines=10-19\r\n",
    "range: bytes=10-19\r\n",
    "Range: bytes=10-19\r\nRange: bytes=30-39\r\n",
    "Range: bytes=10-19\r\nIf-Range: \"sim\"\r\n",
    "Range: bytes=10-19\r\nIf-Range: \"other\"\r\n",
    "Range: bytes=10-19\r\nIf-None-Match: \"sim\"\r\n",
    "Range: bytes=10-19\r\nIf-Match: \"other\"\r\n",
    "Range: bytes=10-19\r\nWant-Digest: SHA-256\r\n",
    "Range: bytes=10-19\r\nConnection: close\r\n",
    "Range: bytes=10-19\r\nContent-Length: 3\r\n\r\nabc",
    "Range: bytes=10-19\r\nTransfer-Encoding: chunked\r\n",
    "Range: bytes=10-19\r\n\r\nGET /c/{id}/file.bin HTTP/1.1\r\nHost: relay\r\n",
];

fn heads() -> Vec<String> {
    let id = pull::id(SEED).to_string();
    let mut heads = Vec::new();
    for line in
        ["GET /c/{id}/file.bin HTTP/1.1", "HEAD /c/{id}/file.bin HTTP/1.1", "GET /c/{id}/file.bin HTTP/1.0"]
    {
        heads.extend(FIELDS.iter().map(|fields| format!("{line}\r\nHost: relay\r\n{fields}\r\n")));
    }
    heads.push(format!(
        "GET /c/{{id}}/file.bin HTTP/1.1\r\nRange: bytes=10-19\r\nX: {}\r\nHost: relay\r\n\r\n",
        "x".repeat(2000)
    ));
    heads.push("GET /c/{id}/other.bin HTTP/1.1\r\nHost: relay\r\nRange: bytes=10-19\r\n\r\n".into());
    heads.push("\r\n\r\nGET /c/{id}/file.bin HTTP/1.1\r\nHost: relay\r\nRange: bytes=10-19\r\n\r\n".into());
    heads.into_iter().map(|head| head.replace("{id}", &id)).collect()
}

struct Relay {
    kernel: Kernel,
    content: Arc<Content>,
}

impl Relay {
    /// A relay that has a file.
    fn start() -> Self {
        let layout = Layout::single("file.bin", LENGTH, 16 * 1024).unwrap();
        let mut new = NewContent::new(pull::id(SEED), "file.bin", Shape::Layout(layout.clone()), "\"sim\"");
        new.sha256 = Some([0xab; 32]);
        let read = Box::new(|offset, buffer: &mut [u8]| bytes::fill(SEED, offset, buffer));
        let content = Content::simulated(new, layout, read);
        content.set_state(State::Pulling);
        pull::complete(&content);
        let mut relay = Relay { kernel: Kernel::new(SEED, Limits::default(), Faults::default()), content };
        relay.kernel.news(News::Put(Arc::clone(&relay.content)));
        relay
    }

    fn connect(&mut self) -> ConnId {
        self.kernel.connect(Protocol::Http, 1)
    }

    /// What comes back for `head`, and how the connection is afterwards.
    fn ask(&mut self, conn: ConnId, head: &str) -> String {
        self.kernel.peer_send(conn, head.as_bytes());
        let mut answer = String::new();
        loop {
            self.kernel.settle();
            let more = self.kernel.peer_read(conn, usize::MAX);
            if more.is_empty() {
                break;
            }
            answer.push_str(&String::from_utf8_lossy(&more));
        }
        write!(answer, "{:?}", self.kernel.ended(conn)).unwrap();
        answer
    }
}

#[test]
fn an_answer_does_not_depend_on_the_request_before_it() {
    let heads = heads();
    // The boundary between parts is another one each time.
    for second in heads.iter().filter(|head| !head.contains("19,30")) {
        let mut relay = Relay::start();
        let conn = relay.connect();
        let expected = relay.ask(conn, second);
        for first in &heads {
            let conn = relay.connect();
            // Who was closed is asked nothing else.
            if relay.ask(conn, first).ends_with("None") {
                let answer = relay.ask(conn, second);
                let answer_head = answer.split("\r\n\r\n").next();
                assert!(answer == expected, "{second:?} after {first:?}: {answer_head:?}");
            }
        }
    }
}

#[test]
fn what_became_of_the_content_counts_for_a_repeated_head() {
    type Happening = fn(&mut Relay);
    let head = &heads()[1];
    let happenings: [(&str, Happening); 4] = [
        ("HTTP/1.1 206 ", |_| {}),
        ("HTTP/1.1 503 ", |relay| relay.content.set_state(State::Paused)),
        ("HTTP/1.1 404 ", |relay| relay.content.set_state(State::Removed)),
        ("HTTP/1.1 404 ", |relay| relay.kernel.news(News::Gone(pull::id(SEED)))),
    ];
    for (status, happen) in happenings {
        let mut relay = Relay::start();
        let conn = relay.connect();
        assert!(relay.ask(conn, head).starts_with("HTTP/1.1 206 "));
        happen(&mut relay);
        let answer = relay.ask(conn, head);
        assert!(answer.starts_with(status), "{answer}");
    }
}
