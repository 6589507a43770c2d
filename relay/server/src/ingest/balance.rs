//! Which origin to ask next: pure bookkeeping of speed, failures and backoff, with the time and the dice as arguments.
//!
//! A few origins are used at a time, each as much as its measured speed deserves. One that fails rests for a while that doubles; one
//! whose refusal will not change is given up.

use super::planner::RANGE_BYTES_MAX;

/// The first rest after a failure, in milliseconds; it doubles up to [`Patience::rest_ms_max`].
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// First rest, in milliseconds.
    pub rest_ms: u64,
    /// Longest rest that is not the origin's own wish, in milliseconds.
    pub rest_ms_max: u64,
    /// Failures in a row, without a byte between them, after which an origin is given up.
    pub failures_max: u32,
}

/// How many requests an origin gets at a time.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// To one that answers at once.
    pub near: usize,
    /// To one that is far away.
    pub most: usize,
}

impl Crowd {
    /// One after the other.
    pub const ONE: Crowd = Crowd { near: 1, most: 1 };
}

/// A far origin gets a request more for each such part of its round trip, in milliseconds. A connection carries at most what the sender
/// keeps unacknowledged (4 MiB on a stock Linux, much less while its window grows) in a round trip, and nothing between two ranges.
const FAR_MS: u64 = 20;

/// What a failure means for the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It may pass; the origin may have said when, in milliseconds from now.
    Rest(Option<u64>),
    /// It will stay.
    GiveUp,
}

/// How one origin is doing.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Bytes a second of one request, averaged over the latest; 0 until measured.
    pub speed: u64,
    /// Requests under way.
    pub in_flight: usize,
    /// Shortest time from a request to the head of its answer, in milliseconds: a round trip, and how long it thinks.
    pub answers_in_ms: Option<u64>,
    /// Failures since the last byte.
    pub failures: u32,
    /// Not asked before this time, in milliseconds.
    pub resting_until_ms: u64,
    /// Not asked any more.
    pub given_up: bool,
    /// What went wrong last.
    pub error: Option<String>,
    /// Pieces it had a part in that did not match their hash.
    pub bad_pieces: u32,
}

impl Standing {
    /// Bytes a second of its requests together.
    fn rate(&self) -> u64 {
        self.speed.saturating_mul(u64::try_from(self.in_flight).unwrap_or(u64::MAX))
    }
}

/// The origins of a content, best first as given.
#[derive(Debug)]
pub struct Balance {
    origins: Vec<Standing>,
    /// Origins used at a time.
    active_max: usize,
    crowd: Crowd,
    patience: Patience,
}

impl Balance {
    /// `count` origins, none asked yet.
    #[must_use]
    pub fn new(count: usize, active_max: usize, crowd: Crowd, patience: Patience) -> Self {
        let origins = vec![Standing::default(); count];
        Balance { origins, active_max: active_max.max(1), crowd, patience }
    }

    /// How each origin is doing, in the order given.
    #[must_use]
    pub fn origins(&self) -> &[Standing] {
        &self.origins
    }

    /// Requests at a time that keep the way to `origin` full: more the farther it is, and the faster.
    #[must_use]
    pub fn usual(&self, origin: usize) -> usize {
        let standing = &self.origins[origin];
        let far_ms = standing.answers_in_ms.unwrap_or(0);
        // What would have come while each request waits for its head, in whole ranges.
        let silent = u128::from(standing.rate()) * u128::from(far_ms) / 1_000 / u128::from(RANGE_BYTES_MAX);
        let more = usize::try_from(u128::from(far_ms / FAR_MS) + silent).unwrap_or(usize::MAX);
        self.crowd.near.saturating_add(more).min(self.crowd.most).max(1)
    }

