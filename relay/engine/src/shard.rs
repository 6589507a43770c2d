//! One shard: its connections, who may send next, and who has waited too long.
//!
//! Everything happens inside [`Shard::handle`].

mod connection;
mod deadlines;
mod news;
mod path;
mod turns;
mod waits;
mod wheel;

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_proto::http::date::HttpDate;

use crate::bittorrent;
use crate::counters::{Counters, Reason};
use crate::event::Event;
use crate::http;
use crate::ids::{ConnId, Now, ShardId};
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::op::{Op, Ops};
use crate::output::Output;
pub use crate::session::Identity;
use crate::session::{Context, End, Parked, Random, Shared, Step};
use connection::{Closing, Conn, Sending, Session};
pub(crate) use deadlines::{Deadline, after};
use waits::Waits;

/// How long a closing connection may go on sending before it is cut (RFC 9112 §9.6).
const LINGER_MS: u64 = 5_000;

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

/// The state machine of one core.
#[derive(Debug)]
pub struct Shard {
    shared: Shared,
    conns: Vec<Option<Box<Conn>>>,
    open: usize,
    ready: VecDeque<ConnId>,
    /// Those whom caps make wait.
    waits: Waits,
    next_sweep_ms: u64,
    drain_by_ms: Option<u64>,
}

impl Shard {
    /// A shard without connections or contents.
    #[must_use]
    pub fn new(id: ShardId, config: Config) -> Self {
        let slots = config.limits.connections_max as usize;
        let waits = Waits::new(config.ledger.caps());
        let shared = Shared {
            shard: id,
            choker: bittorrent::choker::Choker::new(config.limits.upload_slots),
            limits: config.limits,
            gate: config.ledger.gate(),
            ledger: config.ledger,
            counters: config.counters,
            catalog: crate::catalog::Catalog::default(),
            parked: Parked::default(),
            swarms: foldhash::HashMap::default(),
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
            waits,
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
        let turn = (!self.ready.is_empty()).then_some(0);
        [sweep, turn, self.waits.deadline_ns()].into_iter().flatten().min()
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

    /// Hands out turns, then looks at the deadlines when it is time.
    fn turn(&mut self, now: Now, ops: &mut Ops) {
        self.shared.counters.loops.increment();
        // A connection that closed may have left its upload slot to another.
        self.settle_chokes(now, ops);
        self.hand_out_turns(now, ops);
        self.look_at_deadlines(now, ops);
    }
}
