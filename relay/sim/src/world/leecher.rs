//! A BitTorrent client of a world: pipelines requests, takes some back, checks every block, and comes back when it was cut off.

use millrace_engine::ids::{ConnId, Protocol};
use millrace_pagecache::layout::PieceIndex;
use millrace_proto::peer::bitfield;
use millrace_proto::peer::handshake::{Handshake, Reserved};
use millrace_proto::peer::message::{BLOCK_BYTES, Block, Message};

use super::reader::Around;
use super::source::Source;
use crate::kernel::Kernel;
use crate::peer::{Reader, frame};
use crate::random::Random;

/// Sent this often, so that a relay does not lose its patience while it is the one that makes us wait.
const KEEP_ALIVE_MS: u64 = 20_000;

/// What is true of one connection.
#[derive(Debug)]
struct Link {
    conn: ConnId,
    reader: Reader,
    /// By piece: the relay has it.
    offered: Vec<bool>,
    allowed: Vec<u32>,
    choked: bool,
    /// Asked for and not answered, in order; taken back ones among them.
    asked: Vec<Block>,
    said_at_ms: u64,
}

/// One client.
#[derive(Debug)]
pub(super) struct Leecher {
    host: u8,
    source: usize,
    fast: bool,
    extended: bool,
    by_v2: bool,
    pipeline: usize,
    read_bytes: usize,
    cancels: bool,
    resets: bool,
    /// Blocks not yet had; `None` until the torrent is known.
    wanted: Option<Vec<Block>>,
    link: Option<Link>,
    wait_until_ms: u64,
    gave_up: bool,
}

impl Leecher {
    pub(super) fn new(host: u8, source: usize, random: &mut Random, read_bytes: u64) -> Self {
        let fast = random.one_in(2);
        // More than a relay lets wait is for those who can be told so.
        let pipeline = if fast { random.index(60) } else { random.index(7) } + 1;
        Leecher {
            host,
            source,
            fast,
            extended: random.one_in(2),
            by_v2: random.one_in(3),
            pipeline,
            read_bytes: usize::try_from(random.between(1, read_bytes)).unwrap_or(1),
            cancels: random.one_in(2),
            resets: random.one_in(4),
            wanted: None,
            link: None,
            wait_until_ms: random.below(5_000),
            gave_up: false,
        }
    }

    /// Whether it has everything, or the torrent is gone.
    pub(super) fn is_done(&self) -> bool {
        self.gave_up || self.wanted.as_ref().is_some_and(Vec::is_empty) && self.link.is_none()
    }

    /// What it still waits for, for people.
    pub(super) fn describe(&self) -> String {
        let wanted = self.wanted.as_ref().map(Vec::len);
        format!("leecher {} of source {} wants {wanted:?} blocks: {:?}", self.host, self.source, self.link)
    }

    /// In a calm everybody knows what is here, and gets what was asked for: a message was lost if not.
    pub(super) fn check_is_served(&self, kernel: &mut Kernel, sources: &[Source]) {
        let Some(link) = self.link.as_ref().filter(|link| link.reader.handshake().is_some()) else { return };
        if kernel.has_outbound(link.conn) || kernel.ended(link.conn).is_some() {
            return;
        }
        for (piece, offered) in (0..).zip(&link.offered) {
            let is_here = sources[self.source].content.has_piece(PieceIndex(piece));
            assert!(!is_here || *offered, "piece {piece} is here and not offered: {}", self.describe());
        }
        assert!(link.choked || link.asked.is_empty(), "asked and not answered: {}", self.describe());
    }

    /// Leaves for good.
    pub(super) fn hang_up(&mut self, kernel: &mut Kernel) {
        if let Some(link) = self.link.take() {
            kernel.peer_finish(link.conn);
        }
        self.gave_up = true;
    }

    pub(super) fn step(&mut self, around: &mut Around<'_>) {
        let source = &around.sources[self.source];
        if self.link.is_none() {
            if source.superseded_by.is_some() {
                self.gave_up = true;
            }
            if source.is_torrent_known
                && around.kernel.now().monotonic_ms() >= self.wait_until_ms
                && !self.is_done()
            {
                self.connect(around);
            }
            return;
        }
        self.read(around);
        self.ask(around);
        let Some(link) = &mut self.link else { return };
        let conn = link.conn;
        if around.kernel.ended(conn).is_some() {
            self.ended(around);
        } else if self.wanted.as_ref().is_some_and(Vec::is_empty) && link.asked.is_empty() {
            around.kernel.peer_finish(conn);
            self.link = None;
        } else if self.resets && !around.calm && around.random.one_in(60) {
            self.resets = false;
            around.kernel.peer_reset(conn);
            self.unlink(around);
        }
    }

    fn connect(&mut self, around: &mut Around<'_>) {
        let source = &around.sources[self.source];
        let content = &source.content;
        let Some(metainfo) = content.metainfo() else { return };
        let (v1, v2) = (metainfo.infohash_v1(), metainfo.infohash_v2());
        let infohash =
            v2.filter(|_| self.by_v2).map(|v2| v2.truncated()).or(v1).unwrap_or_else(|| unreachable!());
        self.wanted.get_or_insert_with(|| blocks(source));
        let mut reserved = Reserved::default();
        if self.fast {
            reserved = reserved.with_fast();
        }
        if self.extended {
            reserved = reserved.with_extension_protocol();
        }
        let mut peer_id = *b"-SM0001-............";
        peer_id[19] = self.host;
        let conn = around.kernel.connect(Protocol::BitTorrent, self.host);
        let handshake = Handshake { reserved, infohash: infohash.0, peer_id };
        around.kernel.peer_send(conn, &handshake.encode());
        around.kernel.peer_send(conn, &frame(&Message::Interested));
        self.link = Some(Link {
            conn,
            reader: Reader::default(),
            offered: vec![false; usize::try_from(content.layout().piece_count()).unwrap_or(0)],
            allowed: Vec::new(),
            choked: true,
            asked: Vec::new(),
            said_at_ms: around.kernel.now().monotonic_ms(),
        });
    }

