//! A shard over epoll, asked over HTTP by plain sockets: the right bytes, by both ways of sending, whatever the readers do.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use millrace_engine::counters::{Counters, Reason};
use millrace_engine::event::{Answer, Document, News};
use millrace_engine::ids::ShardId;
use millrace_engine::ledger::Ledger;
use millrace_engine::limits::Limits;
use millrace_engine::shard::{Config, Identity, Shard};
use millrace_pagecache::content::Content;
use millrace_pagecache::layout::Layout;
use millrace_pagecache::new_content::NewContent;
use millrace_pagecache::{Options, Store};
use millrace_proto::id::ContentId;
use millrace_send::socket::make_listener;
use millrace_send::{Front, HeaderTables, Mailbox, Outward, Postbox, SendPath, Sender, Setup};
use socket2::SockRef;

const CONTENT_BYTES: u64 = 3_000_001;

/// Buffers for reads past the page cache: fewer than there are clients.
const BUFFERS: usize = 2;

/// A shard on a thread of its own, with one content.
struct Relay {
    address: SocketAddr,
    postbox: Postbox,
    counters: Arc<Counters>,
    content: Arc<Content>,
    asked: mpsc::Receiver<Outward>,
    thread: JoinHandle<std::io::Result<()>>,
    folder: PathBuf,
    _store: Store,
}

impl Relay {
    fn start(path: SendPath, connections_max: u32) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("millrace-epoll-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("file.bin");
        fs::write(&file, body(0, CONTENT_BYTES)).unwrap();
        let store = Store::open(&folder.join("store"), Options::default()).unwrap();
        let layout = Layout::single("file.bin", CONTENT_BYTES, 1 << 18).unwrap();
        let new = NewContent::imported(ContentId([7; 16]), "file.bin", layout, vec![file], "\"1\"");
        let content = store.add(new).unwrap();

        let counters = Arc::new(Counters::default());
        let config = Config {
            limits: Arc::new(Limits { connections_max, ..Limits::default() }),
            ledger: Arc::new(Ledger::default()),
            counters: Arc::clone(&counters),
            identity: Identity { peer_id: [b'm'; 20], agent: "millrace test".into(), port: 6881 },
            seed: 1,
        };
        let listener = make_listener("[::]:0".parse().unwrap(), true, None).unwrap();
        let port = SockRef::from(&listener).local_addr().unwrap().as_socket().unwrap().port();
        let (postbox, mailbox) = Mailbox::new().unwrap();
        let sender = Sender::new(path, Arc::clone(&counters), Arc::new(HeaderTables::default())).unwrap();
        let sender = sender.reading_directly(BUFFERS);
        let setup = Setup {
            id: ShardId(0),
            shard: Shard::new(ShardId(0), config),
            connections_max,
            core: Some(0),
            listeners: vec![(listener, Front::Http)],
            mailbox,
            sender,
            counters: Arc::clone(&counters),
        };
        let (ask, asked) = mpsc::channel();
        let outward = move |outward| ask.send(outward).unwrap();
        let thread = thread::Builder::new().name("shard-0".into());
        let thread = thread.spawn(move || millrace_epoll::run(setup, outward)).unwrap();
        postbox.post(News::Put(Arc::clone(&content)));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Relay { address, postbox, counters, content, asked, thread, folder, _store: store }
    }

    fn path(&self) -> String {
        format!("/c/{}/file.bin", self.content.id())
    }

    fn connect(&self) -> Client {
        Client(BufReader::new(TcpStream::connect(self.address).unwrap()))
    }

    /// Lets the shard end, which it does when its connections have.
    fn end(self) {
        self.postbox.post(News::Drain);
        self.thread.join().unwrap().unwrap();
        assert_eq!(self.counters.connections_http.value(), 0);
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn request(&mut self, path: &str, fields: &str) {
        write!(self.0.get_mut(), "GET {path} HTTP/1.1\r\nHost: relay\r\n{fields}\r\n").unwrap();
    }

    /// The status line and the body's length.
    fn head(&mut self) -> (String, u64) {
        let (mut status, mut length) = (String::new(), 0);
        assert!(self.0.read_line(&mut status).unwrap() > 0, "the connection ended before the answer");
        loop {
            let mut field = String::new();
            self.0.read_line(&mut field).unwrap();
            if field == "\r\n" {
                return (status.trim_end().to_owned(), length);
            }
            if let Some(value) = field.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
    }

    fn answer(&mut self) -> (String, Vec<u8>) {
        let (status, length) = self.head();
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut body).unwrap();
        (status, body)
    }
}

fn body(offset: u64, bytes: u64) -> Vec<u8> {
    (offset..offset + bytes).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]).collect()
}

