//! HTTP answers as a client reads them, each byte of each body compared with what it should be.

use super::reader::{Ask, Wish};
use super::source::Source;

/// A whole answer, found right.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The relay said that the connection ends with it.
    pub(super) closes: bool,
}

/// What the bytes that come next belong to.
#[derive(Debug)]
enum Expecting {
    Head,
    /// A body of which so many bytes are left, from this byte of the content on.
    Extent {
        offset: u64,
        left: usize,
    },
    /// A body to be looked at when it is whole.
    Text {
        left: usize,
    },
    /// Chunks of a content, from this byte on.
    Chunks {
        offset: u64,
    },
}

/// The answers on one connection.
#[derive(Debug)]
pub(super) struct Answers {
    received: Vec<u8>,
    expecting: Expecting,
    status: u16,
    closes: bool,
}

impl Default for Answers {
    fn default() -> Self {
        Answers { received: Vec::new(), expecting: Expecting::Head, status: 0, closes: false }
    }
}

impl Answers {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Nothing of an answer has come that is not whole.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.expecting, Expecting::Head) && self.received.is_empty()
    }

    /// Which byte of the content comes next; `first` when nothing of the answer has come.
    pub(super) fn next_byte(&self, first: u64) -> Option<u64> {
        match self.expecting {
            Expecting::Head if self.received.is_empty() => Some(first),
            Expecting::Extent { offset, left } if left > 0 && self.received.is_empty() => Some(offset),
            Expecting::Chunks { offset } if self.received.is_empty() => Some(offset),
            _ => None,
        }
    }

    pub(super) fn is_in_body(&self) -> bool {
        !matches!(self.expecting, Expecting::Head)
    }

    /// The answer to `wish`, once it is whole.
    pub(super) fn next(&mut self, wish: &Wish, source: &Source) -> Option<Answer> {
        if matches!(self.expecting, Expecting::Head) {
            let end = self.received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
            let head: Vec<u8> = self.received.drain(..end).collect();
            self.expecting = self.begin(&String::from_utf8_lossy(&head), wish, source);
        }
        let is_whole = match self.expecting {
            Expecting::Head => true,
            Expecting::Extent { offset, left } => self.take_extent(offset, left, source),
            Expecting::Text { left } => self.take_text(left, wish, source),
            Expecting::Chunks { offset } => self.take_chunks(offset, source),
        };
        is_whole.then(|| {
            self.expecting = Expecting::Head;
            Answer { status: self.status, closes: self.closes }
        })
    }

    /// Reads a head; what it promises must be what was asked for.
    fn begin(&mut self, head: &str, wish: &Wish, source: &Source) -> Expecting {
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        self.status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        self.closes = field("Connection") == Some("close");
        let length: Option<usize> = field("Content-Length").and_then(|value| value.parse().ok());
        let (base, file_bytes) = source.span(wish.file);
        let body_bytes = length.unwrap_or(0);
        if wish.ask == Ask::Head {
            return Expecting::Head;
        }
        let is_chunked = field("Transfer-Encoding") == Some("chunked");
        assert!(is_chunked != length.is_some(), "neither or both framings in {head}");
        match (self.status, wish.ask) {
            (200, _) if is_chunked => Expecting::Chunks { offset: base },
            (200, Ask::Whole) => {
                assert_eq!(body_bytes as u64, file_bytes, "Content-Length of the whole");
                Expecting::Extent { offset: base, left: body_bytes }
            }
            (206, Ask::Range(start, end)) => {
                let end = end.min(file_bytes);
                let promised = format!("bytes {start}-{}/{file_bytes}", end - 1);
                assert_eq!(field("Content-Range"), Some(&promised[..]));
                assert_eq!(body_bytes as u64, end - start, "Content-Length of a range");
                Expecting::Extent { offset: base + start, left: body_bytes }
            }
            (206, Ask::Two(_)) => Expecting::Text { left: body_bytes },
            (416, Ask::Range(start, _)) => {
                assert!(start >= file_bytes, "416 for a range that is there");
                Expecting::Text { left: body_bytes }
            }
            (200 | 206 | 416, _) => panic!("{} is no answer to {wish:?}: {head}", self.status),
            _ => Expecting::Text { left: body_bytes },
        }
    }

    fn take_extent(&mut self, offset: u64, left: usize, source: &Source) -> bool {
        let count = left.min(self.received.len());
        let right = source.disk.truth(offset, count);
        assert!(self.received[..count] == right, "wrong bytes in {count} from {offset} of the content");
        self.received.drain(..count);
        self.expecting = Expecting::Extent { offset: offset + count as u64, left: left - count };
        left == count
    }

    fn take_chunks(&mut self, mut offset: u64, source: &Source) -> bool {
        loop {
            let Some(end) = self.received.windows(2).position(|window| window == b"\r\n") else {
                return false;
            };
            let size = std::str::from_utf8(&self.received[..end]).ok();
            let Some(size) = size.and_then(|size| usize::from_str_radix(size, 16).ok()) else {
                panic!("no chunk size: {:?}", &self.received[..end])
            };
            let whole = end + 2 + size + 2;
            if self.received.len() < whole {
                return false;
            }
            assert!(self.received[whole - 2..whole] == *b"\r\n", "a chunk ends with CRLF");
            let right = source.disk.truth(offset, size);
            assert!(self.received[end + 2..whole - 2] == right, "wrong bytes in a chunk from {offset}");
            self.received.drain(..whole);
            if size == 0 {
                assert_eq!(Some(offset), source.content.length(), "the last chunk comes at the end");
                return true;
            }
            offset += size as u64;
            self.expecting = Expecting::Chunks { offset };
        }
    }

    fn take_text(&mut self, left: usize, wish: &Wish, source: &Source) -> bool {
        if self.received.len() < left {
            return false;
        }
        let body: Vec<u8> = self.received.drain(..left).collect();
        if let (206, Ask::Two(ranges)) = (self.status, wish.ask) {
            check_parts(&body, ranges, wish, source);
        }
        true
    }
}

fn check_parts(body: &[u8], ranges: [(u64, u64); 2], wish: &Wish, source: &Source) {
    let (base, file_bytes) = source.span(wish.file);
    let mut rest = body;
    for (start, end) in ranges {
        let marker = format!("Content-Range: bytes {start}-{}/{file_bytes}", end - 1);
        let Some(at) = find(rest, marker.as_bytes()) else { panic!("no part {start}..{end}") };
        let Some(head) = find(&rest[at..], b"\r\n\r\n") else {
            panic!("no end of the head of {start}..{end}")
        };
        let bytes = usize::try_from(end - start).unwrap_or(0);
        let part = &rest[at + head + 4..][..bytes];
        assert!(part == source.disk.truth(base + start, bytes), "wrong bytes in part {start}..{end}");
        rest = &rest[at + head + 4 + bytes..];
    }
    assert!(rest.starts_with(b"\r\n--") && rest.ends_with(b"--\r\n"), "no closing delimiter");
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
