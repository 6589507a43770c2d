//! Wire scripts: one short text file for each rule of HTTP, played against the real shard over the simulated kernel.
//!
//! A script is a list of lines, carried out in order:
//!
//! ```text
//! # a comment, which names the rule
//! content length=1000 [visible=N] [modified=UNIX] [digest] | content growing
//! > a line to send; `>` alone is the empty line. \xNN is a byte, a trailing \ leaves out the CRLF, `>*N x` sends x N times
//! < HTTP/1.1 206 Partial Content      (reads one answer: its status line, fields it must have, `<! Name` fields it must not have)
//! = 0..10 | "text" | problem TEXT (with these words) | none | any | some | chunked 0..10 | parts 0..1,5..9     (the body of that answer)
//! access WAYS | rules allow N, deny N         (who may have it, and who is answered; the client is 192.0.2.1)
//! sign /PATH SECONDS [CIDR]           (a URL that is good for so long: `{query}` is its query from here on)
//! reveal 0..500 | state paused | end | finish | advance MS | remove      (what happens meanwhile)
//! quiet | open | closed | reset       (what must be true now)
//! ```
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;

use millrace_engine::event::News;
use millrace_engine::ids::{ConnId, Protocol};
use millrace_engine::ledger::gate::Gate;
use millrace_engine::limits::Limits;
use millrace_pagecache::content::{Content, State, Stream};
use millrace_pagecache::layout::Layout;
use millrace_pagecache::new_content::{NewContent, Shape};
use millrace_proto::access::rules::Rules;
use millrace_proto::access::signature::{Grant, Key, Keys};
use millrace_sim::kernel::{Faults, Kernel};
use millrace_sim::socket::Ended;
use millrace_sim::{bytes, pull};

const SEED: u64 = 5;

struct Play {
    kernel: Kernel,
    conn: ConnId,
    content: Option<Arc<Content>>,
    stream: Option<Stream>,
    received: Vec<u8>,
    /// Of the URL that was signed last.
    query: String,
    /// What the last answer's head says of its body.
    length: Option<usize>,
}

