//! Files kept between sends, and what was learnt about them. The store closes a file when nobody holds it, and opening and mapping it
//! anew for every batch would cost more than sending does; so would asking the kernel before each 16 KiB.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use millrace_engine::ids::Now;
use millrace_pagecache::OpenFile;
use millrace_pagecache::disk::residency::resident;

use crate::calls;

/// Files kept at most where nobody says how many descriptors there are.
const FILES_MAX: usize = 256;

/// A file is closed when nothing was sent from it for this long, or up to twice as long.
const IDLE_NS: u64 = 1_000_000_000;

/// Unit in which is asked, as long as all of it is in memory.
const WINDOW_BYTES: u64 = 256 * 1024;

/// Unit in which is remembered what was found in memory, 16 of them in a window: where files are in memory in bits and pieces, what was
/// asked for is remembered for itself.
const BLOCK_BYTES: u64 = 16 * 1024;

/// All blocks of a window.
const BLOCKS_ALL: u32 = (1 << (WINDOW_BYTES / BLOCK_BYTES)) - 1;

/// How long a window counts as in memory. The kernel reclaims what was not used for longer, unless it is pressed hard; then a shard
/// waits for the disk, for less than a window, once.
const RESIDENT_MS: u64 = 1_000;

/// How long it does for a send of a window or more, which would make the shard wait longer, and for which asking costs less.
const LARGE_MS: u64 = 100;

/// The files that were sent from lately.
#[derive(Debug)]
pub(crate) struct KeptFiles {
    files: Vec<Kept>,
    /// The place in `files` of the file at each address, at which there is no other as long as it is kept.
    places: HashMap<usize, usize>,
    /// The place that was looked up last.
    last: usize,
    /// Those of more contents than this, sent from at the same time, are opened more often.
    files_max: usize,
    /// Which file makes room for the next one.
    hand: usize,
    /// When idle files are closed next, in monotonic nanoseconds.
    close_at_ns: u64,
    /// The loop that is under way, and when it began.
    turn: u64,
    now_ms: u64,
}

#[derive(Debug)]
struct Kept {
    file: Arc<OpenFile>,
    used: bool,
    /// The loop in which it was last seen unchanged.
    unchanged_in: Option<u64>,
    /// What is known of each window; as many as were needed so far.
    windows: Vec<Window>,
    /// Until when memory for this file counts as scarce, as a range of it was not there: in monotonic milliseconds.
    scarce_until_ms: u64,
}

/// What was last seen of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Window {
    /// When the first of the blocks was asked about, in monotonic milliseconds.
    at_ms: u64,
    /// The blocks that were found in memory since, a bit each.
    blocks: u32,
}

impl Kept {
    /// Whether all blocks of a range were found in memory less than `known_ms` ago.
    fn remembers(&self, offset: u64, bytes: u64, now_ms: u64, known_ms: u64) -> bool {
        let blocks = offset / BLOCK_BYTES..(offset + bytes).div_ceil(BLOCK_BYTES);
        by_window(blocks).all(|(number, wanted)| {
            let window = usize::try_from(number).ok().and_then(|number| self.windows.get(number));
            window.is_some_and(|window| window.blocks & wanted == wanted && now_ms < window.at_ms + known_ms)
        })
    }

    /// A range was found in memory: remembers the blocks that are wholly in it.
    fn remember(&mut self, start: u64, end: u64, now_ms: u64, known_ms: u64) {
        let end_block = if end == self.file.bytes() { end.div_ceil(BLOCK_BYTES) } else { end / BLOCK_BYTES };
        for (number, found) in by_window(start.div_ceil(BLOCK_BYTES)..end_block) {
            let Ok(number) = usize::try_from(number) else { return };
            if self.windows.len() <= number {
                self.windows.resize(number + 1, Window::default());
            }
            let window = &mut self.windows[number];
            if found == BLOCKS_ALL || now_ms >= window.at_ms + known_ms {
                *window = Window { at_ms: now_ms, blocks: 0 };
            }
            window.blocks |= found;
        }
    }
}

