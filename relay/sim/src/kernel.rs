//! The simulated kernel: carries out a shard's operations on model sockets, and delivers events in an order and in portions that a
//! seed decides. It holds the shard to its side of the contract and panics, naming what was broken, when it does not keep it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use millrace_engine::counters::Counters;
use millrace_engine::event::{Answer, Event, News, Sent};
use millrace_engine::ids::{ConnId, Now, Protocol, ShardId};
use millrace_engine::ledger::Ledger;
use millrace_engine::limits::Limits;
use millrace_engine::op::{Op, Ops, Question};
use millrace_engine::output::Part;
use millrace_engine::shard::{Config, Identity, Shard};
use millrace_pagecache::content::Content;
use millrace_proto::admin::caps::EffectiveCaps;
use millrace_proto::id::ContentId;

use crate::cap::CapWatch;
use crate::random::Random;
use crate::socket::{Ended, Socket, Told};
use crate::trace::Trace;

/// What may go wrong, and how finely things are cut.
#[derive(Debug, Clone)]
pub struct Faults {
    /// Most bytes delivered in one receive.
    pub receive_bytes_max: usize,
    /// Most bytes taken in one send.
    pub send_bytes_max: u64,
    /// Bytes a socket holds that the peer does not read.
    pub socket_bytes: usize,
    /// One send in so many finds the disk unreadable; 0 for never.
    pub unreadable_one_in: u64,
    /// One connection in so many is passed over in a loop, as if its readiness came late; 0 for never.
    pub late_one_in: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            receive_bytes_max: 65_536,
            send_bytes_max: u64::MAX,
            socket_bytes: 256 * 1024,
            unreadable_one_in: 0,
            late_one_in: 0,
        }
    }
}

/// Bytes that the shard said somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The content.
    pub content: ContentId,
    /// First byte.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// One shard over a simulated kernel.
#[derive(Debug)]
pub struct Kernel {
    shard: Shard,
    sockets: Vec<(ConnId, Socket)>,
    faults: Faults,
    random: Random,
    now: Now,
    ops: Ops,
    cap: CapWatch,
    trace: Trace,
    /// Questions for the control thread, unanswered.
    pub questions: Vec<(ConnId, Question)>,
    /// Demands so far, oldest first.
    pub demands: Vec<Demand>,
    /// Where the shard counts.
    pub counters: Arc<Counters>,
    /// What it shares with other shards.
    pub ledger: Arc<Ledger>,
}

impl Kernel {
    /// A shard with `limits` over a kernel with `faults`; `seed` decides all that is left open.
    #[must_use]
    pub fn new(seed: u64, limits: Limits, faults: Faults) -> Self {
        let counters = Arc::new(Counters::default());
        let ledger = Arc::new(Ledger::default());
        let config = Config {
            limits: Arc::new(limits),
            ledger: Arc::clone(&ledger),
            counters: Arc::clone(&counters),
            identity: Identity {
                peer_id: *b"-MR0001-simulation..",
                agent: "Millrace simulation".into(),
                port: 6881,
            },
            seed,
        };
        Kernel {
            shard: Shard::new(ShardId(0), config),
            sockets: Vec::new(),
            faults,
            random: Random::new(seed),
            now: Now { monotonic_ns: 1_000_000_000, unix_s: 1_800_000_000 },
            ops: Ops::new(),
            cap: CapWatch::default(),
            trace: Trace::default(),
            questions: Vec::new(),
            demands: Vec::new(),
            counters,
            ledger,
        }
    }

