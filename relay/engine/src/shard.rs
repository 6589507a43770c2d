//! One shard: its connections, who may send next, and who has waited too long.
//!
//! Everything happens inside [`Shard::handle`]. Connections with something to send queue for turns; in each turn one gets at most
//! [`Limits::turn_bytes`], and no more than the egress cap grants.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millrace_proto::http::date::HttpDate;
use millrace_proto::id::ContentId;

use crate::bittorrent;
use crate::counters::{Counters, Reason};
use crate::event::{Event, News, Sent};
use crate::http;
use crate::ids::{ConnId, Now, Protocol, ShardId};
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::op::{Op, Ops};
use crate::output::Output;
pub use crate::session::Identity;
use crate::session::{Context, End, Parked, Random, Shared, Step};

/// How often deadlines are looked at. Time-outs are late by at most this much.
const SWEEP_MS: u64 = 1_000;

/// How soon a connection that the cap made wait asks again.
const CAP_RETRY_NS: u64 = 2_000_000;

/// How long a closing connection may go on sending before it is cut (RFC 9112 §9.6).
const LINGER_MS: u64 = 5_000;

/// Turns handed out in one loop, so that events are looked at in between.
const TURNS_MAX: usize = 64;

/// What a shard is made with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Limits of this shard.
    pub limits: Arc<Limits>,
    /// What is shared with the other shards.
    pub ledger: Arc<Ledger>,
    /// Where this shard counts.
    pub counters: Arc<Counters>,
    /// How this relay presents itself to peers.
    pub identity: Identity,
    /// Seed of this shard's random choices.
    pub seed: u64,
}

/// Whether a connection may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// Nothing queued.
    Idle,
    /// In the queue for a turn.
    Queued,
    /// A `Send` is under way, for which the cap granted this many bytes.
    Granted(u64),
    /// The socket takes no more.
    Blocked,
}

/// How far a connection's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// It is open.
    No,
    /// It ends after its output.
    AfterOutput(Reason),
    /// Our side is shut down; we wait for the peer's end, or for the deadline.
    Lingering(Reason),
}

#[derive(Debug)]
enum Session {
    Http(http::Session),
    BitTorrent(Box<bittorrent::Session>),
}

/// A time at which a connection has waited too long, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) at_ms: u64,
    pub(crate) reason: Reason,
}

#[derive(Debug)]
struct Conn {
    id: ConnId,
    peer: SocketAddr,
    output: Output,
    sending: Sending,
    closing: Closing,
    /// Set while the socket is blocked or the connection lingers; otherwise the session's own deadline counts.
    stall: Option<Deadline>,
    session: Session,
}

/// The state machine of one core.
#[derive(Debug)]
pub struct Shard {
    shared: Shared,
    conns: Vec<Option<Box<Conn>>>,
    open: usize,
    ready: VecDeque<ConnId>,
    /// The cap granted nothing: no turns before this time.
    throttled_until_ns: u64,
    next_sweep_ms: u64,
    drain_by_ms: Option<u64>,
}

impl Shard {
    /// A shard without connections or contents.
    #[must_use]
    pub fn new(id: ShardId, config: Config) -> Self {
        let slots = config.limits.connections_max as usize;
        let shared = Shared {
            shard: id,
            choker: bittorrent::choker::Choker::new(config.limits.upload_slots),
            limits: config.limits,
            ledger: config.ledger,
            counters: config.counters,
            catalog: crate::catalog::Catalog::default(),
            parked: Parked::default(),
            swarms: std::collections::HashMap::new(),
            identity: config.identity,
            random: Random::new(config.seed),
            keys: None,
            draining: false,
            prepared: http::Prepared::default(),
            head: Vec::new(),
            date: HttpDate::from_unix(0),
        };
        Shard {
            shared,
            conns: std::iter::repeat_with(|| None).take(slots).collect(),
            open: 0,
            ready: VecDeque::new(),
            throttled_until_ns: 0,
            next_sweep_ms: 0,
            drain_by_ms: None,
        }
    }

