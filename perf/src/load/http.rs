//! HTTP connections that are kept alive and ask for one range after another. Status, `Content-Range` and length of every answer are
//! checked (RFC 9110 §15.3.7), whether its bytes are or not.

use std::io;
use std::time::{Duration, Instant};

use super::body::Body;
use super::meter::Phase;
use super::runtime::{Socket, yield_now};
use super::{CONNECT, HttpLoad, Load, Order, Worker};
use crate::payload::{Payload, Sequence, mix};
use crate::server::HttpFile;

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Bytes one connection may take before the others of its thread have a turn.
const TURN_BYTES: usize = 4 << 20;

/// Fields that a head may have.
const FIELDS_MAX: usize = 64;

/// Part of a file: the first byte and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u64,
    bytes: u64,
}

/// When an answer came.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    first_byte: Instant,
    first_body_byte: Instant,
}

/// What one connection asks for, over however many sockets.
pub(super) struct Connection {
    file: HttpFile,
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

    /// Asks for the next range once, on a connection of its own; when the first byte of its body came.
    pub(super) async fn run_once(mut self, worker: &Worker) -> io::Result<Instant> {
        let mut socket = worker.runtime.connect(self.file.address, CONNECT).await?;
        let range = self.ranges.next().ok_or_else(|| io::Error::other("nothing to ask for"))?;
        self.write_request(range);
        socket.write_all(&self.request).await?;
        let arrival = self.read_answer(&socket, worker, range).await?;
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
        let Arrival { first_byte, .. } = self.read_answer(socket, worker, range).await?;
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
        let (first, last) = (range.start, range.start + range.bytes - 1);
        let agent = concat!("millrace-perf/", env!("CARGO_PKG_VERSION"));
        write!(
            self.request,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nRange: bytes={first}-{last}\r\n\r\n"
        )
        .expect("a vector takes everything");
    }

    /// Reads head and body.
    async fn read_answer(&mut self, socket: &Socket, worker: &Worker, range: Range) -> io::Result<Arrival> {
        let (head_bytes, first_byte) = self.read_head(socket, range).await?;
        let left = usize::try_from(range.bytes).map_err(io::Error::other)?;
        let mut body = Body { position: range.start, left };
        body.take(&self.head[head_bytes..], self.verify)?;
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

/// Which range comes next.
struct Ranges {
    range_bytes: u64,
    length: u64,
    count: u64,
    indices: Indices,
}

/// Ranges by number.
enum Indices {
    Sequential(u64),
    Random(Sequence),
    /// This connection's share of all.
    Once(std::vec::IntoIter<u64>),
}

impl Ranges {
    fn new(load: &Load, http: &HttpLoad, number: u64) -> Self {
        let length = http.file.length;
        let range_bytes = http.range_bytes.clamp(1, length.max(1));
        let count = length.div_ceil(range_bytes).max(1);
        let connections = http.connections.max(1) as u64;
        Ranges {
            range_bytes,
            length,
            count,
            indices: match load.order {
                Order::Sequential => Indices::Sequential(count * number / connections),
                Order::Random => Indices::Random(Sequence::new(load.seed, number)),
                Order::Once => Indices::Once(share(load.seed, count, number, connections).into_iter()),
            },
        }
    }

    /// `None` when each was asked for that should be.
    fn next(&mut self) -> Option<Range> {
        let index = match &mut self.indices {
            Indices::Random(random) => random.next_below(self.count),
            Indices::Sequential(next) => {
                let after = (*next + 1) % self.count;
                std::mem::replace(next, after)
            }
            Indices::Once(indices) => indices.next()?,
        };
        let start = index % self.count * self.range_bytes;
        Some(Range { start, bytes: self.range_bytes.min(self.length - start) })
    }
}

/// The numbers below `count` that fall to one connection, in an order of the seed: numbers are dealt out by their mixed value, and each
/// hand is sorted by it, so every number is in exactly one hand and no hand has an order on the disk.
fn share(seed: u64, count: u64, connection: u64, connections: u64) -> Vec<u64> {
    let key = |number: u64| mix(mix(seed) ^ number);
    let mut hand: Vec<u64> = (0..count).filter(|number| key(*number) % connections == connection).collect();
    hand.sort_unstable_by_key(|number| key(*number) / connections);
    hand
}

/// When requests of a connection are due, so that all connections together ask at a rate.
struct Pace {
    next: Instant,
    every: Duration,
}

impl Pace {
    fn new(rate: f64, number: usize, connections: usize) -> Self {
        let share = |count: usize| {
            Duration::from_secs_f64(f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / rate)
        };
        Pace { next: Instant::now() + share(number), every: share(connections) }
    }

    /// Requests that could not be sent in time keep the time when they were due.
    fn next(&mut self) -> Instant {
        let next = self.next + self.every;
        std::mem::replace(&mut self.next, next)
    }
}

/// A request at a given rate that is not answered yet. If it never is, because the load ends first, then it and those that were due behind
/// it count with the time they have waited: a server that stalls at the end must not look better than one that stalls in the middle.
struct Outstanding<'a> {
    worker: &'a Worker,
    due: Instant,
    /// Time between requests; `None` for one that does not count.
    every: Option<Duration>,
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        if let Some(every) = self.every.filter(|_| self.worker.is_over()) {
            let latencies = &mut self.worker.recorded.borrow_mut().http;
            overdue(self.due.elapsed(), every).for_each(|waited| latencies.record(waited, waited));
        }
    }
}

