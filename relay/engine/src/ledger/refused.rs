//! Who insists on message stream encryption.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::addresses::hash;
use crate::ids::Now;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { monotonic_ns: ms * 1_000_000, unix_s: 0 }
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
