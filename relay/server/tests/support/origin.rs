//! A small HTTP/1.1 origin on loopback that misbehaves on request, and logs what it really sent.
//!
//! Its files are a pure function of seed and position, so they have any size without storage and every byte can be checked. One
//! thread a connection; everything ends with the process.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test program uses its own part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and runs on 64 bits"
)]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Fills `buffer` with the bytes of file `seed` from `offset` on.
pub fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    let mut at = 0;
    while at < buffer.len() {
        let position = offset + at as u64;
        let word = mix(seed ^ (position / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
        let from = (position % 8) as usize;
        let bytes = (8 - from).min(buffer.len() - at);
        buffer[at..at + bytes].copy_from_slice(&word[from..from + bytes]);
        at += bytes;
    }
}

/// The bytes of file `seed` in `range`.
pub fn bytes(seed: u64, range: Range<u64>) -> Vec<u8> {
    let mut buffer = vec![0; (range.end - range.start) as usize];
    fill(seed, range.start, &mut buffer);
    buffer
}

/// The finaliser of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// One file.
#[derive(Debug, Clone, Copy)]
pub struct File {
    pub length: u64,
    pub seed: u64,
}

/// How the origin behaves; the default is well.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Bytes a second of each connection.
    pub rate: Option<u64>,
    /// Answer every request with the whole, and no Accept-Ranges.
    pub ignores_range: bool,
    /// Chunked, without a length; implies `ignores_range`.
    pub chunked: bool,
    /// No ETag and no Last-Modified.
    pub no_validators: bool,
    /// ETag is weak.
    pub weak_etag: bool,
    /// The first so many bodies are reset after so many bytes.
    pub reset: Option<(usize, u64)>,
    /// The first so many bodies end, cleanly closed, after so many bytes.
    pub short: Option<(usize, u64)>,
    /// Bodies have so many bytes more than Content-Range says, in a chunked coding that promises none.
    pub long: Option<u64>,
    /// Content-Range is for another range.
    pub wrong_range: bool,
    /// After so many requests the file is another one (other seed, other ETag, maybe other length).
    pub changes_after: Option<usize>,
    /// ... of which the validators do not tell: only the ETag changes, and If-Range is ignored.
    pub ignores_if_range: bool,
    /// The first so many requests get this status, with this Retry-After in seconds.
    pub fails: Option<(usize, u16, Option<u64>)>,
    /// Every request gets this status.
    pub status: Option<u16>,
    /// Redirect every request to here.
    pub redirect: Option<String>,
    /// Wait before the head.
    pub slow_head: Option<Duration>,
    /// Says Content-Encoding: gzip.
    pub gzip: bool,
    /// The first so many bodies have one wrong byte, at this position of the file where they hold it.
    pub corrupt: Option<(usize, u64)>,
    /// Requests without this Authorization get 401.
    pub authorization: Option<String>,
    /// The first so many bodies stop coming after so many bytes, and the connection stays open.
    pub stalls: Option<(usize, u64)>,
}

/// One line of the access log.
#[derive(Debug, Clone)]
pub struct Access {
    pub path: String,
    pub range: Option<Range<u64>>,
    pub status: u16,
    /// Bytes of the body that were written.
    pub sent: u64,
    pub headers: BTreeMap<String, String>,
}

/// A running origin.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: BTreeMap<String, File>,
    behaviour: Mutex<Behaviour>,
    log: Mutex<Vec<Access>>,
    requests: AtomicUsize,
    faults: AtomicUsize,
    connections: AtomicUsize,
    connections_most: AtomicUsize,
}

impl Origin {
    /// An origin of one file at `/file.bin`.
    pub fn single(length: u64, seed: u64, behaviour: Behaviour) -> Origin {
        Origin::start([("/file.bin".to_owned(), File { length, seed })].into(), behaviour)
    }

