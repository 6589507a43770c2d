//! The right to a request, and what its bytes cost: whoever reads more than the caps allow stops reading for as long.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use url::Url;

use super::{LOOK_EVERY, OriginBudget, OriginCap};

/// The right to have a request under way. Dropping it gives back what it was not used for.
#[derive(Debug)]
pub struct Grant {
    budget: Arc<OriginBudget>,
    /// Bytes asked for that have not come.
    reserved: u64,
    /// The origin that they are asked of, once that is known.
    origin: Option<String>,
}

/// What comes of having paid.
enum Paid {
    At(Instant, u64),
    /// Only a change of the caps, or the end of a window, goes on from here.
    Never(OriginCap),
}

impl Grant {
    /// Counted as under way already.
    pub(super) fn new(budget: &Arc<OriginBudget>) -> Self {
        Grant { budget: Arc::clone(budget), reserved: 0, origin: None }
    }

    /// What comes by it comes from here: it is said before anything is reserved.
    pub fn ask_of(&mut self, url: &Url) {
        self.origin = Some(url.origin().ascii_serialization());
    }

    /// Takes up to `wanted` bytes to ask for; how many.
    pub fn reserve(&mut self, wanted: u64) -> u64 {
        let mut state = self.budget.state();
        let at = self.budget.clock.now().timestamp().as_second();
        let allowed = self.origin.as_deref().map_or(u64::MAX, |origin| state.granted.left(origin, at));
        let granted = state.windows.reserve(wanted.min(allowed));
        if let Some(origin) = &self.origin {
            state.granted.reserve(origin, granted);
        }
        drop(state);
        self.reserved += granted;
        granted
    }

    /// Counts `bytes` that arrived, and waits until they are paid for: the reader that waits stops reading, and TCP tells the origin.
    /// What was not asked for is counted as well, and nothing more is read of it while a volume is used up.
    pub async fn pay(&mut self, bytes: u64) {
        let budget = &self.budget;
        budget.bytes_total.fetch_add(bytes, Ordering::Relaxed);
        let expected = bytes.min(self.reserved);
        self.reserved -= expected;
        let unasked = bytes > expected;
        {
            let mut state = budget.state();
            state.windows.look(&budget.clock.now());
            state.windows.release(expected);
            state.windows.receive(bytes);
            if let Some(origin) = &self.origin {
                state.granted.receive(origin, bytes, expected);
            }
        }
        loop {
            let mut freed = std::pin::pin!(budget.freed());
            freed.as_mut().enable();
            match budget.price(bytes, unasked, self.origin.as_deref()) {
                None => return,
                Some(Paid::Never(cap)) => {
                    budget.count_wait(cap);
                    let _ = tokio::time::timeout(LOOK_EVERY, freed).await;
                }
                Some(Paid::At(until, changes)) => {
                    budget.count_wait(OriginCap::Bandwidth);
                    if budget.sleep(until, changes).await {
                        return;
                    }
                }
            }
        }
    }
}

impl OriginBudget {
    fn price(&self, bytes: u64, unasked: bool, origin: Option<&str>) -> Option<Paid> {
        let mut state = self.state();
        state.windows.look(&self.clock.now());
        if unasked && state.windows.is_reached() {
            return Some(Paid::Never(OriginCap::Volume));
        }
        let at = self.clock.now().timestamp().as_second();
        if unasked && origin.is_some_and(|origin| state.granted.is_reached(origin, at)) {
            return Some(Paid::Never(OriginCap::Grant));
        }
        let rate = [state.bandwidth.value, state.windows.slow_rate()].into_iter().flatten().min()?;
        if rate == 0 {
            return Some(Paid::Never(OriginCap::Bandwidth));
        }
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        let price = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let from = state.paid_at.max(Instant::now());
        // A price of centuries is waited for until somebody changes it.
        state.paid_at = from.checked_add(price).unwrap_or(from + Duration::from_secs(86_400 * 365));
        Some(Paid::At(state.paid_at, state.changes))
    }

    /// Whether it came to the end, and the caps did not change before.
    async fn sleep(&self, until: Instant, changes: u64) -> bool {
        loop {
            let mut freed = std::pin::pin!(self.freed());
            freed.as_mut().enable();
            if self.state().changes != changes {
                return false;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => return true,
                () = freed => {}
            }
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        state.under_way = state.under_way.saturating_sub(1);
        state.windows.release(self.reserved);
        if let Some(origin) = &self.origin {
            state.granted.release(origin, self.reserved);
        }
        drop(state);
        self.budget.freed.notify_waiters();
    }
}
