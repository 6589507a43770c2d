//! One BitTorrent connection, from its first byte to its end: a handshake, which may be wrapped in another, then a peer.

use std::sync::Arc;

use millrace_pagecache::layout::PieceIndex;

use super::choker::Verdict;
use super::encryption::Encryption;
use super::handshake::{Handshaking, Heard};
use super::inbox::{Inbox, Next};
use super::peer::Peer;
use crate::counters::Reason;
use crate::ids::{ConnId, Now};
use crate::limits::Limits;
use crate::op::Op;
use crate::session::{Context, End, Shared, Step};
use crate::shard::{Deadline, after};

#[derive(Debug)]
enum State {
    /// `plain` is false behind an encrypted handshake, inside of which there is no other.
    Handshaking {
        opening: Handshaking,
        plain: bool,
        by: Deadline,
    },
    Encrypted {
        encryption: Encryption,
        by: Deadline,
    },
    Open {
        inbox: Inbox,
        peer: Box<Peer>,
        receiving: bool,
        idle: Deadline,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session(State);

impl Session {
    pub(crate) fn new(now: Now, limits: &Limits) -> Self {
        let by = after(now, limits.handshake_timeout, Reason::SlowHead);
        Session(State::Handshaking { opening: Handshaking::new(), plain: true, by })
    }

    /// When this connection has waited too long, and for what. Of a peer that is not read from nothing is expected; whether it
    /// reads is the shard's to see.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        match &self.0 {
            State::Handshaking { by, .. } | State::Encrypted { by, .. } => Some(*by),
            State::Open { receiving, idle, .. } => receiving.then_some(*idle),
        }
    }

    /// We make it wait ourselves, and it may have nothing to say until we go on.
    pub(crate) fn excuse(&mut self, now: Now, limits: &Limits) {
        if let State::Open { idle, .. } = &mut self.0 {
            *idle = after(now, limits.peer_idle_timeout, Reason::Idle);
        }
    }

    /// Handles what the peer sent; nothing means that it has finished.
    pub(crate) fn handle_received(&mut self, cx: &mut Context<'_>, mut data: &[u8]) -> Step {
        if data.is_empty() {
            return Err(End::Now(Reason::PeerClosed));
        }
        if let State::Encrypted { .. } = &self.0 {
            return self.handle_encrypted(cx, data);
        }
        if let State::Handshaking { opening, plain, by } = &mut self.0 {
            let opened = match opening.handle(cx, &mut data)? {
                Heard::Opened(opened) => opened,
                Heard::More => return Ok(()),
                Heard::Foreign if *plain => {
                    let said = [opening.received(), data].concat();
                    self.0 = State::Encrypted { encryption: Encryption::begin(cx)?, by: *by };
                    return self.handle_encrypted(cx, &said);
                }
                Heard::Foreign => return Err(End::Now(Reason::NotBitTorrent)),
            };
            if *plain {
                cx.shared.ledger.refused.forget(cx.peer.ip());
            }
            self.0 = State::Open {
                inbox: Inbox::default(),
                peer: Box::new(Peer::join(cx, opened)),
                receiving: true,
                idle: after(cx.now, cx.shared.limits.peer_idle_timeout, Reason::Idle),
            };
        }
        let State::Open { inbox, peer, receiving, idle } = &mut self.0 else { return Ok(()) };
        *idle = after(cx.now, cx.shared.limits.peer_idle_timeout, Reason::Idle);
        let limits = peer.frame_limits(&cx.shared.limits);
        loop {
            match inbox.next(&mut data, &limits) {
                Next::Message(message) => peer.handle_message(cx, message)?,
                Next::Nothing => break,
                Next::Invalid => return Err(End::Now(Reason::BadMessage)),
            }
        }
        if *receiving && peer.is_behind() {
            *receiving = false;
            cx.ops.push(Op::PauseReceive { conn: cx.conn });
        }
        self.refill(cx)
    }

