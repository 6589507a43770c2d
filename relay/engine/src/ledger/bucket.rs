//! A rate that shards keep to together, exactly: no second carries more than it allows, and what was missed is made up for.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use crate::ids::Now;

const SECOND_NS: u64 = 1_000_000_000;

/// Sends are counted by slots of 2^22 ns, which is 4.2 ms, over a second and a little more.
const SLOT_BITS: u32 = 22;
const SLOTS: usize = 256;

/// Rates above a PB/s are as good as this one, and far from overflow.
const RATE_MAX: u64 = 1 << 50;

/// A second may carry more than its rate by 1 % of that, and by at least this.
const OVER_BYTES_MIN: u64 = 64 * 1024;

/// Bytes a second that all shards share. The rate may change at any time.
///
/// Two things bound what is granted. A *burst* is what a wait of 20 ms is worth, at least 128 KiB, so that a shard which comes late finds
/// what it missed. And a *second* carries no more than its rate and three quarters of what a cap may be exceeded by; the rest is for the
/// time between a grant and its send.
///
/// Both are read off one number, the lag: what has been allowed so far without what was taken. A burst is how far the lag may fall below
/// the highest it ever was, a second how far below what it was a second ago.
#[derive(Debug)]
pub struct Bucket {
    /// Bytes per second; 0 is paused.
    rate: AtomicU64,
    lag: AtomicI64,
    lag_max: AtomicI64,
    filled_ns: AtomicU64,
    /// The rate was changed since the last fill.
    changed: AtomicBool,
    /// The lag at the start of each slot, by the slot's number.
    lags: Box<[AtomicI64]>,
}

impl Bucket {
    /// `rate` is in bytes per second, and 0 is a pause.
    #[must_use]
    pub fn new(rate: u64) -> Self {
        Bucket {
            rate: AtomicU64::new(rate),
            lag: AtomicI64::new(0),
            lag_max: AtomicI64::new(0),
            filled_ns: AtomicU64::new(0),
            changed: AtomicBool::new(true),
            lags: (0..SLOTS).map(|_| AtomicI64::new(0)).collect(),
        }
    }

    /// Changes the rate. The time until now is paid at the old rate or not at all.
    pub fn set_rate(&self, rate: u64) {
        if self.rate() != rate {
            self.changed.store(true, Ordering::Relaxed);
            self.rate.store(rate, Ordering::Release);
        }
    }

    /// Bytes per second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.rate.load(Ordering::Acquire)
    }

    /// Bytes that may be taken now; below 0 by what is missing to none.
    #[must_use]
    pub fn available(&self, now: Now) -> i64 {
        let Some(rate) = self.fill(now) else { return 0 };
        self.lag.load(Ordering::Relaxed) - self.lag_min(now, rate)
    }

    /// Takes `bytes`, or nothing. What is not sent afterwards goes [back](Self::give_back).
    #[must_use]
    pub fn take(&self, now: Now, bytes: u64) -> bool {
        let Some(rate) = self.fill(now) else { return false };
        let (least, bytes) = (self.lag_min(now, rate), signed(bytes));
        let take = |lag: i64| (lag - bytes >= least).then_some(lag - bytes);
        self.lag.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Returns bytes that were taken and not sent.
    pub fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            let lag = self.lag.fetch_add(signed(bytes), Ordering::Relaxed) + signed(bytes);
            self.lag_max.fetch_max(lag, Ordering::Relaxed);
        }
    }

    /// Most bytes that one burst takes, whatever the second allows.
    #[must_use]
    pub fn burst_bytes(&self) -> u64 {
        burst(self.rate().min(RATE_MAX))
    }

    /// How far the lag may fall.
    fn lag_min(&self, now: Now, rate: u64) -> i64 {
        let slot = slot_of(now.monotonic_ns.saturating_sub(SECOND_NS));
        let a_second_ago = self.lags[slot % SLOTS].load(Ordering::Relaxed);
        let by_burst = self.lag_max.load(Ordering::Relaxed) - signed(burst(rate));
        by_burst.max(a_second_ago - over(rate))
    }

    /// One shard wins the right to add what the time since the last fill is worth. Returns the rate, or nothing while it is paused.
    fn fill(&self, now: Now) -> Option<u64> {
        let rate = self.rate().min(RATE_MAX);
        let filled_ns = self.filled_ns.load(Ordering::Relaxed);
        if self.changed.load(Ordering::Relaxed) && self.changed.swap(false, Ordering::Relaxed) {
            // Nobody saves up for a change: what was allowed before it is let go.
            let before_ns = self.filled_ns.fetch_max(now.monotonic_ns, Ordering::Relaxed);
            let lag = self.lag.load(Ordering::Relaxed);
            self.lag_max.store(lag + signed(burst(rate)), Ordering::Relaxed);
            self.note(before_ns, now.monotonic_ns, lag);
            return (rate > 0).then_some(rate);
        }
        if rate == 0 {
            return None;
        }
        let elapsed_ns = now.monotonic_ns.saturating_sub(filled_ns);
        let paid_ns = elapsed_ns.min(SECOND_NS);
        let earned = mul_div(rate, paid_ns, SECOND_NS);
        if earned == 0 {
            return Some(rate);
        }
        // No further than what whole bytes are worth, so that rounding loses a nanosecond at most.
        let filled_to_ns = if paid_ns < elapsed_ns {
            now.monotonic_ns
        } else {
            filled_ns + (mul_div(earned, SECOND_NS, rate) + 1).min(elapsed_ns)
        };
        let won =
            self.filled_ns.compare_exchange(filled_ns, filled_to_ns, Ordering::Relaxed, Ordering::Relaxed);
        if won.is_ok() {
            let lag = self.lag.fetch_add(signed(earned), Ordering::Relaxed) + signed(earned);
            self.lag_max.fetch_max(lag, Ordering::Relaxed);
            self.note(filled_ns, filled_to_ns, lag);
        }
        Some(rate)
    }

    /// Notes the lag for the slots that have begun.
    fn note(&self, from_ns: u64, to_ns: u64, lag: i64) {
        let (from, to) = (slot_of(from_ns), slot_of(to_ns));
        for slot in (from + 1).max((to + 1).saturating_sub(SLOTS))..=to {
            self.lags[slot % SLOTS].store(lag, Ordering::Relaxed);
        }
    }
}

