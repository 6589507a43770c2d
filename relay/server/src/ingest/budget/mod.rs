//! What origins may be charged, over all pulls: requests at a time, bytes a second, bytes in windows of time, grants of single origins; and who goes first.
//!
//! Counted are bytes of bodies as they are read from connections: neither heads nor TCP/IP, and what the kernel holds unread counts when
//! it is read. A request is granted only for bytes that every window has left. The caps change while pulls run, without a disconnect.

mod grant;
mod granted;
mod rank;
mod usage;
mod volume;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_proto::admin::caps::status::{GrantStatus, VolumeStatus, Wait};
use millrace_proto::admin::caps::{Cap, EffectiveCaps, Layer};
use millrace_proto::id::ContentId;
use millrace_proto::units::Size;
use tokio::sync::Notify;
use url::Url;

use crate::caps::{Clock, clock};

pub use self::grant::Grant;
use self::granted::Granted;
use self::rank::Ranks;
pub use self::rank::Wish;
pub use self::usage::UsageError;
use self::volume::Windows;

/// Requests under way at a time where no cap says otherwise.
pub const REQUESTS_MAX: usize = 64;

/// How often a window is looked at whose end is waited for: the clock may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// That a shorter window is used up is not worth a line in the log.
const TOLD_SECONDS_MIN: i64 = 3_600;

/// What may be charged, and the count.
#[derive(Debug)]
pub struct OriginBudget {
    clock: Clock,
    state: Mutex<State>,
    /// A request ended, or the caps changed.
    freed: Notify,
    /// Bytes of bodies received from all origins.
    bytes_total: AtomicU64,
    waits: [AtomicU64; 4],
}

#[derive(Debug)]
struct State {
    /// Requests at a time.
    connections: Cap,
    under_way: usize,
    /// Those who wait for a request that nothing can begin without: pulls leave them the next.
    beginning: usize,
    /// Bytes per second.
    bandwidth: Cap,
    /// When the bytes received so far will have been paid for.
    paid_at: Instant,
    /// How often the caps changed.
    changes: u64,
    windows: Windows,
    granted: Granted,
    ranks: Ranks,
    /// What pulls were last said to wait for.
    told: Option<String>,
    /// The count that was written last.
    saved: Vec<u8>,
}

/// A cap of origins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginCap {
    /// Bytes a second.
    Bandwidth,
    /// Requests at a time.
    Connections,
    /// Bytes in a window.
    Volume,
    /// Bytes and time of one origin.
    Grant,
}

