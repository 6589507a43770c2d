//! An HTTP client of a world: asks for ranges, checks every byte that comes, and comes back when an answer was cut.

use std::collections::VecDeque;
use std::fmt::Write as _;

use millrace_engine::ids::{ConnId, Protocol};
use millrace_pagecache::layout::FileIndex;

use super::answer::{Answer, Answers};
use super::source::Source;
use crate::kernel::Kernel;
use crate::random::Random;
use crate::socket::Ended;

/// What a client wants of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// All of it.
    Whole,
    /// Its head.
    Head,
    /// A range, of which the first byte may be past the end.
    Range(u64, u64),
    /// Two ranges.
    Two([(u64, u64); 2]),
}

/// One request to be answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) source: usize,
    pub(super) file: FileIndex,
    pub(super) ask: Ask,
}

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Reads this much in a step.
    Reads(usize),
    /// Reads nothing at all.
    Deaf,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    host: u8,
    conn: Option<ConnId>,
    manner: Manner,
    /// Requests that it sends without waiting for answers.
    pipeline: usize,
    /// Shuts its side down behind its last request.
    half_closes: bool,
    /// Leaves in the middle, once.
    aborts: bool,
    wishes: VecDeque<Wish>,
    /// How many of them are asked for on this connection.
    asked: usize,
    finished_sending: bool,
    answers: Answers,
    /// The relay said that it would close.
    told_to_leave: bool,
    wait_until_ms: u64,
}

/// What a client sees of the world.
pub(super) struct Around<'a> {
    pub(super) kernel: &'a mut Kernel,
    pub(super) sources: &'a [Source],
    pub(super) random: &'a mut Random,
    /// The disk fails now and then.
    pub(super) unreadable: bool,
    /// What clients say arrives so slowly that a relay may lose its patience.
    pub(super) trickles: bool,
    pub(super) calm: bool,
}

impl Client {
    pub(super) fn new(host: u8, wishes: VecDeque<Wish>, random: &mut Random, read_bytes: u64) -> Self {
        let is_deaf = random.one_in(12);
        let read = usize::try_from(random.between(1, read_bytes)).unwrap_or(1);
        Client {
            host,
            conn: None,
            manner: if is_deaf { Manner::Deaf } else { Manner::Reads(read) },
            pipeline: random.index(4) + 1,
            half_closes: random.one_in(4),
            aborts: random.one_in(5),
            wishes,
            asked: 0,
            finished_sending: false,
            answers: Answers::default(),
            told_to_leave: false,
            wait_until_ms: random.below(5_000),
        }
    }

    /// Whether nothing is left that it can be expected to get.
    pub(super) fn is_done(&self) -> bool {
        self.manner == Manner::Deaf || self.wishes.is_empty()
    }

    /// What it still waits for, for people.
    pub(super) fn describe(&self) -> String {
        format!(
            "client {} on {:?} waits for {:?}: {:?}",
            self.host,
            self.conn,
            self.wishes.front(),
            self.answers
        )
    }

    pub(super) fn step(&mut self, around: &mut Around<'_>) {
        let Some(conn) = self.conn else { return self.connect(around) };
        self.ask(conn, around);
        self.read(conn, around);
        if let Some(ended) = around.kernel.ended(conn) {
            return self.ended(conn, ended, around);
        }
        if self.aborts && !around.calm && self.asked > 0 && around.random.one_in(30) {
            self.aborts = false;
            if around.random.one_in(2) {
                around.kernel.peer_reset(conn);
            } else {
                around.kernel.peer_finish(conn);
            }
            return self.leave(around);
        }
        if self.wishes.is_empty() {
            around.kernel.peer_finish(conn);
            self.leave(around);
        }
    }

    /// In a calm nobody waits for what is there: a wake-up was lost if somebody does.
    pub(super) fn check_is_served(&mut self, kernel: &mut Kernel, sources: &[Source]) {
        let Some((conn, wish)) = self.conn.zip(self.wishes.front().filter(|_| self.asked > 0)) else {
            return;
        };
        let source = &sources[wish.source];
        let (base, _) = source.span(wish.file);
        let first = match wish.ask {
            Ask::Range(start, _) => base + start,
            Ask::Whole | Ask::Head | Ask::Two(_) => base,
        };
        let Some(offset) = self.answers.next_byte(first) else { return };
        let content = &source.content;
        let is_there = content.visible_until(offset, offset + 1) > offset;
        let is_served = kernel.has_outbound(conn) || kernel.is_closed(conn) || kernel.ended(conn).is_some();
        assert!(!is_there || is_served, "byte {offset} is there, and not sent: {}", self.describe());
    }

