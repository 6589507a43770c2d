//! How much to ask for at a time: as much as a connection brings in a second, so that a slow one holds nothing up for long (a range is
//! never taken back), and less near the end, so that all connections end together.

use crate::ingest::planner::RANGE_BYTES_MAX;

/// Ranges that are asked for one after the other differ by a step each: connections share the way, and with equal ranges all of them would
/// end at once, and wait at once for their next answers.
const STEPS: u64 = 8;

/// Asked for on a connection that has brought nothing yet, and more by so much for each step: TCP has to find out how fast it is.
const FIRST_BYTES: u64 = 1 << 20;
const FIRST_STEP_BYTES: u64 = 256 << 10;

/// Answers that take so long, in milliseconds, are worth the smaller ranges that steps make of later ones.
const FAR_MS: u64 = 10;

/// Less is not worth a request.
const LEAST_BYTES: u64 = 256 << 10;

/// Time that a range should take, in milliseconds.
const RANGE_MS: u64 = 1_000;

/// Shortest time worth a request, in milliseconds, beside what its answer takes to begin.
const LEAST_MS: u64 = 100;

/// What is known when a range is to be asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Bytes a second of the connection, where it has brought any.
    pub speed: Option<u64>,
    /// Requests of the pull before this one.
    pub asked: u64,
    /// Bytes a second of all connections of the pull; 0 is unknown.
    pub rate: u64,
    /// Time from a request to the head of its answer, in milliseconds.
    pub answers_in_ms: u64,
    /// Bytes that are still to be asked for.
    pub unasked_bytes: u64,
}

/// Bytes to ask for, from [`LEAST_BYTES`] to [`RANGE_BYTES_MAX`].
pub(super) fn range_bytes(known: Known) -> u64 {
    let step = known.asked % STEPS;
    let Some(speed) = known.speed else {
        return FIRST_BYTES + step * FIRST_STEP_BYTES;
    };
    // While an answer is waited for, nothing comes: a range has to be worth that.
    let usual_ms = RANGE_MS.max(known.answers_in_ms.saturating_mul(4));
    let rest_ms = match known.rate {
        0 => u64::MAX,
        rate => u64::try_from(u128::from(known.unasked_bytes) * 1_000 / u128::from(rate)).unwrap_or(u64::MAX),
    };
    let least_ms = LEAST_MS.max(known.answers_in_ms.saturating_mul(2));
    let ms = rest_ms.max(least_ms).min(usual_ms);
    let bytes = u128::from(speed) * u128::from(ms) / 1_000;
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).min(RANGE_BYTES_MAX);
    // From the whole down to a little more than half of it.
    let less = if known.answers_in_ms < FAR_MS { 0 } else { bytes / (2 * STEPS) * step };
    (bytes - less).max(LEAST_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[track_caller]
    fn check(speed: Option<u64>, rate: u64, answers_in_ms: u64, unasked_bytes: u64, expected: u64) {
        let known = Known { speed, asked: 0, rate, answers_in_ms, unasked_bytes };
        assert_eq!(range_bytes(known), expected);
    }

    #[test]
    fn connections_that_begin_together_do_not_end_together() {
        let sizes = |speed, answers_in_ms| {
            let known = Known { speed, asked: 0, rate: 0, answers_in_ms, unasked_bytes: 1 << 40 };
            (0..9).map(|asked| range_bytes(Known { asked, ..known })).collect::<Vec<u64>>()
        };
        let first = sizes(None, 200);
        assert!(first[..8].is_sorted_by(|a, b| a < b) && first[0] == MIB && first[7] < 3 * MIB, "{first:?}");
        assert_eq!(first[8], MIB);
        // As fast as the largest range allows: they would all be the same.
        let later = sizes(Some(50 * MIB), 200);
        assert!(later[..8].is_sorted_by(|a, b| a > b) && later[7] > RANGE_BYTES_MAX / 2, "{later:?}");
        assert_eq!((later[0], later[8]), (RANGE_BYTES_MAX, RANGE_BYTES_MAX));
        // Where answers come at once there is nothing to wait for.
        assert_eq!(sizes(Some(50 * MIB), 1), [RANGE_BYTES_MAX; 9]);
        assert_eq!(sizes(Some(1), 200), [LEAST_BYTES; 9]);
    }

    #[test]
    fn a_range_takes_about_a_second_and_less_at_the_end() {
        check(None, 0, 200, 1 << 40, FIRST_BYTES);
        check(Some(50 * MIB), 60 * MIB, 1, 1 << 40, RANGE_BYTES_MAX);
        check(Some(2 * MIB), 60 * MIB, 200, 1 << 40, 2 * MIB);
        check(Some(1_000), 60 * MIB, 200, 1 << 40, LEAST_BYTES);
        // Slow to answer: a second would be spent waiting.
        check(Some(MIB), 60 * MIB, 1_000, 1 << 40, 4 * MIB);
        // Half a second is left for everybody.
        check(Some(2 * MIB), 60 * MIB, 200, 30 * MIB, MIB);
        check(Some(10 * MIB), 60 * MIB, 1, 0, MIB);
        check(Some(u64::MAX), 1, u64::MAX, u64::MAX, RANGE_BYTES_MAX);
    }
}
