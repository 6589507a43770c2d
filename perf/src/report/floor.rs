//! Floors: what a result must reach for the program to exit with 0.

use std::str::FromStr;

use anyhow::{Context as _, bail};
use millrace_proto::units::{Rate, Size};

use super::Measurement;
use super::pull::PullMeasurement;
use crate::measure::samples::memory_growth;

/// A quantity with the side on which it is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Throughput,
    RequestsPerSecond,
    CpuPerGb,
    TotalCpuPerGb,
    P50Ms,
    P99Ms,
    P999Ms,
    Memory,
    MemoryGrowth,
    Errors,
    OriginRatio,
    FirstByteLater,
    CapWorstSecond,
    CapMean,
    CapInForceMs,
}

const NAMES: [(&str, Quantity); 15] = [
    ("throughput", Quantity::Throughput),
    ("requests-per-second", Quantity::RequestsPerSecond),
    ("cpu-per-gb", Quantity::CpuPerGb),
    ("total-cpu-per-gb", Quantity::TotalCpuPerGb),
    ("p50-ms", Quantity::P50Ms),
    ("p99-ms", Quantity::P99Ms),
    ("p999-ms", Quantity::P999Ms),
    ("memory", Quantity::Memory),
    ("memory-growth", Quantity::MemoryGrowth),
    ("errors", Quantity::Errors),
    ("origin-ratio", Quantity::OriginRatio),
    ("first-byte-later-ms", Quantity::FirstByteLater),
    ("cap-worst-second", Quantity::CapWorstSecond),
    ("cap-mean", Quantity::CapMean),
    ("cap-in-force-ms", Quantity::CapInForceMs),
];

/// A limit on a quantity: the least for rates, the most for everything else.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Floor {
    text: String,
    quantity: Quantity,
    limit: f64,
}

impl FromStr for Floor {
    type Err = anyhow::Error;

    #[expect(clippy::cast_precision_loss, reason = "a limit is no exact number")]
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let known = || NAMES.map(|(name, _)| name).join(", ");
        let Some((name, value)) = text.split_once('=') else { bail!("--floor {text}: write NAME=VALUE") };
        let found = NAMES.iter().find(|(known, _)| *known == name);
        let (_, quantity) =
            found.with_context(|| format!("--floor {text}: `{name}` is none of {}", known()))?;
        let limit = match quantity {
            Quantity::Throughput => value.parse().map(|Rate(rate)| rate as f64).map_err(anyhow::Error::from),
            Quantity::Memory | Quantity::MemoryGrowth => {
                value.parse().map(|Size(size)| size as f64).map_err(anyhow::Error::from)
            }
            _ => value.parse::<f64>().map_err(anyhow::Error::from),
        };
        let limit = limit.with_context(|| format!("--floor {text}"))?;
        if !limit.is_finite() || limit < 0.0 {
            bail!("--floor {text}: write a number from 0");
        }
        Ok(Floor { text: text.to_owned(), quantity: *quantity, limit })
    }
}

impl Floor {
    /// Why the measurement is below the floor; what was not measured is.
    pub(crate) fn missed_by(&self, measurement: &Measurement) -> Option<String> {
        self.missed(&measurement.workload, self.quantity.of_load(measurement))
    }

    /// The same of pulls.
    pub(crate) fn missed_by_pull(&self, pull: &PullMeasurement) -> Option<String> {
        self.missed(&pull.workload, self.quantity.of_pull(pull))
    }

    fn missed(&self, workload: &str, value: Option<f64>) -> Option<String> {
        match value {
            None => Some(format!("{workload}: {} could not be measured", self.text)),
            Some(value) if self.quantity.more_is_better() && value < self.limit => {
                Some(format!("{workload}: {} was missed: {value:.3}", self.text))
            }
            Some(value) if !self.quantity.more_is_better() && value > self.limit => {
                Some(format!("{workload}: {} was missed: {value:.3}", self.text))
            }
            Some(_) => None,
        }
    }
}

impl Quantity {
    fn more_is_better(self) -> bool {
        matches!(self, Quantity::Throughput | Quantity::RequestsPerSecond | Quantity::CapMean)
    }

    #[expect(clippy::cast_precision_loss, reason = "memory and errors of a run are far below 2^53")]
    fn of_load(self, measurement: &Measurement) -> Option<f64> {
        let latency = || measurement.slowest();
        match self {
            Quantity::Throughput => Some(measurement.throughput()),
            Quantity::RequestsPerSecond => Some(measurement.answers_per_second()),
            Quantity::CpuPerGb => measurement.server_cpu.map(|cost| cost.per_gb),
            Quantity::TotalCpuPerGb => measurement.total_cpu_per_gb(),
            Quantity::P50Ms => latency().map(|latency| latency.p50_ms),
            Quantity::P99Ms => latency().map(|latency| latency.p99_ms),
            Quantity::P999Ms => latency().map(|latency| latency.p999_ms),
            Quantity::Memory => measurement.memory.map(|memory| memory.resident_bytes as f64),
            Quantity::MemoryGrowth => memory_growth(&measurement.samples),
            Quantity::Errors => Some(measurement.errors as f64),
            Quantity::CapWorstSecond => measurement.caps.as_ref()?.worst_second(),
            Quantity::CapMean => measurement.caps.as_ref()?.least_mean(),
            Quantity::CapInForceMs => measurement.caps.as_ref()?.in_force_ms(),
            Quantity::OriginRatio | Quantity::FirstByteLater => None,
        }
    }

    /// Latencies of a pull are those of its first byte.
    #[expect(clippy::cast_precision_loss, reason = "errors of a run are far below 2^53")]
    fn of_pull(self, pull: &PullMeasurement) -> Option<f64> {
        match self {
            Quantity::Throughput => Some(pull.rate.median),
            Quantity::CpuPerGb => Some(pull.server_cpu.per_gb),
            Quantity::P50Ms => Some(pull.first_byte.p50_ms),
            Quantity::P99Ms => Some(pull.first_byte.p99_ms),
            Quantity::P999Ms => Some(pull.first_byte.p999_ms),
            Quantity::Errors => Some(pull.errors as f64),
            Quantity::OriginRatio => Some(pull.origin_ratio.max),
            Quantity::FirstByteLater => Some(pull.first_byte_later_ms()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[track_caller]
    fn check(text: &str, missed: bool) {
        assert_eq!(text.parse::<Floor>().unwrap().missed_by(&sample()).is_some(), missed, "{text}");
    }

    #[test]
    fn each_quantity_has_its_good_side() {
        for (text, missed) in [
            ("throughput=499MB/s", false),
            ("throughput=501MB/s", true),
            ("requests-per-second=499", false),
            ("requests-per-second=501", true),
            ("cpu-per-gb=0.51", false),
            ("cpu-per-gb=0.49", true),
            ("total-cpu-per-gb=1.01", false),
            ("total-cpu-per-gb=0.99", true),
            ("p50-ms=51", false),
            ("p99-ms=98", true),
            ("p999-ms=101", false),
            ("memory=301MiB", false),
            ("memory=299MiB", true),
            ("errors=0", false),
        ] {
            check(text, missed);
        }
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        let floor: Floor = "cpu-per-gb=1".parse().unwrap();
        assert!(floor.missed_by(&Measurement { server_cpu: None, ..sample() }).is_some());
    }

    #[test]
    fn what_is_no_floor_is_refused() {
        for text in ["throughput", "speed=1", "p99-ms=fast", "p99-ms=-1", "p99-ms=inf", "memory=1.5.2"] {
            assert!(text.parse::<Floor>().is_err(), "{text}");
        }
    }
}