    /// Leaves for good.
    pub(super) fn hang_up(&mut self, kernel: &mut Kernel) {
        if let Some(conn) = self.conn.take() {
            kernel.peer_reset(conn);
        }
        self.wishes.clear();
    }

    fn connect(&mut self, around: &mut Around<'_>) {
        let Some(wish) = self.wishes.front() else { return };
        if around.sources[wish.source].is_known && around.kernel.now().monotonic_ms() >= self.wait_until_ms {
            let conn = around.kernel.connect(Protocol::Http, self.host);
            self.conn = Some(conn);
            self.ask(conn, around);
        }
    }

    fn leave(&mut self, around: &mut Around<'_>) {
        self.conn = None;
        self.asked = 0;
        self.finished_sending = false;
        self.told_to_leave = false;
        self.answers = Answers::default();
        self.wait_until_ms = around.kernel.now().monotonic_ms() + around.random.below(2_000);
    }

    fn ask(&mut self, conn: ConnId, around: &mut Around<'_>) {
        let waits = around.kernel.now().monotonic_ms() < self.wait_until_ms;
        while self.asked < self.wishes.len().min(self.pipeline) && !self.finished_sending && !waits {
            let wish = &mut self.wishes[self.asked];
            while let Some(successor) = around.sources[wish.source].superseded_by {
                *wish = Wish { source: successor, file: FileIndex(0), ask: Ask::Whole };
            }
            let source = &around.sources[wish.source];
            if !source.is_known {
                return;
            }
            around.kernel.peer_send(conn, request(source, wish).as_bytes());
            self.asked += 1;
            if self.half_closes && self.asked == self.wishes.len() {
                around.kernel.peer_finish(conn);
                self.finished_sending = true;
            }
        }
    }

    fn read(&mut self, conn: ConnId, around: &mut Around<'_>) {
        let Manner::Reads(most) = self.manner else { return };
        let most = if around.calm { most.max(16 * 1024) } else { most };
        let bytes = around.kernel.peer_read(conn, most);
        self.answers.feed(&bytes);
        while let Some(wish) = self.wishes.front().filter(|_| self.asked > 0) {
            let Some(answer) = self.answers.next(wish, &around.sources[wish.source]) else { return };
            self.asked -= 1;
            self.take(answer, around);
        }
        assert!(self.answers.is_idle(), "bytes behind the last answer: {:?}", self.answers);
    }

    fn take(&mut self, answer: Answer, around: &mut Around<'_>) {
        self.told_to_leave = answer.closes;
        let Some(wish) = self.wishes.pop_front() else { return };
        let source = &around.sources[wish.source];
        let pause = match answer.status {
            200 | 206 | 416 => return,
            404 => {
                assert!(source.superseded_by.is_some(), "404 for a content that is here");
                0
            }
            502 | 503 => {
                assert!(source.was_lost, "{} for a content that is well", answer.status);
                2_000
            }
            504 => {
                assert!(source.was_slow, "504 though the pull was not slow");
                1_000
            }
            other => panic!("status {other} for {wish:?}"),
        };
        // It is asked again, behind what was asked already.
        self.wishes.insert(self.asked, wish);
        self.wait_until_ms = around.kernel.now().monotonic_ms() + pause;
    }

    fn ended(&mut self, conn: ConnId, ended: Ended, around: &mut Around<'_>) {
        let wish = self.wishes.front().filter(|_| self.asked > 0).copied();
        let in_body = self.answers.is_in_body();
        assert!(
            ended == Ended::Reset || self.answers.is_idle(),
            "a clean end in the middle of an answer: {}",
            self.describe()
        );
        if let Some(wish) = wish {
            let source = &around.sources[wish.source];
            let cut = source.was_lost || source.was_slow || around.unreadable;
            let lazy = self.manner == Manner::Deaf || around.trickles;
            let announced = self.told_to_leave && !in_body;
            assert!(
                cut || lazy || announced,
                "{conn:?} ended ({ended:?}) without a reason: {}, counted {:?}",
                self.describe(),
                super::reasons(&around.kernel.counters)
            );
        }
        around.kernel.peer_finish(conn);
        self.leave(around);
    }
}

fn request(source: &Source, wish: &Wish) -> String {
    let method = if wish.ask == Ask::Head { "HEAD" } else { "GET" };
    let mut text = format!("{method} {} HTTP/1.1\r\nHost: relay\r\n", source.path(wish.file));
    // Writing to a String cannot fail.
    let _ = match wish.ask {
        Ask::Whole | Ask::Head => Ok(()),
        Ask::Range(start, end) => write!(text, "Range: bytes={start}-{}\r\n", end - 1),
        Ask::Two([(a, b), (c, d)]) => write!(text, "Range: bytes={a}-{},{c}-{}\r\n", b - 1, d - 1),
    };
    text.push_str("\r\n");
    text
}
