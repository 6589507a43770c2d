//! Which origin to ask next: pure bookkeeping of speed, failures and backoff, with the time and the dice as arguments.
//!
//! A few origins are used at a time, each as much as its measured speed deserves. One that fails rests for a while that doubles; one
//! whose refusal will not change is given up.

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

/// The origins of a content, best first as given.
#[derive(Debug)]
pub struct Balance {
    origins: Vec<Standing>,
    /// Origins used at a time.
    active_max: usize,
    /// Requests to one origin at a time.
    requests_max: usize,
    patience: Patience,
}

impl Balance {
    /// `count` origins, none asked yet.
    #[must_use]
    pub fn new(count: usize, active_max: usize, requests_max: usize, patience: Patience) -> Self {
        let origins = vec![Standing::default(); count];
        Balance { origins, active_max: active_max.max(1), requests_max: requests_max.max(1), patience }
    }

    /// How each origin is doing, in the order given.
    #[must_use]
    pub fn origins(&self) -> &[Standing] {
        &self.origins
    }

    /// The origin to ask at `now_ms`, with room for `extra` requests more than usual; `None` while none may be asked.
    #[must_use]
    pub fn choose(&self, now_ms: u64, extra: usize) -> Option<usize> {
        let fastest = self.origins.iter().map(|origin| origin.speed).max().unwrap_or(0).max(1);
        let able = |origin: &Standing| !origin.given_up && origin.resting_until_ms <= now_ms;
        self.origins
            .iter()
            .enumerate()
            .filter(|(_, origin)| able(origin))
            .take(self.active_max)
            .filter(|(_, origin)| origin.in_flight < self.requests_max + extra)
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

    const PATIENCE: Patience = Patience { rest_ms: 100, rest_ms_max: 1_000, failures_max: 5 };

    #[test]
    fn faster_origins_get_more() {
        let mut balance = Balance::new(2, 3, 6, PATIENCE);
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
    fn only_so_many_origins_are_used_until_one_fails() {
        let mut balance = Balance::new(3, 2, 1, PATIENCE);
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
        let mut balance = Balance::new(1, 1, 4, PATIENCE);
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
        let mut balance = Balance::new(1, 1, 4, PATIENCE);
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
        let mut balance = Balance::new(2, 2, 4, PATIENCE);
        balance.suspected(&[0], "piece 3 is wrong");
        assert_eq!(balance.choose(0, 0), Some(1));
        balance.suspected(&[1], "piece 3 is wrong");
        assert!(!balance.is_given_up(), "the last one is kept");
        let mut shared = Balance::new(2, 2, 4, PATIENCE);
        shared.suspected(&[0, 1], "piece 3 is wrong");
        assert!(shared.origins().iter().all(|origin| !origin.given_up));
    }
}
