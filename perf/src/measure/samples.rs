//! The course of a run: what was counted by when.

use serde::{Deserialize, Serialize};

use super::memory::Memory;

/// How a run stood at one time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds since the window began.
    pub(crate) at_s: f64,
    /// Bytes delivered since then.
    pub(crate) bytes: u64,
    /// Errors since then.
    pub(crate) errors: u64,
    /// Of the server; zeros where it cannot be seen.
    pub(crate) memory: Memory,
}

/// The most memory at any one time; `None` where it was never seen.
pub(crate) fn most_memory(samples: &[Sample]) -> Option<Memory> {
    let most = samples.iter().map(|sample| sample.memory).fold(Memory::default(), |most, memory| Memory {
        resident_bytes: most.resident_bytes.max(memory.resident_bytes),
        anonymous_bytes: most.anonymous_bytes.max(memory.anonymous_bytes),
    });
    (most != Memory::default()).then_some(most)
}

/// Bytes of anonymous memory that the server has more in the last quarter of the window than in the second, on average. The first quarter
/// is left to caches and buffers that fill. `None` for fewer than eight samples.
#[expect(clippy::cast_precision_loss, reason = "memory is far below 2^53 bytes")]
pub(crate) fn memory_growth(samples: &[Sample]) -> Option<f64> {
    let quarter = samples.len() / 4;
    if quarter < 2 {
        return None;
    }
    let mean = |part: &[Sample]| {
        let sum: f64 = part.iter().map(|sample| sample.memory.anonymous_bytes as f64).sum();
        sum / part.len() as f64
    };
    Some(mean(&samples[samples.len() - quarter..]) - mean(&samples[quarter..2 * quarter]))
}

/// Most bytes that were delivered within `length` seconds of each other, in samples from `from` to `to` seconds.
pub(crate) fn worst_window(samples: &[Sample], from: f64, to: f64, length: f64) -> Option<u64> {
    let within: Vec<&Sample> =
        samples.iter().filter(|sample| sample.at_s >= from && sample.at_s <= to).collect();
    let mut worst = None;
    let mut first = 0;
    for sample in &within {
        while sample.at_s - within[first].at_s > length {
            first += 1;
        }
        worst = worst.max(Some(sample.bytes - within[first].bytes));
    }
    worst.filter(|_| within.len() > 1)
}

/// Bytes per second between the samples nearest to two times; `None` where there are not two.
#[expect(clippy::cast_precision_loss, reason = "bytes of a run are far below 2^53")]
pub(crate) fn mean_rate(samples: &[Sample], from: f64, to: f64) -> Option<f64> {
    let first = samples.iter().find(|sample| sample.at_s >= from)?;
    let last = samples.iter().rev().find(|sample| sample.at_s <= to)?;
    let seconds = last.at_s - first.at_s;
    (seconds > 0.0).then(|| (last.bytes - first.bytes) as f64 / seconds)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sample every tenth of a second; `rate` gives the bytes of each.
    pub(crate) fn course(count: u32, rate: impl Fn(u32) -> u64) -> Vec<Sample> {
        let mut bytes = 0;
        (0..count)
            .map(|number| {
                bytes += rate(number);
                let memory = Memory { resident_bytes: 2000, anonymous_bytes: 1000 + u64::from(number) };
                Sample { at_s: f64::from(number) / 10.0, bytes, errors: 0, memory }
            })
            .collect()
    }

    #[test]
    fn the_worst_window_is_found_wherever_it_lies() {
        let samples = course(60, |number| if (25..31).contains(&number) { 300 } else { 100 });
        // Ten steps, six of them at 300.
        assert_eq!(worst_window(&samples, 0.0, 6.0, 1.001), Some(6 * 300 + 4 * 100));
        assert_eq!(worst_window(&samples, 0.0, 2.0, 1.001), Some(1000));
        assert_eq!(worst_window(&samples, 9.0, 10.0, 1.0), None);
    }

    #[test]
    fn growth_is_that_of_later_quarters() {
        let samples = course(80, |_| 1);
        assert!((memory_growth(&samples).unwrap() - 40.0).abs() < 1e-9);
        assert_eq!(memory_growth(&samples[..7]), None);
        assert_eq!(most_memory(&samples).unwrap().anonymous_bytes, 1079);
        assert_eq!(most_memory(&[]), None);
    }

    #[test]
    fn mean_rates_are_bytes_by_time() {
        let samples = course(50, |_| 100);
        assert!((mean_rate(&samples, 1.0, 4.0).unwrap() - 1000.0).abs() < 1e-6);
        assert_eq!(mean_rate(&samples, 8.0, 9.0), None);
    }
}