/// The windows that a run of blocks lies in, and which blocks of each, a bit for each block.
fn by_window(blocks: Range<u64>) -> impl Iterator<Item = (u64, u32)> {
    const BLOCKS: u64 = WINDOW_BYTES / BLOCK_BYTES;
    let windows = if blocks.is_empty() { 0..0 } else { blocks.start / BLOCKS..blocks.end.div_ceil(BLOCKS) };
    windows.map(move |number| {
        let first = blocks.start.saturating_sub(number * BLOCKS);
        let end = (blocks.end - number * BLOCKS).min(BLOCKS);
        (number, (1 << end) - (1 << first))
    })
}

impl Default for KeptFiles {
    fn default() -> Self {
        KeptFiles::new(FILES_MAX)
    }
}

impl KeptFiles {
    /// Keeps at most `files_max` files, at least one.
    pub(crate) fn new(files_max: usize) -> Self {
        KeptFiles {
            files: Vec::new(),
            places: HashMap::new(),
            last: 0,
            files_max: files_max.max(1),
            hand: 0,
            close_at_ns: 0,
            turn: 0,
            now_ms: 0,
        }
    }

    /// Whether `file` is as it was when it was imported, asked once a loop; keeps it until it has not been used for a while.
    pub(crate) fn lease(&mut self, file: &Arc<OpenFile>) -> bool {
        let turn = self.turn;
        let kept = self.kept(file);
        kept.used = true;
        if kept.unchanged_in != Some(turn) {
            if !kept.file.unchanged().unwrap_or(false) {
                return false;
            }
            kept.unchanged_in = Some(turn);
        }
        true
    }

    /// Whether a range of `file` is in memory, as far as anybody can tell; `false` where the kernel does not. The whole windows around it
    /// are asked about, then the blocks, and remembered, unless there is more to wait for than they are worth.
    pub(crate) fn resident(&mut self, file: &Arc<OpenFile>, offset: u64, bytes: u64) -> bool {
        let now_ms = self.now_ms;
        let kept = self.kept(file);
        let known_ms = match bytes >= WINDOW_BYTES {
            // What comes goes again soon, and a shard that waits for it makes everybody wait.
            true if now_ms < kept.scarce_until_ms => 0,
            true => LARGE_MS,
            false => RESIDENT_MS,
        };
        if kept.remembers(offset, bytes, now_ms, known_ms) {
            return true;
        }
        let file_bytes = file.bytes();
        let mut asked = None;
        for unit in [WINDOW_BYTES, BLOCK_BYTES, 1] {
            // The last one is as long as the file: there is no page behind its end.
            let start = offset - offset % unit;
            let end = file_bytes.min((offset + bytes).next_multiple_of(unit));
            if start >= end || asked == Some((start, end)) {
                continue;
            }
            asked = Some((start, end));
            calls::note();
            if resident(file.file(), start, end - start) == Some(true) {
                kept.remember(start, end, now_ms, known_ms);
                return true;
            }
        }
        kept.scarce_until_ms = now_ms + RESIDENT_MS;
        false
    }

    fn kept(&mut self, file: &Arc<OpenFile>) -> &mut Kept {
        let address = Arc::as_ptr(file).addr();
        // Most often it is the one that was asked about last.
        if !self.files.get(self.last).is_some_and(|kept| Arc::ptr_eq(&kept.file, file)) {
            self.last = self.places.get(&address).copied().unwrap_or_else(|| self.keep(address, file));
        }
        &mut self.files[self.last]
    }