    /// An origin of these files, by path.
    pub fn start(files: BTreeMap<String, File>, behaviour: Behaviour) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            files,
            behaviour: Mutex::new(behaviour),
            log: Mutex::default(),
            requests: AtomicUsize::new(0),
            faults: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            connections_most: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                let open = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                shared.connections_most.fetch_max(open, Ordering::SeqCst);
                std::thread::spawn(move || {
                    shared.serve(stream);
                    shared.connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Origin { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// URL of the only file.
    pub fn file_url(&self) -> String {
        self.url("/file.bin")
    }

    /// Changes how it behaves from the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
        self.shared.faults.store(0, Ordering::SeqCst);
    }

    /// The access log so far.
    pub fn log(&self) -> Vec<Access> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Most connections that were open at a time.
    pub fn connections_most(&self) -> usize {
        self.shared.connections_most.load(Ordering::SeqCst)
    }

    /// Bytes of bodies written so far.
    pub fn sent(&self) -> u64 {
        self.log().iter().map(|access| access.sent).sum()
    }
}

/// How a body ends.
enum End {
    Whole,
    Close,
    Reset,
    Stall,
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let Ok(reading) = stream.try_clone() else { return };
        let mut reader = BufReader::new(reading);
        let mut writer = stream;
        let _ = writer.set_nodelay(true);
        while let Ok(Some((path, headers))) = read_request(&mut reader) {
            if !matches!(self.answer(&mut writer, &path, headers), Ok(true)) {
                return;
            }
        }
    }

    /// Whether the fault that happens `times` times happens now.
    fn is_due(&self, times: usize) -> bool {
        self.faults
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |done| (done < times).then_some(done + 1))
            .is_ok()
    }

    /// Answers one request; whether the connection lives on.
    fn answer(
        &self,
        stream: &mut TcpStream,
        path: &str,
        headers: BTreeMap<String, String>,
    ) -> io::Result<bool> {
        let behaviour = self.behaviour.lock().unwrap().clone();
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        if let Some(wait) = behaviour.slow_head {
            std::thread::sleep(wait);
        }
        let asked = headers.get("range").and_then(|range| parse_range(range));
        let entry = {
            let mut log = self.log.lock().unwrap();
            log.push(Access {
                path: path.to_owned(),
                range: asked.clone(),
                status: 0,
                sent: 0,
                headers: headers.clone(),
            });
            log.len() - 1
        };
        if let Some((status, fields)) = self.refusal(&behaviour, path, &headers) {
            self.log.lock().unwrap()[entry].status = status;
            write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\n{fields}\r\n")?;
            return Ok(true);
        }
        let changed = behaviour.changes_after.is_some_and(|after| number >= after);
        let mut file = self.files[path];
        file.seed ^= u64::from(changed) << 40;
        let etag =
            format!("{}\"{}\"", if behaviour.weak_etag { "W/" } else { "" }, if changed { "b" } else { "a" });
        let stale =
            headers.get("if-range").is_some_and(|known| *known != etag) && !behaviour.ignores_if_range;
        let whole = behaviour.ignores_range || behaviour.chunked || stale;
        let range = asked.filter(|_| !whole);
        if let Some(range) = &range
            && range.start >= file.length
        {
            self.log.lock().unwrap()[entry].status = 416;
            write!(
                stream,
                "HTTP/1.1 416 No\r\nContent-Length: 0\r\nContent-Range: bytes */{}\r\n\r\n",
                file.length
            )?;
            return Ok(true);
        }
        let status = if range.is_some() { 206 } else { 200 };
        self.log.lock().unwrap()[entry].status = status;
        let range = range.map_or(0..file.length, |range| range.start..range.end.min(file.length));
        write!(stream, "{}", head(&behaviour, status, &range, file.length, &etag))?;
        self.body(stream, &behaviour, file, range, entry)
    }

