//! The other end of the wire: peers that write messages and read what comes back.

use std::collections::HashMap;
use std::sync::Arc;

use millrace_engine::counters::{Counters, Reason};
use millrace_engine::event::{Event, News, Sent};
use millrace_engine::ids::{ConnId, Now, Protocol, ShardId};
use millrace_engine::ledger::Ledger;
use millrace_engine::limits::Limits;
use millrace_engine::op::Op;
use millrace_engine::output::Part;
use millrace_engine::shard::{Config, Identity, Shard};
use millrace_pagecache::content::Content;
use millrace_pagecache::layout::PieceIndex;
use millrace_proto::peer::extension::ExtensionHandshake;
use millrace_proto::peer::frame::{Frame, FrameLimits, next_frame};
use millrace_proto::peer::handshake::{HANDSHAKE_BYTES, Handshake, Reserved};
use millrace_proto::peer::message::{Block, Message};

use crate::torrents::bytes_of;

pub(crate) const OUR_ID: [u8; 20] = *b"-MR0100-themselfself";
const READ_LIMITS: FrameLimits = FrameLimits {
    bitfield_bytes_max: 1 << 20,
    block_bytes_max: 1 << 17,
    extended_bytes_max: 1 << 17,
    hashes_max: 1024,
    unknown_bytes_max: 0,
};

/// One connection as the back end and the peer see it.
#[derive(Default)]
struct End {
    received: Vec<u8>,
    reads: bool,
    paused: bool,
    blocked: bool,
    closed: bool,
    shut: bool,
}

pub(crate) struct World {
    pub(crate) shard: Shard,
    pub(crate) counters: Arc<Counters>,
    pub(crate) content: Arc<Content>,
    /// Batches: how many blocks each send had in its output.
    pub(crate) sends: Vec<Vec<&'static str>>,
    now_ms: u64,
    ends: HashMap<ConnId, End>,
}

/// What a peer says that it speaks.
pub(crate) fn fast() -> Reserved {
    Reserved::default().with_fast()
}

pub(crate) fn plain() -> Reserved {
    Reserved::default()
}

pub(crate) fn extended() -> Reserved {
    fast().with_extension_protocol()
}

pub(crate) fn block(index: u32, begin: u32, length: u32) -> Block {
    Block { index, begin, length }
}

impl World {
    pub(crate) fn new(content: Arc<Content>) -> Self {
        World::with_limits(content, Limits { connections_max: 64, ..Limits::default() })
    }

    pub(crate) fn with_limits(content: Arc<Content>, limits: Limits) -> Self {
        let counters = Arc::new(Counters::default());
        let shard = Shard::new(
            ShardId(3),
            Config {
                limits: Arc::new(limits),
                ledger: Arc::new(Ledger::default()),
                counters: Arc::clone(&counters),
                identity: Identity { peer_id: OUR_ID, agent: "Millrace test".into(), port: 6881 },
                seed: 1,
            },
        );
        let ends = HashMap::new();
        let mut world =
            World { shard, counters, content: Arc::clone(&content), sends: Vec::new(), now_ms: 5_000, ends };
        world.event(Event::News(News::Put(content)));
        world
    }

    pub(crate) fn now(&self) -> Now {
        Now { monotonic_ns: self.now_ms * 1_000_000, unix_s: 1_700_000_000 }
    }

    /// Delivers an event and carries out everything that follows.
    pub(crate) fn event(&mut self, event: Event<'_>) {
        let mut ops = Vec::new();
        self.shard.handle(self.now(), event, &mut ops);
        for _ in 0..10_000 {
            if ops.is_empty() {
                self.shard.handle(self.now(), Event::Turn, &mut ops);
            }
            if ops.is_empty() {
                return;
            }
            for op in std::mem::take(&mut ops) {
                self.carry_out(op, &mut ops);
            }
        }
        panic!("the shard never comes to rest");
    }

    fn carry_out(&mut self, op: Op, ops: &mut Vec<Op>) {
        match op {
            Op::Receive { conn } => self.end(conn).paused = false,
            Op::PauseReceive { conn } => self.end(conn).paused = true,
            Op::Send { conn, bytes_max } => {
                let outcome = self.send(conn, bytes_max);
                self.shard.handle(self.now(), Event::Sent { conn, outcome }, ops);
            }
            Op::Shutdown { conn } => self.end(conn).shut = true,
            Op::Close { conn, .. } => self.end(conn).closed = true,
            Op::Demand { .. } | Op::Ask { .. } => panic!("a peer demands nothing of ingest: {op:?}"),
        }
    }

    fn send(&mut self, conn: ConnId, bytes_max: u64) -> Sent {
        let end = self.ends.get_mut(&conn).unwrap();
        if !end.reads {
            end.blocked = true;
            return Sent::Bytes { bytes: 0, blocked: true };
        }
        let mut wire = Vec::new();
        let mut parts = Vec::new();
        for part in self.shard.output(conn).unwrap().parts() {
            match part {
                Part::Bytes(bytes) => {
                    parts.push("bytes");
                    wire.extend_from_slice(bytes);
                }
                Part::BlockHead { bytes, .. } => {
                    parts.push("head");
                    wire.extend_from_slice(bytes);
                }
                Part::Extent { offset, bytes } => {
                    parts.push("extent");
                    assert!(offset + bytes <= self.content.layout().length(), "an extent past the end");
                    wire.extend(bytes_of(&self.content, offset, usize::try_from(bytes).unwrap()));
                }
            }
        }
        self.sends.push(parts);
        wire.truncate(usize::try_from(bytes_max).unwrap());
        end.received.extend_from_slice(&wire);
        Sent::Bytes { bytes: wire.len() as u64, blocked: false }
    }

