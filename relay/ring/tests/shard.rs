//! A real shard over a real ring, with clients on loopback: the right bytes, whatever the clients do, and a clean end.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helper functions too")]

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millrace_engine::counters::{Counters, Reason};
use millrace_engine::event::News;
use millrace_engine::ids::{Protocol, ShardId};
use millrace_engine::ledger::Ledger;
use millrace_engine::limits::Limits;
use millrace_engine::shard::{Config, Identity, Shard};
use millrace_pagecache::content::Content;
use millrace_pagecache::layout::{FileSpan, Layout};
use millrace_pagecache::{NewContent, Options, Store};
use millrace_proto::id::ContentId;
use millrace_ring::Reservation;
use millrace_ring::probe::Refusal;
use millrace_send::socket::make_listener;
use millrace_send::{HeaderTables, Mailbox, Postbox, SendPath, Sender, Setup};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

const LENGTH: u64 = 3_000_000;

/// Buffers for reads past the page cache: fewer than there are clients.
const BUFFERS: usize = 2;

/// A running shard that serves one content.
struct Relay {
    address: SocketAddr,
    counters: Arc<Counters>,
    postbox: Postbox,
    content: Arc<Content>,
    folder: PathBuf,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Relay {
    fn start(path: SendPath, limits: &Limits, reservation: Reservation) -> Self {
        let counters = Arc::new(Counters::default());
        let identity = Identity { peer_id: [7; 20], agent: "test".to_owned(), port: 0 };
        let config = Config {
            limits: Arc::new(limits.clone()),
            ledger: Arc::new(Ledger::default()),
            counters: Arc::clone(&counters),
            identity,
            seed: 1,
        };
        let listener = make_listener("127.0.0.1:0".parse().unwrap(), true, None).unwrap();
        let address = local_address(&listener);
        let (postbox, mailbox) = Mailbox::new().unwrap();
        let (content, folder) = content();
        postbox.post(News::Put(Arc::clone(&content)));
        let setup = Setup {
            id: ShardId(0),
            shard: Shard::new(ShardId(0), config),
            connections_max: limits.connections_max,
            core: None,
            listeners: vec![(listener, Protocol::Http)],
            mailbox,
            sender: Sender::new(path, Arc::clone(&counters), Arc::new(HeaderTables::default()))
                .unwrap()
                .reading_directly(BUFFERS),
            counters: Arc::clone(&counters),
        };
        let thread = std::thread::spawn(move || millrace_ring::run(setup, reservation, |_| {}));
        Relay { address, counters, postbox, content, folder, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        // Only so that a shard that hangs fails the test.
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        client
    }

    fn request(&self, range: &str) -> String {
        format!("GET /c/{}/data HTTP/1.1\r\nHost: relay\r\nRange: bytes={range}\r\n\r\n", self.content.id())
    }

    /// Asks for `first..=last` and compares every byte.
    #[track_caller]
    fn check(&self, client: &mut TcpStream, first: u64, last: u64) {
        client.write_all(self.request(&format!("{first}-{last}")).as_bytes()).unwrap();
        check_answer(client, first, last);
    }

    /// Drains the shard and waits for its end.
    fn end(&mut self) {
        self.postbox.post(News::Drain);
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[track_caller]
fn check_answer(client: &mut impl Read, first: u64, last: u64) {
    let head = read_head(client);
    assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
    let expected = bytes(first..last + 1);
    let mut body = vec![0; expected.len()];
    client.read_exact(&mut body).unwrap();
    assert!(
        body == expected,
        "{:?}: first byte that differs",
        body.iter().zip(expected).position(|(a, b)| a != b)
    );
}

fn read_head(client: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The content: a function of the offset, made once.
fn bytes(range: Range<u64>) -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let byte_at = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7] ^ at.to_le_bytes()[1];
        (0..LENGTH).map(byte_at).collect()
    });
    &BYTES[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
}

fn content() -> (Arc<Content>, PathBuf) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("millrace-ring-{}-{number}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let path = folder.join("data");
    File::create(&path).unwrap().write_all(bytes(0..LENGTH)).unwrap();
    let span = FileSpan { path: vec!["data".to_owned()], offset: 0, length: LENGTH, padding: false };
    let layout = Layout::new(64 * 1024, LENGTH, vec![span]).unwrap();
    let new = NewContent::imported(ContentId([7; 16]), "data", layout, vec![path], "\"1\"");
    let store = Store::open(&folder.join("store"), Options { capacity: None, free_floor: 0 }).unwrap();
    (store.add(new).unwrap(), folder)
}

fn local_address(listener: &OwnedFd) -> SocketAddr {
    socket2::SockRef::from(listener).local_addr().unwrap().as_socket().unwrap()
}

/// A ring. Memory for it may have to be waited for: rings of tests beside this one count against the same limit, and end.
fn reserve(limits: &Limits) -> Result<Reservation, Refusal> {
    let began = Instant::now();
    loop {
        match millrace_ring::probe().verdict.and_then(|_| millrace_ring::reserve(limits)) {
            Err(Refusal::Memory { .. }) if began.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            reserved => return reserved,
        }
    }
}

/// Runs a scenario over both ways of sending, then drains the shard, which ends only when nothing is in flight.
fn check(name: &str, connections_max: u32, scenario: impl Fn(&Relay)) {
    check_with(name, &Limits { connections_max, ..Limits::default() }, scenario);
}

fn check_with(name: &str, limits: &Limits, scenario: impl Fn(&Relay)) {
    for path in [SendPath::Sendfile, SendPath::Reference] {
        let reservation = match reserve(limits) {
            Ok(reservation) => reservation,
            Err(refusal) => {
                assert!(
                    std::env::var_os("MILLRACE_REQUIRE_URING").is_none_or(|value| value != "1"),
                    "{name}: io_uring is required and not available: {refusal}"
                );
                // Past the test harness, which keeps what a passing test prints to itself.
                writeln!(std::io::stderr(), "{name}: skipped: io_uring is not available: {refusal}").ok();
                return;
            }
        };
        let mut relay = Relay::start(path, limits, reservation);
        scenario(&relay);
        relay.end();
        let counters = &relay.counters;
        assert_eq!(counters.connections_http.value(), 0, "{path}");
        assert_eq!(counters.ring_overflows.value(), 0, "{path}");
    }
}

#[test]
fn ranges_of_every_size_on_one_connection() {
    check("ranges_of_every_size_on_one_connection", 16, |relay| {
        let mut client = relay.connect();
        for (first, last) in [(0, 0), (1, 16_384), (4_095, 70_000), (0, LENGTH - 1), (LENGTH - 1, LENGTH - 1)]
        {
            relay.check(&mut client, first, last);
        }
    });
}

#[test]
fn pipelined_requests_far_beyond_the_provided_buffers_are_answered_in_order() {
    check("pipelined_requests_far_beyond_the_provided_buffers_are_answered_in_order", 16, |relay| {
        const REQUESTS: u64 = 8_000;
        let mut writer = relay.connect();
        let mut reader = BufReader::new(writer.try_clone().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // 600 KiB of requests, while 16 connections share 256 KiB of buffers: the engine pauses the receive again and again.
                for number in 0..REQUESTS {
                    writer.write_all(relay.request(&format!("{number}-{}", number + 9)).as_bytes()).unwrap();
                }
            });
            for number in 0..REQUESTS {
                check_answer(&mut reader, number, number + 9);
            }
        });
    });
}

