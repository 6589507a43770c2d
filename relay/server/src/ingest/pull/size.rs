//! How much to ask for at a time: as much as a connection brings in a second, so that a slow one holds nothing up for long (a range is
//! never taken back), and less near the end, so that all connections end together.

use crate::ingest::planner::RANGE_BYTES_MAX;

/// Asked for on a connection that has brought nothing yet: TCP has to find out how fast it is. Connections that begin together get more
/// by a step each: they share the way, and with equal ranges all of them would end at once, and wait at once for their next answers.
const FIRST_BYTES: u64 = 1 << 20;
const FIRST_STEP_BYTES: u64 = 256 << 10;
const FIRST_STEPS: u64 = 8;

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
    /// Requests of the pull that are under way.
    pub under_way: usize,
    /// Bytes a second of all connections of the pull; 0 is unknown.
    pub rate: u64,
    /// Time from a request to the head of its answer, in milliseconds.
    pub answers_in_ms: u64,
    /// Bytes that are still to be asked for.
    pub unasked_bytes: u64,
}

/// Bytes to ask for, from [`LEAST_BYTES`] to [`RANGE_BYTES_MAX`].
pub(super) fn range_bytes(known: Known) -> u64 {
    let Some(speed) = known.speed else {
        let step = u64::try_from(known.under_way).unwrap_or(0) % FIRST_STEPS;
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
    u64::try_from(bytes).unwrap_or(u64::MAX).clamp(LEAST_BYTES, RANGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[track_caller]
    fn check(speed: Option<u64>, rate: u64, answers_in_ms: u64, unasked_bytes: u64, expected: u64) {
        let known = Known { speed, under_way: 0, rate, answers_in_ms, unasked_bytes };
        assert_eq!(range_bytes(known), expected);
    }

    #[test]
    fn connections_that_begin_together_do_not_end_together() {
        let first = |under_way| {
            range_bytes(Known { speed: None, under_way, rate: 0, answers_in_ms: 200, unasked_bytes: 1 << 40 })
        };
        let sizes: Vec<u64> = (0..8).map(first).collect();
        assert!(sizes.is_sorted_by(|a, b| a < b) && sizes[0] == MIB && sizes[7] < 3 * MIB, "{sizes:?}");
        assert_eq!(first(8), MIB);
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