    fn end(&mut self, conn: ConnId) -> &mut End {
        self.ends.entry(conn).or_insert_with(|| End { reads: true, paused: true, ..End::default() })
    }

    pub(crate) fn accept(&mut self) -> ConnId {
        let conn = ConnId::new(u32::try_from(self.ends.len()).unwrap(), 0);
        self.end(conn);
        let peer = "192.0.2.77:50000".parse().unwrap();
        self.event(Event::Accepted { conn, protocol: Protocol::BitTorrent, peer });
        conn
    }

    pub(crate) fn write(&mut self, conn: ConnId, bytes: &[u8]) {
        self.event(Event::Received { conn, data: bytes });
    }

    /// The handshake of a peer under the content's first infohash.
    pub(crate) fn handshake(&self, reserved: Reserved) -> Handshake {
        let metainfo = self.content.metainfo().unwrap();
        let v2 = metainfo.infohash_v2().map(|v2| v2.truncated());
        let infohash = metainfo.infohash_v1().or(v2).unwrap().0;
        Handshake { reserved, infohash, peer_id: *b"-XX0001-another-peer" }
    }

    /// A peer that has shaken hands; what it was told first is still to be read.
    pub(crate) fn open(&mut self, reserved: Reserved) -> ConnId {
        let conn = self.accept();
        let handshake = self.handshake(reserved).encode();
        self.write(conn, &handshake);
        conn
    }

    /// A peer that is interested and has read what came so far.
    pub(crate) fn interested(&mut self, reserved: Reserved) -> ConnId {
        let conn = self.open(reserved);
        self.say(conn, &[Message::Interested]);
        self.take(conn);
        conn
    }

    /// Writes messages, all in one packet.
    pub(crate) fn say(&mut self, conn: ConnId, messages: &[Message<'_>]) {
        let mut packet = Vec::new();
        for message in messages {
            let start = packet.len();
            packet.resize(start + message.encoded_bytes(), 0);
            message.encode(&mut packet[start..]).unwrap();
        }
        self.write(conn, &packet);
    }

    pub(crate) fn stop_reading(&mut self, conn: ConnId) {
        self.end(conn).reads = false;
    }

    pub(crate) fn read_again(&mut self, conn: ConnId) {
        self.end(conn).reads = true;
        if std::mem::take(&mut self.end(conn).blocked) {
            self.event(Event::Writable { conn });
        }
    }

    /// Bytes that came since the last look.
    pub(crate) fn take(&mut self, conn: ConnId) -> Vec<u8> {
        std::mem::take(&mut self.end(conn).received)
    }

    /// Messages that came since the last look, the handshake left out. Blocks are compared with the content.
    pub(crate) fn read(&mut self, conn: ConnId) -> Vec<String> {
        let bytes = self.take(conn);
        let mut rest = &bytes[..];
        if rest.starts_with(b"\x13BitTorrent") {
            rest = &rest[HANDSHAKE_BYTES..];
        }
        let mut read = Vec::new();
        while !rest.is_empty() {
            let Frame::Whole { consumed, message } = next_frame(rest, &READ_LIMITS) else {
                panic!("not a whole frame: {:?}", &rest[..rest.len().min(40)])
            };
            read.push(self.describe(message));
            rest = &rest[consumed..];
        }
        read
    }

    fn describe(&self, message: Message<'_>) -> String {
        match message {
            Message::Piece { index, begin, block } => {
                let start = self.content.layout().piece_range(PieceIndex(index)).start + u64::from(begin);
                let right = bytes_of(&self.content, start, block.len());
                assert!(block == right, "wrong bytes in piece {index} from {begin}");
                format!("Piece({index}, {begin}, {})", block.len())
            }
            Message::Reject(Block { index, begin, length }) => format!("Reject({index}, {begin}, {length})"),
            Message::Extended { id: 0, payload } => {
                assert!(ExtensionHandshake::parse(payload).is_ok());
                "ExtensionHandshake".into()
            }
            other => format!("{other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn check(&mut self, conn: ConnId, expected: &[&str]) {
        assert_eq!(self.read(conn), expected);
    }

    /// The relay closed, or has finished sending, for this reason.
    #[track_caller]
    pub(crate) fn check_ended(&mut self, conn: ConnId, reason: Reason) {
        if self.end(conn).shut && !self.end(conn).closed {
            self.event(Event::Received { conn, data: &[] });
        }
        assert!(self.end(conn).closed, "still open");
        assert_eq!(self.counters.closed[reason as usize].value(), 1, "closed, and not because of {reason:?}");
    }

    #[track_caller]
    pub(crate) fn check_open(&mut self, conn: ConnId) {
        assert!(!self.end(conn).closed && !self.end(conn).shut);
    }

    pub(crate) fn is_paused(&mut self, conn: ConnId) -> bool {
        self.end(conn).paused
    }

    /// A piece is verified and the shard hears of it.
    pub(crate) fn verify(&mut self, piece: u32) {
        self.content.mark_verified(PieceIndex(piece));
        self.event(Event::News(News::Piece { content: self.content.id(), piece: PieceIndex(piece) }));
    }

    /// Lets time pass, a turn each second.
    pub(crate) fn pass_s(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now_ms += 1_000;
            self.event(Event::Turn);
        }
    }
}
