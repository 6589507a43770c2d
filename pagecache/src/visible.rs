//! Which bytes of a content may be served.
//!
//! A bit for each block says that all of it may be; up to 64 lanes say how far the blocks have come that are being
//! written, so that a reader follows a pull byte by byte. What is visible never becomes invisible.

use std::ops::Range;

use crate::bits::Bits;
use crate::sync::{AtomicU64, Ordering};

/// How far ahead of the offset [`Visible::until`] looks, in bytes: it bounds the call to 64 words of the bitmap.
pub const SCAN_BYTES_MAX: u64 = 64 << 20;

/// Blocks that can be half written at one time.
pub const LANES: usize = 64;

/// Length of a growing content whose end is not known.
const UNKNOWN: u64 = u64::MAX;

/// The visible bytes of a content.
///
/// Every change is a `Release` after the bytes were written and every look an `Acquire`: a reader that is told of
/// bytes sees them. Each block has one writer at a time; the caller (ingest) sees to that.
#[derive(Debug)]
pub struct Visible(Kind);

#[derive(Debug)]
enum Kind {
    /// All bytes, of this many.
    Whole(u64),
    Blocks(Box<Blocks>),
    Growing(Frontier),
}

#[derive(Debug)]
struct Blocks {
    length: u64,
    block_bytes: u64,
    bits: Bits,
    /// Bytes of the blocks whose bit is set.
    whole_bytes: AtomicU64,
    /// Block number (upper 32 bits) and how many of its first bytes are visible (lower 32). No bytes: never used.
    lanes: [AtomicU64; LANES],
    /// The lanes that a writer holds.
    held: AtomicU64,
}

#[derive(Debug)]
struct Frontier {
    visible: AtomicU64,
    end: AtomicU64,
}

/// The right to reveal bytes one run after the other; see [`Visible::open_lane`].
#[derive(Debug)]
pub struct Lane {
    slot: usize,
    at: u64,
}

impl Lane {
    /// The offset up to which this lane has revealed.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }
}

impl Visible {
    /// A content of `length` bytes (at most 16 TiB), none of them visible; `block_bytes` as
    /// [`crate::Layout::block_bytes`] says.
    #[must_use]
    pub fn blocks(length: u64, block_bytes: u64) -> Self {
        Visible(Kind::Blocks(Box::new(Blocks {
            length,
            block_bytes,
            bits: Bits::clear(length.div_ceil(block_bytes)),
            whole_bytes: AtomicU64::new(0),
            lanes: std::array::from_fn(|_| AtomicU64::new(0)),
            held: AtomicU64::new(0),
        })))
    }

    /// A content of `length` bytes, all of them visible.
    #[must_use]
    pub fn whole(length: u64) -> Self {
        Visible(Kind::Whole(length))
    }

    /// A content of unknown length that is written from its start.
    #[must_use]
    pub fn growing() -> Self {
        Visible(Kind::Growing(Frontier { visible: AtomicU64::new(0), end: AtomicU64::new(UNKNOWN) }))
    }

    /// End of the visible bytes that begin at `offset`: at most `limit` and [`SCAN_BYTES_MAX`] further, `offset` itself
    /// when that byte is not visible. Takes no lock and reads at most 65 words and the lanes.
    #[must_use]
    pub fn until(&self, offset: u64, limit: u64) -> u64 {
        let limit = limit.min(offset.saturating_add(SCAN_BYTES_MAX));
        let reach = match &self.0 {
            Kind::Whole(length) => limit.min(*length),
            Kind::Growing(frontier) => limit.min(frontier.visible.load(Ordering::Acquire)),
            Kind::Blocks(blocks) => blocks.until(offset, limit.min(blocks.length)),
        };
        reach.max(offset)
    }

    /// Makes the blocks that lie wholly in `range` visible, the last and shorter one included. The bytes are written.
    pub fn reveal(&self, range: Range<u64>) {
        if let Kind::Blocks(blocks) = &self.0 {
            blocks.reveal(range);
        }
    }

    /// Makes everything below `end` of a growing content visible. The bytes are written; there is one writer.
    pub fn grow_to(&self, end: u64) {
        if let Kind::Growing(frontier) = &self.0 {
            frontier.visible.fetch_max(end, Ordering::AcqRel);
        }
    }

    /// Says that a growing content ends where it has come to.
    pub fn end_growth(&self) {
        if let Kind::Growing(frontier) = &self.0 {
            frontier.end.store(frontier.visible.load(Ordering::Acquire), Ordering::Release);
        }
    }

