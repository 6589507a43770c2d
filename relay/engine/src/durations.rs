//! How long things took, in buckets that `/metrics` shows as a histogram.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets, in microseconds; one more bucket takes what is longer.
const BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_500_000, 10_000_000,
    60_000_000,
];

/// Durations counted by length. Written with relaxed atomics, read by the control thread.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

impl Durations {
    /// Counts one duration, in nanoseconds.
    pub fn record_ns(&self, ns: u64) {
        let bucket = BOUNDS_US.partition_point(|bound_us| bound_us * 1_000 < ns);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// The upper bound of each bucket in microseconds (`None` for the last, which has none) and how many durations fell into it, those
    /// of smaller buckets not included.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = BOUNDS_US.iter().map(|bound| Some(*bound)).chain([None]);
        bounds.zip(self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)))
    }

    /// All durations together, in nanoseconds.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_whose_bound_it_does_not_exceed() {
        let durations = Durations::default();
        for ns in [0, 100_000, 100_001, 60_000_000_000, 60_000_000_001] {
            durations.record_ns(ns);
        }
        let filled: Vec<_> = durations.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(Some(100), 2), (Some(250), 1), (Some(60_000_000), 1), (None, 1)]);
        assert_eq!(durations.sum_ns(), 120_000_200_002);
    }
}
