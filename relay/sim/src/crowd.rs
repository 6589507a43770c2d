//! A crowd under caps: hundreds of connections of both protocols on two shards, which share one ledger, from several networks to several
//! contents. Nothing but time, sends and caps is modelled, so seconds of it are cheap.
//!
//! Every cap is watched at each send, that of each connection too, and nobody may be disconnected. How well caps are used is told by
//! [`Crowd::sent`] and [`Crowd::clients`].

pub mod client;

use std::sync::Arc;

use millrace_engine::counters::Counters;
use millrace_engine::event::{Event, News, Sent};
use millrace_engine::ids::{Now, ShardId};
use millrace_engine::ledger::Ledger;
use millrace_engine::limits::Limits;
use millrace_engine::op::{Op, Ops};
use millrace_engine::shard::{Config, Identity, Shard};
use millrace_proto::admin::caps::EffectiveCaps;
use millrace_proto::admin::caps::effective::EffectiveNetwork;

use crate::cap::CapWatch;
use crate::random::{Random, mix};
use client::{About, Client, NETWORKS, content};

/// Shards of the crowd's relay.
const SHARDS: u8 = 2;

/// See the module.
#[derive(Debug)]
pub struct Crowd {
    shards: Vec<Shard>,
    /// Everybody, with what each was sent.
    pub clients: Vec<Client>,
    ledger: Arc<Ledger>,
    random: Random,
    now: Now,
    watched: Vec<(About, CapWatch)>,
    /// Stands for everything that happened, in order.
    pub trace: u64,
}

impl Crowd {
    /// `count` clients, each of which wants all it can get; some take it slowly.
    #[must_use]
    pub fn new(seed: u64, count: u32) -> Self {
        let ledger = Arc::new(Ledger::default());
        let contents: Vec<_> = (0..client::CONTENTS).map(content).collect();
        let limits =
            Limits { connections_max: count, connections_per_address_max: count, ..Limits::default() };
        let limits = Arc::new(limits);
        let shard = |number: u8| {
            let identity = Identity {
                peer_id: *b"-MR0001-simulation..",
                agent: "Millrace simulation".into(),
                port: 6881,
            };
            let counters = Arc::new(Counters::default());
            let (limits, ledger) = (Arc::clone(&limits), Arc::clone(&ledger));
            Shard::new(
                ShardId(number),
                Config { limits, ledger, counters, identity, seed: seed ^ u64::from(number) },
            )
        };
        let mut random = Random::new(seed);
        let mut crowd = Crowd {
            shards: (0..SHARDS).map(shard).collect(),
            clients: (0..count).map(|slot| Client::new(slot, SHARDS, &contents, &mut random)).collect(),
            ledger,
            random,
            now: Now { monotonic_ns: 1_000_000_000, unix_s: 1_800_000_000 },
            watched: About::all().map(|about| (about, CapWatch::default())).collect(),
            trace: 0,
        };
        for content in &contents {
            (0..usize::from(SHARDS))
                .for_each(|at| crowd.tell(at, Event::News(News::Put(Arc::clone(content)))));
        }
        for at in 0..crowd.clients.len() {
            let Client { shard, id: conn, protocol, peer, .. } = crowd.clients[at];
            crowd.tell(shard, Event::Accepted { conn, protocol, peer });
            let hello = crowd.clients[at].hello();
            crowd.say(at, &hello);
        }
        crowd
    }

    /// Changes the caps, in the shape that [`caps`] makes.
    pub fn set_caps(&mut self, caps: &EffectiveCaps) {
        let shared = self.ledger.set_caps(caps);
        for at in 0..self.shards.len() {
            self.tell(at, Event::News(News::Caps(Arc::clone(&shared))));
        }
        for (about, watch) in &mut self.watched {
            watch.set_rate(self.now, about.rate(caps));
        }
        for client in &mut self.clients {
            client.watch.set_rate(self.now, caps.egress.per_connection.value);
        }
    }

    /// Lets so many milliseconds pass, in steps of at most `step_ms`.
    pub fn pass(&mut self, ms: u64, step_ms: u64) {
        let end_ns = self.now.monotonic_ns + ms * 1_000_000;
        while self.now.monotonic_ns < end_ns {
            self.now.monotonic_ns += self.random.between(step_ms * 100_000, step_ms * 1_000_000);
            self.now.unix_s = 1_800_000_000 + self.now.monotonic_ns / 1_000_000_000;
            for client in 0..self.clients.len() {
                let Client { shard, id: conn, blocked_until_ns, .. } = self.clients[client];
                if blocked_until_ns.is_some_and(|until_ns| until_ns <= self.now.monotonic_ns) {
                    self.clients[client].blocked_until_ns = None;
                    self.tell(shard, Event::Writable { conn });
                }
            }
            let first = self.random.index(self.shards.len());
            for at in 0..self.shards.len() {
                self.tell((first + at) % usize::from(SHARDS), Event::Turn);
            }
        }
    }

    /// Bytes sent so far to those whom it is about.
    #[must_use]
    pub fn sent(&self, about: About) -> u64 {
        self.clients.iter().filter(|client| about.concerns(client)).map(|client| client.sent_bytes).sum()
    }

    fn say(&mut self, client: usize, data: &[u8]) {
        let Client { shard, id: conn, .. } = self.clients[client];
        self.tell(shard, Event::Received { conn, data });
    }

    fn tell(&mut self, at: usize, event: Event<'_>) {
        let mut ops = Ops::new();
        self.shards[at].handle(self.now, event, &mut ops);
        for op in ops {
            match op {
                Op::Send { conn, bytes_max } => self.send(at, conn.index(), bytes_max),
                Op::Close { conn, .. } | Op::Shutdown { conn } => panic!("{conn:?} was disconnected"),
                Op::Receive { .. } | Op::PauseReceive { .. } | Op::Demand { .. } => {}
                Op::Ask { question, .. } => panic!("{question:?} is not among the contents"),
            }
        }
    }

    fn send(&mut self, at: usize, client: usize, bytes_max: u64) {
        let Crowd { shards, clients, random, now, watched, .. } = self;
        let to = &mut clients[client];
        let queued = shards[at].output(to.id).map_or(0, millrace_engine::output::Output::bytes);
        let (bytes, blocked) = to.take(*now, queued.min(bytes_max), random);
        for (about, watch) in watched.iter_mut().filter(|_| bytes > 0) {
            if about.concerns(to) {
                watch.note_sent(*now, bytes);
            }
        }
        to.watch.note_sent(*now, bytes);
        let (conn, wants) = (to.id, to.wants(queued - bytes));
        self.trace = mix(self.trace.rotate_left(5) ^ (client as u64) << 40 ^ bytes);
        self.tell(at, Event::Sent { conn, outcome: Sent::Bytes { bytes, blocked } });
        if let Some(wants) = wants {
            self.say(client, &wants);
        }
    }
}

/// Caps on what is named, and no others; networks always have one, if only a high one.
#[must_use]
pub fn caps(rates: &[(About, u64)], per_connection: Option<u64>) -> EffectiveCaps {
    let mut caps = EffectiveCaps::default();
    caps.egress.per_connection.value = per_connection;
    for cidr in NETWORKS {
        let mut network =
            EffectiveNetwork { cidr: cidr.parse().into_iter().collect(), total: caps.egress.total };
        network.total.value = Some(1 << 40);
        caps.egress.networks.push(network);
    }
    for (about, rate) in rates {
        *about.cap_mut(&mut caps) = Some(*rate);
    }
    caps
}