/// Asks for a range on this connection and compares.
fn check(client: &mut Client, path: &str, offset: u64, bytes: u64) {
    client.request(path, &format!("Range: bytes={offset}-{}\r\n", offset + bytes - 1));
    let (status, received) = client.answer();
    assert_eq!(status, "HTTP/1.1 206 Partial Content");
    assert!(received == body(offset, bytes), "bytes {offset}+{bytes}");
}

#[test]
fn ranges_over_kept_alive_connections_by_both_ways_of_sending() {
    for path in [SendPath::Reference, SendPath::Sendfile] {
        let relay = Relay::start(path, 16);
        let mut client = relay.connect();
        for (offset, bytes) in [(0, 1), (5, 16_384), (100_000, 65_536), (1, 2_000_000), (2_999_999, 2)] {
            check(&mut client, &relay.path(), offset, bytes);
        }
        client.request(&relay.path(), "");
        let (status, received) = client.answer();
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(received == body(0, CONTENT_BYTES));
        let sent = match path {
            SendPath::Reference => relay.counters.sent_reference_bytes.value(),
            SendPath::Sendfile => relay.counters.sent_sendfile_bytes.value(),
        };
        assert!(sent >= CONTENT_BYTES, "{path} sent {sent} bytes");
        drop(client);
        relay.end();
    }
}

#[test]
fn a_reader_that_waits_holds_nobody_up_and_gets_the_rest_later() {
    let relay = Relay::start(SendPath::Reference, 16);
    let mut slow = relay.connect();
    // It reads no more than this for now: what the relay can queue for it is far less than the content.
    slow.request(&relay.path(), "");
    assert_eq!(slow.head().0, "HTTP/1.1 200 OK");
    let others: Vec<_> = (0..8).map(|_| relay.connect()).collect();
    for mut client in others {
        check(&mut client, &relay.path(), 7, 1_000_000);
    }
    let mut received = vec![0; usize::try_from(CONTENT_BYTES).unwrap()];
    slow.0.read_exact(&mut received).unwrap();
    assert!(received == body(0, CONTENT_BYTES));
    drop(slow);
    relay.end();
}

#[test]
fn requests_sent_ahead_are_answered_in_order_and_the_end_of_the_peer_is_heard() {
    let relay = Relay::start(SendPath::Reference, 16);
    let mut client = relay.connect();
    for start in 0..50 {
        client.request(&relay.path(), &format!("Range: bytes={start}-{}\r\n", start + 99_999));
    }
    for start in 0..50 {
        let (status, received) = client.answer();
        assert_eq!(status, "HTTP/1.1 206 Partial Content");
        assert!(received == body(start, 100_000), "answer {start}");
    }
    client.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.0.read(&mut [0]).unwrap(), 0);
    relay.end();
}

#[test]
fn an_end_that_comes_with_the_request_is_heard_after_it() {
    let relay = Relay::start(SendPath::Reference, 16);
    for _ in 0..20 {
        let mut client = relay.connect();
        client.request(&relay.path(), "Range: bytes=0-99\r\n");
        client.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        assert!(client.answer().1 == body(0, 100));
        assert_eq!(client.0.read(&mut [0]).unwrap(), 0);
    }
    relay.end();
}

