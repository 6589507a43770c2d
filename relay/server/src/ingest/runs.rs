//! A set of bytes as runs that neither overlap nor touch.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of offsets, kept as the fewest runs.
#[derive(Debug, Default, Clone)]
pub struct Runs {
    /// End of each run by its start.
    ends: BTreeMap<u64, u64>,
    /// How many offsets that is.
    bytes: u64,
}

impl Runs {
    /// Adds the offsets of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&found, &found_end)) = self.ends.range(..=end).next_back() {
            if found_end < start {
                break;
            }
            self.ends.remove(&found);
            self.bytes -= found_end - found;
            start = start.min(found);
            end = end.max(found_end);
        }
        self.ends.insert(start, end);
        self.bytes += end - start;
    }

    /// Takes the offsets of `range` away.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&found, &found_end)) = self.ends.range(..range.end).next_back() {
            if found_end <= range.start {
                break;
            }
            self.ends.remove(&found);
            self.bytes -= found_end.min(range.end) - found.max(range.start);
            if found_end > range.end {
                self.ends.insert(range.end, found_end);
            }
            if found < range.start {
                self.ends.insert(found, range.start);
            }
        }
    }

    /// The first offset from `at` on that is not in the set.
    #[must_use]
    pub fn end_of_run(&self, at: u64) -> u64 {
        self.ends.range(..=at).next_back().map_or(at, |(_, &end)| end.max(at))
    }

    /// Where the gap around `at`, which is not in the set, begins.
    #[must_use]
    pub fn start_of_gap(&self, at: u64) -> u64 {
        self.ends.range(..=at).next_back().map_or(0, |(_, &end)| end.min(at))
    }

    /// Where the gap around `at`, which is not in the set, ends; `u64::MAX` behind the last run.
    #[must_use]
    pub fn end_of_gap(&self, at: u64) -> u64 {
        self.ends.range(at..).next().map_or(u64::MAX, |(&start, _)| start)
    }

    /// The runs in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ends.iter().map(|(&start, &end)| start..end)
    }

    /// How many offsets the set has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(runs: &Runs, model: &[bool]) {
        let inside = |at: u64| model[usize::try_from(at).unwrap()];
        let length = u64::try_from(model.len()).unwrap();
        let mut last = None;
        for run in runs.iter() {
            assert!(!run.is_empty() && last.is_none_or(|last| run.start > last), "{runs:?}");
            last = Some(run.end);
        }
        assert_eq!(runs.bytes(), u64::try_from(model.iter().filter(|is| **is).count()).unwrap());
        for at in 0..length {
            let end = (at..length).find(|at| !inside(*at)).unwrap_or(length);
            assert_eq!(runs.end_of_run(at), end);
            if !inside(at) {
                assert_eq!(runs.start_of_gap(at), (0..at).rfind(|at| inside(*at)).map_or(0, |at| at + 1));
                assert_eq!(runs.end_of_gap(at), (at..length).find(|at| inside(*at)).unwrap_or(u64::MAX));
            }
        }
    }

    #[test]
    fn behaves_like_a_row_of_flags() {
        let mut runs = Runs::default();
        let mut model = [false; 24];
        let mut state = 7_u32;
        for _ in 0..4_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (a, b) = ((state >> 8) % 24, (state >> 16) % 25);
            let (start, end) = (a.min(b), a.max(b));
            let add = state >> 31 == 0;
            match add {
                true => runs.insert(u64::from(start)..u64::from(end)),
                false => runs.remove(u64::from(start)..u64::from(end)),
            }
            (start..end).for_each(|at| model[usize::try_from(at).unwrap()] = add);
            check(&runs, &model);
        }
    }
}