    /// The simulated time.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now
    }

    /// Changes what may go wrong from here on, in sockets that are open too, but for their size.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Changes the egress cap.
    pub fn set_egress(&mut self, rate: Option<u64>) {
        let mut caps = EffectiveCaps::default();
        caps.egress.total.value = rate;
        let caps = self.ledger.set_caps(&caps);
        self.news(News::Caps(caps));
        self.cap.set_rate(self.now, rate);
    }

    /// A number that stands for everything that has happened: two runs that differ in anything differ in it.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.trace.0
    }

    /// Whether the relay has closed the connection: no event of it follows.
    pub fn is_closed(&mut self, conn: ConnId) -> bool {
        self.socket(conn).closed
    }

    /// Whether there are bytes that the peer has not read.
    pub fn has_outbound(&mut self, conn: ConnId) -> bool {
        !self.socket(conn).outbound.is_empty()
    }

    /// Whether the relay has closed every connection there ever was.
    #[must_use]
    pub fn is_closed_everywhere(&self) -> bool {
        self.sockets.iter().all(|(_, socket)| socket.closed)
    }

    /// Whether the ledger counts no connection of 192.0.2.`host`.
    #[must_use]
    pub fn is_forgotten(&self, host: u8) -> bool {
        let address = IpAddr::from([192, 0, 2, host]);
        let is_first = self.ledger.addresses.enter(address, 1);
        if is_first {
            self.ledger.addresses.leave(address);
        }
        is_first
    }

    /// Lets time pass.
    pub fn advance_ms(&mut self, ms: u64) {
        self.now.monotonic_ns += ms * 1_000_000;
        self.now.unix_s = 1_800_000_000 + self.now.monotonic_ns / 1_000_000_000;
    }

    /// The shard, to look at.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// A new peer connects from 192.0.2.`host`.
    pub fn connect(&mut self, protocol: Protocol, host: u8) -> ConnId {
        let peer = SocketAddr::from((Ipv4Addr::new(192, 0, 2, host), 50_000));
        let generation = u32::try_from(self.sockets.len()).unwrap_or(u32::MAX);
        let in_use = |slot: u32| self.sockets.iter().any(|(id, socket)| id.slot() == slot && !socket.closed);
        let slot = (0..).find(|slot| !in_use(*slot)).unwrap_or(0);
        let conn = ConnId::new(slot, generation);
        self.sockets.push((conn, Socket::new(self.faults.socket_bytes)));
        self.deliver(Event::Accepted { conn, protocol, peer });
        conn
    }

    /// The peer sends bytes.
    pub fn peer_send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.socket(conn).inbound.extend(bytes);
    }

    /// The peer shuts its side down.
    pub fn peer_finish(&mut self, conn: ConnId) {
        self.socket(conn).peer_finished.get_or_insert(Told::No);
    }

    /// The peer resets the connection.
    pub fn peer_reset(&mut self, conn: ConnId) {
        self.socket(conn).peer_reset = true;
    }

    /// The peer reads at most `count` bytes.
    pub fn peer_read(&mut self, conn: ConnId, count: usize) -> Vec<u8> {
        let socket = self.socket(conn);
        let count = count.min(socket.outbound.len());
        let bytes: Vec<u8> = socket.outbound.drain(..count).collect();
        self.trace.note_read(conn, &bytes);
        bytes
    }

    /// How the relay ended the connection, once it has, and all that it sent before is read.
    pub fn ended(&mut self, conn: ConnId) -> Option<Ended> {
        let socket = self.socket(conn);
        match socket.ended {
            Some(Ended::Reset) => Some(Ended::Reset),
            Some(Ended::Finished) if socket.outbound.is_empty() => Some(Ended::Finished),
            _ => None,
        }
    }

    /// News from outside the shard.
    pub fn news(&mut self, news: News) {
        self.deliver(Event::News(news));
    }

    /// Tells those who wait for bytes of `content` that there are more, as ingest does.
    pub fn arrived(&mut self, content: &Content) {
        if content.take_parked() != 0 {
            self.news(News::Arrived(content.id()));
        }
    }

    /// Answers a question, as the control thread does.
    pub fn answer(&mut self, conn: ConnId, answer: Answer) {
        self.news(News::Answer { conn, answer });
    }

    /// One loop: what is ready is delivered in a random order, then comes the turn. True when anything happened.
    pub fn turn(&mut self) -> bool {
        let mut order: Vec<ConnId> = self.sockets.iter().map(|(id, _)| *id).collect();
        for at in (1..order.len()).rev() {
            let other = self.random.below(at as u64 + 1);
            order.swap(at, usize::try_from(other).unwrap_or(0));
        }
        let mut happened = false;
        for conn in order {
            let late = self.faults.late_one_in;
            if late == 0 || !self.random.one_in(late) {
                happened |= self.deliver_ready(conn);
            }
        }
        let loops = self.counters.served_http_bytes.value() + self.counters.served_bittorrent_bytes.value();
        self.deliver(Event::Turn);
        let after = self.counters.served_http_bytes.value() + self.counters.served_bittorrent_bytes.value();
        happened || loops != after || self.shard.deadline_ns().is_some_and(|at| at <= self.now.monotonic_ns)
    }

    /// Turns until nothing happens any more without time passing.
    ///
    /// # Panics
    /// When that takes absurdly many turns: the shard spins.
    pub fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("the shard does not come to rest");
    }

    fn deliver_ready(&mut self, conn: ConnId) -> bool {
        let receive_max = self.faults.receive_bytes_max;
        let portion = usize::try_from(self.random.below(receive_max as u64)).unwrap_or(0) + 1;
        let socket = self.socket(conn);
        if socket.closed {
            return false;
        }
        if socket.peer_reset {
            self.deliver(Event::Broken { conn });
            return true;
        }
        let mut happened = false;
        if socket.blocked && socket.free() > 0 {
            socket.blocked = false;
            happened = true;
            self.deliver(Event::Writable { conn });
        }
        let socket = self.socket(conn);
        if socket.receiving && !socket.closed {
            if !socket.inbound.is_empty() {
                let count = portion.min(socket.inbound.len());
                let data: Vec<u8> = socket.inbound.drain(..count).collect();
                self.deliver(Event::Received { conn, data: &data });
                return true;
            }
            if socket.peer_finished == Some(Told::No) {
                socket.peer_finished = Some(Told::Yes);
                self.deliver(Event::Received { conn, data: &[] });
                return true;
            }
        }
        happened
    }

    fn deliver(&mut self, event: Event<'_>) {
        self.trace.note_event(self.now, &event);
        let mut ops = std::mem::take(&mut self.ops);
        self.shard.handle(self.now, event, &mut ops);
        for op in ops.drain(..) {
            self.carry_out(op);
        }
        self.ops = ops;
    }

    fn carry_out(&mut self, op: Op) {
        self.trace.note_op(&op);
        if let Op::Receive { conn } | Op::PauseReceive { conn } | Op::Shutdown { conn } = op {
            assert!(!self.socket(conn).closed, "{op:?} after the close");
        }
        match op {
            Op::Receive { conn } => self.socket(conn).receiving = true,
            Op::PauseReceive { conn } => self.socket(conn).receiving = false,
            Op::Send { conn, bytes_max } => self.send(conn, bytes_max),
            Op::Shutdown { conn } => self.socket(conn).ended = Some(Ended::Finished),
            Op::Close { conn, reset } => {
                let socket = self.socket(conn);
                assert!(!socket.closed, "closed twice");
                socket.closed = true;
                if reset {
                    socket.ended = Some(Ended::Reset);
                    socket.outbound.clear();
                } else {
                    socket.ended.get_or_insert(Ended::Finished);
                }
            }
            Op::Demand { content, offset, bytes } => self.demands.push(Demand { content, offset, bytes }),
            Op::Ask { conn, question } => self.questions.push((conn, *question)),
        }
    }

    fn send(&mut self, conn: ConnId, bytes_max: u64) {
        let unreadable = self.faults.unreadable_one_in;
        let fails = unreadable > 0 && self.random.one_in(unreadable);
        let most = self.random.below(self.faults.send_bytes_max.max(1)).saturating_add(1).min(bytes_max);
        let Some(output) = self.shard.output(conn) else { panic!("a send of a connection that is gone") };
        assert!(!output.is_empty(), "a send of nothing");
        let at = self.sockets.iter().position(|(id, _)| *id == conn).unwrap_or(usize::MAX);
        let socket = &mut self.sockets[at].1;
        assert!(!socket.closed, "a send after the close");
        assert!(!socket.blocked, "a send into a socket that takes nothing");
        assert!(socket.ended.is_none(), "a send after the shutdown");
        let outcome = if socket.peer_reset {
            Sent::Broken
        } else if fails && output.content().is_some() {
            Sent::Unreadable
        } else {
            let budget = usize::try_from(most).unwrap_or(usize::MAX).min(socket.free());
            let sent = copy_parts(output.parts(), output.content(), budget, &mut socket.outbound);
            let blocked = sent == 0 || socket.free() == 0;
            socket.blocked = blocked;
            self.cap.note_sent(self.now, sent as u64);
            Sent::Bytes { bytes: sent as u64, blocked }
        };
        let mut ops = Ops::new();
        let event = Event::Sent { conn, outcome };
        self.trace.note_event(self.now, &event);
        self.shard.handle(self.now, event, &mut ops);
        for op in ops {
            self.carry_out(op);
        }
    }

    fn socket(&mut self, conn: ConnId) -> &mut Socket {
        let found = self.sockets.iter_mut().find(|(id, _)| *id == conn);
        found.map(|(_, socket)| socket).unwrap_or_else(|| panic!("an operation on {conn:?}, which never was"))
    }
}

/// What a socket would be given: heads as they are, extents out of the content. Nothing that is not visible may be among it.
fn copy_parts<'a>(
    parts: impl Iterator<Item = Part<'a>>,
    content: Option<&Arc<Content>>,
    budget: usize,
    into: &mut std::collections::VecDeque<u8>,
) -> usize {
    let mut left = budget;
    for part in parts {
        if left == 0 {
            break;
        }
        match part {
            Part::Bytes(bytes) | Part::BlockHead { bytes, .. } => {
                let count = bytes.len().min(left);
                into.extend(&bytes[..count]);
                left -= count;
            }
            Part::Extent { offset, bytes } => {
                let Some(content) = content else { panic!("an extent of no content") };
                let count = usize::try_from(bytes).unwrap_or(usize::MAX).min(left);
                let end = offset + count as u64;
                let mut reach = offset;
                while reach < end {
                    let next = content.visible_until(reach, end);
                    assert!(next > reach, "byte {reach} is sent before it is visible");
                    reach = next;
                }
                let mut bytes = vec![0; count];
                let Ok(()) = content.read(offset, &mut bytes) else {
                    panic!("a simulated disk does not fail here")
                };
                into.extend(bytes);
                left -= count;
            }
        }
    }
    budget - left
}