#[test]
fn two_hundred_clients_at_a_time() {
    check("two_hundred_clients_at_a_time", 256, |relay| {
        let mut clients: Vec<_> = (0..200).map(|_| relay.connect()).collect();
        for (client, number) in clients.iter_mut().zip(0..) {
            client.write_all(relay.request(&format!("{number}-{}", number + 200_000)).as_bytes()).unwrap();
        }
        for (client, number) in clients.iter_mut().zip(0..) {
            check_answer(client, number, number + 200_000);
        }
        assert_eq!(relay.counters.accepted_http.value(), 200);
    });
}

#[test]
fn clients_that_reset_in_the_middle_of_an_answer_leave_nothing_behind() {
    check("clients_that_reset_in_the_middle_of_an_answer_leave_nothing_behind", 4, |relay| {
        for _ in 0..40 {
            let mut client = relay.connect();
            client.write_all(relay.request(&format!("0-{}", LENGTH - 1)).as_bytes()).unwrap();
            let _ = read_head(&mut client);
            // Unread bytes make the close a reset.
            drop(client);
            // There are four slots: the next connection waits for its turn to be accepted into one.
            let mut other = loop {
                let mut other = relay.connect();
                other.write_all(relay.request("5-5").as_bytes()).unwrap();
                if other.peek(&mut [0]).is_ok_and(|bytes| bytes > 0) {
                    break other;
                }
            };
            check_answer(&mut other, 5, 5);
        }
    });
}

