//! HTTP connections that are kept alive and ask for one range after another. Status, `Content-Range` and length of every answer are
//! checked (RFC 9110 §15.3.7), whether its bytes are or not.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::body::Body;
use super::meter::Phase;
use super::pace::{Outstanding, Pace};
use super::ranges::{Range, Ranges};
use super::runtime::{Socket, yield_now};
use super::{CONNECT, HttpLoad, Load, Worker};
use crate::payload::{Payload, Sequence};
use crate::server::HttpFile;

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Bytes one connection may take before the others of its thread have a turn.
const TURN_BYTES: usize = 4 << 20;

/// Fields that a head may have.
const FIELDS_MAX: usize = 64;

/// When an answer came.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    first_byte: Instant,
    first_body_byte: Instant,
}

/// What one connection asks for, over however many sockets.
pub(super) struct Connection {
    file: HttpFile,
    /// Paths to pick from for each request, where there are several files.
    paths: Arc<[String]>,
    pick: Sequence,
    ranges: Ranges,
    pace: Option<Pace>,
    verify: Option<Payload>,
    request: Vec<u8>,
    head: Vec<u8>,
    /// Length of the longest head so far: reading no further leaves the body to be discarded.
    head_bytes: usize,
}

impl Connection {
    /// The connection of this number among those of `http`.
    pub(super) fn new(load: &Load, http: &HttpLoad, number: usize) -> Self {
        Connection {
            ranges: Ranges::new(load, http, number as u64),
            pace: http.rate.map(|rate| Pace::new(rate, number, http.connections)),
            verify: load.verify,
            file: http.file.clone(),
            paths: http.paths.clone(),
            pick: Sequence::new(load.seed, u64::MAX - number as u64),
            request: Vec::new(),
            head: Vec::new(),
            head_bytes: 256,
        }
    }

    /// Asks until something fails, or until the load is over.
    pub(super) async fn run(&mut self, worker: &Worker) -> io::Error {
        match worker.runtime.connect(self.file.address, CONNECT).await {
            Ok(mut socket) => {
                worker.meter().add_connection();
                loop {
                    if let Err(error) = self.ask(&mut socket, worker).await {
                        return error;
                    }
                }
            }
            Err(error) => error,
        }
    }

    /// Asks for the next range once, on a connection of its own, and closes it after `enough` bytes; when the first byte of its body came.
    pub(super) async fn run_once(mut self, worker: &Worker, enough: u64) -> io::Result<Instant> {
        let mut socket = worker.runtime.connect(self.file.address, CONNECT).await?;
        let range = self.ranges.next().ok_or_else(|| io::Error::other("nothing to ask for"))?;
        self.write_request(range);
        socket.write_all(&self.request).await?;
        let arrival = self.read_answer(&socket, worker, range, enough).await?;
        Ok(arrival.first_body_byte)
    }

    async fn ask(&mut self, socket: &mut Socket, worker: &Worker) -> io::Result<()> {
        let Some(range) = self.ranges.next() else {
            // All is done; what ends the load looks at it from time to time.
            worker.runtime.sleep(super::LOOK).await;
            return Ok(());
        };
        let due = match &mut self.pace {
            None => Instant::now(),
            Some(pace) => {
                let due = pace.next();
                worker.runtime.sleep(due.saturating_duration_since(Instant::now())).await;
                due
            }
        };
        let is_measured = worker.board.phase() == Phase::Measured;
        let every = self.pace.as_ref().map(|pace| pace.every);
        let mut outstanding = Outstanding { worker, due, every: every.filter(|_| is_measured) };
        self.write_request(range);
        socket.write_all(&self.request).await?;
        let Arrival { first_byte, .. } = self.read_answer(socket, worker, range, u64::MAX).await?;
        outstanding.every = None;
        worker.meter().add_request();
        if is_measured && worker.board.phase() == Phase::Measured {
            worker
                .recorded
                .borrow_mut()
                .http
                .record(first_byte.saturating_duration_since(due), due.elapsed());
        }
        Ok(())
    }

    fn write_request(&mut self, range: Range) {
        use std::io::Write as _;
        self.request.clear();
        let HttpFile { path, host, .. } = &self.file;
        let picked = usize::try_from(self.pick.next_below(self.paths.len() as u64)).unwrap_or(0);
        let path = self.paths.get(picked).unwrap_or(path);
        let (first, last) = (range.start, range.start + range.bytes - 1);
        let agent = concat!("millrace-perf/", env!("CARGO_PKG_VERSION"));
        write!(
            self.request,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nRange: bytes={first}-{last}\r\n\r\n"
        )
        .expect("a vector takes everything");
    }

