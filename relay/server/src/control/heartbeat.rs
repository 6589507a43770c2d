//! Whether every shard's loop turns. A shard wakes at least every [`IDLE_NS_MAX`] and counts its loops; who looks at the counts
//! from time to time sees which of them stand still, and the shard knows nothing of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millrace_engine::counters::Counters;
use millrace_engine::limits::IDLE_NS_MAX;

/// A loop that has not turned for so long is stuck. A disk that takes its time holds one up for less, and an idle one for
/// [`IDLE_NS_MAX`].
const STUCK_AFTER: Duration = Duration::from_secs(5);

const _: () = assert!(STUCK_AFTER.as_nanos() > 2 * IDLE_NS_MAX as u128);

/// When each shard was last seen to have turned.
#[derive(Debug)]
pub(crate) struct Heartbeats(Mutex<Vec<Seen>>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    loops: u64,
    at: Instant,
}

impl Heartbeats {
    /// All of `counters` are given the time to turn once.
    pub(crate) fn new(counters: &[Arc<Counters>], now: Instant) -> Self {
        let seen = counters.iter().map(|counters| Seen { loops: counters.loops.value(), at: now });
        Heartbeats(Mutex::new(seen.collect()))
    }

    /// Looks at the counts. Returns the shards that are stuck, by number.
    pub(crate) fn stuck(&self, counters: &[Arc<Counters>], now: Instant) -> Vec<usize> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stuck = Vec::new();
        for (number, (seen, counters)) in seen.iter_mut().zip(counters).enumerate() {
            let loops = counters.loops.value();
            if loops != seen.loops {
                *seen = Seen { loops, at: now };
            } else if now.saturating_duration_since(seen.at) > STUCK_AFTER {
                stuck.push(number);
            }
        }
        stuck
    }
}

/// What an operator is told of stuck shards.
pub(crate) fn describe(stuck: &[usize]) -> String {
    let numbers: Vec<_> = stuck.iter().map(ToString::to_string).collect();
    let seconds = STUCK_AFTER.as_secs();
    format!(
        "Stuck: shard {} has not turned for {seconds} s: look at its thread (shard-N), restart the relay.",
        numbers.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_stands_still_is_stuck_until_it_turns_again() {
        let counters: Vec<Arc<Counters>> = (0..3).map(|_| Arc::default()).collect();
        let start = Instant::now();
        let heartbeats = Heartbeats::new(&counters, start);
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let turn = |numbers: &[usize]| numbers.iter().for_each(|&number| counters[number].loops.increment());
        assert_eq!(heartbeats.stuck(&counters, after(5)), [0_usize; 0], "they have just started");
        turn(&[0, 1, 2]);
        assert_eq!(heartbeats.stuck(&counters, after(6)), [0_usize; 0]);
        turn(&[0, 2]);
        assert_eq!(heartbeats.stuck(&counters, after(11)), [0_usize; 0]);
        turn(&[0]);
        assert_eq!(heartbeats.stuck(&counters, after(12)), [1]);
        assert_eq!(heartbeats.stuck(&counters, after(20)), [0, 1, 2]);
        turn(&[0, 1, 2]);
        assert_eq!(heartbeats.stuck(&counters, after(21)), [0_usize; 0]);
    }
}