#[test]
fn a_full_table_turns_connections_away_at_once() {
    check("a_full_table_turns_connections_away_at_once", 2, |relay| {
        let mut clients: Vec<_> = (0..2).map(|_| relay.connect()).collect();
        for client in &mut clients {
            relay.check(client, 0, 10);
        }
        let mut third = relay.connect();
        assert_eq!(third.read(&mut [0]).unwrap_or(0), 0, "closed without an answer");
        assert_eq!(relay.counters.closed[Reason::TooManyConnections as usize].value(), 1);
        relay.check(&mut clients[0], 20, 30);
    });
}

/// Drops the content from memory, and has one read show what is there afterwards; false where that cannot be had here.
fn make_cold(relay: &Relay) -> bool {
    let file = File::open(relay.folder.join("data")).unwrap();
    file.sync_all().unwrap();
    let drop_all = || posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    drop_all();
    relay.check(&mut relay.connect(), 5, 5);
    drop_all();
    let is_cold = millrace_pagecache::disk::residency::resident(&file, 0, LENGTH) == Some(false);
    if !is_cold {
        writeln!(std::io::stderr(), "not cold: the page cache cannot be dropped here").ok();
    }
    is_cold
}

#[test]
fn bytes_that_are_not_in_memory_are_read_first_with_fewer_buffers_than_clients() {
    check("bytes_that_are_not_in_memory_are_read_first_with_fewer_buffers_than_clients", 64, |relay| {
        let is_cold = make_cold(relay);
        let mut clients: Vec<_> = (0..50).map(|_| relay.connect()).collect();
        for (client, number) in clients.iter_mut().zip(0..) {
            let first = number * 50_000;
            client.write_all(relay.request(&format!("{first}-{}", first + 99_999)).as_bytes()).unwrap();
        }
        for (client, number) in clients.iter_mut().zip(0..) {
            check_answer(client, number * 50_000, number * 50_000 + 99_999);
        }
        if is_cold {
            assert!(relay.counters.read_direct.value() > 0);
        }
    });
}

#[test]
fn clients_that_leave_while_their_bytes_are_read_hold_nobody_up() {
    check("clients_that_leave_while_their_bytes_are_read_hold_nobody_up", 64, |relay| {
        make_cold(relay);
        for number in 0..30 {
            let mut client = relay.connect();
            let first = number * 100_000;
            client.write_all(relay.request(&format!("{first}-{}", first + 99_999)).as_bytes()).unwrap();
            // The request arrives before the reset does.
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        relay.check(&mut relay.connect(), 1, LENGTH - 2);
    });
}

#[test]
fn a_shard_that_nobody_talks_to_turns_all_the_same() {
    check("a_shard_that_nobody_talks_to_turns_all_the_same", 16, |relay| {
        let started = Instant::now();
        // More than the news at the start can be the reason for.
        while relay.counters.loops.value() < 5 {
            assert!(started.elapsed() < Duration::from_secs(60), "{} loops", relay.counters.loops.value());
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn a_drain_lets_a_running_answer_finish() {
    check("a_drain_lets_a_running_answer_finish", 16, |relay| {
        let mut client = relay.connect();
        client.write_all(relay.request(&format!("0-{}", LENGTH - 1)).as_bytes()).unwrap();
        let head = read_head(&mut client);
        assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
        relay.postbox.post(News::Drain);
        let mut body = Vec::new();
        client.read_to_end(&mut body).unwrap();
        assert!(body == bytes(0..LENGTH), "{} bytes", body.len());
    });
}

#[test]
fn a_client_that_stays_silent_is_closed_while_its_receive_is_in_flight() {
    let limits = Limits { connections_max: 1, head_timeout: Duration::ZERO, ..Limits::default() };
    check_with("a_client_that_stays_silent_is_closed_while_its_receive_is_in_flight", &limits, |relay| {
        let mut silent = relay.connect();
        let mut answer = Vec::new();
        silent.read_to_end(&mut answer).unwrap();
        drop(silent);
        assert_eq!(relay.counters.closed[Reason::SlowHead as usize].value(), 1);
    });
}
