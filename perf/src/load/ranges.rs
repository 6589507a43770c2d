//! Which part of a file an HTTP connection asks for next.

use super::{HttpLoad, Load, Order};
use crate::payload::{Sequence, mix};

/// Part of a file: the first byte and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) bytes: u64,
}

/// Which range comes next.
pub(super) struct Ranges {
    range_bytes: u64,
    length: u64,
    /// Ranges that are asked for, and how far they lie apart.
    count: u64,
    stride_bytes: u64,
    indices: Indices,
}

/// Ranges by number.
enum Indices {
    Sequential(u64),
    Random(Sequence),
    /// This connection's share of all.
    Once(std::vec::IntoIter<u64>),
}

impl Ranges {
    pub(super) fn new(load: &Load, http: &HttpLoad, number: u64) -> Self {
        let length = http.file.length;
        let range_bytes = http.range_bytes.clamp(1, length.max(1));
        let all = length.div_ceil(range_bytes).max(1);
        let count = http.ranges.map_or(all, |ranges| ranges.clamp(1, all));
        let connections = http.connections.max(1) as u64;
        Ranges {
            range_bytes,
            length,
            count,
            stride_bytes: all / count * range_bytes,
            indices: match load.order {
                Order::Sequential => Indices::Sequential(count * number / connections),
                Order::Random => Indices::Random(Sequence::new(load.seed, number)),
                Order::Once => Indices::Once(share(load.seed, count, number, connections).into_iter()),
            },
        }
    }

    /// `None` when each was asked for that should be.
    pub(super) fn next(&mut self) -> Option<Range> {
        let index = match &mut self.indices {
            Indices::Random(random) => random.next_below(self.count),
            Indices::Sequential(next) => {
                let after = (*next + 1) % self.count;
                std::mem::replace(next, after)
            }
            Indices::Once(indices) => indices.next()?,
        };
        let start = index % self.count * self.stride_bytes;
        Some(Range { start, bytes: self.range_bytes.min(self.length - start) })
    }
}

/// The numbers below `count` that fall to one connection, in an order of the seed: numbers are dealt out by their mixed value, and each
/// hand is sorted by it, so every number is in exactly one hand and no hand has an order on the disk.
fn share(seed: u64, count: u64, connection: u64, connections: u64) -> Vec<u64> {
    let key = |number: u64| mix(mix(seed) ^ number);
    let mut hand: Vec<u64> = (0..count).filter(|number| key(*number) % connections == connection).collect();
    hand.sort_unstable_by_key(|number| key(*number) / connections);
    hand
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Aborting;
    use super::*;
    use crate::server::HttpFile;

    fn load(order: Order, connections: usize, range_bytes: u64, length: u64) -> (Load, HttpLoad) {
        let file =
            HttpFile { address: "127.0.0.1:1".parse().unwrap(), host: "h".into(), path: "/f".into(), length };
        let http =
            HttpLoad { file, paths: Arc::default(), connections, range_bytes, ranges: None, rate: None };
        (
            Load {
                http: None,
                bittorrent: None,
                order,
                seed: 1,
                aborting: Aborting::default(),
                verify: None,
            },
            http,
        )
    }

    #[test]
    fn sequential_ranges_cover_the_file_with_a_short_one_at_its_end() {
        let (load, http) = load(Order::Sequential, 2, 100, 250);
        let mut ranges = Ranges::new(&load, &http, 1);
        let asked: Vec<_> = (0..3).filter_map(|_| ranges.next()).collect();
        let range = |start, bytes| Range { start, bytes };
        assert_eq!(asked, [range(100, 100), range(200, 50), range(0, 100)]);
    }

    #[test]
    fn random_ranges_stay_inside_and_reach_everything() {
        let (load, http) = load(Order::Random, 1, 100, 1050);
        let mut ranges = Ranges::new(&load, &http, 0);
        let mut seen = [false; 11];
        for _ in 0..500 {
            let Range { start, bytes } = ranges.next().unwrap();
            assert!(start % 100 == 0 && start + bytes <= 1050 && bytes > 0);
            seen[usize::try_from(start / 100).unwrap()] = true;
        }
        assert_eq!(seen, [true; 11]);
    }

    #[test]
    fn a_range_longer_than_the_file_is_the_file() {
        let (load, http) = load(Order::Random, 1, 1 << 20, 10);
        assert_eq!(Ranges::new(&load, &http, 0).next(), Some(Range { start: 0, bytes: 10 }));
    }

    #[test]
    fn each_range_once_is_each_range_once_and_in_no_order() {
        let (load, http) = load(Order::Once, 7, 100, 100_000);
        let all = (0..7).flat_map(|number| {
            let mut ranges = Ranges::new(&load, &http, number);
            std::iter::from_fn(move || ranges.next()).map(|range| range.start)
        });
        let mut all: Vec<u64> = all.collect();
        let ascents = all.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((300..700).contains(&ascents), "{ascents} of 999 steps go up");
        all.sort_unstable();
        assert!(all.iter().copied().eq((0..1000).map(|index| index * 100)));
    }

    #[test]
    fn a_few_ranges_are_spread_over_the_file() {
        let (load, http) = load(Order::Sequential, 1, 100, 1000);
        let mut ranges = Ranges::new(&load, &HttpLoad { ranges: Some(3), ..http }, 0);
        let starts: Vec<_> = (0..4).filter_map(|_| ranges.next()).map(|range| range.start).collect();
        assert_eq!(starts, [0, 300, 600, 0]);
    }
}
