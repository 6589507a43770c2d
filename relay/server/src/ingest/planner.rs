//! Which range to ask for next: pure arithmetic, without I/O or a clock.
//!
//! What somebody waits for comes first, the rest in order. A byte is asked for once: it is missing, in flight, or here, and only
//! failure makes it missing again.

use std::collections::VecDeque;
use std::ops::Range;

use super::runs::Runs;

/// Most bytes of one request: it bounds how long what is suddenly wanted waits behind what is in flight.
pub const RANGE_BYTES_MAX: u64 = 4 << 20;

/// Fewest bytes asked for because of a demand, so that small reads do not become small requests.
const DEMAND_BYTES_MIN: u64 = 1 << 20;

/// Demands remembered; readers repeat theirs while they wait, so dropping one costs only time.
const DEMANDS_MAX: usize = 256;

/// What is here, what is on its way, and what somebody waits for.
#[derive(Debug)]
pub struct Planner {
    /// Bytes of the content that an origin has: files in order, without padding.
    files: Vec<Range<u64>>,
    length: u64,
    piece_bytes: u64,
    /// Requests begin and end on multiples of this where nothing else decides.
    unit_bytes: u64,
    /// Here, padding included.
    present: Runs,
    in_flight: Runs,
    demands: VecDeque<Range<u64>>,
}

impl Planner {
    /// Plans a content of `length` bytes in pieces of `piece_bytes`, whose `files` (in order, not overlapping, empty ones left out)
    /// an origin has; everything between them is padding and counts as present.
    ///
    /// With `whole_pieces` (the hashes are known, so nothing is visible before its piece is complete) requests begin at pieces;
    /// otherwise a demand in the middle of a large piece is answered from nearby.
    #[must_use]
    pub fn new(length: u64, piece_bytes: u64, files: Vec<Range<u64>>, whole_pieces: bool) -> Self {
        const NEARBY_BYTES: u64 = 256 << 10;
        let near = if whole_pieces { RANGE_BYTES_MAX } else { NEARBY_BYTES };
        let mut planner = Planner {
            length,
            piece_bytes: piece_bytes.max(1),
            unit_bytes: piece_bytes.clamp(1, near),
            present: Runs::default(),
            in_flight: Runs::default(),
            demands: VecDeque::new(),
            files,
        };
        let mut end = 0;
        for file in planner.files.clone() {
            planner.present.insert(end..file.start);
            end = file.end;
        }
        planner.present.insert(end..length);
        planner
    }

