//! A bitmap that one thread sets while others read it.

use std::ops::Range;

use crate::sync::{AtomicU64, Ordering};

/// Bits that only ever go from clear to set.
///
/// Setting is a `Release` and reading an `Acquire`: whoever sees a bit sees everything written before it was set.
#[derive(Debug)]
pub(crate) struct Bits {
    words: Box<[AtomicU64]>,
    count: u64,
}

impl Bits {
    /// `count` clear bits.
    pub(crate) fn clear(count: u64) -> Self {
        let words = (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Bits { words, count }
    }

    /// Whether bit `index` is set; bits past the end are clear.
    pub(crate) fn is_set(&self, index: u64) -> bool {
        index < self.count && self.word(index / 64) & (1 << (index % 64)) != 0
    }

    /// Sets the bits of `range`, and calls `newly` with the number of each word and the bits that were clear before.
    pub(crate) fn set(&self, range: Range<u64>, mut newly: impl FnMut(u64, u64)) {
        let end = range.end.min(self.count);
        let mut index = range.start;
        while index < end {
            let word = index / 64;
            let stop = end.min((word + 1) * 64);
            let mask = (u64::MAX >> (64 - (stop - index))) << (index % 64);
            if let Some(bits) = usize::try_from(word).ok().and_then(|word| self.words.get(word)) {
                let before = bits.fetch_or(mask, Ordering::AcqRel);
                newly(word, mask & !before);
            }
            index = stop;
        }
    }

    /// The first clear bit in `range`, or its end.
    pub(crate) fn first_clear(&self, range: Range<u64>) -> u64 {
        self.first(range, |word| !word)
    }

    /// The first set bit in `range`, or its end.
    pub(crate) fn first_set(&self, range: Range<u64>) -> u64 {
        self.first(range, |word| word)
    }

    fn first(&self, range: Range<u64>, wanted: impl Fn(u64) -> u64) -> u64 {
        let mut index = range.start;
        while index < range.end {
            let found = wanted(self.word(index / 64)) >> (index % 64);
            if found != 0 {
                return (index + u64::from(found.trailing_zeros())).min(range.end);
            }
            index = (index / 64 + 1) * 64;
        }
        range.end
    }

    fn word(&self, word: u64) -> u64 {
        let word = usize::try_from(word).ok().and_then(|word| self.words.get(word));
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ranges_across_words() {
        for (start, end) in [(0, 1), (0, 64), (63, 65), (1, 190), (64, 128), (199, 200), (0, 200), (7, 7)] {
            let bits = Bits::clear(200);
            let mut set = 0;
            bits.set(start..end, |_, newly| set += u64::from(newly.count_ones()));
            assert_eq!(set, end - start);
            for index in 0..300 {
                assert_eq!(bits.is_set(index), (start..end).contains(&index), "{index} of {start}..{end}");
            }
            assert_eq!(bits.first_clear(start..200), end.min(200));
            assert_eq!(bits.first_set(0..200), if start == end { 200 } else { start });
            bits.set(start..end, |_, newly| assert_eq!(newly, 0));
        }
    }
}