#[test]
fn every_script_plays_whole_and_byte_by_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/http");
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 30, "scripts are missing");
    let mut failures = Vec::new();
    for path in &names {
        let script = std::fs::read_to_string(path).unwrap();
        for (receive, send) in [(65_536, u64::MAX), (1, 3)] {
            let name = format!("{} ({receive} bytes a receive)", path.file_stem().unwrap().to_string_lossy());
            let faults = Faults { receive_bytes_max: receive, send_bytes_max: send, ..Faults::default() };
            let played = std::panic::catch_unwind(|| Play::new(faults).run(&script));
            if let Err(panic) = played {
                let text = panic.downcast_ref::<String>().cloned();
                failures.push(format!("{name}: {}", text.unwrap_or_else(|| "panicked".into())));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    println!("{} scripts, each played twice", names.len());
}

impl Play {
    fn new(faults: Faults) -> Self {
        let mut kernel = Kernel::new(SEED, Limits::default(), faults);
        let conn = kernel.connect(Protocol::Http, 1);
        Play {
            kernel,
            conn,
            content: None,
            stream: None,
            received: Vec::new(),
            query: String::new(),
            length: None,
        }
    }

    fn run(&mut self, script: &str) {
        let lines: Vec<&str> = script.lines().collect();
        let mut at = 0;
        while at < lines.len() {
            let line = lines[at];
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let number = at + 1;
            at += 1;
            match word {
                "" | "#" => {}
                ">" => self.send(rest),
                _ if word.starts_with(">*") => {
                    let times = word[2..].parse().unwrap();
                    (0..times).for_each(|_| self.send(rest));
                }
                "<" => {
                    let fields = lines[at..].iter().take_while(|line| line.starts_with('<'));
                    let fields: Vec<&str> = fields.copied().collect();
                    at += fields.len();
                    self.answer(number, rest, &fields);
                }
                "=" => self.body(number, rest),
                _ => self.happen(number, word, rest),
            }
        }
        self.settle();
        assert!(self.received.is_empty(), "sent and not expected: {}", self.excerpt());
    }

    fn excerpt(&self) -> String {
        let shown = &self.received[..self.received.len().min(300)];
        format!("{} bytes: {:?}", self.received.len(), String::from_utf8_lossy(shown))
    }

    fn settle(&mut self) {
        loop {
            self.kernel.settle();
            let more = self.kernel.peer_read(self.conn, usize::MAX);
            if more.is_empty() {
                return;
            }
            self.received.extend(more);
        }
    }

    /// The line with what stands for the content and for the signed URL.
    fn filled(&self, text: &str) -> String {
        text.replace("{id}", &pull::id(SEED).to_string()).replace("{query}", &self.query)
    }

    /// Signs a URL with the one key that there is.
    fn sign(&mut self, grant: &str) {
        let grant = self.filled(grant);
        let words: Vec<&str> = grant.split_whitespace().collect();
        let expires = self.kernel.now().unix_s + words[1].parse::<u64>().unwrap();
        let network = words.get(2).map(|network| network.parse().unwrap());
        let key = Key::new("k", [7; 32]).unwrap();
        self.query = key.query(&Grant { path: words[0].as_bytes(), expires, network });
    }

    fn let_in(&mut self, rules: &str) {
        let keys = Keys::parse(&Key::new("k", [7; 32]).unwrap().to_line()).unwrap();
        let rules = Rules::parse(rules.split(", ").filter(|rule| !rule.is_empty())).unwrap();
        let gate = self.kernel.ledger.set_gate(Gate { rules, keys, ..Gate::default() });
        self.kernel.news(News::Gate(gate));
    }

    fn send(&mut self, text: &str) {
        let text = self.filled(text);
        let (text, end) = match text.strip_suffix('\\') {
            Some(text) => (text, ""),
            None => (text.as_str(), "\r\n"),
        };
        let mut line = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("\\x") {
            line.extend_from_slice(before.as_bytes());
            line.push(u8::from_str_radix(&after[..2], 16).unwrap());
            rest = &after[2..];
        }
        line.extend_from_slice(rest.as_bytes());
        line.extend_from_slice(end.as_bytes());
        self.kernel.peer_send(self.conn, &line);
    }

    fn answer(&mut self, number: usize, status: &str, fields: &[&str]) {
        self.settle();
        let end = self.received.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("line {number}: no answer, but {}", self.excerpt()));
        let head = String::from_utf8(self.received.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        assert_eq!(lines.next(), Some(status), "line {number}");
        let sent: Vec<(String, &str)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(n, v)| (n.to_ascii_lowercase(), v))
            .collect();
        for field in fields {
            if let Some(absent) = field.strip_prefix("<! ") {
                let there = sent.iter().any(|(name, _)| *name == absent.to_ascii_lowercase());
                assert!(!there, "line {number}: {absent} is there in\n{head}");
            } else {
                let (name, value) = field[2..].split_once(": ").unwrap();
                let value = self.filled(value);
                let there = sent.iter().any(|(n, v)| *n == name.to_ascii_lowercase() && *v == value);
                assert!(there, "line {number}: no {name}: {value} in\n{head}");
            }
        }
        let length = sent.iter().find(|(name, _)| name == "content-length");
        self.length = length.map(|(_, value)| value.parse().unwrap());
    }

    fn body(&mut self, number: usize, expected: &str) {
        let expected = if let Some(text) = expected.strip_prefix('"') {
            text.trim_end_matches('"').as_bytes().to_vec()
        } else if expected == "some" {
            self.received.clone()
        } else if expected == "none" {
            Vec::new()
        } else if expected == "any" {
            self.received[..self.length.unwrap()].to_vec()
        } else if let Some(words) = expected.strip_prefix("problem ") {
            let body = self.received[..self.length.unwrap()].to_vec();
            let text = String::from_utf8_lossy(&body);
            assert!(text.contains("about:blank") && text.contains(words), "line {number}: {text}");
            body
        } else if let Some(ranges) = expected.strip_prefix("chunked ") {
            return self.chunked(number, &content_bytes(ranges));
        } else if let Some(ranges) = expected.strip_prefix("parts ") {
            return self.parts(number, ranges);
        } else {
            let bytes = content_bytes(expected);
            assert_eq!(self.length, Some(bytes.len()), "line {number}: Content-Length");
            bytes
        };
        let count = expected.len().min(self.received.len());
        let body: Vec<u8> = self.received.drain(..count).collect();
        assert!(body == expected, "line {number}: another body: {} of {} bytes", body.len(), expected.len());
    }

    fn chunked(&mut self, number: usize, expected: &[u8]) {
        let mut body = Vec::new();
        loop {
            let end = self.received.windows(2).position(|window| window == b"\r\n");
            let end = end.unwrap_or_else(|| panic!("line {number}: no chunk head"));
            let head: Vec<u8> = self.received.drain(..end + 2).collect();
            let size = usize::from_str_radix(std::str::from_utf8(&head[..end]).unwrap(), 16).unwrap();
            let chunk: Vec<u8> = self.received.drain(..size + 2).collect();
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
        assert!(body == expected, "line {number}: {} of {} bytes", body.len(), expected.len());
    }

    fn parts(&mut self, number: usize, ranges: &str) {
        let length = self.length.unwrap();
        let body: Vec<u8> = self.received.drain(..length.min(self.received.len())).collect();
        assert_eq!(body.len(), length, "line {number}: Content-Length of a multipart body");
        let mut rest = &body[..];
        for range in ranges.split(',') {
            let (start, end) = bounds(range);
            let marker = format!("Content-Range: bytes {start}-{}/", end - 1);
            let at =
                find(rest, marker.as_bytes()).unwrap_or_else(|| panic!("line {number}: no part {range}"));
            let head_end = at + find(&rest[at..], b"\r\n\r\n").unwrap() + 4;
            let bytes = &rest[head_end..][..end - start];
            assert!(bytes == bytes::read(SEED, start as u64, end - start), "line {number}: part {range}");
            rest = &rest[head_end + end - start..];
        }
        assert!(
            rest.starts_with(b"\r\n--") && rest.ends_with(b"--\r\n"),
            "line {number}: no closing delimiter"
        );
    }

    fn happen(&mut self, number: usize, word: &str, rest: &str) {
        self.settle();
        match word {
            "content" => self.put(rest),
            "reveal" => {
                let (start, end) = bounds(rest);
                let content = self.content.clone().unwrap();
                if content.is_growing() {
                    let stream = self.stream.get_or_insert_with(|| content.stream(0).unwrap());
                    stream.write(&bytes::read(SEED, start as u64, end - start)).unwrap();
                } else {
                    content.reveal(start as u64..end as u64);
                }
                self.kernel.arrived(&content);
            }
            "end" => {
                let content = self.content.clone().unwrap();
                self.stream = None;
                content.end_growth();
                content.set_state(State::Complete);
                self.kernel.news(News::Changed(content.id()));
            }
            "state" => {
                let content = self.content.clone().unwrap();
                content.set_state(match rest {
                    "paused" => State::Paused,
                    "failed" => State::Failed,
                    "pulling" => State::Pulling,
                    other => panic!("line {number}: no state {other}"),
                });
                self.kernel.news(News::Changed(content.id()));
            }
            "remove" => {
                let content = self.content.clone().unwrap();
                content.set_state(State::Removed);
                self.kernel.news(News::Gone(content.id()));
            }
            "access" => {
                let content = self.content.clone().unwrap();
                content.set_access(rest.parse().unwrap());
                self.let_in("");
                self.kernel.news(News::Changed(content.id()));
            }
            "rules" => self.let_in(rest),
            "sign" => self.sign(rest),
            "finish" => self.kernel.peer_finish(self.conn),
            "advance" => {
                for _ in 0..rest.parse::<u64>().unwrap() / 100 {
                    self.settle();
                    self.kernel.advance_ms(100);
                }
            }
            "quiet" => {
                assert!(self.received.is_empty(), "line {number}: {}", self.excerpt());
            }
            "open" | "closed" | "reset" => {
                let ended = match self.kernel.ended(self.conn) {
                    None => "open",
                    Some(Ended::Finished) => "closed",
                    Some(Ended::Reset) => "reset",
                };
                assert_eq!(ended, word, "line {number}");
            }
            other => panic!("line {number}: no such word {other:?}"),
        }
    }

    fn put(&mut self, options: &str) {
        let mut length = 0;
        let mut visible = None;
        let mut modified = None;
        let mut digest = false;
        let mut is_growing = false;
        for option in options.split_whitespace() {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "length" => length = value.parse().unwrap(),
                "visible" => visible = Some(value.parse::<u64>().unwrap()),
                "modified" => modified = Some(value.parse().unwrap()),
                "digest" => digest = true,
                "growing" => is_growing = true,
                other => panic!("no such option {other}"),
            }
        }
        let content = if is_growing {
            pull::growing(SEED, "file.bin")
        } else {
            let layout = Layout::single("file.bin", length, 16 * 1024).unwrap();
            let mut new =
                NewContent::new(pull::id(SEED), "file.bin", Shape::Layout(layout.clone()), "\"sim\"");
            new.last_modified = modified;
            new.sha256 = digest.then_some([0xab; 32]);
            Content::simulated(new, layout, Box::new(|offset, buffer| bytes::fill(SEED, offset, buffer)))
        };
        content.set_state(State::Pulling);
        if !is_growing {
            match visible {
                Some(bytes) => content.reveal(0..bytes),
                None => pull::complete(&content),
            }
        }
        self.kernel.news(News::Put(Arc::clone(&content)));
        self.content = Some(content);
    }
}

fn bounds(range: &str) -> (usize, usize) {
    let (start, end) = range.split_once("..").unwrap();
    (start.parse().unwrap(), end.parse().unwrap())
}

fn content_bytes(range: &str) -> Vec<u8> {
    let (start, end) = bounds(range);
    bytes::read(SEED, start as u64, end - start)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