    fn handle_encrypted(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Step {
        let State::Encrypted { encryption, by } = &mut self.0 else { return Ok(()) };
        let Some(stream) = encryption.handle(cx, data)? else { return Ok(()) };
        self.0 = State::Handshaking { opening: Handshaking::new(), plain: false, by: *by };
        if stream.is_empty() { Ok(()) } else { self.handle_received(cx, &stream) }
    }

    /// Queues the next batch when everything went out.
    pub(crate) fn refill(&mut self, cx: &mut Context<'_>) -> Step {
        let State::Open { peer, receiving, idle, .. } = &mut self.0 else { return Ok(()) };
        peer.refill(cx)?;
        if !*receiving && !peer.is_behind() {
            *receiving = true;
            *idle = after(cx.now, cx.shared.limits.peer_idle_timeout, Reason::Idle);
            cx.ops.push(Op::Receive { conn: cx.conn });
        }
        Ok(())
    }

    /// The choker has decided.
    pub(crate) fn handle_verdict(&mut self, cx: &mut Context<'_>, verdict: Verdict) -> Step {
        let State::Open { peer, .. } = &mut self.0 else { return Ok(()) };
        peer.handle_verdict(cx, verdict);
        Ok(())
    }

    /// A piece was verified that this peer has not been told of; when it `is_last`, there will be no more.
    pub(crate) fn handle_piece(&mut self, cx: &mut Context<'_>, piece: PieceIndex, is_last: bool) -> Step {
        let State::Open { peer, .. } = &mut self.0 else { return Ok(()) };
        peer.handle_piece(cx, piece, is_last)
    }

    /// The content was paused, resumed, completed or has failed.
    pub(crate) fn handle_changed(&mut self, cx: &mut Context<'_>) -> Step {
        if let State::Open { peer, .. } = &self.0 {
            if !cx.admits(peer.content()) {
                return self.end(cx, Reason::UnknownTorrent);
            }
            peer.settle_interest(cx);
        }
        self.refill(cx)
    }

    /// The content was removed.
    pub(crate) fn handle_gone(&mut self, cx: &mut Context<'_>) -> Step {
        self.end(cx, Reason::ContentLost)
    }

    /// The relay is about to stop.
    pub(crate) fn handle_drain(&mut self, cx: &mut Context<'_>) -> Step {
        self.end(cx, Reason::Draining)
    }

    /// Says that no more requests are taken, and ends when what is queued went out.
    fn end(&mut self, cx: &mut Context<'_>, reason: Reason) -> Step {
        match &mut self.0 {
            State::Handshaking { .. } | State::Encrypted { .. } => Err(End::Now(reason)),
            State::Open { peer, .. } => {
                peer.handle_end(cx);
                Err(End::AfterOutput(reason))
            }
        }
    }

    /// Once a second.
    pub(crate) fn handle_tick(&mut self, cx: &mut Context<'_>) -> Step {
        let State::Open { peer, .. } = &mut self.0 else { return Ok(()) };
        let current = cx.shared.catalog.by_id(peer.content().id());
        if !current.is_some_and(|current| Arc::ptr_eq(current, peer.content())) {
            // Another body under the same name: the peer comes back to it, and hears what it has.
            return self.end(cx, Reason::ContentLost);
        }
        if !cx.admits(peer.content()) {
            // It is not for everybody any more.
            return self.end(cx, Reason::UnknownTorrent);
        }
        peer.handle_tick(cx)?;
        self.refill(cx)
    }

    /// Bytes of heap that it holds.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        let State::Open { inbox, peer, .. } = &self.0 else { return 0 };
        inbox.held_bytes() + size_of::<Peer>() + peer.requests.held_bytes() + peer.asks.held_bytes()
    }

    /// The connection is gone.
    pub(crate) fn leave(&self, id: ConnId, shared: &mut Shared) {
        if let State::Open { peer, .. } = &self.0 {
            shared.leave_swarm(peer.content().id(), id);
            shared.choker.forget(id);
            shared.count_unchoked();
        }
    }
}
