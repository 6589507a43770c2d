//! What one request costs in a shard: from the bytes received to everything sent and the connection ready for the next.

use std::sync::Arc;

use millrace_engine::counters::Counters;
use millrace_engine::event::{Event, News, Sent};
use millrace_engine::ids::{ConnId, Now, Protocol, ShardId};
use millrace_engine::ledger::Ledger;
use millrace_engine::limits::Limits;
use millrace_engine::op::{Op, Ops};
use millrace_engine::output::Part;
use millrace_engine::shard::{Config, Identity, Shard};
use millrace_pagecache::content::Content;
use millrace_pagecache::layout::{Layout, PieceIndex};
use millrace_pagecache::new_content::NewContent;
use millrace_proto::id::ContentId;
use millrace_proto::peer::handshake::{Handshake, Reserved};
use millrace_proto::peer::message::{Block, Message};

use crate::Case;
use crate::torrents::{self, PIECE_BYTES};

const ID: ContentId = ContentId([7; 16]);
const NOW: Now = Now { monotonic_ns: 5_000_000_000, unix_s: 1_700_000_000 };
const BLOCK_BYTES: u32 = 16 << 10;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "shard/range",
        operation: "answer curl's request for 16 KiB of a complete file, when it differs from the last in its numbers alone",
        operations: 1,
        rounds: 500,
        prepare: || http(1, "Range: bytes=1073741824-1073758207\r\n", 16_384),
    },
    Case {
        name: "shard/range_unlike",
        operation: "the same, when it differs from the last in more",
        operations: 2,
        rounds: 250,
        prepare: unlike,
    },
    Case {
        name: "shard/ranges_64",
        operation: "the first again, of 64 that came in one packet",
        operations: 64,
        rounds: 10,
        prepare: || http(64, "Range: bytes=1073741824-1073758207\r\n", 16_384),
    },
    Case {
        name: "shard/multipart",
        operation: "answer a request for four ranges of 4 KiB",
        operations: 1,
        rounds: 200,
        prepare: || http(1, "Range: bytes=0-4095,16384-20479,65536-69631,-4096\r\n", 16_384),
    },
    Case {
        name: "shard/not_modified",
        operation: "answer 304 to a browser's `If-None-Match`",
        operations: 1,
        rounds: 500,
        prepare: || http(1, "If-None-Match: \"tag\"\r\n", 0),
    },
    Case {
        name: "shard/block",
        operation: "answer one `request` of a peer",
        operations: 1,
        rounds: 500,
        prepare: || blocks(1),
    },
    Case {
        name: "shard/blocks_50",
        operation: "the same, of 50 that came in one packet",
        operations: 50,
        rounds: 20,
        prepare: || blocks(50),
    },
];

/// `count` requests in one packet, each with these fields, answered with so many bytes of the file each.
fn http(count: u64, fields: &str, payload_bytes: u64) -> Box<dyn FnMut()> {
    let mut relay = Relay::with_connection(Protocol::Http);
    let packet = head(fields).repeat(usize::try_from(count).unwrap());
    Box::new(move || relay.check(packet.as_bytes(), count * payload_bytes))
}

/// Two requests, one after the other, of which the second has a field more.
fn unlike() -> Box<dyn FnMut()> {
    let mut relay = Relay::with_connection(Protocol::Http);
    let heads =
        ["", "DNT: 1\r\n"].map(|field| head(&format!("Range: bytes=1073741824-1073758207\r\n{field}")));
    Box::new(move || heads.iter().for_each(|head| relay.check(head.as_bytes(), 16_384)))
}

fn head(fields: &str) -> String {
    format!(
        "GET /c/{ID}/image.iso HTTP/1.1\r\nHost: relay.example:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n{fields}\r\n"
    )
}

/// `count` requests for blocks in one packet.
fn blocks(count: u32) -> Box<dyn FnMut()> {
    let mut relay = Relay::with_connection(Protocol::BitTorrent);
    let reserved = Reserved::default().with_fast().with_extension_protocol();
    let infohash = relay.content.metainfo().unwrap().infohash_v1().unwrap().0;
    relay.play(&Handshake { reserved, infohash, peer_id: [2; 20] }.encode());
    relay.play(&packet([Message::HaveNone, Message::Interested]));
    let in_piece = PIECE_BYTES / BLOCK_BYTES;
    let requests = (0..count).map(|number| {
        let (index, begin) = (number / in_piece, number % in_piece * BLOCK_BYTES);
        Message::Request(Block { index, begin, length: BLOCK_BYTES })
    });
    let requests = packet(requests);
    Box::new(move || relay.check(&requests, u64::from(count * BLOCK_BYTES)))
}

fn packet<'a>(messages: impl IntoIterator<Item = Message<'a>>) -> Vec<u8> {
    let mut packet = Vec::new();
    for message in messages {
        let start = packet.len();
        packet.resize(start + message.encoded_bytes(), 0);
        message.encode(&mut packet[start..]).unwrap();
    }
    packet
}

/// A shard with a complete content, and a back end whose sockets take everything at once.
struct Relay {
    shard: Shard,
    content: Arc<Content>,
    conn: ConnId,
    ops: Ops,
}

impl Relay {
    fn with_connection(protocol: Protocol) -> Self {
        let config = Config {
            limits: Arc::new(Limits { connections_max: 64, ..Limits::default() }),
            ledger: Arc::new(Ledger::default()),
            counters: Arc::new(Counters::default()),
            identity: Identity { peer_id: [0; 20], agent: "Millrace".into(), port: 6881 },
            seed: 1,
        };
        let metainfo = Arc::new(torrents::image());
        let layout = Layout::from_info(&metainfo.info).unwrap();
        let new = NewContent::with_metainfo(ID, metainfo, "\"tag\"");
        let content = Content::simulated(new, layout, Box::new(|_, _| {}));
        (0..content.layout().piece_count()).for_each(|piece| content.mark_verified(PieceIndex(piece)));
        let conn = ConnId::new(0, 0);
        let mut relay = Relay {
            shard: Shard::new(ShardId(0), config),
            content: Arc::clone(&content),
            conn,
            ops: Ops::new(),
        };
        relay.handle(Event::News(News::Put(content)));
        relay.handle(Event::Accepted { conn, protocol, peer: "192.0.2.1:50000".parse().unwrap() });
        relay.ops.clear();
        relay
    }

    /// Delivers a packet and sends all that follows, of which so many bytes are of the content.
    fn check(&mut self, packet: &[u8], payload_bytes: u64) {
        assert_eq!(self.play(packet), payload_bytes);
    }

    fn play(&mut self, packet: &[u8]) -> u64 {
        let mut payload = 0;
        self.handle(Event::Received { conn: self.conn, data: packet });
        loop {
            self.handle(Event::Turn);
            let Some(op) = self.ops.pop() else { return payload };
            let Op::Send { conn, bytes_max } = op else { panic!("unexpected: {op:?}") };
            payload += self.queued_payload();
            self.handle(Event::Sent { conn, outcome: Sent::Bytes { bytes: bytes_max, blocked: false } });
        }
    }

    fn handle(&mut self, event: Event<'_>) {
        self.shard.handle(NOW, event, &mut self.ops);
    }

    /// A back end looks at every part of the output.
    fn queued_payload(&self) -> u64 {
        let parts = self.shard.output(self.conn).unwrap().parts();
        parts.map(|part| if let Part::Extent { bytes, .. } = part { bytes } else { 0 }).sum()
    }
}
