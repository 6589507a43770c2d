//! A reader with bytes queued in its socket that does not read while its content is removed, evicted or paused: page
//! references to what is no longer the content's must never reach it. Every byte it then reads is right, or the
//! connection is reset.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use millrace_interop::http::{Connection, End};
use millrace_interop::origin::{Origin, Resource};
use millrace_interop::pattern::Pattern;
use millrace_interop::relay::Relay;
use millrace_interop::scratch::Scratch;
use millrace_interop::{PATIENCE, until};
use millrace_proto::admin::{ContentState, ContentStatus};
use socket2::{Domain, Socket, Type};

const LENGTH: u64 = 48 << 20;
const READERS: usize = 4;
const OLD: Pattern = Pattern(1);
const NEW: Pattern = Pattern(2);

fn origin() -> Origin {
    let resource = |name: &str, pattern| Resource { path: format!("/{name}"), length: LENGTH, pattern };
    Origin::start(vec![resource("old", OLD), resource("new", NEW)], None)
}

/// Connects with a small receive window, asks for the whole file, and reads the head only.
fn park(address: SocketAddr, path: &str) -> Connection {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(64 << 10).expect("a small window");
    socket.connect(&address.into()).expect("a connection");
    let mut connection = Connection::over(TcpStream::from(socket)).expect("a connection");
    connection.request("GET", path, &[]).expect("sent");
    connection
}

struct Parked {
    relay: Relay,
    origin: Origin,
    old: ContentStatus,
    readers: Vec<Connection>,
    _scratch: Scratch,
}

impl Parked {
    /// Readers whose sockets are as full as the relay will make them.
    fn new(flags: &[&str]) -> Self {
        let scratch = Scratch::new();
        let origin = origin();
        let relay = Relay::start(&scratch, flags);
        let old = relay.add(&[&origin.url("/old")]);
        let old = relay.wait_for(&old.id, ContentState::Complete, PATIENCE);
        let path = relay.path_of(&old);
        let readers: Vec<Connection> = (0..READERS).map(|_| park(relay.http, &path)).collect();
        // Full is when the relay's own count of what its sockets took stands still.
        let mut last = 0;
        let mut still = 0;
        until("the sockets to be full", PATIENCE, || {
            let served = relay.served(&old.id).http;
            still = if served == last && served > 0 { still + 1 } else { 0 };
            last = served;
            (still == 10).then_some(())
        });
        assert!(last < READERS as u64 * LENGTH, "the readers are parked in the middle");
        Parked { relay, origin, old, readers, _scratch: scratch }
    }

    /// Reads everything that comes; how each ended.
    fn read_on(self) -> Vec<End> {
        self.readers
            .into_iter()
            .map(|mut reader| {
                let Ok(answer) = reader.answer() else { return End::Cut };
                assert_eq!(answer.status, 200);
                assert_eq!(OLD.first_wrong(0, &answer.body), None, "of {} bytes", answer.body.len());
                assert!(answer.end == End::Cut || answer.body.len() as u64 == LENGTH, "a clean short body");
                answer.end
            })
            .collect()
    }

    /// Other bytes through the same store and page cache.
    fn pull_new(&self) {
        let new = self.relay.add(&[&self.origin.url("/new")]);
        self.relay.wait_for(&new.id, ContentState::Complete, PATIENCE);
    }
}

#[test]
fn a_removed_content() {
    let parked = Parked::new(&[]);
    parked.relay.order("remove", &parked.old.id);
    assert_eq!(parked.relay.get(&format!("/c/{}.json", parked.old.id)).status, 404);
    parked.pull_new();
    parked.read_on();
}

#[test]
fn an_evicted_content() {
    // Room for one of the two files.
    let parked = Parked::new(&["--capacity", "64MiB"]);
    parked.pull_new();
    let old = parked.old.id.clone();
    until("eviction to make room", Duration::from_secs(60), || {
        let answer = parked.relay.get(&format!("/c/{old}.json"));
        let status = serde_json::from_slice::<ContentStatus>(&answer.body).ok();
        (answer.status == 404 || status.is_some_and(|status| status.have_bytes < LENGTH)).then_some(())
    });
    parked.read_on();
}

#[test]
fn a_paused_and_resumed_content() {
    let parked = Parked::new(&[]);
    parked.relay.order("pause", &parked.old.id);
    let path = parked.relay.path_of(&parked.old);
    let refused = parked.relay.get(&path);
    assert_eq!(refused.status, 503);
    assert!(refused.field("retry-after").is_some(), "{:?}", refused.fields);
    parked.relay.order("resume", &parked.old.id);
    parked.read_on();
}

#[test]
fn a_relay_that_is_killed() {
    let mut parked = Parked::new(&[]);
    parked.relay.kill();
    let ends = parked.read_on();
    assert!(ends.iter().all(|end| *end == End::Cut), "{ends:?}");
}
