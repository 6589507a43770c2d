//! Whole worlds: contents being pulled, clients of both protocols, a cap that changes, and everything that can go wrong with
//! them, all of it decided by one seed.
//!
//! A world has a storm, in which faults happen, and then a calm, in which everybody who keeps reading must get all that they
//! wanted. What must always be true is looked at after each step.

mod answer;
mod leecher;
mod reader;
mod source;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use millrace_engine::counters::{Counters, Reason};
use millrace_engine::event::News;
use millrace_engine::limits::Limits;
use millrace_pagecache::layout::FileIndex;

use crate::kernel::{Faults, Kernel};
use crate::random::Random;
use leecher::Leecher;
use reader::{Around, Ask, Client, Wish};
use source::Source;

/// Steps with faults.
const STORM_STEPS: u64 = 500;

/// Steps in which everybody must have come to an end once faults have stopped.
const CALM_STEPS_MAX: u64 = 20_000;

/// What a world came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Stands for everything that happened, in order.
    pub trace: u64,
    /// Bytes of contents sent over HTTP.
    pub http_bytes: u64,
    /// Bytes of contents sent over BitTorrent.
    pub bittorrent_bytes: u64,
    /// Readers that had to wait for bytes on their way.
    pub parked: u64,
    /// Connections that a fault cut.
    pub cut: u64,
}

/// One world.
#[derive(Debug)]
struct World {
    random: Random,
    kernel: Kernel,
    sources: Vec<Source>,
    clients: Vec<Client>,
    leechers: Vec<Leecher>,
    /// News on their way to the shard, oldest first.
    mail: VecDeque<News>,
    upload_slots: u64,
    /// Longest content, in bytes.
    content_bytes_max: u64,
    unreadable: bool,
    trickles: bool,
    /// Time in which nobody did anything.
    idle_seconds: u64,
}

/// Plays the world of a seed to its end.
///
/// # Panics
/// When anything is wrong with it.
#[must_use]
pub fn play(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    for _ in 0..STORM_STEPS {
        world.storm();
    }
    world.calm_down();
    world.end(seed);
    let counters = &world.kernel.counters;
    let cut = [Reason::ContentLost, Reason::Broken, Reason::ParkedTooLong, Reason::Stalled];
    Outcome {
        trace: world.kernel.trace(),
        http_bytes: counters.served_http_bytes.value(),
        bittorrent_bytes: counters.served_bittorrent_bytes.value(),
        parked: counters.parked.value(),
        cut: cut.iter().map(|reason| counters.closed[*reason as usize].value()).sum(),
    }
}