    /// Bytes a second of all requests under way, as far as it is known.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.origins.iter().fold(0, |sum, origin| sum.saturating_add(origin.rate()))
    }

    /// Requests at a time to all origins together: as many as to the one that takes most.
    #[must_use]
    pub fn usual_in_all(&self) -> usize {
        let able = (0..self.origins.len()).filter(|origin| !self.origins[*origin].given_up);
        able.map(|origin| self.usual(origin)).max().unwrap_or(1)
    }

    /// The origin to ask at `now_ms`, with room for `extra` requests more than usual; `None` while none may be asked.
    #[must_use]
    pub fn choose(&self, now_ms: u64, extra: usize) -> Option<usize> {
        self.choose_among(now_ms, extra, |_| true)
    }

    /// As [`Balance::choose`], of the origins that `may_ask` allows.
    #[must_use]
    pub fn choose_among(&self, now_ms: u64, extra: usize, may_ask: impl Fn(usize) -> bool) -> Option<usize> {
        let fastest = self.origins.iter().map(|origin| origin.speed).max().unwrap_or(0).max(1);
        let able = |origin: &Standing| !origin.given_up && origin.resting_until_ms <= now_ms;
        self.origins
            .iter()
            .enumerate()
            .filter(|(index, origin)| able(origin) && may_ask(*index))
            .take(self.active_max)
            .filter(|(index, origin)| origin.in_flight < self.usual(*index) + extra)
            // What is not measured yet is taken for fast, so that it gets measured.
            .min_by_key(|(_, origin)| {
                let speed = if origin.speed == 0 { fastest } else { origin.speed };
                u128::from(fastest) * 1_000 * (u128::try_from(origin.in_flight).unwrap_or(0) + 1)
                    / u128::from(speed)
            })
            .map(|(index, _)| index)
    }

    /// A request to `origin` begins.
    pub fn started(&mut self, origin: usize) {
        self.origins[origin].in_flight += 1;
    }

    /// The head of an answer of `origin` came `ms` after it was asked for.
    pub fn answered(&mut self, origin: usize, ms: u64) {
        let standing = &mut self.origins[origin];
        standing.answers_in_ms = Some(standing.answers_in_ms.map_or(ms, |known| known.min(ms)));
    }

    /// A request to `origin` ended, well or not, having brought `bytes` in `ms`.
    pub fn ended(&mut self, origin: usize, bytes: u64, ms: u64) {
        let standing = &mut self.origins[origin];
        standing.in_flight = standing.in_flight.saturating_sub(1);
        if bytes > 0 {
            standing.failures = 0;
            let now = bytes.saturating_mul(1_000) / ms.max(1);
            standing.speed = if standing.speed == 0 { now } else { standing.speed / 4 * 3 + now / 4 }.max(1);
        }
    }

    /// A request to `origin` failed. `dice`, from 0 to 1023, spreads the rests of many pulls.
    pub fn failed(&mut self, origin: usize, now_ms: u64, fate: Fate, dice: u64, error: String) {
        let patience = self.patience;
        let standing = &mut self.origins[origin];
        standing.error = Some(error);
        standing.failures = standing.failures.saturating_add(1);
        let Fate::Rest(wished) = fate else {
            standing.given_up = true;
            return;
        };
        if standing.failures >= patience.failures_max {
            standing.given_up = true;
        }
        let doublings = (standing.failures - 1).min(20);
        let rest = (patience.rest_ms << doublings).min(patience.rest_ms_max);
        // Half of it is fixed, half is left to the dice.
        let rest = rest / 2 + rest / 2 * dice.min(1023) / 1023;
        standing.resting_until_ms = now_ms + wished.unwrap_or(0).max(rest);
    }

    /// These origins had a part in a piece that is wrong. The culprit is dropped where another origin is left to ask.
    pub fn suspected(&mut self, origins: &[usize], error: &str) {
        for &origin in origins {
            self.origins[origin].bad_pieces += 1;
            self.origins[origin].error = Some(error.to_owned());
            let proven = origins.len() == 1 || self.origins[origin].bad_pieces >= 3;
            let others = self
                .origins
                .iter()
                .enumerate()
                .any(|(other, standing)| other != origin && !standing.given_up);
            if proven && others {
                self.origins[origin].given_up = true;
            }
        }
    }

    /// Whether all origins but this one are given up.
    #[must_use]
    pub fn is_alone(&self, origin: usize) -> bool {
        self.origins.iter().enumerate().all(|(other, standing)| other == origin || standing.given_up)
    }

    /// Whether no origin is left to ask, now or later.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.origins.iter().all(|origin| origin.given_up)
    }

    /// When a resting origin may be asked again, if one rests.
    #[must_use]
    pub fn rested_at_ms(&self, now_ms: u64) -> Option<u64> {
        let resting =
            self.origins.iter().filter(|origin| !origin.given_up && origin.resting_until_ms > now_ms);
        resting.map(|origin| origin.resting_until_ms).min()
    }

    /// The last error of the best origin that has one.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.origins.iter().find_map(|origin| origin.error.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at_most(most: usize) -> Crowd {
        Crowd { near: most, most }
    }

    const PATIENCE: Patience = Patience { rest_ms: 100, rest_ms_max: 1_000, failures_max: 5 };

    #[test]
    fn faster_origins_get_more() {
        let mut balance = Balance::new(2, 3, at_most(6), PATIENCE);
        for (origin, bytes) in [(0, 3_000_000), (1, 1_000_000)] {
            balance.started(origin);
            balance.ended(origin, bytes, 1_000);
        }
        let mut count = [0; 2];
        for _ in 0..8 {
            let origin = balance.choose(0, 0).unwrap();
            balance.started(origin);
            count[origin] += 1;
        }
        assert_eq!(count, [6, 2]);
        // The fast one is full; the slow one is not.
        assert_eq!(balance.choose(0, 0), Some(1));
        assert_eq!(balance.choose(0, 1), Some(0));
    }

    #[test]
    fn a_far_origin_gets_more_requests_up_to_the_limit() {
        let mut balance = Balance::new(2, 2, Crowd { near: 6, most: 16 }, PATIENCE);
        assert_eq!((balance.usual(0), balance.usual_in_all()), (6, 6));
        // The first answer comes behind a connection, the next ones do not.
        for (ms, usual) in [(150, 13), (45, 8), (60, 8), (3, 6)] {
            balance.answered(0, ms);
            assert_eq!(balance.usual(0), usual, "{ms} ms");
        }
        balance.answered(1, 100);
        assert_eq!((balance.usual(1), balance.usual_in_all()), (11, 11));
        // At 100 MB/s two ranges would have come within 100 ms.
        balance.started(1);
        balance.started(1);
        balance.started(1);
        balance.ended(1, 50_000_000, 1_000);
        assert_eq!(balance.usual(1), 13);
        balance.answered(1, 90_000);
        assert_eq!(balance.usual(1), 13, "the shortest counts");
        balance.failed(1, 0, Fate::GiveUp, 0, "404".into());
        assert_eq!(balance.usual_in_all(), 6);
        let mut far = Balance::new(1, 1, Crowd { near: 6, most: 4 }, PATIENCE);
        far.answered(0, 5_000);
        assert_eq!(far.usual(0), 4);
    }

    #[test]
    fn only_so_many_origins_are_used_until_one_fails() {
        let mut balance = Balance::new(3, 2, at_most(1), PATIENCE);
        let first = balance.choose(0, 0).unwrap();
        balance.started(first);
        let second = balance.choose(0, 0).unwrap();
        balance.started(second);
        assert_eq!((first, second, balance.choose(0, 0)), (0, 1, None));
        balance.ended(0, 0, 10);
        balance.failed(0, 0, Fate::GiveUp, 0, "404".into());
        assert_eq!(balance.choose(0, 0), Some(2));
    }

    #[test]
    fn rests_double_and_end_in_giving_up() {
        let mut balance = Balance::new(1, 1, at_most(4), PATIENCE);
        let mut rests = Vec::new();
        while !balance.is_given_up() {
            balance.failed(0, 0, Fate::Rest(None), 1023, "reset".into());
            rests.push(balance.origins()[0].resting_until_ms);
        }
        assert_eq!(rests, [100, 200, 400, 800, 1_000]);
        assert_eq!(balance.error(), Some("reset"));
    }

    #[test]
    fn a_byte_makes_up_for_failures_and_retry_after_is_obeyed() {
        let mut balance = Balance::new(1, 1, at_most(4), PATIENCE);
        for _ in 0..20 {
            balance.failed(0, 0, Fate::Rest(None), 0, "reset".into());
            balance.started(0);
            balance.ended(0, 1, 1);
        }
        assert!(!balance.is_given_up());
        balance.failed(0, 50, Fate::Rest(Some(7_000)), 0, "503".into());
        assert_eq!((balance.choose(7_049, 0), balance.rested_at_ms(50)), (None, Some(7_050)));
        assert_eq!(balance.choose(7_050, 0), Some(0));
    }

    #[test]
    fn who_sends_wrong_bytes_is_dropped_while_another_is_left() {
        let mut balance = Balance::new(2, 2, at_most(4), PATIENCE);
        balance.suspected(&[0], "piece 3 is wrong");
        assert_eq!(balance.choose(0, 0), Some(1));
        balance.suspected(&[1], "piece 3 is wrong");
        assert!(!balance.is_given_up(), "the last one is kept");
        let mut shared = Balance::new(2, 2, at_most(4), PATIENCE);
        shared.suspected(&[0, 1], "piece 3 is wrong");
        assert!(shared.origins().iter().all(|origin| !origin.given_up));
    }
}
