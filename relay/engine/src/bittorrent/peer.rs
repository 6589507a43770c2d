//! A peer after its handshake: what it may ask, what it was told, and what it says.

use std::sync::Arc;

use millrace_pagecache::content::{Content, State};
use millrace_pagecache::layout::{BLOCK_BYTES, PieceIndex};
use millrace_proto::id::InfoHashV1;
use millrace_proto::metainfo::Metainfo;
use millrace_proto::peer::allowed_fast::AllowedFast;
use millrace_proto::peer::bitfield;
use millrace_proto::peer::extension::ExtensionIds;
use millrace_proto::peer::frame::FrameLimits;
use millrace_proto::peer::message::{Block, Message};

use super::choker::Verdict;
use super::extensions;
use super::handshake::Opened;
use super::outbox::Outbox;
use super::requests::Requests;
use super::serve::Asks;
use crate::counters::Reason;
use crate::limits::Limits;
use crate::session::{Context, End, Step};

/// Longest block that is sent. Clients ask for 16 KiB; more than 128 KiB is absurd (BEP 3).
const BLOCK_BYTES_MAX: u32 = 128 * 1024;

/// Pieces that a choked peer may ask for (BEP 6), until it has as many.
const ALLOWED_FAST_PIECES: u32 = 10;

/// Silence after which a keep-alive is sent; peers close after two minutes (BEP 3).
const KEEP_ALIVE_MS: u64 = 110_000;

/// `have` messages beyond a few for each piece are a flood.
const HAVES_PER_PIECE_MAX: u64 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) content: Arc<Content>,
    /// The torrent that the peer named by its infohash.
    pub(super) metainfo: Option<Arc<Metainfo>>,
    piece_count: u32,
    /// Without a v1 part there are no bytes between the end of a file and the next piece (BEP 52).
    v2_only: bool,
    /// The fast extension (BEP 6).
    pub(super) fast: bool,
    /// How the peer numbers its extensions (BEP 10).
    pub(super) ids: ExtensionIds,
    /// The peer downloads nothing (BEP 21).
    pub(super) upload_only: bool,
    choked: bool,
    interested: bool,
    /// Pieces that the peer has, as far as it says.
    pub(super) pieces: u32,
    haves: u64,
    allowed_fast: AllowedFast,
    pub(super) requests: Requests,
    pub(super) asks: Asks,
    pub(super) outbox: Outbox,
    quiet_since_ms: u64,
}

impl Peer {
    /// Joins the swarm, and says what we have.
    pub(super) fn join(cx: &mut Context<'_>, opened: Opened) -> Self {
        let Opened { content, handshake } = opened;
        let piece_count = content.layout().piece_count();
        let metainfo = content.metainfo_of_swarm(InfoHashV1(handshake.infohash)).cloned();
        let v2_only = metainfo.as_ref().is_some_and(|metainfo| metainfo.info.v1_pieces.is_none());
        let fast = handshake.reserved.fast();
        let allowed_fast = if fast { ALLOWED_FAST_PIECES as usize } else { 0 };
        let mut peer = Peer {
            metainfo,
            piece_count,
            v2_only,
            fast,
            ids: ExtensionIds::default(),
            upload_only: false,
            choked: true,
            interested: false,
            pieces: 0,
            haves: 0,
            allowed_fast: AllowedFast::generate(cx.peer.ip(), &handshake.infohash, piece_count, allowed_fast),
            requests: Requests::new(cx.shared.limits.peer_requests_max),
            asks: Asks::default(),
            outbox: Outbox::default(),
            quiet_since_ms: cx.now.monotonic_ms(),
            content,
        };
        peer.content.counters().touch(cx.now.unix_s);
        if handshake.reserved.extension_protocol() {
            extensions::greet(&mut peer, cx);
        }
        peer.announce(cx);
        peer
    }

    fn announce(&mut self, cx: &mut Context<'_>) {
        let swarm = cx.shared.join_swarm(&self.content, cx.conn);
        match bitfield::announcement(swarm.announced(), self.piece_count, self.fast) {
            Some(Message::Bitfield(bits)) => self.outbox.push_bitfield(cx.output, bits),
            Some(short) => self.outbox.push(cx.output, &short),
            None => {}
        }
        for piece in self.allowed_fast.pieces() {
            if bitfield::contains(swarm.announced(), *piece) {
                self.outbox.push(cx.output, &Message::AllowedFast(*piece));
            }
        }
    }

    pub(super) fn content(&self) -> &Arc<Content> {
        &self.content
    }

