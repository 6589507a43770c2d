//! What a drain means for HTTP: nobody who was accepted goes without an answer, and nobody who says nothing holds it up.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use millrace_engine::counters::{Counters, Reason};
use millrace_engine::event::{Answer, Document, Event, News, Sent};
use millrace_engine::ids::{ConnId, Now, Protocol, ShardId};
use millrace_engine::ledger::Ledger;
use millrace_engine::limits::Limits;
use millrace_engine::op::{Op, Ops};
use millrace_engine::shard::{Config, Identity, Shard};

struct World {
    shard: Shard,
    counters: Arc<Counters>,
    now: Now,
}

impl World {
    fn new() -> World {
        let counters = Arc::new(Counters::default());
        let config = Config {
            limits: Arc::new(Limits::default()),
            ledger: Arc::new(Ledger::default()),
            counters: Arc::clone(&counters),
            identity: Identity { peer_id: [0; 20], agent: "test".into(), port: 6881 },
            seed: 1,
        };
        let now = Now { monotonic_ns: 1_000_000_000, unix_s: 1_000_000_000 };
        World { shard: Shard::new(ShardId(0), config), counters, now }
    }

    /// The shard hears of it, and whatever it wants to send is sent. Connections that it closed.
    fn event(&mut self, event: Event<'_>) -> Vec<ConnId> {
        let (mut ops, mut closed) = (Ops::new(), Vec::new());
        self.shard.handle(self.now, event, &mut ops);
        self.shard.handle(self.now, Event::Turn, &mut ops);
        while let Some(op) = ops.pop() {
            match op {
                Op::Close { conn, .. } => closed.push(conn),
                Op::Send { conn, bytes_max } => {
                    let bytes = self.shard.output(conn).unwrap().bytes().min(bytes_max);
                    let outcome = Sent::Bytes { bytes, blocked: false };
                    self.shard.handle(self.now, Event::Sent { conn, outcome }, &mut ops);
                }
                // The client reads to the end, and closes.
                Op::Shutdown { conn } => {
                    self.shard.handle(self.now, Event::Received { conn, data: &[] }, &mut ops);
                }
                _ => {}
            }
        }
        closed
    }

    fn accept(&mut self, number: u32, protocol: Protocol) -> (ConnId, Vec<ConnId>) {
        let conn = ConnId::new(number, 0);
        let peer = "192.0.2.1:1000".parse().unwrap();
        (conn, self.event(Event::Accepted { conn, protocol, peer }))
    }
}

/// Refused by the shard itself, which is an answer.
const REQUEST: &[u8] = b"GET /nothing HTTP/2.7\r\nHost: x\r\n\r\n";

#[test]
fn a_request_on_its_way_is_answered_whether_it_was_accepted_before_the_drain_or_in_it() {
    let mut world = World::new();
    let (before, closed) = world.accept(0, Protocol::Http);
    assert!(closed.is_empty());
    assert!(world.event(Event::News(News::Drain)).is_empty(), "its first request may be on its way");
    let (within, closed) = world.accept(1, Protocol::Http);
    assert!(closed.is_empty() && !world.shard.is_drained());
    for conn in [before, within] {
        assert_eq!(world.event(Event::Received { conn, data: REQUEST }), [conn], "answered, then closed");
    }
    assert!(world.shard.is_drained());
    assert_eq!(world.counters.responses.iter().map(|count| count.value()).sum::<u64>(), 2);
}

#[test]
fn who_says_nothing_holds_a_drain_up_for_a_moment_only() {
    let mut world = World::new();
    let (silent, _) = world.accept(0, Protocol::Http);
    world.event(Event::News(News::Drain));
    world.now.monotonic_ns += 500_000_000;
    assert!(world.event(Event::Turn).is_empty());
    world.now.monotonic_ns += 1_500_000_000;
    assert_eq!(world.event(Event::Turn), [silent]);
    assert!(world.shard.is_drained());
    assert_eq!(world.counters.closed[Reason::Draining as usize].value(), 1);
}

#[test]
fn an_idle_connection_has_one_more_request_where_the_drain_leaves_it_time() {
    let mut world = World::new();
    let request = |conn| Event::Received { conn, data: b"GET /nothing/ HTTP/1.1\r\nHost: x\r\n\r\n" };
    let [busy, idle] = [0, 1].map(|number| world.accept(number, Protocol::Http).0);
    for conn in [busy, idle] {
        assert!(world.event(request(conn)).is_empty());
        let document = Document {
            status: 404,
            content_type: "text/plain",
            fields: Vec::new(),
            body: b"no".to_vec().into(),
        };
        let answer = Answer::Document(document);
        assert!(world.event(Event::News(News::Answer { conn, answer })).is_empty(), "it is kept alive");
    }
    let limits = Limits { drain_idle: Duration::from_secs(5), ..Limits::default() };
    world.event(Event::News(News::Limits(Arc::new(limits))));
    assert!(world.event(Event::News(News::Drain)).is_empty());
    world.now.monotonic_ns += 3_000_000_000;
    assert_eq!(world.event(Event::Received { conn: busy, data: REQUEST }), [busy], "answered, then closed");
    world.now.monotonic_ns += 3_000_000_000;
    assert_eq!(world.event(Event::Turn), [idle]);
    assert!(world.shard.is_drained());
}

#[test]
fn a_peer_that_comes_into_a_drain_is_closed() {
    let mut world = World::new();
    world.event(Event::News(News::Drain));
    let (peer, closed) = world.accept(0, Protocol::BitTorrent);
    assert_eq!(closed, [peer]);
}
