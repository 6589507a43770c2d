//! Results: one [`Measurement`] for each run, a [`Report`] of all, for people as a table and a page, for machines as JSON.

mod axis;
pub(crate) mod floor;
pub(crate) mod html;
pub(crate) mod machine;
pub(crate) mod pull;
pub(crate) mod spread;
pub(crate) mod svg;
pub(crate) mod sweep;
pub(crate) mod table;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::load::runtime::Runtime;
use crate::measure::caps::CapsHeld;
use crate::measure::latency::{Latencies, Summary};
use crate::measure::memory::Memory;
use crate::measure::paths::Path;
use crate::measure::samples::Sample;
use crate::measure::syscalls::SystemCalls;
use spread::Spread;

/// What one run delivered and what it cost. Bytes are those of the content, without heads and frames; a GB is 10^9 of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// What was asked for.
    pub(crate) workload: String,
    pub(crate) server: String,
    /// Empty when the server does not say.
    pub(crate) version: String,
    /// Connections wanted.
    pub(crate) connections: u64,
    /// Connections over which the server served something.
    pub(crate) connections_served: u64,
    /// Length of the measured window.
    pub(crate) seconds: f64,
    pub(crate) http_bytes: u64,
    pub(crate) bittorrent_bytes: u64,
    /// HTTP answers.
    pub(crate) requests: u64,
    /// BitTorrent blocks.
    pub(crate) blocks: u64,
    /// Failed connections and wrong answers, warm-up included.
    pub(crate) errors: u64,
    /// The first few, in words.
    pub(crate) error_texts: Vec<String>,
    /// `None` for a server on another box.
    pub(crate) server_cpu: Option<Cost>,
    pub(crate) load_cpu: Cost,
    pub(crate) http: Option<Percentiles>,
    pub(crate) bittorrent: Option<Percentiles>,
    /// The most that the server had at one time.
    pub(crate) memory: Option<Memory>,
    /// Bytes that the server had read from disks; `None` where that cannot be seen.
    pub(crate) disk_bytes: Option<u64>,
    /// Bytes by the way that they took to the socket, heads included, as the relay counts them; empty where it cannot be asked.
    #[serde(default)]
    pub(crate) paths: Vec<Path>,
    /// What drove the load.
    pub(crate) runtime: Runtime,
    /// Seconds into the window when a setting was changed.
    pub(crate) changed_at_s: Option<f64>,
    /// The course of the window.
    #[serde(default)]
    pub(crate) samples: Vec<Sample>,
    /// What connections that did nothing cost, where there were any.
    pub(crate) idle: Option<IdleCost>,
    /// What cold requests cost those of the load, where there were any beside it.
    pub(crate) beside_cold: Option<ColdCost>,
    /// How caps held, where some were set.
    pub(crate) caps: Option<CapsHeld>,
    /// cold: share of the files that was in memory at the start.
    pub(crate) resident_before: Option<f64>,
    /// Where they were counted.
    pub(crate) syscalls: Option<SystemCalls>,
    /// Where it is one of a sweep over the number of connections: what was asked, without that number.
    #[serde(default)]
    pub(crate) swept: Option<String>,
}

/// What connections that did nothing cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct IdleCost {
    pub(crate) connections: u64,
    /// Those that the server had not closed at the end.
    pub(crate) still_open: u64,
    /// Anonymous memory of the server for each.
    pub(crate) anonymous_bytes_each: f64,
    /// Throughput beside them, for each byte of that without them; of pairs of runs.
    pub(crate) throughput_ratio: Spread,
    /// CPU time of the server for each GB beside them, by that without them.
    pub(crate) cpu_ratio: Option<Spread>,
}

/// What cold requests cost the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct ColdCost {
    /// Bytes per second of the cold requests.
    pub(crate) throughput: Spread,
    /// The 99th percentile of the others' time to the last byte, by that without the cold ones; of pairs of runs.
    pub(crate) p99_ratio: Spread,
}

/// CPU time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Seconds of CPU time in the window.
    pub(crate) seconds: f64,
    /// The same for each GB delivered; 0 when nothing was.
    pub(crate) per_gb: f64,
}

impl Cost {
    pub(crate) fn of(cpu: Duration, bytes: u64) -> Self {
        let seconds = cpu.as_secs_f64();
        Cost { seconds, per_gb: if bytes == 0 { 0.0 } else { seconds / gigabytes(bytes) } }
    }

    /// The same time for other bytes.
    pub(crate) fn over(self, bytes: u64) -> Self {
        Cost::of(Duration::from_secs_f64(self.seconds), bytes)
    }
}

/// Latencies of one protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    /// From the request, or when it was due, to the first byte of the answer.
    pub(crate) first_byte: Summary,
    /// To its last byte.
    pub(crate) last_byte: Summary,
}