    /// What this peer may make us keep of an unfinished frame.
    pub(super) fn frame_limits(&self, limits: &Limits) -> FrameLimits {
        let mut frames = FrameLimits::upload_only(bitfield::bytes(self.piece_count));
        let bytes_max = u32::try_from(limits.frame_bytes_max).unwrap_or(u32::MAX);
        frames.extended_bytes_max = frames.extended_bytes_max.min(bytes_max);
        frames
    }

    /// Whether the peer asks for more than it reads.
    pub(super) fn is_behind(&self) -> bool {
        self.outbox.is_full()
    }

    pub(super) fn handle_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> Step {
        const BAD: Step = Err(End::Now(Reason::BadMessage));
        match message {
            Message::Interested => {
                self.interested = true;
                self.settle_interest(cx);
            }
            Message::NotInterested => {
                self.interested = false;
                self.settle_interest(cx);
            }
            Message::Request(block) => return self.handle_request(cx, block),
            Message::Cancel(block) => {
                if self.requests.cancel(block) {
                    self.reject(cx, block);
                }
            }
            Message::Have(piece) => return self.handle_have(piece),
            Message::Bitfield(bits) => {
                if bitfield::check(bits, self.piece_count).is_err() {
                    return BAD;
                }
                self.pieces = bits.iter().map(|byte| byte.count_ones()).sum();
                return self.leave_if_pointless();
            }
            // BEP 6: what was not negotiated closes the connection.
            Message::HaveAll
            | Message::HaveNone
            | Message::Suggest(_)
            | Message::Reject(_)
            | Message::AllowedFast(_)
                if !self.fast =>
            {
                return BAD;
            }
            Message::HaveAll => {
                self.pieces = self.piece_count;
                return self.leave_if_pointless();
            }
            Message::HaveNone => self.pieces = 0,
            Message::Extended { id, payload } => return extensions::handle(self, cx, id, payload),
            Message::HashRequest(span) => self.handle_hash_request(cx, span),
            // We ask for nothing, so nobody has bytes or hashes to bring us.
            Message::Piece { .. } | Message::Hashes { .. } => return BAD,
            Message::KeepAlive
            | Message::Choke
            | Message::Unchoke
            | Message::Port(_)
            | Message::Suggest(_)
            | Message::Reject(_)
            | Message::AllowedFast(_)
            | Message::HashReject(_)
            | Message::Unknown(_) => {}
        }
        Ok(())
    }

    fn handle_have(&mut self, piece: u32) -> Step {
        self.haves += 1;
        if piece >= self.piece_count || self.haves > HAVES_PER_PIECE_MAX * u64::from(self.piece_count) + 64 {
            return Err(End::Now(Reason::BadMessage));
        }
        self.pieces = self.pieces.saturating_add(1).min(self.piece_count);
        self.leave_if_pointless()
    }

    fn handle_request(&mut self, cx: &mut Context<'_>, block: Block) -> Step {
        if !self.exists(block) {
            return Err(End::Now(Reason::BadMessage));
        }
        let invited = !self.choked || self.is_allowed_fast(block);
        if !invited || !self.is_served() {
            // Asked before our choke arrived. Without BEP 6 the peer knows that a choke drops its requests.
            self.reject(cx, block);
            return Ok(());
        }
        if self.content.has_piece(PieceIndex(block.index)) && self.requests.push(block) {
            return Ok(());
        }
        if !self.fast {
            return Err(End::Now(Reason::BadMessage));
        }
        self.reject(cx, block);
        Ok(())
    }

    /// Whether there is such a block, of a length that is served.
    fn exists(&self, block: Block) -> bool {
        let piece_bytes = if self.v2_only {
            let piece = self.content.metainfo().and_then(|metainfo| metainfo.piece(block.index));
            piece.map_or(0, |piece| u64::from(piece.bytes))
        } else {
            let range = self.content.layout().piece_range(PieceIndex(block.index));
            range.end - range.start
        };
        // Without a v1 part nothing follows the end of a file (BEP 52). Yet libtorrent before 2.0.13 asks for whole blocks there,
        // and takes zeros for the rest, as from a padding file (BEP 47).
        let end_max = if self.v2_only { piece_bytes.next_multiple_of(BLOCK_BYTES) } else { piece_bytes };
        (1..=BLOCK_BYTES_MAX).contains(&block.length)
            && u64::from(block.begin) < piece_bytes
            && u64::from(block.begin) + u64::from(block.length) <= end_max
    }