/// How long requests have waited of which the first was due this long ago, and the others at intervals after it.
fn overdue(first: Duration, every: Duration) -> impl Iterator<Item = Duration> {
    let step = every.max(Duration::from_micros(1));
    std::iter::successors(Some(first), move |waited| waited.checked_sub(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(order: Order, connections: usize, range_bytes: u64, length: u64) -> (Load, HttpLoad) {
        let file =
            HttpFile { address: "127.0.0.1:1".parse().unwrap(), host: "h".into(), path: "/f".into(), length };
        let http = HttpLoad { file, connections, range_bytes, rate: None };
        (Load { http: None, bittorrent: None, order, seed: 1, verify: None }, http)
    }

    #[test]
    fn sequential_ranges_cover_the_file_with_a_short_one_at_its_end() {
        let (load, http) = load(Order::Sequential, 2, 100, 250);
        let mut ranges = Ranges::new(&load, &http, 1);
        let asked: Vec<_> = (0..3).filter_map(|_| ranges.next()).collect();
        let range = |start, bytes| Range { start, bytes };
        assert_eq!(asked, [range(100, 100), range(200, 50), range(0, 100)]);
    }

    #[test]
    fn random_ranges_stay_inside_and_reach_everything() {
        let (load, http) = load(Order::Random, 1, 100, 1050);
        let mut ranges = Ranges::new(&load, &http, 0);
        let mut seen = [false; 11];
        for _ in 0..500 {
            let Range { start, bytes } = ranges.next().unwrap();
            assert!(start % 100 == 0 && start + bytes <= 1050 && bytes > 0);
            seen[usize::try_from(start / 100).unwrap()] = true;
        }
        assert_eq!(seen, [true; 11]);
    }

    #[test]
    fn a_range_longer_than_the_file_is_the_file() {
        let (load, http) = load(Order::Random, 1, 1 << 20, 10);
        assert_eq!(Ranges::new(&load, &http, 0).next(), Some(Range { start: 0, bytes: 10 }));
    }

    #[test]
    fn each_range_once_is_each_range_once_and_in_no_order() {
        let (load, http) = load(Order::Once, 7, 100, 100_000);
        let all = (0..7).flat_map(|number| {
            let mut ranges = Ranges::new(&load, &http, number);
            std::iter::from_fn(move || ranges.next()).map(|range| range.start)
        });
        let mut all: Vec<u64> = all.collect();
        let ascents = all.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((300..700).contains(&ascents), "{ascents} of 999 steps go up");
        all.sort_unstable();
        assert!(all.iter().copied().eq((0..1000).map(|index| index * 100)));
    }

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

    #[test]
    fn a_stall_at_the_end_is_charged_to_all_that_were_due() {
        let milliseconds = |count| Duration::from_millis(count);
        let waited: Vec<_> = overdue(milliseconds(35), milliseconds(10)).collect();
        assert_eq!(waited, [35, 25, 15, 5].map(milliseconds));
        assert_eq!(overdue(milliseconds(3), milliseconds(10)).count(), 1);
    }

    #[test]
    fn what_is_late_keeps_its_due_time() {
        let mut pace = Pace::new(1000.0, 3, 10);
        let (first, second) = (pace.next(), pace.next());
        assert_eq!(second - first, Duration::from_millis(10));
        assert!(first <= Instant::now() + Duration::from_millis(3));
    }
}
