//! How many connections each address has.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

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
pub(super) fn hash(address: IpAddr) -> u64 {
    let key = match address {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            u64::from(a) << 48 | u64::from(b) << 32 | u64::from(c) << 16 | u64::from(d)
        }
    };
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_every_connection() {
        let addresses = Addresses::new(1024);
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        assert!((0..3).all(|_| addresses.enter(address, 3)));
        assert!(!addresses.enter(address, 3));
        addresses.leave(address);
        assert!(addresses.enter(address, 3));
    }
}
