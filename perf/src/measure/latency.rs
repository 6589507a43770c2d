//! Latencies in HDR histograms: to the first byte of an answer and to its last. Where a rate of requests is given they count from when
//! a request was due, not from when the load came round to sending it, so that a server which stalls cannot hide the requests
//! it kept from being sent (coordinated omission).

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency that is told apart from longer ones: ten minutes, in microseconds.
const LONGEST_US: u64 = 600_000_000;

/// Steps of the histogram that reports draw.
const BARS: usize = 60;

/// Latencies of one load thread, or of all of them.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    first_byte: Histogram<u64>,
    last_byte: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let empty = || Histogram::new_with_max(LONGEST_US, 3).expect("the bounds are fixed and valid");
        Latencies { first_byte: empty(), last_byte: empty() }
    }
}

impl Latencies {
    /// One answer.
    pub(crate) fn record(&mut self, first_byte: Duration, last_byte: Duration) {
        self.first_byte.saturating_record(microseconds(first_byte));
        self.last_byte.saturating_record(microseconds(last_byte));
    }

    /// Adds those of another thread.
    pub(crate) fn merge(&mut self, other: &Latencies) {
        for (sum, part) in
            [(&mut self.first_byte, &other.first_byte), (&mut self.last_byte, &other.last_byte)]
        {
            sum.add(part).expect("all histograms have the same bounds");
        }
    }

    /// Summaries for the report: to the first byte, and to the last. `None` when nothing was recorded.
    pub(crate) fn summaries(&self) -> Option<(Summary, Summary)> {
        (!self.last_byte.is_empty()).then(|| (Summary::of(&self.first_byte), Summary::of(&self.last_byte)))
    }
}

/// A latency at sub-microsecond is one microsecond: the histogram starts there.
fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// A distribution of latencies, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Answers counted.
    pub(crate) count: u64,
    /// Half are no slower.
    pub(crate) p50_ms: f64,
    /// 99 of 100 are no slower.
    pub(crate) p99_ms: f64,
    /// 999 of 1,000 are no slower.
    pub(crate) p999_ms: f64,
    /// The slowest.
    pub(crate) max_ms: f64,
    /// For drawing: upper edge in milliseconds and count of each step, on a logarithmic scale.
    #[serde(default)]
    pub(crate) bars: Vec<(f64, u64)>,
}

impl Summary {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| milliseconds(histogram.value_at_quantile(quantile));
        Summary {
            count: histogram.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(histogram.max()),
            bars: bars(histogram),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "ten minutes in microseconds are far below 2^53")]
fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

/// Counts between edges that grow by a constant factor from the fastest to the slowest.
fn bars(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    let (least, most) = (milliseconds(histogram.min().max(1)), milliseconds(histogram.max().max(2)));
    let steps = i32::try_from(BARS).unwrap_or(i32::MAX);
    let factor = (most / least).powf(1.0 / f64::from(steps)).max(1.0001);
    let mut bars: Vec<(f64, u64)> = (1..=steps).map(|step| (least * factor.powi(step), 0)).collect();
    for value in histogram.iter_recorded() {
        let latency = milliseconds(value.value_iterated_to());
        let at = bars.partition_point(|(edge, _)| *edge < latency).min(BARS - 1);
        bars[at].1 += value.count_since_last_iteration();
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_out_as_they_went_in() {
        let mut all = Latencies::default();
        for thread in 0..2u32 {
            let mut latencies = Latencies::default();
            for number in (1..=1000u32).filter(|number| number % 2 == thread) {
                latencies.record(Duration::from_micros(number.into()), Duration::from_millis(number.into()));
            }
            all.merge(&latencies);
        }
        let (first, last) = all.summaries().unwrap();
        assert_eq!((first.count, last.count), (1000, 1000));
        let near = |value: f64, expected: f64| (value - expected).abs() <= expected * 0.002;
        assert!(near(first.p50_ms, 0.5) && near(first.p99_ms, 0.99), "{first:?}");
        assert!(near(last.p50_ms, 500.0) && near(last.p999_ms, 999.0) && near(last.max_ms, 1000.0));
        assert_eq!(last.bars.iter().map(|(_, count)| count).sum::<u64>(), 1000);
        assert!(last.bars.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn nothing_recorded_is_no_summary_and_the_absurd_saturates() {
        let mut latencies = Latencies::default();
        assert!(latencies.summaries().is_none());
        latencies.record(Duration::ZERO, Duration::from_secs(100_000));
        let (first, last) = latencies.summaries().unwrap();
        assert!(first.max_ms <= 0.002 && last.max_ms >= 600_000.0);
    }
}
