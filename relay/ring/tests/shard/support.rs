//! A real shard over a real ring that serves one content, and clients that know what it consists of.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millrace_engine::counters::Counters;
use millrace_engine::event::News;
use millrace_engine::ids::ShardId;
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
use millrace_send::{Front, HeaderTables, Mailbox, Outward, Postbox, SendPath, Sender, Setup};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

pub(crate) const LENGTH: u64 = 3_000_000;

/// Buffers for reads past the page cache: fewer than there are clients.
pub(crate) const BUFFERS: usize = 2;

/// A running shard that serves one content.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    pub(crate) counters: Arc<Counters>,
    pub(crate) postbox: Postbox,
    pub(crate) content: Arc<Content>,
    pub(crate) folder: PathBuf,
    pub(crate) thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Relay {
    fn start(path: SendPath, limits: &Limits, reservation: Reservation) -> Self {
        let listener = make_listener("127.0.0.1:0".parse().unwrap(), true, None).unwrap();
        Relay::start_on(listener, path, limits, reservation, |_| {})
    }

    /// Starts it on a socket, and does `outward` with what it asks of others.
    pub(crate) fn start_on(
        listener: OwnedFd,
        path: SendPath,
        limits: &Limits,
        reservation: Reservation,
        outward: impl FnMut(Outward) + Send + 'static,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        let identity = Identity { peer_id: [7; 20], agent: "test".to_owned(), port: 0 };
        let config = Config {
            limits: Arc::new(limits.clone()),
            ledger: Arc::new(Ledger::default()),
            counters: Arc::clone(&counters),
            identity,
            seed: 1,
        };
        let address = local_address(&listener);
        let (postbox, mailbox) = Mailbox::new().unwrap();
        let (content, folder) = content();
        postbox.post(News::Put(Arc::clone(&content)));
        let setup = Setup {
            id: ShardId(0),
            shard: Shard::new(ShardId(0), config),
            connections_max: limits.connections_max,
            core: None,
            listeners: vec![(listener, Front::Http)],
            mailbox,
            sender: Sender::new(path, Arc::clone(&counters), Arc::new(HeaderTables::default()))
                .unwrap()
                .reading_directly(BUFFERS),
            counters: Arc::clone(&counters),
        };
        let thread = std::thread::spawn(move || millrace_ring::run(setup, reservation, outward));
        Relay { address, counters, postbox, content, folder, thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        // Only so that a shard that hangs fails the test.
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        client
    }

    pub(crate) fn request(&self, range: &str) -> String {
        format!("GET /c/{}/data HTTP/1.1\r\nHost: relay\r\nRange: bytes={range}\r\n\r\n", self.content.id())
    }

    /// Asks for `first..=last` and compares every byte.
    #[track_caller]
    pub(crate) fn check(&self, client: &mut TcpStream, first: u64, last: u64) {
        client.write_all(self.request(&format!("{first}-{last}")).as_bytes()).unwrap();
        check_answer(client, first, last);
    }

    /// Drains the shard and waits for its end.
    pub(crate) fn end(&mut self) {
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
pub(crate) fn check_answer(client: &mut impl Read, first: u64, last: u64) {
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

pub(crate) fn read_head(client: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The content: a function of the offset, made once.
pub(crate) fn bytes(range: Range<u64>) -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let byte_at = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7] ^ at.to_le_bytes()[1];
        (0..LENGTH).map(byte_at).collect()
    });
    &BYTES[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
}

pub(crate) fn content() -> (Arc<Content>, PathBuf) {
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

pub(crate) fn local_address(listener: &OwnedFd) -> SocketAddr {
    socket2::SockRef::from(listener).local_addr().unwrap().as_socket().unwrap()
}

/// A ring. Memory for it may have to be waited for: rings of tests beside this one count against the same limit, and end.
pub(crate) fn reserve(limits: &Limits) -> Result<Reservation, Refusal> {
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

/// None where there is no io_uring, which is told.
pub(crate) fn reserve_or_skip(name: &str, limits: &Limits) -> Option<Reservation> {
    let refusal = match reserve(limits) {
        Ok(reservation) => return Some(reservation),
        Err(refusal) => refusal,
    };
    assert!(
        std::env::var_os("MILLRACE_REQUIRE_URING").is_none_or(|value| value != "1"),
        "{name}: io_uring is required and not available: {refusal}"
    );
    // Past the test harness, which keeps what a passing test prints to itself.
    writeln!(std::io::stderr(), "{name}: skipped: io_uring is not available: {refusal}").ok();
    None
}

/// Runs a scenario over both ways of sending, then drains the shard, which ends only when nothing is in flight.
pub(crate) fn check(name: &str, connections_max: u32, scenario: impl Fn(&Relay)) {
    check_with(name, &Limits { connections_max, ..Limits::default() }, scenario);
}

pub(crate) fn check_with(name: &str, limits: &Limits, scenario: impl Fn(&Relay)) {
    for path in [SendPath::Sendfile, SendPath::Reference] {
        let Some(reservation) = reserve_or_skip(name, limits) else { return };
        let mut relay = Relay::start(path, limits, reservation);
        scenario(&relay);
        relay.end();
        let counters = &relay.counters;
        assert_eq!(counters.connections_http.value(), 0, "{path}");
        assert_eq!(counters.ring_overflows.value(), 0, "{path}");
    }
}

/// Drops the content from memory, and has one read show what is there afterwards; false where that cannot be had here.
pub(crate) fn make_cold(relay: &Relay) -> bool {
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