    /// Whether all bytes are here.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.present.end_of_run(0) >= self.length
    }

    /// Bytes that are here, padding included.
    #[must_use]
    pub fn present_bytes(&self) -> u64 {
        self.present.bytes()
    }

    /// Bytes that are neither here nor on their way.
    #[must_use]
    pub fn unasked_bytes(&self) -> u64 {
        self.length.saturating_sub(self.present.bytes() + self.in_flight.bytes())
    }

    /// Whether somebody waits for bytes that are not on their way.
    #[must_use]
    pub fn is_demanded(&self) -> bool {
        self.demands.iter().any(|demand| self.first_missing(demand.start, demand.end).is_some())
    }

    /// The ranges in flight, in order.
    pub fn in_flight(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.in_flight.iter()
    }

    /// Notes that somebody waits for the bytes from `offset` on. `false` when they are here or on their way already.
    pub fn demand(&mut self, offset: u64, bytes: u64) -> bool {
        let end = offset.saturating_add(bytes.clamp(1, RANGE_BYTES_MAX)).min(self.length);
        let Some(start) = self.first_missing(offset, end) else { return false };
        if self.demands.iter().any(|known| known.contains(&start)) {
            return true;
        }
        if self.demands.len() == DEMANDS_MAX {
            self.demands.pop_front();
        }
        self.demands.push_back(start..end);
        true
    }

    /// The next range to ask for, which is then in flight: what is waited for longest, else what is missing first. It has about
    /// `bytes_wanted`, in whole units where that is possible, and never more than [`RANGE_BYTES_MAX`].
    ///
    /// With `demanded_only`, nothing unless somebody waits.
    pub fn next(&mut self, demanded_only: bool, bytes_wanted: u64) -> Option<Range<u64>> {
        while let Some(demand) = self.demands.pop_front() {
            if let Some(start) = self.first_missing(demand.start, demand.end) {
                let wanted = demand.end.max(start.saturating_add(DEMAND_BYTES_MIN));
                return self.take(start, wanted.min(start.saturating_add(bytes_wanted)));
            }
        }
        if demanded_only {
            return None;
        }
        let start = self.first_missing(0, self.length)?;
        self.take(start, start.saturating_add(bytes_wanted))
    }

    /// Takes all that is missing in `range` as in flight: it is on its way unasked.
    pub fn claim(&mut self, range: Range<u64>) {
        for run in self.missing(range) {
            self.in_flight.insert(run);
        }
    }

    /// The runs of `range` that are not here, on their way or not.
    #[must_use]
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let (mut at, mut runs) = (range.start, Vec::new());
        loop {
            at = self.present.end_of_run(at);
            if at >= range.end {
                return runs;
            }
            let end = self.present.end_of_gap(at).min(range.end);
            runs.push(at..end);
            at = end;
        }
    }

    /// Notes that the bytes of `range` are here, and returns the pieces that this completes.
    pub fn arrived(&mut self, range: Range<u64>) -> Vec<u32> {
        self.in_flight.remove(range.clone());
        self.present.insert(range.clone());
        if range.is_empty() {
            return Vec::new();
        }
        let pieces = range.start / self.piece_bytes..=(range.end - 1) / self.piece_bytes;
        pieces
            .filter(|piece| self.has(self.piece(*piece)))
            .filter_map(|piece| u32::try_from(piece).ok())
            .collect()
    }

    /// Whether all bytes of `range` are here.
    #[must_use]
    pub fn has(&self, range: Range<u64>) -> bool {
        self.present.end_of_run(range.start) >= range.end
    }

    /// Takes back what was in flight and will not come.
    pub fn abandoned(&mut self, range: Range<u64>) {
        self.in_flight.remove(range);
    }

    /// Takes back bytes that turned out wrong; padding stays.
    pub fn discarded(&mut self, range: Range<u64>) {
        for file in &self.files {
            let wrong = range.start.max(file.start)..range.end.min(file.end);
            if !wrong.is_empty() {
                self.present.remove(wrong);
            }
        }
    }

    /// The bytes of a piece.
    fn piece(&self, piece: u64) -> Range<u64> {
        let start = piece * self.piece_bytes;
        start..(start + self.piece_bytes).min(self.length)
    }

    /// The first byte from `from` on, below `end`, that is neither here nor on its way.
    fn first_missing(&self, from: u64, end: u64) -> Option<u64> {
        let mut at = from;
        loop {
            let next = self.in_flight.end_of_run(self.present.end_of_run(at));
            if next >= end {
                return None;
            }
            if next == at {
                return Some(at);
            }
            at = next;
        }
    }

    /// Takes a request around the missing byte `at`, at least until `wanted` where the limits allow.
    fn take(&mut self, at: u64, wanted: u64) -> Option<Range<u64>> {
        let file = self.files.iter().find(|file| file.contains(&at))?;
        // Units count from the start of a piece, which need not be a multiple of them.
        let piece_start = at - at % self.piece_bytes;
        let unit_start = at - (at - piece_start) % self.unit_bytes;
        let gap_start = self.present.start_of_gap(at).max(self.in_flight.start_of_gap(at)).max(file.start);
        let start = unit_start.max(gap_start);
        let gap_end = self.present.end_of_gap(at).min(self.in_flight.end_of_gap(at)).min(file.end);
        let most = start + RANGE_BYTES_MAX;
        let least = wanted.min(most);
        let end = match self.unit_end(least) {
            end if end <= most => end,
            // Rounding up would be too much, rounding down might leave nothing.
            end if end - self.unit_bytes > at => end - self.unit_bytes,
            _ => most,
        };
        let range = start..end.min(gap_end);
        self.in_flight.insert(range.clone());
        Some(range)
    }

    /// The end of the unit that `offset` ends in.
    fn unit_end(&self, offset: u64) -> u64 {
        let piece_start = (offset.saturating_sub(1)) / self.piece_bytes * self.piece_bytes;
        let piece_end = piece_start.saturating_add(self.piece_bytes);
        let units = (offset - piece_start).div_ceil(self.unit_bytes);
        piece_start.saturating_add(units * self.unit_bytes).min(piece_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn one(file: Range<u64>) -> Vec<Range<u64>> {
        std::iter::once(file).collect()
    }

    fn single(length: u64, piece_bytes: u64) -> Planner {
        Planner::new(length, piece_bytes, one(0..length), true)
    }

    /// Takes everything there is to ask for.
    fn all(planner: &mut Planner) -> Vec<Range<u64>> {
        std::iter::from_fn(|| planner.next(false, u64::MAX)).collect()
    }

    #[test]
    fn everything_is_asked_for_once_in_order() {
        for (length, piece) in
            [(1, 65_536), (10 * MIB + 5, MIB), (33 * MIB, 16 * MIB), (9 * MIB, 3 * MIB), (7 * MIB, 100_000)]
        {
            let mut planner = single(length, piece);
            let ranges = all(&mut planner);
            let mut end = 0;
            for range in &ranges {
                assert_eq!(range.start, end);
                assert!(range.end - range.start <= RANGE_BYTES_MAX && !range.is_empty(), "{range:?}");
                let whole = range.end % piece == 0 || range.end == length || piece > RANGE_BYTES_MAX;
                assert!(whole, "{range:?} ends inside a piece of {piece}");
                end = range.end;
            }
            assert_eq!(end, length);
            assert!(!planner.is_complete());
            for range in ranges {
                planner.arrived(range);
            }
            assert!(planner.is_complete());
        }
    }

    #[test]
    fn a_demand_comes_first_and_the_rest_stays_in_order() {
        let mut planner = single(64 * MIB, MIB);
        assert_eq!(planner.next(false, u64::MAX), Some(0..4 * MIB));
        assert!(planner.demand(40 * MIB + 7, 10));
        assert!(planner.demand(20 * MIB, 9 * MIB));
        // A repeated demand changes nothing.
        assert!(planner.demand(40 * MIB + 7, 10));
        assert_eq!(planner.next(true, u64::MAX), Some(40 * MIB..42 * MIB));
        assert_eq!(planner.next(true, u64::MAX), Some(20 * MIB..24 * MIB));
        assert_eq!(planner.next(true, u64::MAX), None);
        assert_eq!(planner.next(false, u64::MAX), Some(4 * MIB..8 * MIB));
        // In flight or here: no demand.
        assert!(!planner.demand(41 * MIB, 10));
        planner.arrived(40 * MIB..42 * MIB);
        assert!(!planner.demand(41 * MIB, 10));
        assert!(!planner.demand(64 * MIB, 10));
    }

    #[test]
    fn a_demand_in_a_large_piece_of_unknown_hash_is_answered_from_nearby() {
        let mut planner = Planner::new(64 * MIB, 16 * MIB, one(0..64 * MIB), false);
        planner.demand(21 * MIB + 300_000, 10);
        let range = planner.next(true, u64::MAX).unwrap();
        assert_eq!(range, 21 * MIB + 262_144..21 * MIB + 262_144 + 5 * 262_144);
        // What is left before it is asked for later, and ends where it begins.
        let before = all(&mut planner).into_iter().find(|found| found.end == range.start);
        assert!(before.is_some());
    }

    #[test]
    fn a_demand_behind_a_hole_gets_the_piece_from_its_start() {
        let mut planner = single(8 * MIB, 2 * MIB);
        planner.arrived(0..2 * MIB + 5);
        planner.demand(3 * MIB, 1);
        assert_eq!(planner.next(true, u64::MAX), Some(2 * MIB + 5..4 * MIB));
    }

    #[test]
    fn what_was_abandoned_is_asked_for_again_and_only_that() {
        let mut planner = single(4 * MIB, MIB);
        let range = planner.next(false, u64::MAX).unwrap();
        assert_eq!(planner.arrived(0..MIB + 100), [0]);
        planner.abandoned(MIB + 100..range.end);
        assert_eq!(planner.next(false, u64::MAX), Some(MIB + 100..4 * MIB));
        assert_eq!(planner.arrived(MIB + 100..4 * MIB), [1, 2, 3]);
        assert!(planner.is_complete());
    }

    #[test]
    fn files_bound_requests_and_padding_is_never_asked_for() {
        // Two files in a torrent with pieces of 1 MiB: the first is padded, the second spans into a third.
        let files = vec![0..MIB / 2, MIB..MIB + 10, MIB + 10..3 * MIB];
        let mut planner = Planner::new(4 * MIB, MIB, files, true);
        assert_eq!(planner.present_bytes(), MIB / 2 + MIB);
        assert_eq!(all(&mut planner), [0..MIB / 2, MIB..MIB + 10, MIB + 10..3 * MIB]);
        assert_eq!(planner.arrived(0..MIB / 2), [0]);
        assert!(planner.arrived(MIB..MIB + 10).is_empty());
        assert_eq!(planner.arrived(MIB + 10..3 * MIB), [1, 2]);
        assert!(planner.is_complete());
        planner.discarded(0..MIB);
        assert!(!planner.is_complete());
        assert_eq!(all(&mut planner), one(0..MIB / 2));
    }

    #[test]
    fn what_comes_unasked_is_in_flight_where_it_was_missing() {
        let mut planner = single(4 * MIB, MIB);
        planner.arrived(MIB..2 * MIB);
        planner.claim(0..4 * MIB);
        assert_eq!(planner.in_flight().collect::<Vec<_>>(), [0..MIB, 2 * MIB..4 * MIB]);
        assert_eq!(planner.missing(MIB / 2..3 * MIB), [MIB / 2..MIB, 2 * MIB..3 * MIB]);
        assert_eq!(planner.next(false, u64::MAX), None);
    }

    #[test]
    fn an_empty_content_is_complete() {
        let mut planner = Planner::new(0, MIB, vec![], true);
        assert!(planner.is_complete());
        assert_eq!(planner.next(false, u64::MAX), None);
        assert!(!planner.demand(0, 1));
    }
}