fn slot_of(time_ns: u64) -> usize {
    usize::try_from(time_ns >> SLOT_BITS).unwrap_or(usize::MAX)
}

fn burst(rate: u64) -> u64 {
    (rate / 50).max(OVER_BYTES_MIN * 2)
}

/// What a second may carry above its rate: less by a slot, since the second that is looked at may be longer by as much.
fn over(rate: u64) -> i64 {
    signed((rate / 100).max(OVER_BYTES_MIN) / 4 * 3) - signed(mul_div(rate, 1 << SLOT_BITS, SECOND_NS))
}

fn mul_div(a: u64, b: u64, by: u64) -> u64 {
    u64::try_from(u128::from(a) * u128::from(b) / u128::from(by)).unwrap_or(u64::MAX)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Now {
        Now { monotonic_ns: 5 * SECOND_NS + us * 1_000, unix_s: 0 }
    }

    /// Takes all there is, in turns of `turn` bytes.
    fn drain(bucket: &Bucket, now: Now, turn: u64) -> u64 {
        (0..100_000).take_while(|_| bucket.take(now, turn)).count() as u64 * turn
    }

    fn over_max(rate: u64) -> u64 {
        (rate / 100).max(64 << 10)
    }

    /// A greedy sender that comes at odd times, once not for 35 ms and once not for 1.5 s.
    #[track_caller]
    fn check_seconds(rate: u64, turn: u64) {
        let bucket = Bucket::new(rate);
        let mut sends: Vec<(u64, u64)> = Vec::new();
        let (mut us, mut step) = (0, 1);
        while us < 8_000_000 {
            step = step * 7 % 3_001;
            us += step;
            let away = (2_000_000..2_035_000).contains(&us) || (4_000_000..5_500_000).contains(&us);
            if !away {
                sends.push((us, drain(&bucket, at(us), turn)));
            }
        }
        for (start, _) in &sends {
            let inside = |(at, _): &&(u64, u64)| (*start..start + 1_000_000).contains(at);
            let window: u64 = sends.iter().filter(inside).map(|(_, bytes)| bytes).sum();
            assert!(window <= rate + over_max(rate), "{rate}: the second from {start} us carried {window}");
        }
        let within = |from: u64, to: u64| -> u64 {
            let inside = |(at, _): &&(u64, u64)| (from..to).contains(at);
            sends.iter().filter(inside).map(|(_, bytes)| bytes).sum()
        };
        assert!(within(0, 4_000_000) >= rate * 396 / 100, "{rate}: a stall costs {}", within(0, 4_000_000));
        assert!(within(5_500_000, 8_000_000) >= rate * 245 / 100, "{rate}: {}", within(5_500_000, 8_000_000));
    }

    #[test]
    fn no_second_is_above_the_rate_and_stalls_are_made_up_for() {
        check_seconds(200_000_000, 17_408);
        check_seconds(6_000_000, 17_408);
        check_seconds(50_000_000, 1_000);
        check_seconds(300_000, 1_460);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let bucket = Bucket::new(1_000_000);
        assert!(!bucket.take(at(0), 1));
        assert!(bucket.take(at(40_000), 40_000));
        assert!(!bucket.take(at(40_000), 1));
        bucket.give_back(4_000);
        assert!(!bucket.take(at(40_000), 4_001));
        assert!(bucket.take(at(40_000), 4_000));
    }

    #[test]
    fn a_change_is_not_paid_for_the_time_before_it() {
        let bucket = Bucket::new(100_000_000);
        assert!(!bucket.take(at(0), 1));
        assert!(bucket.take(at(10_000), 700_000));
        bucket.set_rate(0);
        assert!(!bucket.take(at(500_000), 1));
        bucket.set_rate(50_000_000);
        assert!(!bucket.take(at(1_000_000), 1), "the time until the change");
        assert!(bucket.take(at(1_001_000), 50_000));
        assert!(!bucket.take(at(1_001_000), 1));
        bucket.set_rate(1_000_000);
        assert!(!bucket.take(at(1_010_000), 1), "what was allowed at a higher rate");
    }

    #[test]
    fn odd_rates_lose_nothing_however_often_they_are_asked() {
        let bucket = Bucket::new(700_001);
        let taken: u64 = (0..2_000_000).map(|us| u64::from(bucket.take(at(us), 1))).sum();
        assert!((1_398_000..=1_400_002).contains(&taken), "{taken}");
    }
}