    /// Reads the head, and `enough` bytes of the body, if it is longer than that.
    async fn read_answer(
        &mut self,
        socket: &Socket,
        worker: &Worker,
        range: Range,
        enough: u64,
    ) -> io::Result<Arrival> {
        let (head_bytes, first_byte) = self.read_head(socket, range).await?;
        let left = usize::try_from(range.bytes.min(enough)).map_err(io::Error::other)?;
        let mut body = Body { position: range.start, left };
        let here = (self.head.len() - head_bytes).min(left);
        body.take(&self.head[head_bytes..head_bytes + here], self.verify)?;
        worker.meter().add_http(self.head.len() - head_bytes);
        let mut first_body_byte = (self.head.len() > head_bytes).then_some(first_byte);
        let mut turn_bytes = 0;
        while body.left > 0 {
            let taken = body.receive(socket, &mut worker.buffer.borrow_mut(), self.verify)?;
            worker.meter().add_http(taken.unwrap_or(0));
            if taken.is_some() && first_body_byte.is_none() {
                first_body_byte = Some(Instant::now());
            }
            turn_bytes += taken.unwrap_or(0);
            if taken.is_none() {
                socket.readable().await?;
            } else if turn_bytes > TURN_BYTES {
                turn_bytes = 0;
                yield_now().await;
            }
        }
        Ok(Arrival { first_byte, first_body_byte: first_body_byte.unwrap_or(first_byte) })
    }

    /// Reads until the head is whole; the length of the head, and when its first byte came.
    async fn read_head(&mut self, socket: &Socket, range: Range) -> io::Result<(usize, Instant)> {
        self.head.clear();
        let mut first_byte = None;
        loop {
            let filled = self.head.len();
            // One read gets the usual head; a longer one is read on in small steps.
            self.head.resize(self.head_bytes.max(filled + 64), 0);
            let taken = socket.try_read(&mut self.head[filled..])?;
            self.head.truncate(filled + taken.unwrap_or(0));
            match taken {
                None => socket.readable().await?,
                Some(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server")),
                Some(_) => {
                    let first_byte = *first_byte.get_or_insert_with(Instant::now);
                    if let Some(bytes) = check_head(&self.head, range, self.file.length)? {
                        self.head_bytes = self.head_bytes.max(bytes);
                        return Ok((bytes, first_byte));
                    }
                    if self.head.len() > HEAD_BYTES_MAX {
                        return Err(io::Error::other("the head of an answer has no end"));
                    }
                }
            }
        }
    }
}

/// Length of the head, once it is whole and says what it must.
fn check_head(received: &[u8], range: Range, length: u64) -> io::Result<Option<usize>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let head_bytes = match response.parse(received).map_err(io::Error::other)? {
        httparse::Status::Complete(bytes) => bytes,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.unwrap_or(0);
    if status != 206 {
        return Err(io::Error::other(format!("status {status} instead of 206")));
    }
    let field = |name: &str| {
        let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
    };
    let (first, last) = (range.start, range.start + range.bytes - 1);
    if field("content-range") != Some(format!("bytes {first}-{last}/{length}").as_str()) {
        let told = field("content-range").unwrap_or("no Content-Range");
        return Err(io::Error::other(format!("{told} instead of bytes {first}-{last}/{length}")));
    }
    if field("content-length") != Some(range.bytes.to_string().as_str()) {
        let told = field("content-length").unwrap_or("none");
        return Err(io::Error::other(format!("Content-Length {told} instead of {}", range.bytes)));
    }
    Ok(Some(head_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: &str, expected: Result<Option<usize>, &str>) {
        let answer = check_head(head.replace('\n', "\r\n").as_bytes(), Range { start: 10, bytes: 5 }, 100);
        match (answer, expected) {
            (Ok(answer), Ok(expected)) => assert_eq!(answer, expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (answer, expected) => panic!("{answer:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn an_answer_must_be_the_range_that_was_asked_for() {
        let good = "HTTP/1.1 206 Partial Content\nContent-Length: 5\ncontent-range: bytes 10-14/100\n\n";
        check(good, Ok(Some(good.len() + 4)));
        check(&good[..good.len() - 1], Ok(None));
        check(&good.replace("206", "200"), Err("status 200"));
        check(&good.replace("10-14", "10-15"), Err("bytes 10-15/100 instead"));
        check(&good.replace("/100", "/101"), Err("/101 instead"));
        check(&good.replace(": 5", ": 6"), Err("Content-Length 6"));
        check("HTTP/1.1 206 Partial Content\n\n", Err("no Content-Range"));
        check("SSH-2.0\n\n", Err(""));
    }
}
