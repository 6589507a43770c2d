//! A loopback HTTP origin that keeps an access log of body bytes, can be held to a rate or stopped at a point until it is
//! let go, and misbehaves on request.
//!
//! It parses requests by itself: were it built on the relay's own parser, a fault of that parser would be on both sides.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::pattern::Pattern;

/// Bytes written at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// What is served under one path.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Path with its leading slash, not encoded: clients differ in how they encode it.
    pub path: String,
    /// Length in bytes.
    pub length: u64,
    /// Its bytes.
    pub pattern: Pattern,
}

/// What the origin does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Resets the connection after so many body bytes of an answer.
    Reset {
        /// Body bytes before the reset.
        after: u64,
    },
    /// Announces the right length and closes, as if done, before the last bytes.
    Short {
        /// Bytes left out.
        missing: u64,
    },
    /// Tells no length and knows no ranges: 200, chunked.
    NoLength,
    /// Tells no length and drops the connection without the last chunk, after so many bytes.
    NoLengthCut {
        /// Body bytes before the end.
        after: u64,
    },
    /// Answers every request with 200 and the whole.
    IgnoredRange,
    /// Answers with this status and no body.
    Status(u16),
}

/// One answered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// `Range` as it came.
    pub range: Option<String>,
    /// Status answered.
    pub status: u16,
    /// Body bytes written.
    pub sent: u64,
}

/// A running origin; it stops when the test ends.
#[derive(Debug)]
pub struct Origin {
    shared: Arc<Shared>,
    address: SocketAddr,
}

#[derive(Debug)]
struct Shared {
    resources: Vec<Resource>,
    pace: Pace,
    gate: Gate,
    /// Which fault, and how many answers still have it.
    fault: Mutex<Option<Fault>>,
    faults_left: AtomicU32,
    /// Counts up when the files change: part of the ETag and of the bytes.
    version: AtomicU64,
    sent: AtomicU64,
    connections: AtomicU64,
    log: Mutex<Vec<Entry>>,
    stopped: AtomicBool,
}

impl Origin {
    /// Serves `resources` on a free loopback port, all connections together at no more than `rate` bytes per second.
    #[must_use]
    pub fn start(resources: Vec<Resource>, rate: Option<u64>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            resources,
            pace: Pace { rate, next: Mutex::new(Instant::now()) },
            gate: Gate::default(),
            fault: Mutex::new(None),
            faults_left: AtomicU32::new(0),
            version: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            log: Mutex::new(Vec::new()),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let serving = Arc::clone(&accepting);
                // A relay that hangs up has been given what it wanted.
                std::thread::spawn(move || {
                    serving.connections.fetch_add(1, Ordering::SeqCst);
                    serving.serve(stream).ok();
                    serving.connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Origin { shared, address }
    }

    /// One file at `/{name}`.
    #[must_use]
    pub fn of_file(name: &str, length: u64, pattern: Pattern, rate: Option<u64>) -> Self {
        Self::start(vec![Resource { path: format!("/{name}"), length, pattern }], rate)
    }

    /// URL of a path on it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Body bytes sent so far, to whomever.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The access log.
    #[must_use]
    pub fn log(&self) -> Vec<Entry> {
        lock(&self.shared.log).clone()
    }

    /// Sends no more than `total` body bytes in all, until [`Origin::release`].
    pub fn hold_at(&self, total: u64) {
        *lock(&self.shared.gate.at) = Some(total);
    }

    /// Lets everything flow again.
    pub fn release(&self) {
        *lock(&self.shared.gate.at) = None;
        self.shared.gate.changed.notify_all();
    }

    /// Misbehaves in the next `times` answers to GET.
    pub fn misbehave(&self, fault: Fault, times: u32) {
        *lock(&self.shared.fault) = Some(fault);
        self.shared.faults_left.store(times, Ordering::SeqCst);
    }

    /// Replaces every file by other bytes of the same length, under another ETag.
    pub fn change(&self) {
        self.shared.version.fetch_add(1, Ordering::SeqCst);
    }

    /// The bytes of a resource's pattern as they are after `changes`.
    #[must_use]
    pub fn changed(pattern: Pattern, changes: u64) -> Pattern {
        Pattern(pattern.0.wrapping_add(changes.wrapping_mul(0xd134_2543_de82_ef95)))
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.release();
        // The listener wakes for one more connection and sees that it is over.
        TcpStream::connect(self.address).ok();
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("--- the origin sent {} bytes in {} answers, lastly", self.sent(), log.len());
            log.iter().rev().take(20).for_each(|entry| eprintln!("{entry:?}"));
        }
    }
}

/// What of a request matters here.
#[derive(Debug, Default)]
struct Request {
    method: String,
    path: String,
    range: Option<String>,
    if_range: Option<String>,
    if_match: Option<String>,
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(request) = read_request(&mut reader)? {
            self.answer(&stream, &request)?;
        }
        Ok(())
    }

