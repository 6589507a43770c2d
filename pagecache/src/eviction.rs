//! Which contents make room for others.
//!
//! A pure choice over numbers: what was used least recently and least often goes first, and what nobody could pull
//! again, is pinned, or is on its way never goes. Files that several contents have are free when the last of these goes.

use millrace_proto::id::ContentId;

use crate::occupied::{Names, Occupied};

/// A content as eviction sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which content.
    pub id: ContentId,
    /// What it occupies in the store.
    pub occupied: Occupied,
    /// Whether it may go at all: complete, not pinned, and to be had from an origin again.
    pub evictable: bool,
    /// When it was last asked for, Unix seconds.
    pub last_used: u64,
    /// How often it was asked for.
    pub uses: u64,
}

/// What the disk and the configuration allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most bytes the store may occupy; `None` for no limit.
    pub capacity: Option<u64>,
    /// Bytes it occupies.
    pub used: u64,
    /// Bytes the file system has free.
    pub free: u64,
    /// Bytes that must stay free on the file system.
    pub free_floor: u64,
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// Of what the configuration allows.
    Capacity {
        /// What it allows, in bytes.
        capacity: u64,
        /// What contents occupy, in bytes.
        used: u64,
    },
    /// Of free space on the file system.
    Disk,
}

impl Budget {
    /// Bytes that must go before `wanted` more fit.
    #[must_use]
    pub fn excess(&self, wanted: u64) -> u64 {
        self.over_capacity(wanted).max(self.over_disk(wanted))
    }

    /// What keeps `wanted` more bytes from fitting; of both, what there is less of.
    #[must_use]
    pub fn shortage(&self, wanted: u64) -> Option<Shortage> {
        match (self.over_capacity(wanted), self.over_disk(wanted), self.capacity) {
            (0, 0, _) => None,
            (over, low, Some(capacity)) if over >= low => {
                Some(Shortage::Capacity { capacity, used: self.used })
            }
            _ => Some(Shortage::Disk),
        }
    }

    fn over_capacity(&self, wanted: u64) -> u64 {
        self.capacity.map_or(0, |capacity| self.used.saturating_add(wanted).saturating_sub(capacity))
    }

    fn over_disk(&self, wanted: u64) -> u64 {
        self.free_floor.saturating_add(wanted).saturating_sub(self.free)
    }
}

/// The contents to evict, in order, so that `wanted` more bytes fit. None where all of them together would not do: the
/// caller looks at the budget again. `candidates` are all contents of the store, those that may not go included: they
/// keep what they share.
///
/// A content that was asked for n times counts as n + 1 times as recently used: the time since its last use is divided
/// by n + 1, and the largest quotient goes first.
#[must_use]
pub fn choose(candidates: &[Candidate], budget: &Budget, wanted: u64, now: u64) -> Vec<ContentId> {
    let mut excess = budget.excess(wanted);
    let mut names = Names::default();
    for candidate in candidates {
        names.add(&candidate.occupied);
    }
    let mut ranked: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.evictable && candidate.occupied != Occupied::default())
        .collect();
    let idle = |candidate: &Candidate| {
        // Scaled, so that contents used in the same second are still told apart by their uses.
        (u128::from(now.saturating_sub(candidate.last_used)) + 1) * 1_000_000
            / (u128::from(candidate.uses) + 1)
    };
    ranked.sort_by_key(|candidate| (std::cmp::Reverse(idle(candidate)), candidate.id));
    let mut chosen = Vec::new();
    for candidate in ranked {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(names.remove(&candidate.occupied));
        chosen.push(candidate);
    }
    if excess > 0 {
        // An origin that promises more than can ever fit must not empty the store for nothing.
        chosen.clear();
    }
    // Nor does a content go for nothing, all of whose files stay with others.
    chosen.retain(|candidate| names.is_gone(&candidate.occupied));
    chosen.iter().map(|candidate| candidate.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_shortages_the_greater_is_named() {
        let budget = Budget { capacity: Some(100), used: 60, free: 50, free_floor: 10 };
        let capacity = Some(Shortage::Capacity { capacity: 100, used: 60 });
        let named = [40, 41, 1000].map(|wanted| budget.shortage(wanted));
        assert_eq!(named, [None, capacity, capacity]);
        let budget = Budget { free: 20, ..budget };
        assert_eq!(
            [10, 11, 1000].map(|wanted| budget.shortage(wanted)),
            [None, Some(Shortage::Disk), Some(Shortage::Disk)]
        );
        assert_eq!(Budget { capacity: None, ..budget }.shortage(11), Some(Shortage::Disk));
    }
    use crate::layout::FileIndex;
    use crate::occupied::SharedFile;

    fn content(name: u8, last_used: u64, uses: u64) -> Candidate {
        let occupied = Occupied { own_bytes: 10, shared: Vec::new() };
        Candidate { id: ContentId([name; 16]), occupied, evictable: true, last_used, uses }
    }

    /// A content that is nothing but a file which others have as well.
    fn sharing(name: u8, last_used: u64) -> Candidate {
        let shared = vec![SharedFile { file: FileIndex(0), id: (1, 1), bytes: 10 }];
        Candidate { occupied: Occupied { own_bytes: 0, shared }, ..content(name, last_used, 0) }
    }

    fn check(candidates: &[Candidate], wanted: u64, expected: &[u8]) {
        let budget = Budget { capacity: Some(40), used: 30, free: 1000, free_floor: 100 };
        let chosen: Vec<_> = choose(candidates, &budget, wanted, 1000).iter().map(|id| id.0[0]).collect();
        assert_eq!(chosen, expected);
    }

    #[test]
    fn the_least_recent_and_least_often_used_go_first() {
        let contents = [content(1, 900, 0), content(2, 100, 0), content(3, 100, 99)];
        check(&contents, 10, &[]);
        check(&contents, 11, &[2]);
        check(&contents, 25, &[2, 1]);
        check(&contents, 40, &[2, 1, 3]);
        check(&contents, 41, &[]);
        check(&contents, u64::MAX, &[]);
    }

    #[test]
    fn what_may_not_go_stays() {
        let pinned = Candidate { evictable: false, ..content(1, 0, 0) };
        check(&[pinned.clone(), content(2, 900, 50)], 20, &[2]);
        check(&[pinned, content(2, 900, 50)], 30, &[]);
    }

    #[test]
    fn what_is_shared_goes_with_the_last_who_has_it() {
        // Together they free 10, and the one used last decides when.
        check(&[sharing(1, 100), sharing(2, 200), content(3, 900, 0)], 20, &[1, 2]);
        check(&[sharing(1, 100), sharing(2, 900), content(3, 200, 0)], 20, &[3]);
        check(&[sharing(1, 100), sharing(2, 900), content(3, 200, 0)], 30, &[1, 3, 2]);
        let pinned = Candidate { evictable: false, ..sharing(2, 900) };
        check(&[sharing(1, 100), pinned.clone(), content(3, 200, 0)], 20, &[3]);
        check(&[sharing(1, 100), pinned, content(3, 200, 0)], 30, &[]);
    }

    #[test]
    fn the_floor_counts_even_without_a_capacity() {
        let budget = Budget { capacity: None, used: 0, free: 150, free_floor: 100 };
        assert_eq!(budget.excess(50), 0);
        assert_eq!(budget.excess(60), 10);
        assert_eq!(choose(&[content(7, 0, 0)], &budget, 60, 1), [ContentId([7; 16])]);
    }
}
