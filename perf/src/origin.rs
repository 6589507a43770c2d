//! The origin that pulls are measured against: any number of files whose bytes follow from seed and number, over HTTP/1.1 with ranges, at a
//! bounded rate, with a delay before each answer; it knows when the first byte of a file left it, and how many did.

mod asked;

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use millrace_proto::http::date::HttpDate;
use millrace_proto::http::range::ByteRange;
use millrace_proto::http::response::HeadWriter;

use crate::payload::Payload;
use asked::Asked;

/// Bytes written at a time: small enough that a rate of a few MB/s is smooth.
const CHUNK_BYTES: usize = 64 * 1024;

/// How far the origin may fall behind its rate and still catch up.
const LATE_MAX: Duration = Duration::from_millis(20);

/// What an origin serves and how.
#[derive(Debug, Clone)]
pub(crate) struct OriginPlan {
    /// File `n` is the content of seed `seed + n`.
    pub(crate) seed: u64,
    /// Length of every file.
    pub(crate) length: u64,
    /// Bytes per second over all connections; `None` is as fast as it goes.
    pub(crate) rate: Option<u64>,
    /// Time before each answer.
    pub(crate) delay: Duration,
    /// Length of the pieces that the hashes of a file are for.
    pub(crate) piece_bytes: u64,
}

/// What happened to one file.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Served {
    /// Just before the first byte of the file's content was given to the kernel.
    pub(crate) first_byte: Option<Instant>,
    /// Just before the last byte of its first piece was.
    pub(crate) first_piece: Option<Instant>,
    /// Bytes of bodies given to the kernel.
    pub(crate) bytes: u64,
}

/// A running origin; it ends with this value.
#[derive(Debug)]
pub(crate) struct Origin {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    plan: OriginPlan,
    address: SocketAddr,
    served: Mutex<HashMap<u64, Served>>,
    /// When the next byte may leave.
    free_at: Mutex<Instant>,
    over: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Origin {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn start(plan: OriginPlan) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let shared = Arc::new(Shared {
            plan,
            address: listener.local_addr()?,
            served: Mutex::default(),
            free_at: Mutex::new(Instant::now()),
            over: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let accepting = std::thread::spawn({
            let shared = shared.clone();
            move || shared.accept(&listener)
        });
        Ok(Origin { shared, accepting: Some(accepting) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The path of a file.
    pub(crate) fn path(number: u64) -> String {
        format!("/{number}.bin")
    }

    /// The content of a file.
    pub(crate) fn payload(&self, number: u64) -> Payload {
        Payload::new(self.shared.plan.seed.wrapping_add(number))
    }

    /// What happened to a file so far.
    pub(crate) fn served(&self, number: u64) -> Served {
        lock(&self.shared.served).get(&number).copied().unwrap_or_default()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for connection in lock(&self.shared.connections).iter() {
            // It may be closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
        // The thread that accepts wakes from this, and sees that it is over.
        let _ = TcpStream::connect(self.shared.address);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            lock(&self.connections).extend(stream.try_clone());
            let shared = self.clone();
            // A client that goes away ends its connection; there is nobody to tell.
            std::thread::spawn(move || {
                let mut stream = stream;
                let _ = shared.answer(&mut stream);
                // The list above holds it open otherwise.
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    }

    fn answer(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut received = Vec::new();
        while let Some(asked) = Asked::read(stream, &mut received, self.plan.length)? {
            std::thread::sleep(self.plan.delay);
            match asked.number {
                None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
                Some(number) => {
                    self.write_head(stream, number, asked.status, asked.body)?;
                    if asked.has_body {
                        self.write_body(stream, number, asked.body)?;
                    }
                }
            }
            if !asked.keep_alive {
                break;
            }
        }
        Ok(())
    }

    fn write_head(
        &self,
        stream: &mut TcpStream,
        number: u64,
        status: u16,
        body: ByteRange,
    ) -> io::Result<()> {
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs());
        let mut head = [0; 1024];
        let mut writer = HeadWriter::new(&mut head, status, &HttpDate::from_unix(now));
        let etag = format!("\"{}-{number}\"", self.plan.seed);
        writer.content_length(body.byte_count()).accept_ranges(true).etag(etag.as_bytes());
        if status == 206 {
            writer.content_range(body, self.plan.length);
        }
        let bytes = writer.finish().map_err(io::Error::other)?;
        stream.write_all(&head[..bytes])
    }

    fn write_body(&self, stream: &mut TcpStream, number: u64, body: ByteRange) -> io::Result<()> {
        let payload = Payload::new(self.plan.seed.wrapping_add(number));
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut at = body.start;
        while at < body.end {
            let count = usize::try_from(body.end - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            payload.fill(at, &mut chunk[..count]);
            self.wait_for(count as u64, at > body.start);
            let piece_end = self.plan.piece_bytes.min(self.plan.length);
            let now = Instant::now();
            {
                let mut served = lock(&self.served);
                let served = served.entry(number).or_default();
                served.first_byte.get_or_insert(now);
                if (at..at + count as u64).contains(&(piece_end - 1)) {
                    served.first_piece.get_or_insert(now);
                }
            }
            stream.write_all(&chunk[..count])?;
            lock(&self.served).entry(number).or_default().bytes += count as u64;
            at += count as u64;
        }
        Ok(())
    }

    /// Holds all connections together to the rate: each takes the next free slot of time. One that goes on with a body and wakes late, as
    /// it happens on a busy machine, makes up for it.
    fn wait_for(&self, bytes: u64, goes_on: bool) {
        let Some(rate) = self.plan.rate else { return };
        let now = Instant::now();
        let turn = {
            let mut free_at = lock(&self.free_at);
            let earliest = now.checked_sub(LATE_MAX).filter(|_| goes_on).unwrap_or(now);
            let turn = (*free_at).max(earliest);
            *free_at = turn + Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1));
            turn
        };
        std::thread::sleep(turn.saturating_duration_since(now));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::fetch;

    fn origin(rate: Option<u64>, delay: Duration) -> Origin {
        Origin::start(OriginPlan { seed: 9, length: 100_000, rate, delay, piece_bytes: 66_000 }).unwrap()
    }

    #[test]
    fn files_differ_and_every_byte_is_counted() {
        let origin = origin(None, Duration::ZERO);
        let host = origin.address().to_string();
        for number in [0, 7] {
            let body = fetch::get_ok(origin.address(), &host, &Origin::path(number)).unwrap();
            assert_eq!(body.len(), 100_000);
            assert_eq!(origin.payload(number).first_difference(0, &body), None);
            assert_eq!(origin.served(number).bytes, 100_000);
        }
        assert!(origin.served(3).first_byte.is_none() && origin.served(7).first_byte.is_some());
        assert_eq!(fetch::get(origin.address(), &host, "/other").unwrap().0, 404);
    }

    #[test]
    fn rate_and_delay_are_kept() {
        let origin = origin(Some(1_000_000), Duration::from_millis(30));
        let began = Instant::now();
        fetch::get_ok(origin.address(), "o", "/1.bin").unwrap();
        // The first chunk goes at once, and the second after its time: 65,536 bytes at 1 MB/s.
        assert!(began.elapsed() >= Duration::from_millis(95), "{:?}", began.elapsed());
        let served = origin.served(1);
        assert!(served.first_byte.unwrap() >= began + Duration::from_millis(30));
        // The piece ends in the second chunk.
        assert!(served.first_piece.unwrap() >= began + Duration::from_millis(95));
    }
}
