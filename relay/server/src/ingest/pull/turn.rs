//! What a pull takes of the budget of all pulls, and what it leaves to those of higher priority.

use std::ops::Range;

use millrace_proto::admin::caps::status::Wait;

use super::{Lack, Pull};
use crate::ingest::budget::{Grant, REQUESTS_MAX, Wish};

impl Pull {
    /// The next range of about `bytes`, and no longer than `grant` can pay for.
    pub(super) fn next_range(
        &self,
        demanded_only: bool,
        bytes: u64,
        grant: &mut Grant,
    ) -> Option<Range<u64>> {
        let mut planner = self.planner.borrow_mut();
        let mut range = planner.next(demanded_only, bytes)?;
        let end = range.start + grant.reserve(range.end - range.start);
        planner.abandoned(end..range.end);
        range.end = end;
        (!range.is_empty()).then_some(range)
    }

    /// The origin to ask next, of those that need no grant or have one.
    pub(super) fn choose(&self, extra: usize) -> Option<usize> {
        let sources = self.sources.borrow();
        let is_granted = |origin: usize| self.context.budget.is_granted(&sources.origins[origin].url);
        self.balance.borrow().choose_among(self.now_ms(), extra, is_granted)
    }

    /// The grant that is lacking, where no origin can be asked for want of one.
    pub(super) fn ungranted(&self) -> Option<Wait> {
        let (sources, balance) = (self.sources.borrow(), self.balance.borrow());
        let able = sources.origins.iter().zip(balance.origins()).filter(|(_, standing)| !standing.given_up);
        let mut lacks = able.map(|(origin, _)| self.context.budget.ungranted(&origin.url));
        let first = lacks.next()??;
        lacks.all(|lack| lack.is_some()).then_some(first)
    }

    /// Tells those of lower priority what this pull could use.
    pub(super) fn wish(&self, lack: Lack) {
        let unasked = self.planner.borrow().unasked_bytes() > 0;
        let able = !self.paused.get() && self.choose(REQUESTS_MAX).is_some();
        let wish = match lack {
            // While the caps let nobody ask, nobody is kept from asking.
            Lack::Budget if able => Wish::Request,
            _ if unasked && able => Wish::Bytes,
            _ => Wish::Nothing,
        };
        self.context.budget.wish(self.content.id(), self.content.priority().into(), wish);
        let unfinished = !self.paused.get() && (unasked || self.in_flight.get() > 0);
        let waits = self.context.budget.obstacle().or_else(|| self.ungranted()).filter(|_| unfinished);
        if let Some(wait) = &waits {
            self.content.set_error(Some(&format!("waits: {}", wait.why)));
        } else if self.waits.get() {
            self.content.set_error(None);
        }
        self.waits.set(waits.is_some());
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.context.budget.leave(self.content.id());
    }
}
