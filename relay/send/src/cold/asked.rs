//! What was asked for lately and was not in memory: who asks for it again while it is remembered here is taken for one of several, and
//! the bytes are worth a place in the page cache. No bytes are kept, only where they were.
//!
//! How long something counts as lately follows from what comes of it: bytes that were brought in and are gone again when they are asked
//! for next did not fit, and from then on less is brought in. So a workload larger than memory does not wash out what is worth keeping.

/// Unit in which is remembered.
const WINDOW_BYTES: u64 = 1 << 20;

/// Unit in which a window is asked for: a block of BitTorrent. Blocks that follow each other are not the same bytes again.
const GRAIN_BYTES: u64 = WINDOW_BYTES / u64::BITS as u64;

/// Windows remembered, a power of two: 512 KiB of memory for 16 GiB of files.
const WINDOWS: usize = 1 << 14;

/// Bytes read from the disk within which a second question counts as one: at most what can be remembered, at least a few reads' worth.
const REACH_BYTES_MAX: u64 = WINDOWS as u64 * WINDOW_BYTES;
const REACH_BYTES_MIN: u64 = 16 * WINDOW_BYTES;

/// Memory of one shard for what was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Made by the first question; a window has one place, and shares it with others.
    windows: Box<[Window]>,
    /// Bytes that were read from the disk in all.
    read_bytes: u64,
    reach_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    /// Of which file, and where.
    key: u64,
    /// The grains that were asked for.
    grains: u64,
    /// [`Asked::read_bytes`] at that time.
    at_bytes: u64,
    brought_in: bool,
}

impl Default for Asked {
    fn default() -> Self {
        Asked { windows: Box::default(), read_bytes: 0, reach_bytes: REACH_BYTES_MAX }
    }
}

impl Asked {
    /// Notes that `bytes` of a file from `offset` on are going to be read from the disk. Returns whether they were asked for lately and
    /// should be brought in. `file` is its [identity](millrace_pagecache::OpenFile::identity).
    pub(crate) fn note(&mut self, file: (u64, u64), offset: u64, bytes: u64) -> bool {
        if self.windows.is_empty() {
            self.windows = vec![Window::default(); WINDOWS].into_boxed_slice();
        }
        let end = offset.saturating_add(bytes);
        self.read_bytes = self.read_bytes.wrapping_add(bytes);
        let windows = offset / WINDOW_BYTES..end.div_ceil(WINDOW_BYTES);
        let (mut asked, mut again, mut wasted) = (0, 0, false);
        for number in windows.clone() {
            let grains = grains_of(number, offset, end);
            asked += grains.count_ones();
            let known = self.known(file, number);
            wasted |= known.brought_in && known.grains & grains != 0;
            if self.is_recent(known) {
                again += (known.grains & grains).count_ones();
            }
        }
        if wasted {
            self.reach_bytes = (self.reach_bytes - self.reach_bytes / 4).max(REACH_BYTES_MIN);
        }
        // What is smaller than a grain costs next to nothing to bring in, and may not be seen here at all.
        let bring_in = asked == 0 || (again * 2 >= asked && !wasted);
        if !bring_in {
            self.reach_bytes = (self.reach_bytes + bytes / 2).min(REACH_BYTES_MAX);
        }
        for number in windows {
            let known = self.known(file, number);
            let before = if self.is_recent(known) && !wasted { known } else { Window::default() };
            let grains = before.grains | grains_of(number, offset, end);
            let brought_in = bring_in || before.brought_in;
            let key = key(file, number);
            self.windows[place(key)] = Window { key, grains, at_bytes: self.read_bytes, brought_in };
        }
        bring_in
    }

    /// What is known of a window.
    fn known(&self, file: (u64, u64), number: u64) -> Window {
        let key = key(file, number);
        let window = self.windows[place(key)];
        if window.key == key { window } else { Window::default() }
    }

    /// Whether a window was asked for lately.
    fn is_recent(&self, window: Window) -> bool {
        self.read_bytes.wrapping_sub(window.at_bytes) <= self.reach_bytes
    }
}

/// The grains of window `number` that begin between `offset` and `end`, a bit for each. Those that only their end is asked for of are the
/// next reader's.
fn grains_of(number: u64, offset: u64, end: u64) -> u64 {
    let start = number * WINDOW_BYTES;
    let first = offset.saturating_sub(start).div_ceil(GRAIN_BYTES).min(64);
    let last = end.saturating_sub(start).div_ceil(GRAIN_BYTES).min(64);
    let below = |count: u64| if count >= 64 { u64::MAX } else { (1 << count) - 1 };
    below(last) & !below(first)
}

/// Tells windows apart; two that share a key are taken for one, which costs a bring-in.
fn key((device, inode): (u64, u64), number: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = [device, inode, number].into_iter().fold(0_u64, |mixed, part| {
        let mixed = (mixed ^ part).wrapping_mul(ODD);
        mixed ^ mixed >> 29
    });
    // 0 is the key of an empty place.
    mixed | 1 << 63
}

fn place(key: u64) -> usize {
    usize::try_from(key % WINDOWS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: (u64, u64) = (1, 2);
    const MIB: u64 = 1 << 20;

    #[test]
    fn the_second_question_for_the_same_bytes_brings_them_in() {
        let mut asked = Asked::default();
        assert!(!asked.note(FILE, 5 * MIB, MIB));
        assert!(!asked.note((1, 3), 5 * MIB, MIB), "another file");
        assert!(!asked.note(FILE, 7 * MIB, MIB), "another place");
        assert!(asked.note(FILE, 5 * MIB, MIB));
    }

    #[test]
    fn one_reader_that_goes_on_does_not_ask_again() {
        for step in [16_384, 100_000, MIB, 3 * MIB / 2] {
            let mut asked = Asked::default();
            for number in 0..200 {
                assert!(!asked.note(FILE, 777 + number * step, step), "step {step}, read {number}");
            }
            assert!(asked.note(FILE, 777 + 20 * step, step), "step {step}: somebody else");
        }
    }

    #[test]
    fn what_is_smaller_than_can_be_remembered_is_brought_in() {
        assert!(Asked::default().note(FILE, 100, 50));
    }

    #[test]
    fn a_workload_that_memory_cannot_hold_is_soon_read_past_it() {
        let mut asked = Asked::default();
        let brought_in_of = |asked: &mut Asked, round: u64| {
            (0..1_000).filter(|number| asked.note(FILE, (number * 7 + round) % 1_000 * MIB, MIB)).count()
        };
        assert_eq!(brought_in_of(&mut asked, 0), 0);
        // Everything is asked for again and again, and is never found in memory.
        let later: Vec<usize> = (1..8).map(|round| brought_in_of(&mut asked, round)).collect();
        // A few share a place with others.
        assert!(later[0] > 900, "{later:?}");
        assert!(later[6] < 50, "{later:?}");
    }

    #[test]
    fn what_did_not_fit_once_has_another_chance_later() {
        let mut asked = Asked::default();
        for _ in 0..100 {
            asked.note(FILE, 0, MIB);
        }
        assert!(asked.reach_bytes < 2 * REACH_BYTES_MIN);
        let new = 10_000;
        (1..new).for_each(|number| _ = asked.note(FILE, number * MIB, MIB));
        assert!(asked.note(FILE, (new - 200) * MIB, MIB), "{}", asked.reach_bytes);
    }
}
