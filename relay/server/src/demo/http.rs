//! The demo's HTTP client: ranges of the file, several connections at once, as a download manager would.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::sink::Sink;

/// Bytes asked for at a time.
const RANGE_BYTES: u64 = 4 << 20;

/// What a download took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// From the first request to the first byte of the file.
    pub(super) first_byte: Duration,
    /// From the first request to the last byte.
    pub(super) total: Duration,
}

/// Downloads `length` bytes of `path` over `connections` connections.
pub(super) fn download(
    relay: SocketAddr,
    path: &str,
    length: u64,
    connections: usize,
    sink: &Sink,
) -> io::Result<Timing> {
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let first_byte = std::thread::scope(|scope| {
        let fetch = || fetch_ranges(relay, path, length, &next, started, sink);
        let workers: Vec<_> = (0..connections).map(|_| scope.spawn(fetch)).collect();
        let mut first = Duration::MAX;
        for worker in workers {
            let outcome = worker.join().map_err(|_| io::Error::other("a download thread panicked"))?;
            first = first.min(outcome?);
        }
        Ok::<_, io::Error>(first)
    })?;
    Ok(Timing { first_byte, total: started.elapsed() })
}

/// One connection: takes the next range until none is left. Answers with the time to its first byte.
fn fetch_ranges(
    relay: SocketAddr,
    path: &str,
    length: u64,
    next: &AtomicU64,
    started: Instant,
    sink: &Sink,
) -> io::Result<Duration> {
    let mut stream = BufReader::with_capacity(256 * 1024, TcpStream::connect(relay)?);
    let mut first_byte = Duration::MAX;
    loop {
        let start = next.fetch_add(RANGE_BYTES, Ordering::Relaxed);
        if start >= length {
            return Ok(first_byte);
        }
        let end = (start + RANGE_BYTES).min(length);
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {relay}\r\nRange: bytes={start}-{}\r\n\r\n", end - 1);
        stream.get_mut().write_all(request.as_bytes())?;
        read_head(&mut stream)?;
        let mut at = start;
        while at < end {
            let arrived = stream.fill_buf()?;
            if arrived.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            first_byte = first_byte.min(started.elapsed());
            let count = usize::try_from(end - at).map_or(arrived.len(), |left| left.min(arrived.len()));
            sink.write(at, &arrived[..count])?;
            stream.consume(count);
            at += count as u64;
        }
    }
}

fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<()> {
    let mut status = String::new();
    stream.by_ref().take(8192).read_line(&mut status)?;
    if !status.contains(" 206 ") {
        return Err(io::Error::other(format!("the relay answered {:?}", status.trim())));
    }
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if stream.by_ref().take(8192).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
