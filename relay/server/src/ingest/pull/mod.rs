//! One pull: a content of known length, filled from its origins by ranges until every piece is verified.
//!
//! The loop here decides what is asked of whom; [`transfer`] carries one range, [`check`] verifies what is complete. All of it runs
//! on the ingest thread, so the state is shared without locks.

mod check;
mod size;
mod status;
mod transfer;
mod turn;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_pagecache::PieceIndex;
use millrace_pagecache::content::Content;
use millrace_proto::id::ContentId;
use reqwest::Response;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::answer::Accepted;
use super::balance::{Balance, Crowd};
use super::budget::Grant;
use super::context::Context;
use super::lines::Lent;
use super::origin::Origin;
use super::planner::Planner;
use super::rest;
use super::sources::Sources;

pub use status::{OriginStatus, PullStatus};

/// Requests beyond the usual number for what somebody waits for.
const DEMAND_REQUESTS: usize = 2;

/// How often the loop looks at commits and the status although nothing happened.
const TICK: Duration = Duration::from_millis(250);

/// How a pull ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// Every piece is verified.
    Complete,
    /// It cannot go on, for this reason.
    Failed(String),
    /// The origin has another version now; what differs.
    Changed(String),
}

/// An answer that was got before the pull began: its body is the first range.
#[derive(Debug)]
pub(super) struct First {
    /// Which origin answered.
    pub origin: usize,
    /// On this line.
    pub line: Lent,
    /// The answer; its body is unread.
    pub response: Response,
    /// What it holds.
    pub accepted: Accepted,
    /// The right to it.
    pub grant: Grant,
    /// When it was asked for.
    pub asked_at: Instant,
    /// How long the head of the answer took.
    pub answered_in: Duration,
}

/// Why no more is asked for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    /// Nothing is missing, no origin may be asked, or enough is under way.
    Nothing,
    /// A line to the origin.
    Line,
    /// Its turn: the budget of all pulls, or others of higher priority.
    Budget,
}

/// A pull under way.
#[derive(Debug)]
pub(super) struct Pull {
    context: Arc<Context>,
    content: Arc<Content>,
    planner: RefCell<Planner>,
    balance: RefCell<Balance>,
    sources: RefCell<Sources>,
    /// Origins that had a part in a piece that is not verified yet.
    contributors: RefCell<HashMap<u32, Vec<usize>>>,
    /// How often a piece was wrong.
    bad: RefCell<HashMap<u32, u32>>,
    /// Origins that do not understand `If-Range`.
    unconditional: RefCell<HashSet<usize>>,
    /// Origins that answer with the whole whatever is asked: they get one request at a time, with nothing beside it.
    wholes: RefCell<HashSet<usize>>,
    end: RefCell<Option<End>>,
    wake: Notify,
    /// A range or a check has come to its end.
    quieter: Notify,
    paused: Cell<bool>,
    /// The place that a reader has come to, until its piece is verified; the latest where there are several.
    awaited: Cell<Option<u64>>,
    /// The content says that it waits for a cap.
    waits: Cell<bool>,
    in_flight: Cell<usize>,
    /// Ranges asked for so far.
    asked: Cell<u64>,
    checking: Cell<usize>,
    arrived_bytes: Cell<u64>,
    committed_bytes: Cell<u64>,
    committed_at: Cell<Instant>,
    committing: Cell<bool>,
    /// Bytes here, and when, as of the last status: what the rate is worked out from.
    measured: Cell<(u64, Instant)>,
    started: Instant,
}

impl Pull {
    /// A pull of what `content`, whose length is known, does not have yet.
    #[must_use]
    pub(super) fn new(context: Arc<Context>, content: Arc<Content>, sources: Sources) -> Rc<Self> {
        let (config, arrived) = (&context.config, context.arrived().remove(&content.id()));
        let crowd = Crowd { near: config.requests_near, most: config.origin_connections_max };
        let balance = Balance::new(sources.origins.len(), config.origins_active_max, crowd, config.patience);
        Rc::new(Pull {
            planner: RefCell::new(planner_for(&content, arrived.unwrap_or_default())),
            balance: RefCell::new(balance),
            sources: RefCell::new(sources),
            contributors: RefCell::default(),
            bad: RefCell::default(),
            unconditional: RefCell::default(),
            wholes: RefCell::default(),
            end: RefCell::default(),
            wake: Notify::new(),
            quieter: Notify::new(),
            paused: Cell::new(false),
            awaited: Cell::new(None),
            waits: Cell::new(false),
            in_flight: Cell::new(0),
            asked: Cell::new(0),
            checking: Cell::new(0),
            arrived_bytes: Cell::new(0),
            committed_bytes: Cell::new(0),
            committed_at: Cell::new(Instant::now()),
            committing: Cell::new(false),
            measured: Cell::new((0, Instant::now())),
            started: Instant::now(),
            context,
            content,
        })
    }