impl OriginBudget {
    /// Nothing is capped, nothing was counted.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let windows = Windows::new(&clock.now());
        OriginBudget::with(clock, windows, Granted::default())
    }

    /// Goes on counting from what was saved in `folder`.
    ///
    /// # Errors
    /// What was saved cannot be used.
    pub fn open(folder: PathBuf, clock: Clock) -> Result<Self, UsageError> {
        let now = clock.now();
        let mut windows = Windows::new(&now);
        let mut granted = Granted::default();
        usage::load(&folder, &mut windows, &mut granted, &now)?;
        Ok(OriginBudget::with(clock, windows, granted))
    }

    fn with(clock: Clock, windows: Windows, granted: Granted) -> Self {
        let state = State {
            connections: Cap::default(),
            under_way: 0,
            beginning: 0,
            bandwidth: Cap::default(),
            paid_at: Instant::now(),
            changes: 0,
            windows,
            granted,
            ranks: Ranks::default(),
            told: None,
            saved: Vec::new(),
        };
        OriginBudget {
            clock,
            state: Mutex::new(state),
            freed: Notify::new(),
            bytes_total: AtomicU64::new(0),
            waits: Default::default(),
        }
    }

    /// Changes all caps. Requests under way finish.
    pub fn set(&self, caps: &EffectiveCaps) {
        let mut state = self.state();
        state.connections = caps.origin.connections;
        if state.bandwidth.value != caps.origin.bandwidth.value {
            // What was received at the old rate is let go.
            state.paid_at = Instant::now();
        }
        state.bandwidth = caps.origin.bandwidth;
        state.windows.set_caps(&caps.origin.volume, &self.clock.now());
        state.granted.set(&caps.origin.grants);
        state.ranks.name(&caps.contents);
        state.changes += 1;
        drop(state);
        self.freed.notify_waiters();
    }

    /// Bytes of bodies received from all origins.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total.load(Ordering::Relaxed)
    }

    /// How often something waited for a cap.
    #[must_use]
    pub fn waits(&self, cap: OriginCap) -> u64 {
        self.waits[cap as usize].load(Ordering::Relaxed)
    }

    /// Caps on bytes a second and on connections, and each window.
    #[must_use]
    pub fn status(&self) -> (Cap, Cap, Vec<VolumeStatus>) {
        let (now, mut state) = (self.clock.now(), self.state());
        state.windows.look(&now);
        (state.bandwidth, state.connections, state.windows.status(&now))
    }

    /// Each grant that an origin needs.
    #[must_use]
    pub fn grants(&self) -> Vec<GrantStatus> {
        self.state().granted.status(self.clock.now().timestamp().as_second())
    }

    /// Whether `url`, an origin's, may be asked now as far as grants go.
    #[must_use]
    pub fn is_granted(&self, url: &Url) -> bool {
        self.ungranted(url).is_none()
    }

    /// Why nothing may be asked at `url`, if a grant is what is lacking.
    #[must_use]
    pub fn ungranted(&self, url: &Url) -> Option<Wait> {
        let wait = {
            let state = self.state();
            if state.granted.is_empty() {
                return None;
            }
            let at = self.clock.now().timestamp().as_second();
            state.granted.lack(url, at).map(|(why, source)| {
                let whose = whose(Cap { value: Some(0), source: Some(source) });
                Wait { why: format!("{why}{whose}"), until: None, source: Some(source) }
            })
        };
        wait.inspect(|_| self.count_wait(OriginCap::Grant))
    }

    /// Why no new range is asked for at all, if that is so.
    #[must_use]
    pub fn obstacle(&self) -> Option<Wait> {
        let mut state = self.state();
        state.windows.look(&self.clock.now());
        self.look_for_obstacle(&state).map(|(_, wait)| wait)
    }

    fn look_for_obstacle(&self, state: &State) -> Option<(OriginCap, Wait)> {
        let paused = |which, key: &str, cap: Cap| {
            (cap.value == Some(0)).then(|| {
                (which, Wait { why: format!("{key} is 0{}", whose(cap)), until: None, source: cap.source })
            })
        };
        let used_up = || {
            let counted = state.windows.used_up()?;
            let ends = counted.ends.to_zoned(self.clock.now().time_zone().clone());
            let until = clock::shown(&ends);
            let bytes = Size(counted.cap.value.unwrap_or(0));
            let why = format!(
                "origin.volume.{} of {bytes} is used up{}, until {until}",
                counted.window,
                whose(counted.cap)
            );
            Some((OriginCap::Volume, Wait { why, until: Some(until), source: counted.cap.source }))
        };
        paused(OriginCap::Bandwidth, "origin.bandwidth", state.bandwidth)
            .or_else(|| paused(OriginCap::Connections, "origin.connections", state.connections))
            .or_else(used_up)
    }

    /// The right to have a request under way, if there is one now.
    pub fn try_request(self: &Arc<Self>) -> Option<Grant> {
        if self.state().beginning > 0 {
            return None;
        }
        self.grant(REQUESTS_MAX)
    }

    /// `most` is how many requests there may be where no cap says less.
    fn grant(self: &Arc<Self>, most: usize) -> Option<Grant> {
        let mut state = self.state();
        state.windows.look(&self.clock.now());
        let obstacle = self.look_for_obstacle(&state);
        self.tell(&mut state, obstacle.as_ref().map(|(_, wait)| wait));
        if let Some((cap, _)) = obstacle {
            self.count_wait(cap);
            return None;
        }
        let capped = state.connections.value.and_then(|connections| usize::try_from(connections).ok());
        if state.under_way >= most.min(capped.unwrap_or(usize::MAX)) {
            self.count_wait(OriginCap::Connections);
            return None;
        }
        state.under_way += 1;
        Some(Grant::new(self))
    }

    /// The right to one of the requests that nothing can begin without, as soon as the caps allow it.
    pub async fn request(self: &Arc<Self>) -> Grant {
        let _beginning = Beginning::new(self);
        loop {
            let mut freed = std::pin::pin!(self.freed());
            freed.as_mut().enable();
            if let Some(grant) = self.grant(usize::MAX) {
                return grant;
            }
            // A window may end meanwhile.
            let _ = tokio::time::timeout(LOOK_EVERY, freed).await;
        }
    }

    /// Waits until a request ends or the caps change. Enable it before trying, so that nothing is missed.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    /// Whether a content may have one more request beside `busy` ones, as others of higher priority wish. `own` is the priority it was
    /// added with.
    #[must_use]
    pub fn may_request(&self, id: ContentId, own: i32, busy: usize) -> bool {
        let state = self.state();
        let bytes_are_capped = state.bandwidth.value.is_some() || state.windows.is_capped();
        state.ranks.may_request(id, own, busy, bytes_are_capped)
    }

    /// Notes what a pull could use, for those of lower priority.
    pub fn wish(&self, id: ContentId, own: i32, wish: Wish) {
        self.state().ranks.wish(id, own, wish);
    }

    /// A pull is over.
    pub fn leave(&self, id: ContentId) {
        self.state().ranks.leave(id);
        self.freed.notify_waiters();
    }

    /// The count as it is to be written, if it changed since.
    pub fn unsaved(&self) -> Option<Vec<u8>> {
        let mut state = self.state();
        let text = usage::text(&state.windows, &state.granted);
        let is_new = text != state.saved;
        is_new.then(|| {
            state.saved.clone_from(&text);
            text
        })
    }

    /// Writes a count down. Waits for the disk.
    ///
    /// # Errors
    /// What the disk says.
    pub fn save(folder: &std::path::Path, count: &[u8]) -> std::io::Result<()> {
        usage::save(folder, count)
    }

    /// Logs once when pulls begin to wait for the operator's word or the calendar, and when they go on.
    fn tell(&self, state: &mut State, obstacle: Option<&Wait>) {
        let used_up = state.windows.used_up();
        if used_up
            .is_some_and(|counted| counted.ends.as_second() - counted.began.as_second() < TOLD_SECONDS_MIN)
        {
            return;
        }
        let why = obstacle.map(|wait| &wait.why);
        if why == state.told.as_ref() {
            return;
        }
        match why {
            Some(why) => tracing::warn!("pulls wait: {why}; what is here is served on"),
            None => tracing::info!("pulls go on"),
        }
        state.told = why.cloned();
    }

    fn count_wait(&self, cap: OriginCap) {
        self.waits[cap as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whose(cap: Cap) -> &'static str {
    match cap.source.map(|source| source.layer) {
        Some(Layer::Controller) => " (set by the controller)",
        _ => "",
    }
}

/// Somebody who waits for a request, until dropped.
struct Beginning<'a>(&'a OriginBudget);

impl<'a> Beginning<'a> {
    fn new(budget: &'a OriginBudget) -> Self {
        budget.state().beginning += 1;
        Beginning(budget)
    }
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        self.0.state().beginning -= 1;
        self.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