#[test]
fn a_question_goes_outward_and_its_answer_comes_back() {
    let relay = Relay::start(SendPath::Reference, 16);
    let mut client = relay.connect();
    client.request("/about", "");
    let Outward::Ask { shard: ShardId(0), conn, question } = relay.asked.recv().unwrap() else {
        panic!("a question")
    };
    assert_eq!((question.path.as_str(), question.peer.to_string().as_str()), ("/about", "127.0.0.1"));
    let body: Arc<[u8]> = Arc::from(&b"it is a relay"[..]);
    let document = Document { status: 200, content_type: "text/plain", fields: Vec::new(), body };
    relay.postbox.post(News::Answer { conn, answer: Answer::Document(document) });
    assert_eq!(client.answer(), ("HTTP/1.1 200 OK".to_owned(), b"it is a relay".to_vec()));
    drop(client);
    relay.end();
}

#[test]
fn connections_beyond_the_table_are_closed_and_counted() {
    let relay = Relay::start(SendPath::Reference, 2);
    let mut held = [relay.connect(), relay.connect()];
    for client in &mut held {
        check(client, &relay.path(), 0, 10);
    }
    let mut refused = relay.connect();
    assert!(matches!(refused.0.read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!(relay.counters.closed[Reason::TooManyConnections as usize].value(), 1);
    drop(held);
    relay.end();
}

/// Drops the content from memory, and has one read show what is there afterwards; false where that cannot be had here.
fn make_cold(relay: &Relay) -> bool {
    let file = fs::File::open(relay.folder.join("file.bin")).unwrap();
    file.sync_all().unwrap();
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    let drop_all = || nix::fcntl::posix_fadvise(&file, 0, 0, advice).unwrap();
    drop_all();
    check(&mut relay.connect(), &relay.path(), 5, 1);
    drop_all();
    let is_cold = millrace_pagecache::disk::residency::resident(&file, 0, CONTENT_BYTES) == Some(false);
    if !is_cold {
        writeln!(std::io::stderr(), "not cold: the page cache cannot be dropped here").ok();
    }
    is_cold
}

#[test]
fn bytes_that_are_not_in_memory_are_read_first_with_fewer_buffers_than_clients() {
    for path in [SendPath::Reference, SendPath::Sendfile] {
        let relay = Relay::start(path, 64);
        let is_cold = make_cold(&relay);
        let mut clients: Vec<_> = (0..50).map(|_| relay.connect()).collect();
        for (client, number) in clients.iter_mut().zip(0..) {
            let first = number * 50_000;
            client.request(&relay.path(), &format!("Range: bytes={first}-{}\r\n", first + 99_999));
        }
        for (client, number) in clients.iter_mut().zip(0..) {
            let (status, received) = client.answer();
            assert_eq!(status, "HTTP/1.1 206 Partial Content");
            assert!(received == body(number * 50_000, 100_000), "client {number}");
        }
        if is_cold {
            assert!(relay.counters.read_direct.value() > 0);
        }
        drop(clients);
        relay.end();
    }
}

#[test]
fn clients_that_leave_while_their_bytes_are_read_hold_nobody_up() {
    let relay = Relay::start(SendPath::Reference, 64);
    make_cold(&relay);
    for number in 0..30 {
        let mut client = relay.connect();
        let first = number * 100_000;
        client.request(&relay.path(), &format!("Range: bytes={first}-{}\r\n", first + 99_999));
        // The request arrives before the reset does.
        SockRef::from(&client.0.get_ref().as_fd()).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
    check(&mut relay.connect(), &relay.path(), 1, CONTENT_BYTES - 2);
    relay.end();
}

#[test]
fn a_shard_that_nobody_talks_to_turns_all_the_same() {
    let relay = Relay::start(SendPath::Sendfile, 16);
    let started = Instant::now();
    // More than the news at the start can be the reason for.
    while relay.counters.loops.value() < 5 {
        assert!(started.elapsed() < Duration::from_secs(60), "{} loops", relay.counters.loops.value());
        thread::sleep(Duration::from_millis(20));
    }
    relay.end();
}

#[test]
fn a_peer_that_resets_is_forgotten_though_nothing_is_received_from_it() {
    let relay = Relay::start(SendPath::Reference, 16);
    let mut client = relay.connect();
    client.request(&relay.path(), "");
    assert_eq!(client.head().0, "HTTP/1.1 200 OK");
    SockRef::from(&client.0.get_ref().as_fd()).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    // Ends only if the connection does.
    relay.end();
}