    fn answer(&self, stream: &TcpStream, request: &Request) -> io::Result<()> {
        let version = self.version.load(Ordering::SeqCst);
        let fault = if request.method == "GET" { self.take_fault() } else { None };
        let found = self.resources.iter().find(|resource| resource.path == request.path);
        let Some(resource) = found else { return self.refuse(stream, request, 404) };
        if let Some(Fault::Status(status)) = fault {
            return self.refuse(stream, request, status);
        }
        let etag = format!("\"v{version}\"");
        if request.if_match.as_ref().is_some_and(|wanted| *wanted != etag && wanted != "*") {
            return self.refuse(stream, request, 412);
        }
        let same = request.if_range.as_ref().is_none_or(|wanted| *wanted == etag);
        let deaf = matches!(fault, Some(Fault::NoLength | Fault::NoLengthCut { .. } | Fault::IgnoredRange));
        let asked = request.range.as_deref().filter(|_| same && !deaf && request.method == "GET");
        let (status, start, end) = match asked.and_then(|text| parse_range(text, resource.length)) {
            Some((start, end)) => (206, start, end),
            None => (200, 0, resource.length),
        };
        let mut head = format!(
            "HTTP/1.1 {status} Here\r\nETag: {etag}\r\nLast-Modified: Mon, 02 Nov 2026 00:00:00 GMT\r\n\
             Content-Type: application/octet-stream\r\n"
        );
        let chunked = matches!(fault, Some(Fault::NoLength | Fault::NoLengthCut { .. }));
        if chunked {
            head.push_str("Transfer-Encoding: chunked\r\n");
        } else {
            head.push_str(&format!("Content-Length: {}\r\nAccept-Ranges: bytes\r\n", end - start));
        }
        if status == 206 {
            head.push_str(&format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, resource.length));
        }
        (&mut &*stream).write_all(format!("{head}\r\n").as_bytes())?;
        let entry = self.note(request, status);
        match request.method.as_str() {
            "HEAD" => Ok(()),
            _ => Body { shared: self, stream, fault, chunked, entry }.write(
                Self::bytes_of(resource, version),
                start,
                end,
            ),
        }
    }

    fn bytes_of(resource: &Resource, version: u64) -> Pattern {
        Origin::changed(resource.pattern, version)
    }

    fn refuse(&self, mut stream: &TcpStream, request: &Request, status: u16) -> io::Result<()> {
        self.note(request, status);
        stream.write_all(format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n").as_bytes())
    }

    fn take_fault(&self) -> Option<Fault> {
        let take = |left: u32| left.checked_sub(1);
        self.faults_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).ok()?;
        *lock(&self.fault)
    }

    /// Opens an entry of the log, which grows with the body; its index.
    fn note(&self, request: &Request, status: u16) -> usize {
        let (method, path, range) = (request.method.clone(), request.path.clone(), request.range.clone());
        let mut log = lock(&self.log);
        log.push(Entry { method, path, range, status, sent: 0 });
        log.len() - 1
    }
}

/// One body on its way.
struct Body<'a> {
    shared: &'a Shared,
    stream: &'a TcpStream,
    fault: Option<Fault>,
    chunked: bool,
    /// Its place in the log.
    entry: usize,
}

