//! What a connection holds when it does nothing, whatever it did before.

use std::sync::Arc;

use millrace_pagecache::NewContent;
use millrace_pagecache::content::Content;
use millrace_pagecache::layout::{Layout, PieceIndex};
use millrace_proto::id::ContentId;
use millrace_proto::merkle::PieceHash;
use millrace_proto::metainfo::{Builder, plan_files};
use millrace_proto::peer::handshake::{Handshake, Reserved};
use millrace_proto::peer::message::{BLOCK_BYTES, Block, Message};

use crate::counters::Counters;
use crate::event::{Event, News, Sent};
use crate::ids::{ConnId, Now, Protocol, ShardId};
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::op::{Op, Ops};
use crate::shard::{Config, Identity, Shard};

/// Of the 4 KiB that an idle connection may cost in all; the back end's part, and the allocator's, come on top.
const IDLE_BYTES_MAX: usize = 1024;

fn conn() -> ConnId {
    ConnId::new(0, 0)
}

const PIECES: u32 = 64;

fn content() -> Arc<Content> {
    let length = u64::from(PIECES * BLOCK_BYTES);
    let plan = plan_files("file", BLOCK_BYTES, &[(vec![], length)]).unwrap();
    let hash = PieceHash { v1: Some([1; 20]), v2: Some([2; 32]) };
    let metainfo = Arc::new(Builder::new(plan).build(&vec![hash; PIECES as usize]).unwrap());
    let layout = Layout::from_info(&metainfo.info).unwrap();
    let new = NewContent::with_metainfo(ContentId([7; 16]), metainfo, "\"e\"");
    let content = Content::simulated(new, layout, Box::new(|_, _| {}));
    (0..PIECES).for_each(|piece| content.mark_verified(PieceIndex(piece)));
    content
}

/// A shard, and a reader of everything it sends.
struct World {
    shard: Shard,
    now_ms: u64,
    sent_bytes: u64,
}

impl World {
    fn new(content: &Arc<Content>, protocol: Protocol) -> Self {
        let config = Config {
            limits: Arc::new(Limits { connections_max: 1, ..Limits::default() }),
            ledger: Arc::new(Ledger::default()),
            counters: Arc::new(Counters::default()),
            identity: Identity { peer_id: [0; 20], agent: "test".into(), port: 6881 },
            seed: 1,
        };
        let mut world = World { shard: Shard::new(ShardId(0), config), now_ms: 1_000, sent_bytes: 0 };
        world.handle(Event::News(News::Put(Arc::clone(content))));
        let peer = "192.0.2.1:1000".parse().unwrap();
        world.handle(Event::Accepted { conn: conn(), protocol, peer });
        world
    }

    fn handle(&mut self, event: Event<'_>) {
        let now = Now { monotonic_ns: self.now_ms * 1_000_000, unix_s: 1_000_000_000 };
        let mut ops = Ops::new();
        self.shard.handle(now, event, &mut ops);
        self.shard.handle(now, Event::Turn, &mut ops);
        while !ops.is_empty() {
            for op in std::mem::take(&mut ops) {
                let Op::Send { conn, bytes_max } = op else { continue };
                let bytes = self.shard.output(conn).unwrap().bytes().min(bytes_max);
                self.sent_bytes += bytes;
                let outcome = Sent::Bytes { bytes, blocked: false };
                self.shard.handle(now, Event::Sent { conn, outcome }, &mut ops);
            }
            self.shard.handle(now, Event::Turn, &mut ops);
        }
    }

    fn say(&mut self, messages: &[Message<'_>]) {
        let mut packet = Vec::new();
        for message in messages {
            let start = packet.len();
            packet.resize(start + message.encoded_bytes(), 0);
            message.encode(&mut packet[start..]).unwrap();
        }
        self.handle(Event::Received { conn: conn(), data: &packet });
    }

    /// Lets two seconds pass in which nothing happens. What is held before and after.
    fn rest(&mut self) -> (usize, usize) {
        let before = self.shard.held_bytes(conn()).unwrap();
        for _ in 0..2 {
            self.now_ms += 1_000;
            self.handle(Event::Turn);
        }
        (before, self.shard.held_bytes(conn()).unwrap())
    }
}

#[test]
fn an_http_connection_that_was_answered_holds_little() {
    let content = content();
    let mut world = World::new(&content, Protocol::Http);
    let request =
        format!("GET /c/{}/file HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", content.id(), "x".repeat(400));
    world.handle(Event::Received { conn: conn(), data: request.as_bytes() });
    assert!(world.sent_bytes > content.length().unwrap());
    let (busy, idle) = world.rest();
    assert!(idle < busy && idle <= IDLE_BYTES_MAX, "{busy} bytes, then {idle}");
}

#[test]
fn a_peer_that_was_served_holds_little() {
    let content = content();
    let mut world = World::new(&content, Protocol::BitTorrent);
    let infohash = content.metainfo().unwrap().infohash_v1().unwrap().0;
    let reserved = Reserved::default().with_fast().with_extension_protocol();
    let handshake = Handshake { reserved, infohash, peer_id: [1; 20] }.encode();
    world.handle(Event::Received { conn: conn(), data: &handshake });
    let (_, greeted) = world.rest();
    assert!(greeted <= IDLE_BYTES_MAX, "{greeted} bytes after the handshake");
    world.say(&[Message::Interested]);
    let block = |number| Message::Request(Block { index: number % PIECES, begin: 0, length: BLOCK_BYTES });
    world.say(&(0..1_000).map(block).collect::<Vec<_>>());
    assert!(world.sent_bytes > 1_000 * u64::from(BLOCK_BYTES));
    let (busy, idle) = world.rest();
    assert!(busy > 4 * idle && idle <= IDLE_BYTES_MAX, "{busy} bytes, then {idle}");
}