    /// Bytes of the content; `None` while nobody knows.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match &self.0 {
            Kind::Whole(length) => Some(*length),
            Kind::Blocks(blocks) => Some(blocks.length),
            Kind::Growing(frontier) => match frontier.end.load(Ordering::Acquire) {
                UNKNOWN => None,
                end => Some(end),
            },
        }
    }

    /// Whether this is a content whose length was not known from the start.
    #[must_use]
    pub fn is_growing(&self) -> bool {
        matches!(self.0, Kind::Growing(_))
    }

    /// How many bytes are visible.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match &self.0 {
            Kind::Whole(length) => *length,
            Kind::Growing(frontier) => frontier.visible.load(Ordering::Acquire),
            Kind::Blocks(blocks) => blocks.bytes(),
        }
    }

    /// Whether any byte of `range` is visible: such a range must not be written.
    #[must_use]
    pub fn intersects(&self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return false;
        }
        match &self.0 {
            Kind::Whole(length) => range.start < *length,
            Kind::Growing(frontier) => range.start < frontier.visible.load(Ordering::Acquire),
            Kind::Blocks(blocks) => blocks.intersects(range),
        }
    }

    /// Takes a lane that reveals bytes from `start` on, as they are written. `start` is the beginning of a block, or
    /// exactly where a closed lane stopped inside one. `None` when it is neither, when all lanes are held, or for a
    /// growing content (which has [`Visible::grow_to`]).
    #[must_use]
    pub fn open_lane(&self, start: u64) -> Option<Lane> {
        match &self.0 {
            Kind::Blocks(blocks) if start <= blocks.length => blocks.open_lane(start),
            _ => None,
        }
    }

    /// Makes the bytes from where the lane has come up to `to` visible. They are written.
    pub fn advance(&self, lane: &mut Lane, to: u64) {
        if let Kind::Blocks(blocks) = &self.0 {
            blocks.advance(lane, to.min(blocks.length));
        }
    }

    /// Gives the lane back. What it revealed of a block stays visible, and a later lane goes on from there.
    pub fn close_lane(&self, lane: Lane) {
        if let Kind::Blocks(blocks) = &self.0 {
            blocks.held.fetch_and(!(1 << lane.slot), Ordering::AcqRel);
        }
    }
}

impl Blocks {
    fn until(&self, offset: u64, limit: u64) -> u64 {
        if offset >= limit {
            return offset;
        }
        let end = limit.div_ceil(self.block_bytes);
        let mut block = offset / self.block_bytes;
        loop {
            block = self.bits.first_clear(block..end);
            if block >= end {
                return limit;
            }
            if let Some(bytes) = self.partial(block) {
                return limit.min(block * self.block_bytes + bytes);
            }
            // A lane sets the bit before it moves on to the next block. Not finding the block in any lane therefore
            // means that the bit may be set by now, and the look into the lanes made it visible here. Without this
            // second look the answer could be less than one given before.
            if !self.bits.is_set(block) {
                return limit.min(block * self.block_bytes);
            }
        }
    }

    fn reveal(&self, range: Range<u64>) {
        let start = range.start.div_ceil(self.block_bytes);
        let end = match range.end >= self.length {
            true => self.length.div_ceil(self.block_bytes),
            false => range.end / self.block_bytes,
        };
        if start < end {
            self.set(start..end);
        }
    }

