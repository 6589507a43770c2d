//! One of the crowd: where it comes from, what it asks for, and how fast it takes it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use millrace_engine::ids::{ConnId, Now, Protocol};
use millrace_pagecache::NewContent;
use millrace_pagecache::content::Content;
use millrace_pagecache::layout::{Layout, PieceIndex};
use millrace_proto::admin::caps::{Cidr, EffectiveCaps};
use millrace_proto::id::ContentId;
use millrace_proto::merkle::PieceHash;
use millrace_proto::metainfo::{Builder, plan_files};
use millrace_proto::peer::handshake::{Handshake, Reserved};
use millrace_proto::peer::message::{BLOCK_BYTES, BLOCK_HEAD_BYTES, Block, Message};

use crate::cap::CapWatch;
use crate::random::Random;

/// Contents that are asked for.
pub const CONTENTS: u8 = 3;

/// Networks that clients come from; the second lies in the first.
pub const NETWORKS: [&str; 2] = ["10.1.0.0/16", "10.1.2.0/24"];

const PIECES: u32 = 64;

/// Requests of a peer that are under way.
const REQUESTS: u32 = 100;

/// What a cap is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Everything.
    Total,
    /// One protocol.
    Protocol(Protocol),
    /// A content, by number.
    Content(u8),
    /// One of [`NETWORKS`], by number.
    Network(usize),
}

impl About {
    pub(super) fn all() -> impl Iterator<Item = About> {
        [About::Total, About::Protocol(Protocol::Http), About::Protocol(Protocol::BitTorrent)]
            .into_iter()
            .chain((0..CONTENTS).map(About::Content))
            .chain((0..NETWORKS.len()).map(About::Network))
    }

    /// Whether a client is under the cap.
    #[must_use]
    pub fn concerns(self, client: &Client) -> bool {
        match self {
            About::Total => true,
            About::Protocol(protocol) => client.protocol == protocol,
            About::Content(number) => client.content == number,
            About::Network(number) => {
                let cidr: Result<Cidr, _> = NETWORKS[number].parse();
                cidr.is_ok_and(|cidr| cidr.contains(client.peer.ip()))
            }
        }
    }

    pub(super) fn rate(self, caps: &EffectiveCaps) -> Option<u64> {
        let mut caps = caps.clone();
        *self.cap_mut(&mut caps)
    }

    pub(super) fn cap_mut(self, caps: &mut EffectiveCaps) -> &mut Option<u64> {
        let egress = &mut caps.egress;
        let cap = match self {
            About::Total => &mut egress.total,
            About::Protocol(Protocol::Http) => &mut egress.http,
            About::Protocol(Protocol::BitTorrent) => &mut egress.bittorrent,
            About::Content(number) => &mut caps.contents.entry(id_of(number)).or_default().egress,
            About::Network(number) => &mut egress.networks[number].total,
        };
        &mut cap.value
    }
}

fn id_of(content: u8) -> ContentId {
    ContentId([content + 1; 16])
}

/// A content of this number, complete.
pub(super) fn content(number: u8) -> Arc<Content> {
    let length = u64::from(PIECES * BLOCK_BYTES);
    let plan = plan_files("file", BLOCK_BYTES, &[(vec![], length)]);
    let hash = PieceHash { v1: Some([number; 20]), v2: Some([number; 32]) };
    let metainfo = plan.ok().and_then(|plan| Builder::new(plan).build(&vec![hash; PIECES as usize]).ok());
    let Some(metainfo) = metainfo.map(Arc::new) else { panic!("a torrent of one file can be made") };
    let Ok(layout) = Layout::from_info(&metainfo.info) else { panic!("what was made can be laid out") };
    let new = NewContent::with_metainfo(id_of(number), metainfo, "\"e\"");
    let content = Content::simulated(new, layout, Box::new(|_, _| {}));
    (0..PIECES).for_each(|piece| content.mark_verified(PieceIndex(piece)));
    content
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    pub(super) shard: usize,
    pub(super) id: ConnId,
    pub(super) peer: SocketAddr,
    /// How it asks.
    pub protocol: Protocol,
    /// What it asks for.
    pub content: u8,
    /// It takes a little at a time and then nothing for a while.
    pub is_slow: bool,
    /// Bytes sent to it.
    pub sent_bytes: u64,
    pub(super) blocked_until_ns: Option<u64>,
    pub(super) watch: CapWatch,
    infohash: [u8; 20],
    asked_bytes: u64,
}