    /// Somebody waits for these bytes.
    pub(super) fn demand(&self, offset: u64, bytes: u64) {
        self.awaited.set(Some(offset));
        if self.planner.borrow_mut().demand(offset, bytes) {
            self.wake.notify_one();
        }
    }

    /// Asks for nothing more until resumed. Ranges in flight come to their end: their bytes are paid for.
    pub(super) fn pause(&self) {
        self.paused.set(true);
    }

    /// Waits until nothing is in flight and nothing is being checked, as comes to be after [`Pull::pause`].
    pub(super) async fn is_quiet(&self) {
        loop {
            let mut changed = pin!(self.quieter.notified());
            changed.as_mut().enable();
            if self.in_flight.get() == 0 && self.checking.get() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// What is here of pieces that are not whole, where nothing else says so: hashes are known, and it waits for the rest.
    pub(super) fn arrived(&self) -> Option<(ContentId, Vec<Range<u64>>)> {
        if !self.content.hashes_known() {
            return None;
        }
        let planner = self.planner.borrow();
        let arrived = rest::arrived_of(&self.content, |range| planner.missing(range));
        (!arrived.is_empty()).then(|| (self.content.id(), arrived))
    }

    /// Goes on after [`Pull::pause`].
    pub(super) fn resume(&self) {
        self.paused.set(false);
        self.wake.notify_one();
    }

    /// Pulls until everything is verified or nothing more can be done. Dropping the future stops it at once.
    pub(super) async fn run(self: Rc<Self>, first: Option<First>) -> End {
        let mut transfers = JoinSet::new();
        if let Some(first) = first {
            self.start_first(first, &mut transfers);
        }
        self.check_what_is_here();
        let mut tick = tokio::time::interval(TICK);
        loop {
            let ended = self.end.borrow_mut().take();
            if let Some(end) = ended {
                transfers.shutdown().await;
                self.publish_status();
                return end;
            }
            if self.content.is_complete() {
                return End::Complete;
            }
            // Looked out for before lines are tried, so that none given back meanwhile is missed.
            let mut freed = std::pin::pin!(self.context.lines.freed());
            freed.as_mut().enable();
            let mut budget_freed = std::pin::pin!(self.context.budget.freed());
            budget_freed.as_mut().enable();
            let lack = match self.paused.get() {
                true => Lack::Nothing,
                false => self.start_transfers(&mut transfers),
            };
            self.wish(lack);
            if self.is_stuck() {
                let error = self.balance.borrow().error().unwrap_or("no origin is left").to_owned();
                self.stop(End::Failed(error));
                continue;
            }
            let now_ms = self.now_ms();
            let rest_ms = self.balance.borrow().rested_at_ms(now_ms).map_or(u64::MAX, |at| at - now_ms);
            tokio::select! {
                () = self.wake.notified() => {}
                Some(_) = transfers.join_next(), if !transfers.is_empty() => {}
                () = tokio::time::sleep(Duration::from_millis(rest_ms)), if rest_ms != u64::MAX => {}
                () = budget_freed, if lack == Lack::Budget => {}
                () = freed, if lack == Lack::Line => {}
                _ = tick.tick() => self.publish_status(),
            }
            self.commit_if_due();
        }
    }

    /// Starts as many requests as origins, lines, budget and plan allow; what stood in the way of more.
    fn start_transfers(self: &Rc<Self>, transfers: &mut JoinSet<()>) -> Lack {
        loop {
            let usual = self.balance.borrow().usual_in_all();
            let busy = self.in_flight.get();
            if busy >= usual + DEMAND_REQUESTS {
                return Lack::Nothing;
            }
            let demanded_only = busy >= usual;
            let is_demanded = self.planner.borrow().is_demanded();
            let extra = if demanded_only { DEMAND_REQUESTS } else { 0 };
            let Some(origin) = self.choose(extra) else {
                return if self.ungranted().is_some() { Lack::Budget } else { Lack::Nothing };
            };
            if (demanded_only && !is_demanded) || (busy > 0 && self.wholes.borrow().contains(&origin)) {
                return Lack::Nothing;
            }
            // Asked first, as it says whether anything is to be waited for.
            let budget = &self.context.budget;
            if self.planner.borrow().unasked_bytes() == 0 {
                return Lack::Nothing;
            }
            if !budget.may_request(self.content.id(), self.content.priority().into(), busy) {
                return Lack::Budget;
            }
            let Some(mut grant) = budget.try_request() else { return Lack::Budget };
            grant.ask_of(&self.sources.borrow().origins[origin].url);
            let line = self.context.lines.try_lend(&self.sources.borrow().origins[origin], is_demanded);
            let Some(line) = line else { return Lack::Line };
            let bytes = size::range_bytes(self.known(origin, &line));
            let Some(range) = self.next_range(demanded_only, bytes, &mut grant) else {
                return Lack::Nothing;
            };
            self.begin(origin);
            let pull = Rc::clone(self);
            transfers.spawn_local(async move {
                pull.transfer(origin, line, range, None, grant, Instant::now()).await;
            });
        }
    }

    /// What decides how much is asked for on a line.
    fn known(&self, origin: usize, line: &Lent) -> size::Known {
        let balance = self.balance.borrow();
        size::Known {
            speed: line.speed(),
            asked: self.asked.get(),
            rate: balance.rate(),
            answers_in_ms: balance.origins()[origin].answers_in_ms.unwrap_or(0),
            unasked_bytes: self.planner.borrow().unasked_bytes(),
        }
    }

    /// Goes on with the body that came before the pull began.
    fn start_first(self: &Rc<Self>, first: First, transfers: &mut JoinSet<()>) {
        let First { origin, line, response, accepted, grant, asked_at, answered_in } = first;
        let range = transfer::body_range(&accepted.body, self.content.layout().length());
        self.planner.borrow_mut().claim(range.clone());
        self.balance.borrow_mut().answered(origin, milliseconds(answered_in));
        self.begin(origin);
        let pull = Rc::clone(self);
        transfers.spawn_local(async move {
            pull.transfer(origin, line, range, Some((response, accepted)), grant, asked_at).await
        });
    }

    fn begin(&self, origin: usize) {
        self.asked.set(self.asked.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
        self.balance.borrow_mut().started(origin);
    }

    /// Nothing is under way, nothing will be.
    fn is_stuck(&self) -> bool {
        self.in_flight.get() == 0 && self.checking.get() == 0 && self.balance.borrow().is_given_up()
    }

    /// Ends the pull; the first reason counts.
    fn stop(&self, end: End) {
        self.end.borrow_mut().get_or_insert(end);
        self.wake.notify_one();
    }

    /// Commits in the background when enough has arrived or enough time has passed.
    fn commit_if_due(self: &Rc<Self>) {
        let config = &self.context.config;
        let fresh = self.arrived_bytes.get() - self.committed_bytes.get();
        let due = fresh >= config.commit_bytes
            || (fresh > 0 && self.committed_at.get().elapsed() >= config.commit_interval);
        if !due || self.committing.replace(true) {
            return;
        }
        let pull = Rc::clone(self);
        tokio::task::spawn_local(async move {
            pull.committed_bytes.set(pull.arrived_bytes.get());
            let result = pull.commit().await;
            pull.committed_at.set(Instant::now());
            pull.committing.set(false);
            if let Err(error) = result {
                pull.stop(End::Failed(error));
            }
        });
    }

    async fn commit(&self) -> Result<(), String> {
        self.content.set_sources(self.sources.borrow().to_value());
        let (store, content) = (Arc::clone(&self.context.store), Arc::clone(&self.content));
        let committed = self.context.blocking(move || store.commit(&content)).await;
        match committed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.context.disk_error(&error.to_string())),
            Err(error) => Err(self.context.disk_error(&error.to_string())),
        }
    }

    /// Milliseconds since the pull began: the clock of its balance.
    fn now_ms(&self) -> u64 {
        milliseconds(self.started.elapsed())
    }

    /// The origin's own words, with what was learned of it.
    fn origin(&self, index: usize) -> Origin {
        self.sources.borrow().origins[index].clone()
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A plan in which everything visible or verified is present, and what another program says has arrived.
fn planner_for(content: &Content, arrived: Vec<Range<u64>>) -> Planner {
    let layout = content.layout();
    let files: Vec<Range<u64>> = layout
        .files()
        .iter()
        .filter(|file| !file.padding && file.length > 0)
        .map(|file| file.offset..file.end())
        .collect();
    let mut planner =
        Planner::new(layout.length(), u64::from(layout.piece_bytes()), files, content.hashes_known());
    for piece in (0..layout.piece_count()).map(PieceIndex).filter(|piece| content.has_piece(*piece)) {
        let _ = planner.arrived(layout.piece_range(piece));
    }
    for run in arrived.into_iter().filter(|run| run.end <= layout.length()) {
        let _ = planner.arrived(run);
    }
    // Without hashes bytes are visible before their piece is complete, and what is visible is not written again.
    // The look ends with the last of them: a fresh content of terabytes is not searched.
    let (mut at, mut found) = (0, 0);
    while !content.hashes_known() && at < layout.length() && found < content.visible_bytes() {
        let end = content.visible_until(at, layout.length());
        found += end - at;
        let _ = planner.arrived(at..end);
        at = if end > at { end } else { (at / layout.block_bytes() + 1) * layout.block_bytes() };
    }
    planner
}