    fn set(&self, blocks: Range<u64>) {
        let last = self.length.div_ceil(self.block_bytes) - 1;
        let mut bytes = 0;
        self.bits.set(blocks, |word, newly| {
            bytes += u64::from(newly.count_ones()) * self.block_bytes;
            if last / 64 == word && newly & (1 << (last % 64)) != 0 {
                bytes -= (last + 1) * self.block_bytes - self.length;
            }
        });
        self.whole_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Visible bytes at the beginning of a block whose bit is not set.
    fn partial(&self, block: u64) -> Option<u64> {
        let lanes = self.lanes.iter().map(|lane| unpack(lane.load(Ordering::Acquire)));
        lanes.filter(|&(of, bytes)| of == block && bytes > 0).map(|(_, bytes)| bytes).max()
    }

    fn bytes(&self) -> u64 {
        // The lanes are not worth a look when all is there, which is so of most contents at most times.
        let whole_bytes = self.whole_bytes.load(Ordering::Relaxed);
        if whole_bytes == self.length {
            return whole_bytes;
        }
        let lanes = self.lanes.iter().map(|lane| unpack(lane.load(Ordering::Acquire)));
        let partial: u64 = lanes.filter(|&(block, _)| !self.bits.is_set(block)).map(|(_, bytes)| bytes).sum();
        self.whole_bytes.load(Ordering::Relaxed) + partial
    }

    fn intersects(&self, range: Range<u64>) -> bool {
        let (first, end) = (range.start / self.block_bytes, range.end.div_ceil(self.block_bytes));
        let partial = |lane: &AtomicU64| {
            let (block, bytes) = unpack(lane.load(Ordering::Acquire));
            let start = block * self.block_bytes;
            bytes > 0 && range.start < start + bytes && range.end > start
        };
        self.bits.first_set(first..end) < end || self.lanes.iter().any(partial)
    }

    fn open_lane(&self, start: u64) -> Option<Lane> {
        let (block, into) = (start / self.block_bytes, start % self.block_bytes);
        for slot in 0..LANES {
            if self.held.fetch_or(1 << slot, Ordering::AcqRel) & (1 << slot) != 0 {
                continue;
            }
            let (of, bytes) = unpack(self.lanes[slot].load(Ordering::Acquire));
            let idle = bytes == 0 || self.bits.is_set(of);
            let fits = if into == 0 { idle } else { of == block && bytes == into };
            if fits {
                return Some(Lane { slot, at: start });
            }
            self.held.fetch_and(!(1 << slot), Ordering::AcqRel);
        }
        None
    }

    fn advance(&self, lane: &mut Lane, to: u64) {
        if to <= lane.at {
            return;
        }
        let (first, mut end) = (lane.at / self.block_bytes, to / self.block_bytes);
        let mut into = to % self.block_bytes;
        if to == self.length && into != 0 {
            (end, into) = (end + 1, 0);
        }
        // The whole blocks first: see `until`.
        if first < end {
            self.set(first..end);
        }
        if into != 0 {
            self.lanes[lane.slot].store(pack(end, into), Ordering::Release);
        }
        lane.at = to;
    }
}

/// Both halves fit: a layout has fewer than 2³² pieces, 2³⁰ blocks, and a block less than 2³² bytes.
fn pack(block: u64, bytes: u64) -> u64 {
    debug_assert!(block >> 32 == 0 && bytes >> 32 == 0);
    block << 32 | bytes
}

fn unpack(lane: u64) -> (u64, u64) {
    (lane >> 32, lane & u64::from(u32::MAX))
}

#[cfg(all(test, loom))]
mod loom_tests {
    //! `RUSTFLAGS="--cfg loom" cargo test -p millrace-pagecache --lib --release loom`
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn what_a_lane_revealed_stays_visible() {
        loom::model(|| {
            let shared = Arc::new(Visible::blocks(8, 2));
            let writer = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut lane = shared.open_lane(0).unwrap();
                    for to in [1, 3, 4] {
                        shared.advance(&mut lane, to);
                    }
                })
            };
            let first = shared.until(0, 8);
            let second = shared.until(0, 8);
            assert!(first <= second, "{first} then {second}");
            writer.join().unwrap();
            assert_eq!(shared.until(0, 8), 4);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// 100 blocks of 10 bytes, the last of 5.
    fn blocks() -> Visible {
        Visible::blocks(995, 10)
    }

    #[test]
    fn a_lane_shows_bytes_as_they_come() {
        let visible = blocks();
        let mut lane = visible.open_lane(20).unwrap();
        for (to, bytes) in [(25, 5), (30, 10), (31, 11), (57, 37)] {
            visible.advance(&mut lane, to);
            assert_eq!((visible.until(20, 995), visible.bytes()), (to, bytes));
        }
        assert_eq!(visible.until(0, 995), 0);
        assert!(visible.intersects(56..58) && !visible.intersects(57..60) && !visible.intersects(0..20));
        visible.close_lane(lane);
        assert_eq!(visible.until(20, 995), 57, "what a lane left stays visible");
        assert!(visible.open_lane(56).is_none() && visible.open_lane(58).is_none());
        let mut lane = visible.open_lane(57).unwrap();
        visible.advance(&mut lane, 995);
        assert_eq!((visible.until(20, u64::MAX), visible.bytes()), (995, 975));
    }

    #[test]
    fn whole_blocks_only_are_revealed() {
        let visible = blocks();
        visible.reveal(5..39);
        assert_eq!((visible.until(5, 995), visible.until(10, 995), visible.until(12, 20)), (5, 30, 20));
        visible.reveal(30..995);
        visible.reveal(0..10);
        assert_eq!((visible.until(0, u64::MAX), visible.bytes()), (995, 995));
        assert_eq!(visible.until(2000, 3000), 2000);
    }

    #[test]
    fn lanes_are_limited_and_reused() {
        let visible = blocks();
        let lanes: Vec<_> = (0..64).map(|block| visible.open_lane(block * 10).unwrap()).collect();
        assert!(visible.open_lane(650).is_none());
        lanes.into_iter().for_each(|lane| visible.close_lane(lane));
        assert!(visible.open_lane(650).is_some());
    }

    #[test]
    fn a_reader_never_sees_less_than_before() {
        let visible = Visible::blocks(64 * 1024, 16);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut lane = visible.open_lane(0).unwrap();
                (1..=64 * 1024).for_each(|to| visible.advance(&mut lane, to));
            });
            let mut seen = 0;
            while seen < 64 * 1024 {
                let now = visible.until(0, u64::MAX);
                assert!(now >= seen, "{now} after {seen}");
                seen = now;
            }
        });
    }
}