impl Client {
    pub(super) fn new(slot: u32, shards: u8, contents: &[Arc<Content>], random: &mut Random) -> Self {
        let content = u8::try_from(random.below(u64::from(CONTENTS))).unwrap_or(0);
        let infohash = contents[usize::from(content)].metainfo().and_then(|metainfo| metainfo.infohash_v1());
        let [network, host] =
            [random.below(4), random.below(200)].map(|part| u8::try_from(part).unwrap_or(0));
        let address = if random.one_in(2) {
            Ipv4Addr::new(10, 1, network, host)
        } else {
            Ipv4Addr::new(192, 0, 2, host)
        };
        Client {
            shard: random.index(usize::from(shards)),
            id: ConnId::new(slot, 0),
            peer: SocketAddr::new(IpAddr::from(address), 50_000),
            protocol: *random.pick(&[Protocol::Http, Protocol::BitTorrent]),
            content,
            is_slow: random.one_in(12),
            sent_bytes: 0,
            blocked_until_ns: None,
            watch: CapWatch::default(),
            infohash: infohash.map_or([0; 20], |infohash| infohash.0),
            asked_bytes: 0,
        }
    }

    /// What it says first.
    pub(super) fn hello(&mut self) -> Vec<u8> {
        match self.protocol {
            Protocol::Http => self.request(),
            Protocol::BitTorrent => {
                let reserved = Reserved::default().with_fast().with_extension_protocol();
                let peer_id = [1; 20];
                let mut hello = Handshake { reserved, infohash: self.infohash, peer_id }.encode().to_vec();
                push(&mut hello, &Message::Interested);
                hello
            }
        }
    }

    /// What it says next, with so much on its way to it: there is always something.
    pub(super) fn wants(&mut self, queued_bytes: u64) -> Option<Vec<u8>> {
        match self.protocol {
            Protocol::Http => {
                (queued_bytes == 0 && self.asked_bytes <= self.sent_bytes).then(|| self.request())
            }
            Protocol::BitTorrent => {
                let ahead = u64::from(REQUESTS / 2) * (u64::from(BLOCK_BYTES) + BLOCK_HEAD_BYTES as u64);
                (self.sent_bytes + ahead > self.asked_bytes).then(|| self.request())
            }
        }
    }

    fn request(&mut self) -> Vec<u8> {
        match self.protocol {
            Protocol::Http => {
                self.asked_bytes = self.sent_bytes + u64::from(PIECES * BLOCK_BYTES);
                format!("GET /c/{}/file HTTP/1.1\r\nHost: a\r\n\r\n", id_of(self.content)).into_bytes()
            }
            Protocol::BitTorrent => {
                let mut packet = Vec::new();
                for number in 0..REQUESTS {
                    let block = Block { index: number % PIECES, begin: 0, length: BLOCK_BYTES };
                    push(&mut packet, &Message::Request(block));
                }
                self.asked_bytes += u64::from(REQUESTS) * (u64::from(BLOCK_BYTES) + BLOCK_HEAD_BYTES as u64);
                packet
            }
        }
    }

    /// How much of `bytes` it takes, and whether it takes no more for now.
    pub(super) fn take(&mut self, now: Now, bytes: u64, random: &mut Random) -> (u64, bool) {
        let (bytes, rest_ms) = match (self.is_slow, random.one_in(10)) {
            (true, _) => (bytes.min(2_000), Some(40)),
            (false, true) => (random.between(0, bytes), Some(2)),
            (false, false) => (bytes, None),
        };
        self.blocked_until_ns = rest_ms.map(|ms| now.monotonic_ns + ms * 1_000_000);
        self.sent_bytes += bytes;
        (bytes, rest_ms.is_some())
    }
}

fn push(packet: &mut Vec<u8>, message: &Message<'_>) {
    let start = packet.len();
    packet.resize(start + message.encoded_bytes(), 0);
    let Ok(()) = message.encode(&mut packet[start..]).map(|_| ()) else {
        panic!("there is room for a message")
    };
}