    /// Keeps a file, in the place of another where there are as many as may be.
    fn keep(&mut self, address: usize, file: &Arc<OpenFile>) -> usize {
        let file = Arc::clone(file);
        let kept = Kept { file, used: true, unchanged_in: None, windows: Vec::new(), scarce_until_ms: 0 };
        let place = if self.files.len() < self.files_max {
            self.files.push(kept);
            self.files.len() - 1
        } else {
            self.hand = (self.hand + 1) % self.files.len();
            self.places.remove(&Arc::as_ptr(&self.files[self.hand].file).addr());
            self.files[self.hand] = kept;
            self.hand
        };
        self.places.insert(address, place);
        place
    }

    /// When [`begin_turn`](KeptFiles::begin_turn) has something to do, in monotonic nanoseconds.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        (!self.files.is_empty()).then_some(self.close_at_ns)
    }

    /// A loop begins. When it is time, lets go of the files that were not used since the last time.
    pub(crate) fn begin_turn(&mut self, now: Now) {
        self.turn += 1;
        self.now_ms = now.monotonic_ms();
        if now.monotonic_ns >= self.close_at_ns {
            self.close_at_ns = now.monotonic_ns + IDLE_NS;
            let before = self.files.len();
            self.files.retain_mut(|kept| std::mem::take(&mut kept.used));
            if self.files.len() < before {
                let addresses = self.files.iter().map(|kept| Arc::as_ptr(&kept.file).addr());
                self.places = addresses.zip(0..).collect();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_pagecache::{FileIndex, NewContent, Options, Store};
    use millrace_proto::id::ContentId;

    use super::*;

    fn at(second: u64) -> Now {
        Now { monotonic_ns: second * 1_000_000_000, unix_s: 0 }
    }

    #[test]
    fn as_many_files_as_may_be_are_kept_until_they_lie_idle() {
        let folder = std::env::temp_dir().join(format!("millrace-kept-{}", std::process::id()));
        let store = Store::open(&folder, Options::default()).unwrap();
        let files = [1, 2, 3].map(|number| {
            let new =
                NewContent::single_of_length(ContentId([number; 16]), "x", 10, 16_384, "\"e\"").unwrap();
            store.add(new).unwrap().file(FileIndex(0)).unwrap()
        });
        let holders = || files.each_ref().map(|file| Arc::strong_count(file) - 1);
        let mut kept = KeptFiles::new(2);
        kept.begin_turn(at(1));
        for _ in 0..2 {
            assert!(files.iter().all(|file| kept.lease(file)));
            assert_eq!((kept.files.len(), kept.places.len(), holders().iter().sum::<usize>()), (2, 2, 2));
        }
        kept.begin_turn(at(2));
        let [one, other] = [0, 1].map(|place| Arc::clone(&kept.files[place].file));
        assert!(kept.lease(&other));
        kept.begin_turn(at(3));
        assert!(kept.lease(&other), "used since, so still there, in another place");
        assert_eq!((kept.files.len(), Arc::strong_count(&one), Arc::strong_count(&other)), (1, 2, 3));
        drop((one, other));
        kept.begin_turn(at(4));
        kept.begin_turn(at(5));
        assert_eq!((holders(), kept.places.len()), ([0; 3], 0));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_was_found_in_memory_is_remembered_to_the_end_of_the_file() {
        let folder = std::env::temp_dir().join(format!("millrace-kept-end-{}", std::process::id()));
        let store = Store::open(&folder, Options::default()).unwrap();
        if !millrace_pagecache::disk::residency::probe_works(&folder).unwrap() {
            use std::io::Write as _;
            writeln!(std::io::stderr(), "skipped: cachestat does not work in {}", folder.display()).ok();
            return;
        }
        let new = NewContent::single_of_length(ContentId([1; 16]), "x", 300_000, 16_384, "\"e\"").unwrap();
        let file = store.add(new).unwrap().file(FileIndex(0)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(file.file(), &[1; 300_000], 0).unwrap();
        let mut kept = KeptFiles::new(1);
        kept.begin_turn(at(1));
        assert!(kept.resident(&file, 290_000, 10_000) && kept.resident(&file, 0, 10));
        let whole = Window { at_ms: 1_000, blocks: BLOCKS_ALL };
        assert_eq!(kept.files[0].windows, [whole, Window { blocks: 0b111, ..whole }]);
        let asked = |kept: &mut KeptFiles, ms: u64, offset, bytes| {
            kept.begin_turn(Now { monotonic_ns: ms * 1_000_000, unix_s: 0 });
            let (calls, resident) = calls::counted(|| kept.resident(&file, offset, bytes));
            assert!(resident);
            calls
        };
        assert_eq!(asked(&mut kept, 1_000 + LARGE_MS - 1, 0, 300_000), 0, "seen a moment ago");
        assert_eq!(asked(&mut kept, 1_000 + LARGE_MS, 0, 300_000), 1, "too long ago for so much");
        assert_eq!(asked(&mut kept, 1_000 + LARGE_MS, 0, 300_000), 0);
        assert_eq!(asked(&mut kept, LARGE_MS + 999 + RESIDENT_MS, 290_000, 10_000), 0);
        assert_eq!(asked(&mut kept, LARGE_MS + 1_000 + RESIDENT_MS, 290_000, 10_000), 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn blocks_in_memory_are_remembered_beside_holes() {
        let folder = std::env::temp_dir().join(format!("millrace-kept-holes-{}", std::process::id()));
        let store = Store::open(&folder, Options::default()).unwrap();
        if !millrace_pagecache::disk::residency::probe_works(&folder).unwrap() {
            use std::io::Write as _;
            writeln!(std::io::stderr(), "skipped: cachestat does not work in {}", folder.display()).ok();
            return;
        }
        let new = NewContent::single_of_length(ContentId([1; 16]), "x", 1 << 20, 16_384, "\"e\"").unwrap();
        let file = store.add(new).unwrap().file(FileIndex(0)).unwrap();
        let write = |offset, bytes: usize| {
            std::os::unix::fs::FileExt::write_all_at(file.file(), &vec![1; bytes], offset).unwrap();
        };
        write(3 * BLOCK_BYTES, 16_384);
        write(15 * BLOCK_BYTES, 2 * 16_384);
        write(2 * WINDOW_BYTES, 2 * 256 * 1024);
        let mut kept = KeptFiles::new(1);
        let mut asked = |ms: u64, offset, bytes| {
            kept.begin_turn(Now { monotonic_ns: ms * 1_000_000, unix_s: 0 });
            calls::counted(|| kept.resident(&file, offset, bytes))
        };
        assert_eq!(asked(5_000, 3 * BLOCK_BYTES, BLOCK_BYTES), (2, true), "the window, then the block");
        assert_eq!(asked(5_400, 3 * BLOCK_BYTES + 5, 100), (0, true), "of it");
        assert_eq!(asked(5_400, 4 * BLOCK_BYTES - 1, 2), (3, false), "a hole behind it");
        assert_eq!(asked(5_500, 15 * BLOCK_BYTES, 2 * BLOCK_BYTES), (2, true), "in two windows");
        assert_eq!(asked(5_900, 15 * BLOCK_BYTES, BLOCK_BYTES), (0, true));
        assert_eq!(
            asked(6_000, 15 * BLOCK_BYTES, BLOCK_BYTES),
            (2, true),
            "as old as the oldest in its window"
        );
        assert_eq!(asked(6_001, 3 * BLOCK_BYTES, BLOCK_BYTES), (2, true), "forgotten with it");
        assert_eq!(asked(6_001, 16 * BLOCK_BYTES, BLOCK_BYTES), (0, true), "the other window is younger");
        // A hole was found at 5,400.
        let calls = [6_002, 6_003, 6_400, 6_401].map(|ms| asked(ms, 2 * WINDOW_BYTES, WINDOW_BYTES).0);
        assert_eq!(calls, [1, 1, 1, 0], "while memory is scarce, much is asked about each time");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