impl Body<'_> {
    fn write(&mut self, pattern: Pattern, start: u64, end: u64) -> io::Result<()> {
        let stop = match self.fault {
            Some(Fault::Reset { after } | Fault::NoLengthCut { after }) => end.min(start + after),
            Some(Fault::Short { missing }) => end.saturating_sub(missing).max(start),
            _ => end,
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut at = start;
        while at < stop {
            let count = usize::try_from(stop - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            pattern.fill(at, &mut chunk[..count]);
            self.shared.gate.pass(&self.shared.sent, count as u64);
            self.shared.pace.wait_for(count as u64);
            // Counted before it is written: a client that has everything finds all of it counted.
            lock(&self.shared.log)[self.entry].sent += count as u64;
            self.put(&chunk[..count])?;
            at += count as u64;
        }
        match self.fault {
            Some(Fault::Reset { .. }) => {
                // Lingering for no time is a reset in place of an orderly end.
                SockRef::from(self.stream).set_linger(Some(Duration::ZERO))?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Some(Fault::Short { .. } | Fault::NoLengthCut { .. }) => Err(io::ErrorKind::UnexpectedEof.into()),
            _ if self.chunked => self.stream.write_all(b"0\r\n\r\n"),
            _ => Ok(()),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.chunked {
            return self.stream.write_all(bytes);
        }
        self.stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        self.stream.write_all(bytes)?;
        self.stream.write_all(b"\r\n")
    }
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let mut request = Request {
        method: words.next().unwrap_or_default(),
        path: percent_decoded(&words.next().unwrap_or_default()),
        ..Request::default()
    };
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { return Ok(Some(request)) };
        let value = Some(value.trim().to_owned());
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = value,
            "if-range" => request.if_range = value,
            "if-match" => request.if_match = value,
            _ => {}
        }
    }
}

/// RFC 3986 §2.1.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = if *first == b'%' { after.get(..2) } else { None };
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The one range of `bytes=…`: start, and end exclusive.
fn parse_range(text: &str, length: u64) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = if last.is_empty() { length } else { last.parse::<u64>().ok()?.saturating_add(1).min(length) };
    (first < end).then_some((first, end))
}

/// Holds all connections together to a rate: each takes the next free slot of time.
#[derive(Debug)]
struct Pace {
    rate: Option<u64>,
    next: Mutex<Instant>,
}

impl Pace {
    fn wait_for(&self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        let turn = {
            let mut next = lock(&self.next);
            let turn = (*next).max(now);
            *next = turn + Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1));
            turn
        };
        std::thread::sleep(turn.saturating_duration_since(now));
    }
}

/// Where the origin stops until it is let go.
#[derive(Debug, Default)]
struct Gate {
    at: Mutex<Option<u64>>,
    changed: Condvar,
}

impl Gate {
    /// Waits until `count` more bytes may go, and counts them.
    fn pass(&self, sent: &AtomicU64, count: u64) {
        let mut at = lock(&self.at);
        while at.is_some_and(|at| sent.load(Ordering::SeqCst) + count > at) {
            at = self.changed.wait(at).unwrap_or_else(PoisonError::into_inner);
        }
        sent.fetch_add(count, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{self, End};

    #[test]
    fn it_sends_what_is_asked_counts_it_and_breaks_on_request() {
        let origin = Origin::of_file("f", 300_000, Pattern(3), None);
        let address = origin.address;
        let part = http::range(address, "/f", 1000, 200_000).unwrap();
        assert_eq!(
            (part.status, part.end, Pattern(3).first_wrong(1000, &part.body)),
            (206, End::Clean, None)
        );
        origin.misbehave(Fault::Short { missing: 1 }, 1);
        let short = http::get(address, "/f", &[]).unwrap();
        assert_eq!((short.body.len(), short.end), (299_999, End::Cut));
        origin.misbehave(Fault::NoLength, 1);
        let whole = http::get(address, "/f", &[]).unwrap();
        assert_eq!((whole.body.len(), whole.end), (300_000, End::Clean));
        origin.change();
        let changed = http::get(address, "/f", &["If-Range: \"v0\"", "Range: bytes=0-9"]).unwrap();
        assert_eq!(Origin::changed(Pattern(3), 1).first_wrong(0, &changed.body), None);
        assert_eq!(origin.sent(), 200_000 + 299_999 + 300_000 + 300_000);
        assert_eq!(origin.log().iter().map(|entry| entry.sent).sum::<u64>(), origin.sent());
    }
}