    fn refusal(
        &self,
        behaviour: &Behaviour,
        path: &str,
        headers: &BTreeMap<String, String>,
    ) -> Option<(u16, String)> {
        if let Some(to) = &behaviour.redirect {
            return Some((302, format!("Location: {to}\r\n")));
        }
        if let Some(status) = behaviour.status {
            return Some((status, String::new()));
        }
        if let Some(wanted) = &behaviour.authorization
            && headers.get("authorization") != Some(wanted)
        {
            return Some((401, String::new()));
        }
        if let Some((times, status, wait)) = behaviour.fails
            && self.is_due(times)
        {
            return Some((status, wait.map(|wait| format!("Retry-After: {wait}\r\n")).unwrap_or_default()));
        }
        (!self.files.contains_key(path)).then(|| (404, String::new()))
    }

    fn body(
        &self,
        stream: &mut TcpStream,
        behaviour: &Behaviour,
        file: File,
        range: Range<u64>,
        entry: usize,
    ) -> io::Result<bool> {
        let length = range.end - range.start + behaviour.long.unwrap_or(0);
        let (mut stop, mut end) = (length, End::Whole);
        for (fault, kind) in
            [(behaviour.reset, End::Reset), (behaviour.short, End::Close), (behaviour.stalls, End::Stall)]
        {
            if let Some((times, after)) = fault
                && after < length
                && self.is_due(times)
            {
                (stop, end) = (after, kind);
            }
        }
        let corrupt =
            behaviour.corrupt.filter(|(_, at)| range.contains(at)).filter(|(times, _)| self.is_due(*times));
        let is_chunked = behaviour.chunked || behaviour.long.is_some();
        let (mut at, start) = (0, Instant::now());
        let mut buffer = vec![0; 32 * 1024];
        while at < stop {
            let bytes = (stop - at).min(buffer.len() as u64) as usize;
            fill(file.seed, range.start + at, &mut buffer[..bytes]);
            if let Some((_, wrong)) = corrupt
                && let Some(inside) = wrong.checked_sub(range.start + at)
                && inside < bytes as u64
            {
                buffer[inside as usize] ^= 1;
            }
            if is_chunked {
                write!(stream, "{bytes:x}\r\n")?;
            }
            stream.write_all(&buffer[..bytes])?;
            if is_chunked {
                stream.write_all(b"\r\n")?;
            }
            at += bytes as u64;
            self.log.lock().unwrap()[entry].sent += bytes as u64;
            if let Some(rate) = behaviour.rate {
                let due = Duration::from_secs_f64(at as f64 / rate as f64);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
        }
        match end {
            End::Whole if is_chunked => stream.write_all(b"0\r\n\r\n").map(|()| true),
            End::Whole => Ok(true),
            End::Close => stream.shutdown(Shutdown::Write).map(|()| false),
            End::Reset => {
                // Closing with a linger of zero resets.
                socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
                Ok(false)
            }
            End::Stall => {
                std::thread::sleep(Duration::from_secs(600));
                Ok(false)
            }
        }
    }
}

fn head(behaviour: &Behaviour, status: u16, range: &Range<u64>, length: u64, etag: &str) -> String {
    let mut head = format!("HTTP/1.1 {status} Yes\r\nContent-Type: application/octet-stream\r\n");
    if behaviour.chunked || behaviour.long.is_some() {
        head += "Transfer-Encoding: chunked\r\n";
    } else {
        head += &format!("Content-Length: {}\r\n", range.end - range.start);
    }
    if status == 206 {
        let shift = u64::from(behaviour.wrong_range);
        head +=
            &format!("Content-Range: bytes {}-{}/{length}\r\n", range.start + shift, range.end - 1 + shift);
    }
    if !behaviour.ignores_range && !behaviour.chunked {
        head += "Accept-Ranges: bytes\r\n";
    }
    if !behaviour.no_validators {
        head += &format!("ETag: {etag}\r\n");
    }
    if behaviour.gzip {
        head += "Content-Encoding: gzip\r\n";
    }
    head + "\r\n"
}

/// The path and the header fields of the next request; `None` when the connection ends.
fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<(String, BTreeMap<String, String>)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => return Ok(Some((path, headers))),
        };
    }
}

fn parse_range(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let end = if last.is_empty() { u64::MAX } else { last.parse::<u64>().ok()? + 1 };
    Some(first.parse().ok()?..end)
}
