//! What must hold across shards, as atomics that nobody waits for: the egress cap, connections per address, who insists on encryption.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use crate::ids::Now;

/// A token bucket shared by all shards. Tokens are bytes; the rate may change at any time.
///
/// The depth is 1 % of a second's rate, at least 64 KiB, so no one-second window can exceed the cap by more than that.
#[derive(Debug)]
pub struct Bucket {
    /// Bytes per second; `u64::MAX` is unlimited, 0 is paused.
    rate: AtomicU64,
    tokens: AtomicI64,
    filled_ns: AtomicU64,
    /// The rate was changed since the last fill.
    changed: AtomicBool,
}

const UNLIMITED: u64 = u64::MAX;
const DEPTH_BYTES_MIN: u64 = 64 * 1024;

impl Bucket {
    /// `None` is unlimited; `Some(0)` pauses.
    #[must_use]
    pub fn new(rate: Option<u64>) -> Self {
        Bucket {
            rate: AtomicU64::new(rate.unwrap_or(UNLIMITED)),
            tokens: AtomicI64::new(0),
            filled_ns: AtomicU64::new(0),
            changed: AtomicBool::new(false),
        }
    }

    /// Changes the rate, in bytes per second.
    pub fn set_rate(&self, rate: Option<u64>) {
        let rate = rate.unwrap_or(UNLIMITED);
        if self.rate.swap(rate, Ordering::Relaxed) != rate {
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    /// The rate in bytes per second; `None` is unlimited.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|rate| *rate != UNLIMITED)
    }

    /// Takes up to `want` bytes; 0 means to wait. What is not sent afterwards goes [back](Self::give_back).
    #[must_use]
    pub fn take(&self, now: Now, want: u64) -> u64 {
        let Some(rate) = self.rate() else { return want };
        self.fill(now, rate);
        let mut held = self.tokens.load(Ordering::Relaxed);
        loop {
            let granted = u64::try_from(held).unwrap_or(0).min(want);
            if granted == 0 {
                return 0;
            }
            let left = held - i64::try_from(granted).unwrap_or(i64::MAX);
            match self.tokens.compare_exchange_weak(held, left, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return granted,
                Err(seen) => held = seen,
            }
        }
    }

    /// Returns bytes that were taken and not sent.
    pub fn give_back(&self, bytes: u64) {
        if bytes > 0 && self.rate().is_some() {
            self.tokens.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    /// One shard wins the right to add what the time since the last fill is worth.
    fn fill(&self, now: Now, rate: u64) {
        let depth = i64::try_from((rate / 100).max(DEPTH_BYTES_MIN)).unwrap_or(i64::MAX);
        if self.changed.load(Ordering::Relaxed) {
            // The time since the last fill was worth something else: it is let go, rather than paid at the new rate.
            self.filled_ns.fetch_max(now.monotonic_ns, Ordering::Relaxed);
            self.tokens.fetch_min(depth, Ordering::Relaxed);
            self.changed.store(false, Ordering::Relaxed);
        }
        let filled = self.filled_ns.load(Ordering::Relaxed);
        let elapsed_ns = now.monotonic_ns.saturating_sub(filled).min(1_000_000_000);
        let earned = u128::from(rate) * u128::from(elapsed_ns) / 1_000_000_000;
        if earned == 0
            || self
                .filled_ns
                .compare_exchange(filled, now.monotonic_ns, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        let before = self.tokens.fetch_add(earned.min(depth), Ordering::Relaxed);
        let above = before.saturating_add(earned.min(depth)) - depth;
        if above > 0 {
            self.tokens.fetch_sub(above, Ordering::Relaxed);
        }
    }
}

/// Connections per address, over all shards, in a fixed table: two addresses may share a slot, which errs towards refusing.
#[derive(Debug)]
pub struct Addresses {
    counts: Box<[AtomicU32]>,
}

impl Addresses {
    /// A table of `slots`, rounded up to a power of two.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Addresses { counts: (0..slots.next_power_of_two()).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Counts a connection in, unless its address has `max` already.
    #[must_use]
    pub fn enter(&self, address: IpAddr, max: u32) -> bool {
        let slot = self.slot(address);
        if slot.fetch_add(1, Ordering::Relaxed) < max {
            return true;
        }
        slot.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// Counts a connection out.
    pub fn leave(&self, address: IpAddr) {
        self.slot(address).fetch_sub(1, Ordering::Relaxed);
    }

    fn slot(&self, address: IpAddr) -> &AtomicU32 {
        let mask = self.counts.len() - 1;
        &self.counts[usize::try_from(hash(address) >> 32).unwrap_or(0) & mask]
    }
}

/// Fibonacci hashing; the high bits are the good ones. An IPv6 customer has a /64, so that is what is counted.
fn hash(address: IpAddr) -> u64 {
    let key = match address {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            u64::from(a) << 48 | u64::from(b) << 32 | u64::from(c) << 16 | u64::from(d)
        }
    };
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Addresses that opened a connection with message stream encryption and were refused, to see who insists on it.
///
/// Whoever prefers it and can do without comes back in plain at once, which is what is wanted: [`Self::forget`]. Were such a peer taken
/// at its word, it could be lost: Transmission offers RC4 alone, and goes on in plain only if it is refused before it was asked
/// (3.00 encrypts its plain handshake otherwise).
#[derive(Debug)]
pub struct Refused {
    /// A part of the address's hash, and when it was refused, in milliseconds of the monotonic clock; 0 is nobody. Two addresses may
    /// share a slot, which costs one of them another attempt.
    slots: Box<[AtomicU64]>,
}

const REFUSED_SLOTS: u64 = 1 << 12;
const REFUSED_TIME_BITS: u32 = 40;

/// Who comes back sooner may have been under way already, for another torrent; WebTorrent waits a second.
const INSISTS_AFTER_MS: u64 = 500;

/// Who comes back later is told again. libtorrent waits a minute, and longer each time.
const INSISTS_FOR_MS: u64 = 10 * 60 * 1_000;

impl Default for Refused {
    fn default() -> Self {
        Refused { slots: (0..REFUSED_SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Refused {
    /// Whether this address, which asks for encryption, was refused before and has not come in plain since. If not, it is to be refused.
    #[must_use]
    pub fn insists(&self, address: IpAddr, now: Now) -> bool {
        let (slot, tag) = self.slot(address);
        let at_ms = now.monotonic_ms() % (1 << REFUSED_TIME_BITS);
        let seen = slot.load(Ordering::Relaxed);
        let age_ms = at_ms.wrapping_sub(seen & ((1 << REFUSED_TIME_BITS) - 1));
        if seen >> REFUSED_TIME_BITS != tag || age_ms > INSISTS_FOR_MS {
            slot.store(tag << REFUSED_TIME_BITS | at_ms, Ordering::Relaxed);
            return false;
        }
        age_ms >= INSISTS_AFTER_MS
    }

    /// This address can do without encryption, or with RC4 alone.
    pub fn forget(&self, address: IpAddr) {
        let (slot, tag) = self.slot(address);
        if slot.load(Ordering::Relaxed) >> REFUSED_TIME_BITS == tag {
            slot.store(0, Ordering::Relaxed);
        }
    }

    /// The slot of an address, and what tells it from most others that share it, which is never 0.
    fn slot(&self, address: IpAddr) -> (&AtomicU64, u64) {
        let hash = hash(address);
        let tag = hash >> 16 & ((1 << (64 - REFUSED_TIME_BITS)) - 1) | 1;
        (&self.slots[usize::try_from(hash >> 52 & (REFUSED_SLOTS - 1)).unwrap_or(0)], tag)
    }
}

/// Everything that shards share, besides the store.
#[derive(Debug)]
pub struct Ledger {
    /// The cap on all bytes sent.
    pub egress: Bucket,
    /// Connections per address.
    pub addresses: Addresses,
    /// Who was refused because of message stream encryption.
    pub refused: Refused,
}

impl Ledger {
    /// A ledger with this egress cap in bytes per second.
    #[must_use]
    pub fn new(egress: Option<u64>) -> Self {
        Ledger {
            egress: Bucket::new(egress),
            addresses: Addresses::new(1 << 16),
            refused: Refused::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { monotonic_ns: ms * 1_000_000, unix_s: 0 }
    }

    #[test]
    fn no_window_of_a_second_exceeds_the_cap_by_more_than_its_depth() {
        let rate = 50_000_000;
        let bucket = Bucket::new(Some(rate));
        let mut sent_at = Vec::new();
        for ms in 1..5_000 {
            // A greedy sender, and an idle spell in which tokens must not pile up.
            if !(2_000..3_500).contains(&ms) {
                sent_at.push((ms, bucket.take(at(ms), u64::MAX)));
            }
        }
        for start in 0..4_000 {
            let window: u64 = sent_at
                .iter()
                .filter(|(ms, _)| (start..start + 1_000).contains(ms))
                .map(|(_, bytes)| bytes)
                .sum();
            assert!(window <= rate + rate / 100, "window at {start} ms carried {window} bytes");
        }
        let total: u64 = sent_at.iter().map(|(_, bytes)| bytes).sum();
        assert!(total >= rate * 34 / 10, "the cap is also reached: {total}");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let bucket = Bucket::new(Some(1_000_000));
        let granted = bucket.take(at(1_000), 10_000);
        assert_eq!(granted, 10_000);
        bucket.give_back(4_000);
        assert_eq!(bucket.take(at(1_000), u64::MAX), 65_536 - 6_000);
    }

    #[test]
    fn a_change_is_not_paid_for_the_time_before_it() {
        let rate = 100_000_000;
        let bucket = Bucket::new(Some(rate));
        assert_eq!(bucket.take(at(1_000), u64::MAX), rate / 100);
        bucket.set_rate(Some(0));
        bucket.set_rate(Some(rate));
        assert_eq!(bucket.take(at(2_000), u64::MAX), 0, "the time until the change");
        assert_eq!(bucket.take(at(2_001), u64::MAX), rate / 1_000);
    }

    #[test]
    fn what_was_saved_at_a_higher_rate_is_not_spent_at_a_lower_one() {
        let bucket = Bucket::new(Some(100_000_000));
        assert_eq!(bucket.take(at(1_000), 1), 1);
        bucket.set_rate(Some(0));
        assert_eq!(bucket.take(at(1_000), u64::MAX), DEPTH_BYTES_MIN);
        assert_eq!(bucket.take(at(1_000), u64::MAX), 0);
    }

    #[test]
    fn zero_pauses_and_none_is_unlimited() {
        let bucket = Bucket::new(Some(0));
        assert_eq!(bucket.take(at(10_000), 1), 0);
        bucket.set_rate(None);
        assert_eq!(bucket.take(at(10_000), u64::MAX), u64::MAX);
    }

    #[test]
    fn one_address_cannot_take_every_connection() {
        let addresses = Addresses::new(1024);
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        assert!((0..3).all(|_| addresses.enter(address, 3)));
        assert!(!addresses.enter(address, 3));
        addresses.leave(address);
        assert!(addresses.enter(address, 3));
    }

    #[test]
    fn who_insists_comes_back_after_a_while_and_not_in_plain() {
        let refused = Refused::default();
        let [one, other]: [IpAddr; 2] = ["192.0.2.7", "2001:db8::7"].map(|text| text.parse().unwrap());
        assert!(!refused.insists(one, at(1_000)));
        assert!(!refused.insists(one, at(1_499)), "it may have been under way");
        assert!(!refused.insists(other, at(1_500)), "somebody else");
        assert!(refused.insists(one, at(1_500)));
        assert!(refused.insists(one, at(1_000 + INSISTS_FOR_MS)), "however often");
        assert!(!refused.insists(one, at(1_001 + INSISTS_FOR_MS)), "it is told again");
        assert!(refused.insists(one, at(3_000 + INSISTS_FOR_MS)));
        refused.forget(one);
        assert!(!refused.insists(one, at(4_000 + INSISTS_FOR_MS)));
        assert!(refused.insists(other, at(4_000)), "which is not forgotten");
    }
}