    /// BEP 6: the set helps a peer that has nothing to give yet.
    fn is_allowed_fast(&self, block: Block) -> bool {
        self.fast && self.pieces < ALLOWED_FAST_PIECES && self.allowed_fast.contains(block.index)
    }

    /// Says that a request will not be answered, to peers who want to know (BEP 6).
    pub(super) fn reject(&mut self, cx: &mut Context<'_>, block: Block) {
        cx.shared.counters.rejects.increment();
        if self.fast {
            self.outbox.push(cx.output, &Message::Reject(block));
        }
    }

    /// Whether blocks of the content may be sent now.
    fn is_served(&self) -> bool {
        let stopped = matches!(self.content.state(), State::Paused | State::Failed | State::Removed);
        !stopped && !self.content.is_quarantined()
    }

    /// Tells the choker whether this peer is to have a slot.
    pub(super) fn settle_interest(&self, cx: &mut Context<'_>) {
        if self.interested && self.is_served() && !cx.shared.draining {
            cx.shared.choker.want(cx.conn);
        } else {
            cx.shared.choker.unwant(cx.conn);
        }
    }

    pub(super) fn handle_verdict(&mut self, cx: &mut Context<'_>, verdict: Verdict) {
        match verdict {
            Verdict::Unchoke if self.choked => {
                self.choked = false;
                self.outbox.push(cx.output, &Message::Unchoke);
            }
            Verdict::Choke if !self.choked => {
                self.choked = true;
                self.outbox.push(cx.output, &Message::Choke);
                // BEP 6: a choke takes back all requests but those that may be made in spite of it.
                let set = self.allowed_fast;
                let keeps_set = self.fast && self.pieces < ALLOWED_FAST_PIECES && self.is_served();
                self.drop_requests(cx, |block| keeps_set && set.contains(block.index));
            }
            Verdict::Choke | Verdict::Unchoke => {}
        }
    }

    /// No request will be answered any more.
    pub(super) fn handle_end(&mut self, cx: &mut Context<'_>) {
        if !self.choked {
            self.choked = true;
            self.outbox.push(cx.output, &Message::Choke);
        }
        self.drop_requests(cx, |_| false);
    }

    /// Each request that is dropped is answered (BEP 6).
    fn drop_requests(&mut self, cx: &mut Context<'_>, keep: impl Fn(&Block) -> bool) {
        let mut requests = std::mem::replace(&mut self.requests, Requests::new(0));
        requests.retain(keep, |block| self.reject(cx, block));
        self.requests = requests;
    }

    /// Tells of a piece.
    ///
    /// With the last one we become a seed, and libtorrent leaves a seed that it wants nothing of before it looks at what made it one, for
    /// a minute. So we become a seed by a piece that it was told of before, taken back for a moment (BEP 54): the new one it wants by then.
    /// There is no such piece in a content of one, nor a word for it to peers without the extension.
    pub(super) fn handle_piece(&mut self, cx: &mut Context<'_>, piece: PieceIndex, is_last: bool) -> Step {
        let other = u32::from(piece.0 == 0);
        let taken_back = is_last && self.piece_count > 1 && extensions::take_back(self, cx, other);
        self.outbox.push(cx.output, &Message::Have(piece.0));
        if taken_back {
            self.outbox.push(cx.output, &Message::Have(other));
        }
        if self.outbox.is_overflowing() { Err(End::Now(Reason::Stalled)) } else { Ok(()) }
    }

    /// BEP 21: two who both want nothing need no connection.
    pub(super) fn leave_if_pointless(&self) -> Step {
        let wants_nothing = self.pieces == self.piece_count || self.upload_only;
        let idle = !self.interested && self.requests.is_empty() && self.asks.is_empty();
        if wants_nothing && idle && self.content.is_complete() {
            return Err(End::AfterOutput(Reason::NothingToDo));
        }
        Ok(())
    }

    /// While there is something to send, the peer hears from us.
    pub(super) fn note_output(&mut self, cx: &Context<'_>) {
        if !cx.output.is_empty() {
            self.quiet_since_ms = cx.now.monotonic_ms();
        }
    }

    pub(super) fn handle_tick(&mut self, cx: &mut Context<'_>) -> Step {
        self.leave_if_pointless()?;
        self.settle_interest(cx);
        self.requests.shrink();
        self.asks.shrink();
        if cx.output.is_empty() && cx.now.monotonic_ms() >= self.quiet_since_ms + KEEP_ALIVE_MS {
            self.outbox.push(cx.output, &Message::KeepAlive);
        }
        Ok(())
    }
}
