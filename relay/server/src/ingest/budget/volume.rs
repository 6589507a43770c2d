//! Bytes by windows of time: what has come, what was asked for and is on its way, and what may still be asked for. Pure; the time comes
//! as an argument.

use jiff::{Timestamp, Zoned};
use millrace_proto::admin::caps::Window;
use millrace_proto::admin::caps::effective::EffectiveVolume;
use millrace_proto::admin::caps::{Cap, status::VolumeStatus};

use crate::caps::clock;

/// Windows that are counted whether or not they are capped, so that a cap set later knows what has come already.
const NAMED: [Window; 5] = [Window::Second, Window::Minute, Window::Hour, Window::Day, Window::Month];

/// Fewest bytes worth a request, unless the cap itself is small: a window that has less left is used up.
const REQUEST_BYTES_MIN: u64 = 64 << 10;

/// The last part of a volume, of this many, comes slower and slower.
const SLOW_PART: u64 = 10;

/// Slowed down, what is left would last so long, as a part of the window and in seconds.
const SLOW_WINDOW_PART: i64 = 100;
const SLOW_SECONDS: std::ops::RangeInclusive<u64> = 1..=60;

/// It is never slowed below this rate, in bytes per second.
const SLOW_RATE_MIN: u64 = 64 << 10;

/// All windows.
#[derive(Debug, Clone)]
pub(super) struct Windows {
    counted: Vec<Counted>,
    /// Bytes asked for that have not come.
    reserved: u64,
}

/// One window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) window: Window,
    pub(super) began: Timestamp,
    pub(super) ends: Timestamp,
    /// Bytes that have come in it.
    pub(super) used: u64,
    pub(super) cap: Cap,
}

impl Counted {
    fn new(window: Window, now: &Zoned) -> Self {
        let (began, ends) = clock::window(now, window);
        Counted { window, began, ends, used: 0, cap: Cap::default() }
    }

    /// Forgets what came in a window that is over. Where the clock was put back nothing is forgotten, so that nobody gains by that.
    fn look(&mut self, now: &Zoned) {
        let at = now.timestamp();
        if self.began <= at && at < self.ends {
            return;
        }
        let used = if at >= self.ends { 0 } else { self.used };
        *self = Counted { used, cap: self.cap, ..Counted::new(self.window, now) };
    }

    fn left(&self, reserved: u64) -> Option<u64> {
        self.cap.value.map(|cap| cap.saturating_sub(self.used).saturating_sub(reserved))
    }
}

impl Windows {
    /// Nothing has come, nothing is capped.
    pub(super) fn new(now: &Zoned) -> Self {
        Windows { counted: NAMED.map(|window| Counted::new(window, now)).to_vec(), reserved: 0 }
    }

    /// Goes on from what had come before a restart.
    pub(super) fn restore(&mut self, window: Window, began: Timestamp, used: u64, now: &Zoned) {
        let mut counted = Counted::new(window, now);
        counted.used = if counted.began <= began { used } else { 0 };
        self.counted.retain(|known| known.window != window);
        self.counted.push(counted);
        self.counted.sort_by_key(|counted| counted.window);
    }

    /// Changes the caps. A window of seconds that was not counted begins empty.
    pub(super) fn set_caps(&mut self, caps: &[EffectiveVolume], now: &Zoned) {
        for volume in caps {
            if !self.counted.iter().any(|counted| counted.window == volume.window) {
                self.counted.push(Counted::new(volume.window, now));
            }
        }
        for counted in &mut self.counted {
            let cap = caps.iter().find(|volume| volume.window == counted.window);
            counted.cap = cap.map(|volume| volume.bytes).unwrap_or_default();
        }
        self.counted.retain(|counted| NAMED.contains(&counted.window) || counted.cap.value.is_some());
        self.counted.sort_by_key(|counted| counted.window);
    }

    /// Begins the windows that have begun.
    pub(super) fn look(&mut self, now: &Zoned) {
        self.counted.iter_mut().for_each(|counted| counted.look(now));
    }

    /// Each window.
    pub(super) fn counted(&self) -> &[Counted] {
        &self.counted
    }

    /// Whether any is capped.
    pub(super) fn is_capped(&self) -> bool {
        self.counted.iter().any(|counted| counted.cap.value.is_some())
    }

    /// The window for whose end nothing more may be asked for: of several the one that ends last.
    pub(super) fn used_up(&self) -> Option<&Counted> {
        let is_used_up = |counted: &&Counted| {
            let least = counted.cap.value.map_or(0, |cap| REQUEST_BYTES_MIN.min(cap / 16 + 1));
            counted.left(self.reserved).is_some_and(|left| left < least)
        };
        self.counted.iter().filter(is_used_up).max_by_key(|counted| counted.ends)
    }

    /// Whether a cap is reached by what has come.
    pub(super) fn is_reached(&self) -> bool {
        self.counted.iter().any(|counted| counted.left(0) == Some(0))
    }

    /// Takes up to `wanted` bytes as asked for; how many.
    pub(super) fn reserve(&mut self, wanted: u64) -> u64 {
        let left = self.counted.iter().filter_map(|counted| counted.left(self.reserved)).min();
        let granted = wanted.min(left.unwrap_or(u64::MAX));
        self.reserved = self.reserved.saturating_add(granted);
        granted
    }

    /// Notes that what was reserved will not come, or has.
    pub(super) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// Counts what has come.
    pub(super) fn receive(&mut self, bytes: u64) {
        self.counted.iter_mut().for_each(|counted| counted.used = counted.used.saturating_add(bytes));
    }

    /// Bytes per second at which the last part of a volume may come.
    pub(super) fn slow_rate(&self) -> Option<u64> {
        let slow = self.counted.iter().filter_map(|counted| {
            let (cap, left) = (counted.cap.value?, counted.left(0)?);
            let seconds = (counted.ends.as_second() - counted.began.as_second()) / SLOW_WINDOW_PART;
            let seconds =
                u64::try_from(seconds).unwrap_or(0).clamp(*SLOW_SECONDS.start(), *SLOW_SECONDS.end());
            (left < cap / SLOW_PART).then(|| (left / seconds).max(SLOW_RATE_MIN))
        });
        slow.min()
    }

    /// What each window has, for `status`. What is on its way counts as used: it can no longer be asked for.
    pub(super) fn status(&self, now: &Zoned) -> Vec<VolumeStatus> {
        let of = |counted: &Counted| VolumeStatus {
            window: counted.window,
            used: counted.used,
            left: counted.left(self.reserved),
            bytes: counted.cap,
            ends_at: clock::shown(&counted.ends.to_zoned(now.time_zone().clone())),
        };
        self.counted.iter().map(of).collect()
    }

    /// Bytes that are on their way.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }
}

#[cfg(test)]
mod tests;
