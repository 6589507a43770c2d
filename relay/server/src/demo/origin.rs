//! The demo's origin: one file over HTTP/1.1 with ranges, all connections together held to a rate, every byte counted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use millrace_proto::http::date::HttpDate;
use millrace_proto::http::range::{self, ByteRange, Ranges};
use millrace_proto::http::request::{self, Parsed};
use millrace_proto::http::response::HeadWriter;

/// Bytes written at a time: small enough that a rate of a few MB/s is smooth.
const CHUNK_BYTES: usize = 64 * 1024;

/// A running origin.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    length: u64,
    address: SocketAddr,
    sent_bytes: AtomicU64,
    pace: Pace,
}

impl Origin {
    /// Serves `file` on a free loopback port at no more than `rate` bytes per second.
    pub(super) fn start(file: File, rate: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let length = file.metadata()?.len();
        let address = listener.local_addr()?;
        let shared =
            Arc::new(Shared { file, length, address, sent_bytes: AtomicU64::new(0), pace: Pace::new(rate) });
        let served = Arc::clone(&shared);
        std::thread::Builder::new().name("origin".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                // A relay that goes away ends its connections; there is nobody to tell.
                std::thread::spawn(move || served.answer(stream).ok());
            }
        })?;
        Ok(Origin { shared })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/sample.bin", self.shared.address)
    }

    /// Body bytes handed out so far, by this origin's own count.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.shared.sent_bytes.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let (taken, wanted) = match request::parse(&received, &request::Limits::default()) {
                Parsed::NeedMore => {
                    let count = stream.read(&mut buffer)?;
                    if count == 0 {
                        return Ok(());
                    }
                    received.extend_from_slice(&buffer[..count]);
                    continue;
                }
                Parsed::Bad(_) => return Ok(()),
                Parsed::Request { head_bytes, request } => (
                    head_bytes,
                    request.range.map_or(Ranges::Whole, |value| range::select(value, self.length)),
                ),
            };
            received.drain(..taken);
            let (status, body) = match wanted {
                Ranges::Single(range) => (206, range),
                Ranges::Several(_) | Ranges::Whole | Ranges::Unsatisfiable => {
                    (200, ByteRange { start: 0, end: self.length })
                }
            };
            self.write_head(&mut stream, status, body)?;
            self.write_body(&mut stream, body)?;
        }
    }

    fn write_head(&self, stream: &mut TcpStream, status: u16, body: ByteRange) -> io::Result<()> {
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs());
        let mut head = [0; 1024];
        let mut writer = HeadWriter::new(&mut head, status, &HttpDate::from_unix(now));
        writer.content_length(body.byte_count()).accept_ranges(true).etag(b"\"demo\"");
        if status == 206 {
            writer.content_range(body, self.length);
        }
        let bytes = writer.finish().map_err(io::Error::other)?;
        stream.write_all(&head[..bytes])
    }

    fn write_body(&self, stream: &mut TcpStream, body: ByteRange) -> io::Result<()> {
        let mut chunk = [0; CHUNK_BYTES];
        let mut at = body.start;
        while at < body.end {
            let count = usize::try_from(body.end - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            self.file.read_exact_at(&mut chunk[..count], at)?;
            self.pace.wait_for(count as u64);
            stream.write_all(&chunk[..count])?;
            self.sent_bytes.fetch_add(count as u64, Ordering::Relaxed);
            at += count as u64;
        }
        Ok(())
    }
}

/// Holds all connections together to a rate: each takes the next free slot of time.
#[derive(Debug)]
struct Pace {
    rate: u64,
    next: Mutex<Instant>,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Pace { rate, next: Mutex::new(Instant::now()) }
    }

    fn wait_for(&self, bytes: u64) {
        let now = Instant::now();
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*next).max(now);
            *next = turn + Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.rate.max(1));
            turn
        };
        std::thread::sleep(turn.saturating_duration_since(now));
    }
}