/// Why connections were closed, with how many.
fn reasons(counters: &Counters) -> Vec<(&'static str, u64)> {
    let counts = Reason::ALL.iter().map(|(reason, name)| (*name, counters.closed[*reason as usize].value()));
    counts.filter(|(_, count)| *count > 0).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let tiny = random.one_in(4);
        let trickles = tiny && random.one_in(2);
        let faults = Faults {
            receive_bytes_max: if trickles { 1 } else { *random.pick(&[40, 300, 65_536]) },
            send_bytes_max: if tiny { 200 } else { *random.pick(&[3_000, 100_000, u64::MAX]) },
            socket_bytes: if tiny { 100 } else { *random.pick(&[2_000, 30_000, 200_000]) },
            unreadable_one_in: *random.pick(&[0, 0, 0, 2_000]),
            late_one_in: *random.pick(&[0, 3, 10]),
        };
        let limits = Limits {
            turn_bytes: *random.pick(&[1_000, 20_000, 1024 * 1024]),
            upload_slots: *random.pick(&[1, 3, 512]),
            peer_requests_max: *random.pick(&[8, 40, 512]),
            drain_timeout: Duration::from_secs(20),
            ..Limits::default()
        };
        let (upload_slots, unreadable) = (limits.upload_slots as u64, faults.unreadable_one_in > 0);
        let mut world = World {
            kernel: Kernel::new(seed, limits, faults),
            sources: Vec::new(),
            clients: Vec::new(),
            leechers: Vec::new(),
            mail: VecDeque::new(),
            upload_slots,
            content_bytes_max: if tiny { 20_000 } else { 200_000 },
            unreadable,
            trickles,
            idle_seconds: 0,
            random,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        for _ in 0..self.random.between(1, 4) {
            self.add_source();
        }
        let read_bytes = *self.random.pick(&[100, 5_000, 50_000]);
        for host in 0..self.random.between(4, 20) {
            let wishes = (0..self.random.between(1, 6)).map(|_| self.wish()).collect();
            let host = u8::try_from(host).unwrap_or(u8::MAX);
            self.clients.push(Client::new(host, wishes, &mut self.random, read_bytes));
        }
        for host in 100..self.random.between(100, 110) {
            let source = self.random.index(self.sources.len());
            let host = u8::try_from(host).unwrap_or(u8::MAX);
            self.leechers.push(Leecher::new(host, source, &mut self.random, read_bytes));
        }
    }

    fn add_source(&mut self) {
        let mut source = Source::new(self.random.bits(), &mut self.random, self.content_bytes_max);
        source.was_slow = self.idle_seconds > 30;
        self.mail.push_back(News::Put(Arc::clone(&source.content)));
        self.sources.push(source);
    }

    fn wish(&mut self) -> Wish {
        let source = self.random.index(self.sources.len());
        let files = self.sources[source].files();
        let file: FileIndex = *self.random.pick(&files);
        let (_, length) = self.sources[source].span(file);
        let random = &mut self.random;
        let ask = match random.below(8) {
            0 => Ask::Whole,
            1 => Ask::Head,
            2 if length > 5_000 => Ask::Two([(0, length / 3), (length - length / 4, length)]),
            3 => Ask::Range(length + 1, length + 2),
            _ if length == 0 => Ask::Whole,
            _ => {
                let start = random.below(length);
                Ask::Range(start, start + random.between(1, length - start + 2))
            }
        };
        Wish { source, file, ask }
    }

    /// A step in which anything may happen.
    fn storm(&mut self) {
        let now_ms = self.kernel.now().monotonic_ms();
        for at in 0..self.sources.len() {
            if self.sources[at].superseded_by.is_some() {
                continue;
            }
            if self.sources[at].suffer(now_ms, &mut self.random, &mut self.mail) && self.random.one_in(3) {
                self.sources[at].superseded_by = Some(self.sources.len());
                self.add_source();
                self.sources[at].remove(&mut self.mail);
            }
        }
        match self.random.below(100) {
            0 => {
                let rate = *self.random.pick(&[Some(0), Some(20_000), Some(300_000), Some(20_000_000), None]);
                self.kernel.set_egress(rate);
            }
            1 => self.pass_a_while(),
            _ => {}
        }
        self.step(true);
    }

    /// Half a minute, or more than anybody's patience, in which no client does anything.
    fn pass_a_while(&mut self) {
        let seconds = *self.random.pick(&[30, 30, 30, 125]);
        self.idle_seconds += seconds;
        // Once is nothing that a relay may lose its patience over.
        if self.idle_seconds > 30 {
            self.sources.iter_mut().for_each(|source| source.was_slow = true);
        }
        for _ in 0..seconds * 2 {
            self.kernel.advance_ms(500);
            self.kernel.turn();
        }
    }

    /// Everything that moves, moves a little.
    fn step(&mut self, faults: bool) {
        let (calm, now_ms) = (!faults, self.kernel.now().monotonic_ms());
        let demands = std::mem::take(&mut self.kernel.demands);
        for source in self.sources.iter_mut().filter(|source| source.superseded_by.is_none()) {
            let wanted = demands.iter().find(|demand| demand.content == source.content.id());
            let wanted = wanted.map(|demand| demand.offset);
            source.settle_growth(&mut self.mail);
            source.pull(now_ms, wanted, &mut self.random, faults, &mut self.mail);
        }
        while !self.mail.is_empty() {
            if faults && self.random.one_in(3) {
                break;
            }
            self.deliver_mail();
        }
        let World { kernel, sources, random, clients, leechers, unreadable, trickles, .. } = self;
        let mut around =
            Around { kernel, sources, random, unreadable: *unreadable, trickles: *trickles, calm };
        clients.iter_mut().for_each(|client| client.step(&mut around));
        leechers.iter_mut().for_each(|leecher| leecher.step(&mut around));
        for _ in 0..self.random.between(1, 9) {
            self.kernel.turn();
        }
        if calm {
            self.kernel.settle();
            self.clients
                .iter_mut()
                .for_each(|client| client.check_is_served(&mut self.kernel, &self.sources));
            self.leechers.iter().for_each(|leecher| leecher.check_is_served(&mut self.kernel, &self.sources));
        }
        assert!(self.kernel.questions.is_empty(), "only files are asked for");
        let unchoked = self.kernel.counters.unchoked.value();
        assert!(unchoked <= self.upload_slots, "{unchoked} peers are served");
        let ms = self.random.between(1, 30);
        self.kernel.advance_ms(ms);
    }

    fn deliver_mail(&mut self) {
        let Some(news) = self.mail.pop_front() else { return };
        if let News::Put(content) = &news {
            let source = self.sources.iter_mut().find(|source| source.content.id() == content.id());
            if let Some(source) = source {
                source.is_known = true;
                source.is_torrent_known = content.metainfo().is_some();
            }
        }
        self.kernel.news(news);
    }

    /// Faults stop; everybody who keeps reading gets everything.
    fn calm_down(&mut self) {
        self.kernel.set_faults(Faults::default());
        self.kernel.set_egress(None);
        // Who waits for the cap looks again after a moment.
        self.kernel.advance_ms(10);
        for source in &mut self.sources {
            source.recover(&mut self.mail);
        }
        for _ in 0..CALM_STEPS_MAX {
            let sources_done =
                self.sources.iter().all(|source| source.is_complete() || source.superseded_by.is_some());
            let clients_done = self.clients.iter().all(Client::is_done);
            if sources_done && clients_done && self.leechers.iter().all(Leecher::is_done) {
                return;
            }
            self.step(false);
        }
        let waiting: Vec<String> =
            self.clients.iter().filter(|client| !client.is_done()).map(Client::describe).collect();
        let leeching: Vec<String> =
            self.leechers.iter().filter(|leecher| !leecher.is_done()).map(Leecher::describe).collect();
        panic!("no progress: {waiting:#?} {leeching:#?} {:?}", reasons(&self.kernel.counters));
    }

    /// Nothing is left behind.
    fn end(&mut self, seed: u64) {
        let drains = seed.is_multiple_of(3);
        if drains {
            self.kernel.news(News::Drain);
        } else {
            self.clients.iter_mut().for_each(|client| client.hang_up(&mut self.kernel));
        }
        self.leechers.iter_mut().for_each(|leecher| leecher.hang_up(&mut self.kernel));
        // Long enough for every patience that the shard has.
        for _ in 0..100 {
            self.kernel.advance_ms(1_000);
            self.kernel.settle();
        }
        let counters = &self.kernel.counters;
        assert_eq!(self.kernel.shard().connections(), 0, "connections are left: {:?}", reasons(counters));
        let open = (counters.connections_http.value(), counters.connections_bittorrent.value());
        assert_eq!((open, counters.unchoked.value()), ((0, 0), 0), "gauges of what is open");
        assert_eq!(self.kernel.shard().is_drained(), drains);
        for host in 0..=u8::MAX {
            assert!(self.kernel.is_forgotten(host), "the ledger still counts 192.0.2.{host}");
        }
        assert!(self.kernel.is_closed_everywhere(), "a socket was never closed");
        while !self.mail.is_empty() {
            self.deliver_mail();
        }
        for source in &mut self.sources {
            assert_eq!(source.content.listeners(), 0, "nobody is left to hear of pieces");
            source.stop();
            self.kernel.news(News::Gone(source.content.id()));
        }
        for content in self.sources.iter().flat_map(|source| source.retired.iter().chain([&source.content])) {
            assert_eq!(Arc::strong_count(content), 1, "somebody still holds {content:?}");
        }
    }
}