    fn read(&mut self, around: &mut Around<'_>) {
        let Some(link) = &mut self.link else { return };
        let most = if around.calm { self.read_bytes.max(16 * 1024) } else { self.read_bytes };
        let bytes = around.kernel.peer_read(link.conn, most);
        if bytes.is_empty() {
            return;
        }
        link.reader.feed(&bytes);
        while let Some(said) = self.link.as_mut().and_then(|link| link.reader.next_frame()) {
            let Ok(message) = Message::decode(&said) else { panic!("no message: {said:?}") };
            self.hear(message, &around.sources[self.source]);
        }
    }

    fn hear(&mut self, message: Message<'_>, source: &Source) {
        let (Some(link), Some(wanted)) = (&mut self.link, &mut self.wanted) else { return };
        let mut offer = |piece: u32| {
            assert!(source.content.has_piece(PieceIndex(piece)), "piece {piece} is offered and not verified");
            link.offered[piece as usize] = true;
        };
        match message {
            Message::Choke => {
                link.choked = true;
                if !self.fast {
                    wanted.append(&mut link.asked);
                }
            }
            Message::Unchoke => link.choked = false,
            Message::Have(piece) => offer(piece),
            Message::Bitfield(bits) => {
                assert!(
                    bitfield::check(bits, source.content.layout().piece_count()).is_ok(),
                    "a bad bitfield"
                );
                (0..source.content.layout().piece_count())
                    .filter(|piece| bitfield::contains(bits, *piece))
                    .for_each(offer);
            }
            Message::HaveAll => (0..source.content.layout().piece_count()).for_each(offer),
            Message::HaveNone | Message::KeepAlive | Message::Extended { .. } => {}
            Message::AllowedFast(piece) => link.allowed.push(piece),
            Message::Piece { index, begin, block } => {
                let start = source.content.layout().piece_range(PieceIndex(index)).start + u64::from(begin);
                assert!(block == source.disk.truth(start, block.len()), "wrong bytes in piece {index}");
                let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
                let had = Block { index, begin, length };
                let asked = link.asked.iter().position(|asked| *asked == had);
                assert!(asked.is_some() || !self.fast, "{had:?} was not asked for, or was answered before");
                if let Some(at) = asked {
                    link.asked.remove(at);
                }
                wanted.retain(|block| *block != had);
            }
            Message::Reject(block) => {
                let asked = link.asked.iter().position(|asked| *asked == block);
                let Some(at) = asked.filter(|_| self.fast) else { panic!("{block:?} was not asked for") };
                wanted.push(link.asked.remove(at));
            }
            other => panic!("a seed does not say {other:?}"),
        }
    }

    fn ask(&mut self, around: &mut Around<'_>) {
        let (Some(link), Some(wanted)) = (&mut self.link, &mut self.wanted) else { return };
        let now_ms = around.kernel.now().monotonic_ms();
        if now_ms >= link.said_at_ms + KEEP_ALIVE_MS {
            link.said_at_ms = now_ms;
            around.kernel.peer_send(link.conn, &frame(&Message::KeepAlive));
        }
        while link.asked.len() < self.pipeline {
            let may = |block: &Block| {
                link.offered[block.index as usize] && (!link.choked || link.allowed.contains(&block.index))
            };
            let Some(at) = wanted.iter().position(may) else { break };
            let block = wanted.swap_remove(at);
            link.asked.push(block);
            link.said_at_ms = now_ms;
            around.kernel.peer_send(link.conn, &frame(&Message::Request(block)));
        }
        if self.cancels && !link.asked.is_empty() && !around.calm && around.random.one_in(20) {
            let at = around.random.index(link.asked.len());
            let block = link.asked[at];
            around.kernel.peer_send(link.conn, &frame(&Message::Cancel(block)));
            if !self.fast {
                // It comes, or it does not: nothing will be said.
                link.asked.remove(at);
                wanted.push(block);
            }
        }
    }

    fn ended(&mut self, around: &mut Around<'_>) {
        let source = &around.sources[self.source];
        assert!(
            source.was_lost || source.was_slow || around.unreadable || around.trickles,
            "cut off without a reason: {}, counted {:?}",
            self.describe(),
            super::reasons(&around.kernel.counters)
        );
        if let Some(link) = &self.link {
            around.kernel.peer_finish(link.conn);
        }
        self.unlink(around);
    }

    fn unlink(&mut self, around: &mut Around<'_>) {
        if let (Some(mut link), Some(wanted)) = (self.link.take(), &mut self.wanted) {
            wanted.append(&mut link.asked);
            wanted.sort_unstable_by_key(|block| (block.index, block.begin));
            wanted.dedup();
        }
        self.wait_until_ms = around.kernel.now().monotonic_ms() + around.random.below(2_000);
    }
}

/// All blocks of a content.
fn blocks(source: &Source) -> Vec<Block> {
    let layout = source.content.layout();
    let of_piece = |index: u32| {
        let range = layout.piece_range(PieceIndex(index));
        let bytes = u32::try_from(range.end - range.start).unwrap_or(0);
        (0..bytes).step_by(BLOCK_BYTES as usize).map(move |begin| Block {
            index,
            begin,
            length: BLOCK_BYTES.min(bytes - begin),
        })
    };
    (0..layout.piece_count()).flat_map(of_piece).collect()
}
