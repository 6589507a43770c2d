//! What is due when, to a millisecond: a timing wheel, in which putting in and taking out cost the same however much is in it.

use std::collections::VecDeque;

/// A slot is 2^20 ns, which is 1.05 ms.
const SLOT_BITS: u32 = 20;

/// Over half a second; what is due later comes out at its end, and has to be put in again.
const SLOTS: u64 = 512;

#[derive(Debug)]
pub(super) struct Wheel<T> {
    slots: Box<[VecDeque<T>]>,
    /// A bit for each slot that is not empty.
    filled: [u64; (SLOTS / 64) as usize],
    count: usize,
    /// No slot before this one has anything in it.
    from: u64,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Wheel {
            slots: (0..SLOTS).map(|_| VecDeque::new()).collect(),
            filled: [0; (SLOTS / 64) as usize],
            count: 0,
            from: 0,
        }
    }
}

impl<T> Wheel<T> {
    /// Puts something in that is due at `at_ns`, but not before the next slot.
    pub(super) fn insert(&mut self, at_ns: u64, due: T) {
        let slot = at_ns.div_ceil(1 << SLOT_BITS).clamp(self.from + 1, self.from + SLOTS - 1);
        let (word, bit) = place(slot);
        self.filled[word] |= 1 << bit;
        self.count += 1;
        self.slots[word * 64 + bit].push_back(due);
    }

    /// Takes something out that is due, in the order of time.
    pub(super) fn next_due(&mut self, now_ns: u64) -> Option<T> {
        let now = now_ns >> SLOT_BITS;
        match self.first().filter(|first| *first <= now) {
            Some(first) => self.from = first,
            None => {
                self.from = self.from.max(now);
                return None;
            }
        }
        let (word, bit) = place(self.from);
        let slot = &mut self.slots[word * 64 + bit];
        let due = slot.pop_front();
        self.count -= usize::from(due.is_some());
        if slot.is_empty() {
            self.filled[word] &= !(1 << bit);
        }
        due
    }

    /// When something is due, in nanoseconds.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.first().map(|slot| slot << SLOT_BITS)
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.filled = [0; (SLOTS / 64) as usize];
        self.count = 0;
        self.slots.iter_mut().flat_map(|slot| slot.drain(..))
    }

    /// The first slot that is not empty.
    fn first(&self) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let (word, bit) = place(self.from);
        let words = self.filled.len();
        for step in 0..=words {
            let at = (word + step) % words;
            // Of the word where it begins, first what lies behind, at last what lies before.
            let mask = match step {
                0 => u64::MAX << bit,
                _ if step == words => !(u64::MAX << bit),
                _ => u64::MAX,
            };
            let found = self.filled[at] & mask;
            if found != 0 {
                let index = at as u64 * 64 + u64::from(found.trailing_zeros());
                return Some(self.from + (index + SLOTS - self.from % SLOTS) % SLOTS);
            }
        }
        None
    }
}

/// The word and the bit of a slot.
fn place(slot: u64) -> (usize, usize) {
    let index = usize::try_from(slot % SLOTS).unwrap_or(0);
    (index / 64, index % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn things_come_out_in_time_and_in_order() {
        let mut wheel = Wheel::default();
        let start = 3_600_000 * MS;
        assert_eq!(wheel.next_due(start), None);
        for ms in [7, 300, 7, 2, 499, 65, 90_000] {
            wheel.insert(start + ms * MS, ms);
        }
        let mut out = Vec::new();
        let mut now = start;
        while let Some(next_ns) = wheel.next_ns() {
            assert!(next_ns > now, "{next_ns} {now}");
            assert_eq!(wheel.next_due(next_ns - 1), None);
            now = next_ns;
            while let Some(ms) = wheel.next_due(now) {
                let late = now as i64 - (start + ms * MS) as i64;
                assert!(ms == 90_000 || (0..=2 * MS as i64).contains(&late), "{ms} ms came {late} ns late");
                out.push(ms);
            }
        }
        assert_eq!(out, [2, 7, 7, 65, 300, 499, 90_000], "and what is too far away came early");
        assert!(now < start + 600 * MS);
    }

    #[test]
    fn a_wheel_turns_for_ever() {
        let mut wheel = Wheel::default();
        let mut now = 0;
        for step in 0..10_000_u64 {
            wheel.insert(now + step % 400 * MS, step);
            now = wheel.next_ns().unwrap();
            assert_eq!(wheel.next_due(now), Some(step));
            assert_eq!(wheel.next_due(now), None);
            assert_eq!(wheel.next_ns(), None);
        }
        (0..100).for_each(|ms| wheel.insert(now + ms * MS, ms));
        assert_eq!(wheel.drain().count(), 100);
        assert_eq!((wheel.next_ns(), wheel.next_due(now + 1_000 * MS)), (None, None));
    }
}