impl Percentiles {
    pub(crate) fn of(latencies: &Latencies) -> Option<Self> {
        latencies.summaries().map(|(first_byte, last_byte)| Percentiles { first_byte, last_byte })
    }
}

impl Measurement {
    pub(crate) fn bytes(&self) -> u64 {
        self.http_bytes + self.bittorrent_bytes
    }

    /// Bytes per second.
    pub(crate) fn throughput(&self) -> f64 {
        gigabytes(self.bytes()) * 1e9 / self.seconds
    }

    /// HTTP answers and BitTorrent blocks per second.
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
    pub(crate) fn answers_per_second(&self) -> f64 {
        (self.requests + self.blocks) as f64 / self.seconds
    }

    /// CPU time of both sides for each GB.
    pub(crate) fn total_cpu_per_gb(&self) -> Option<f64> {
        self.server_cpu.map(|server| server.per_gb + self.load_cpu.per_gb)
    }

    /// The slower protocol's latency to the last byte.
    pub(crate) fn slowest(&self) -> Option<&Summary> {
        let both = [&self.http, &self.bittorrent];
        let summaries = both.into_iter().flatten().map(|latencies| &latencies.last_byte);
        summaries.max_by(|a, b| a.p99_ms.total_cmp(&b.p99_ms))
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a run are far below 2^53")]
pub(crate) fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// All that one call of the program found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Version of this program.
    pub(crate) version: String,
    /// The command, as it can be given again.
    pub(crate) command: Vec<String>,
    pub(crate) machine: machine::Machine,
    /// What a reader has to know to believe the numbers: cores that are shared, bytes that were checked, epoll instead of io_uring.
    pub(crate) notes: Vec<String>,
    pub(crate) measurements: Vec<Measurement>,
    /// What serving during a pull came to.
    #[serde(default)]
    pub(crate) pulls: Vec<pull::PullMeasurement>,
    /// Floors that were missed, in words.
    pub(crate) missed: Vec<String>,
}

impl Report {
    /// An empty one, for this machine and this command line.
    pub(crate) fn new() -> Self {
        Report {
            version: env!("CARGO_PKG_VERSION").into(),
            command: std::env::args().collect(),
            machine: machine::Machine::here(),
            notes: Vec::new(),
            measurements: Vec::new(),
            pulls: Vec::new(),
            missed: Vec::new(),
        }
    }

    /// Errors of all measurements together.
    pub(crate) fn errors(&self) -> u64 {
        let loads = self.measurements.iter().map(|measurement| measurement.errors);
        loads.chain(self.pulls.iter().map(|pull| pull.errors)).sum()
    }

    /// Adds a remark once.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A measurement of 2 GB in 4 seconds at 1 second of CPU time on either side.
    pub(crate) fn sample() -> Measurement {
        let mut latencies = Latencies::default();
        for milliseconds in 1..=100 {
            latencies.record(Duration::from_millis(1), Duration::from_millis(milliseconds));
        }
        Measurement {
            workload: "http 16 × 1.0 MiB".into(),
            server: "millrace".into(),
            version: "0.1.0".into(),
            connections: 16,
            connections_served: 16,
            seconds: 4.0,
            http_bytes: 2_000_000_000,
            bittorrent_bytes: 0,
            requests: 2000,
            blocks: 0,
            errors: 0,
            error_texts: Vec::new(),
            server_cpu: Some(Cost::of(Duration::from_secs(1), 2_000_000_000)),
            load_cpu: Cost::of(Duration::from_secs(1), 2_000_000_000),
            http: Percentiles::of(&latencies),
            bittorrent: None,
            memory: Some(Memory { resident_bytes: 300 << 20, anonymous_bytes: 20 << 20 }),
            runtime: Runtime::Uring,
            ..Measurement::default()
        }
    }

    #[test]
    fn rates_and_costs_follow_from_the_counts() {
        let sample = sample();
        assert!((sample.throughput() - 5e8).abs() < 1.0);
        assert!((sample.answers_per_second() - 500.0).abs() < 1e-9);
        assert_eq!(sample.total_cpu_per_gb(), Some(1.0));
        assert!((sample.slowest().unwrap().p99_ms - 99.0).abs() < 0.2);
    }

    #[test]
    fn what_is_written_as_json_reads_back() {
        let report = Report { measurements: vec![sample()], ..Report::new() };
        let again: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        let (Some(again), expected) = (again.measurements.first(), sample()) else {
            panic!("nothing came back")
        };
        assert_eq!(
            (again.bytes(), again.memory, again.runtime),
            (expected.bytes(), expected.memory, expected.runtime)
        );
        assert_eq!((again.server_cpu, again.connections), (expected.server_cpu, expected.connections));
        assert_eq!(again.slowest().map(|latency| latency.count), Some(100));
    }
}