    /// What a `Send` of this connection is to send.
    #[must_use]
    pub fn output(&self, conn: ConnId) -> Option<&Output> {
        self.conns.get(conn.index())?.as_ref().filter(|held| held.id == conn).map(|held| &held.output)
    }

    /// When a [`Event::Turn`] is due although nothing happens, in monotonic nanoseconds; a time that has passed means at once.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        let sweep = (self.open > 0 || self.drain_by_ms.is_some()).then_some(self.next_sweep_ms * 1_000_000);
        let turn = (!self.ready.is_empty()).then_some(self.throttled_until_ns);
        [sweep, turn].into_iter().flatten().min()
    }

    /// Whether a drain has come to its end: nothing is open, and nothing will be.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.shared.draining && self.open == 0
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open
    }

    /// Handles one event at a time `now`, which never runs backwards, and appends what is to be done to `ops`.
    ///
    /// # Panics
    /// When the back end breaks the contract of [`Op`] and [`Event`], for instance by sending more than was queued.
    pub fn handle(&mut self, now: Now, event: Event<'_>, ops: &mut Ops) {
        match event {
            Event::Accepted { conn, protocol, peer } => self.accept(now, conn, protocol, peer, ops),
            Event::Received { conn, data } => self.receive(now, conn, data, ops),
            Event::Sent { conn, outcome } => self.sent(now, conn, outcome, ops),
            Event::Writable { conn } => self.writable(conn),
            Event::Broken { conn } => self.close(conn, Reason::Broken, false, ops),
            Event::News(news) => self.news(now, news, ops),
            Event::Turn => self.turn(now, ops),
        }
    }

    fn accept(&mut self, now: Now, id: ConnId, protocol: Protocol, peer: SocketAddr, ops: &mut Ops) {
        let shared = &mut self.shared;
        let refusal = if shared.draining {
            Some(Reason::Draining)
        } else if !shared.ledger.addresses.enter(peer.ip(), shared.limits.connections_per_address_max) {
            Some(Reason::TooManyFromAddress)
        } else {
            None
        };
        if let Some(reason) = refusal {
            shared.counters.close(reason);
            ops.push(Op::Close { conn: id, reset: false });
            return;
        }
        let session = match protocol {
            Protocol::Http => {
                shared.counters.accepted_http.increment();
                shared.counters.connections_http.increment();
                Session::Http(http::Session::new(now, &shared.limits))
            }
            Protocol::BitTorrent => {
                shared.counters.accepted_bittorrent.increment();
                shared.counters.connections_bittorrent.increment();
                Session::BitTorrent(Box::new(bittorrent::Session::new(now, &shared.limits)))
            }
        };
        let conn = Conn {
            id,
            peer,
            output: Output::default(),
            sending: Sending::Idle,
            closing: Closing::No,
            stall: None,
            session,
        };
        let slot = &mut self.conns[id.index()];
        assert!(slot.is_none(), "the back end accepted into slot {} that is in use", id.slot());
        *slot = Some(Box::new(conn));
        self.open += 1;
        ops.push(Op::Receive { conn: id });
    }

    fn receive(&mut self, now: Now, id: ConnId, data: &[u8], ops: &mut Ops) {
        let Some(closing) = self.conn(id).map(|conn| conn.closing) else { return };
        match closing {
            // What comes after our last answer is read and dropped, until the peer ends too.
            Closing::Lingering(reason) if data.is_empty() => self.close(id, reason, false, ops),
            Closing::AfterOutput(_) | Closing::Lingering(_) => {}
            Closing::No => self.step(now, id, ops, |session, cx| match session {
                Session::Http(http) => http.handle_received(cx, data),
                Session::BitTorrent(peer) => peer.handle_received(cx, data),
            }),
        }
    }

    fn sent(&mut self, now: Now, id: ConnId, outcome: Sent, ops: &mut Ops) {
        let Some(conn) = self.conns.get_mut(id.index()).and_then(Option::as_mut).filter(|conn| conn.id == id)
        else {
            return;
        };
        let Sending::Granted(granted) = conn.sending else {
            panic!("a send of slot {} ended that was not under way", id.slot())
        };
        conn.sending = Sending::Idle;
        let Sent::Bytes { bytes, blocked } = outcome else {
            self.shared.ledger.egress.give_back(granted);
            let (reason, reset) = match outcome {
                Sent::Unreadable => (Reason::ContentLost, true),
                _ => (Reason::Broken, false),
            };
            return self.close(id, reason, reset, ops);
        };
        self.shared.ledger.egress.give_back(granted.saturating_sub(bytes));
        let payload = conn.output.consume(bytes);
        let counters = &self.shared.counters;
        let used = conn.output.content().map(|content| content.counters());
        match &conn.session {
            Session::Http(_) => {
                counters.served_http_bytes.add(payload);
                used.map(|used| used.served_http.fetch_add(payload, Ordering::Relaxed));
            }
            Session::BitTorrent(_) => {
                counters.served_bittorrent_bytes.add(payload);
                used.map(|used| used.served_bittorrent.fetch_add(payload, Ordering::Relaxed));
                self.shared.choker.note_sent(id, payload);
            }
        }
        let limits = &self.shared.limits;
        if blocked {
            conn.sending = Sending::Blocked;
            if bytes > 0 || conn.stall.is_none() {
                conn.stall = Some(after(now, limits.stall_timeout, Reason::Stalled));
            }
        } else {
            conn.stall = None;
        }
        self.step(now, id, ops, Session::refill);
    }

    fn writable(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id)
            && conn.sending == Sending::Blocked
        {
            conn.sending = Sending::Idle;
            // The reader took something: from here on it may be our cap that makes it wait.
            conn.stall = None;
            if !conn.output.is_empty() {
                conn.sending = Sending::Queued;
                self.ready.push_back(id);
            }
        }
    }

    /// Lets a session of an open connection do something, and draws the consequences for it and for those that wait for its slot.
    fn step(
        &mut self,
        now: Now,
        id: ConnId,
        ops: &mut Ops,
        act: impl FnOnce(&mut Session, &mut Context<'_>) -> Step,
    ) {
        self.step_alone(now, id, ops, act);
        self.settle_chokes(now, ops);
    }

    fn step_alone(
        &mut self,
        now: Now,
        id: ConnId,
        ops: &mut Ops,
        act: impl FnOnce(&mut Session, &mut Context<'_>) -> Step,
    ) {
        let Shard { shared, conns, ready, .. } = self;
        let Some(conn) = conns.get_mut(id.index()).and_then(Option::as_mut).filter(|conn| conn.id == id)
        else {
            return;
        };
        let Conn { session, output, peer, closing, sending, stall, .. } = &mut **conn;
        if *closing == Closing::No {
            let mut cx = Context { now, conn: id, peer: *peer, shared, output, ops };
            match act(session, &mut cx) {
                Ok(()) => {}
                Err(End::AfterOutput(reason)) => *closing = Closing::AfterOutput(reason),
                Err(End::Reset(reason)) => return self.close(id, reason, true, ops),
                Err(End::Now(reason)) => return self.close(id, reason, false, ops),
            }
        }
        match (*closing, output.is_empty()) {
            (_, false) if *sending == Sending::Idle => {
                *sending = Sending::Queued;
                ready.push_back(id);
            }
            (Closing::AfterOutput(reason), true) => {
                *closing = Closing::Lingering(reason);
                *stall = Some(Deadline { at_ms: now.monotonic_ms() + LINGER_MS, reason });
                ops.push(Op::Shutdown { conn: id });
                ops.push(Op::Receive { conn: id });
            }
            _ => {}
        }
    }

    /// Delivers what choking decided, to other peers of the swarms that were touched.
    fn settle_chokes(&mut self, now: Now, ops: &mut Ops) {
        while let Some((peer, verdict)) = self.shared.next_verdict() {
            self.step_alone(now, peer, ops, |session, cx| match session {
                Session::BitTorrent(peer) => peer.handle_verdict(cx, verdict),
                Session::Http(_) => Ok(()),
            });
        }
    }

    fn news(&mut self, now: Now, news: News, ops: &mut Ops) {
        match news {
            News::Put(content) => {
                let id = content.id();
                self.shared.catalog.put(content);
                self.wake(now, id, ops);
            }
            News::Gone(id) => {
                self.shared.catalog.remove(id);
                self.wake(now, id, ops);
                self.for_swarm(now, id, ops, |peer, cx| peer.handle_gone(cx));
            }
            News::Arrived(id) => self.wake(now, id, ops),
            News::Changed(id) => {
                self.wake(now, id, ops);
                self.for_swarm(now, id, ops, bittorrent::Session::handle_changed);
            }
            News::Piece { content, piece } => {
                let Some(swarm) = self.shared.swarms.get_mut(&content) else { return };
                if swarm.learn(piece) {
                    let is_last = swarm.is_whole();
                    self.for_swarm(now, content, ops, |peer, cx| peer.handle_piece(cx, piece, is_last));
                }
            }
            News::Answer { conn, answer } => self.step(now, conn, ops, |session, cx| match session {
                Session::Http(http) => http.handle_answer(cx, answer),
                Session::BitTorrent(_) => Ok(()),
            }),
            News::Drain => self.drain(now, ops),
        }
    }

    /// Those who wait for bytes of a content look again.
    fn wake(&mut self, now: Now, content: ContentId, ops: &mut Ops) {
        for id in self.shared.parked.take(content) {
            self.step(now, id, ops, Session::refill);
        }
    }

    fn for_swarm(
        &mut self,
        now: Now,
        content: ContentId,
        ops: &mut Ops,
        mut act: impl FnMut(&mut bittorrent::Session, &mut Context<'_>) -> Step,
    ) {
        let members =
            self.shared.swarms.get(&content).map(bittorrent::swarm::Swarm::members).unwrap_or_default();
        for id in members {
            self.step(now, id, ops, |session, cx| match session {
                Session::BitTorrent(peer) => act(peer, cx),
                Session::Http(_) => Ok(()),
            });
        }
    }

    fn drain(&mut self, now: Now, ops: &mut Ops) {
        self.shared.draining = true;
        self.drain_by_ms = Some(after(now, self.shared.limits.drain_timeout, Reason::Draining).at_ms);
        self.next_sweep_ms = now.monotonic_ms();
        for id in self.open_ids() {
            self.step(now, id, ops, |session, cx| match session {
                Session::Http(http) => http.handle_drain(cx),
                Session::BitTorrent(peer) => peer.handle_drain(cx),
            });
        }
    }

    /// Hands out turns, then looks at the deadlines when it is time.
    fn turn(&mut self, now: Now, ops: &mut Ops) {
        self.shared.counters.loops.increment();
        // A connection that closed may have left its upload slot to another.
        self.settle_chokes(now, ops);
        if now.monotonic_ns >= self.throttled_until_ns {
            self.hand_out_turns(now, ops);
        }
        if now.monotonic_ms() >= self.next_sweep_ms {
            self.next_sweep_ms = now.monotonic_ms() + SWEEP_MS;
            self.sweep(now, ops);
        }
    }

    fn hand_out_turns(&mut self, now: Now, ops: &mut Ops) {
        for _ in 0..self.ready.len().min(TURNS_MAX) {
            let Some(id) = self.ready.pop_front() else { return };
            let turn_bytes = self.shared.limits.turn_bytes;
            let Some(queued) = self.conn(id).map(|conn| conn.output.bytes()) else { continue };
            let granted = self.shared.ledger.egress.take(now, queued.min(turn_bytes));
            if granted == 0 {
                self.shared.counters.cap_waits.increment();
                self.ready.push_front(id);
                self.throttled_until_ns = now.monotonic_ns + CAP_RETRY_NS;
                return;
            }
            if let Some(conn) = self.conn_mut(id) {
                conn.sending = Sending::Granted(granted);
                ops.push(Op::Send { conn: id, bytes_max: granted });
            }
        }
    }

    /// Closes what waited too long, and lets sessions that wait say so again.
    fn sweep(&mut self, now: Now, ops: &mut Ops) {
        let at_ms = now.monotonic_ms();
        let drain_is_over = self.drain_by_ms.is_some_and(|by_ms| at_ms >= by_ms);
        self.shared.rotate_chokes(now);
        for id in self.open_ids() {
            let Some(conn) = self.conn(id) else { continue };
            let session = match &conn.session {
                Session::Http(http) => http.deadline(),
                Session::BitTorrent(peer) => peer.deadline(),
            };
            if drain_is_over {
                self.close(id, Reason::Draining, true, ops);
            } else if let Some(late) =
                [conn.stall, session].into_iter().flatten().find(|deadline| deadline.at_ms <= at_ms)
            {
                let mid_answer = !conn.output.is_empty() || late.reason == Reason::ParkedTooLong;
                self.close(id, late.reason, mid_answer, ops);
            } else {
                self.step(now, id, ops, |session, cx| match session {
                    Session::Http(http) => http.handle_tick(cx),
                    Session::BitTorrent(peer) => peer.handle_tick(cx),
                });
                // Thousands of connections that were busy once and are idle now must not hold what they needed then.
                if let Some(conn) = self.conn_mut(id) {
                    conn.output.shrink();
                }
            }
        }
    }

    fn close(&mut self, id: ConnId, reason: Reason, reset: bool, ops: &mut Ops) {
        let Some(conn) = self.conns.get_mut(id.index()).and_then(|slot| slot.take_if(|conn| conn.id == id))
        else {
            return;
        };
        self.open -= 1;
        let shared = &mut self.shared;
        if let Sending::Granted(granted) = conn.sending {
            shared.ledger.egress.give_back(granted);
        }
        shared.ledger.addresses.leave(conn.peer.ip());
        shared.counters.close(reason);
        match conn.session {
            Session::Http(_) => shared.counters.connections_http.decrement(),
            Session::BitTorrent(peer) => {
                shared.counters.connections_bittorrent.decrement();
                peer.leave(id, shared);
            }
        }
        ops.push(Op::Close { conn: id, reset });
    }

    /// Bytes of memory that a connection holds, besides its place in the table.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self, id: ConnId) -> Option<usize> {
        let conn = self.conn(id)?;
        let session = match &conn.session {
            Session::Http(http) => http.held_bytes(),
            Session::BitTorrent(peer) => size_of::<bittorrent::Session>() + peer.held_bytes(),
        };
        Some(size_of::<Conn>() + conn.output.held_bytes() + session)
    }

    fn open_ids(&self) -> Vec<ConnId> {
        self.conns.iter().flatten().map(|conn| conn.id).collect()
    }

    fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.conns.get(id.index())?.as_deref().filter(|conn| conn.id == id)
    }

    fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.index())?.as_deref_mut().filter(|conn| conn.id == id)
    }
}

impl Session {
    fn refill(&mut self, cx: &mut Context<'_>) -> Step {
        match self {
            Session::Http(http) => http.refill(cx),
            Session::BitTorrent(peer) => peer.refill(cx),
        }
    }
}

/// The deadline that lies `wait` ahead.
pub(crate) fn after(now: Now, wait: std::time::Duration, reason: Reason) -> Deadline {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    Deadline { at_ms: now.monotonic_ms().saturating_add(wait_ms), reason }
}
