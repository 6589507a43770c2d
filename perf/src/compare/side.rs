//! One server of a row: its runs, and how they are told.

use millrace_proto::units::Size;
use serde::Serialize;

use super::row::{Quantity, Who};
use crate::cores::Split;
use crate::measure::latency::Summary;
use crate::report::Measurement;
use crate::report::spread::Spread;
use crate::report::table::rate;

/// Share of the time below which a server's cores were not what held up its clients.
const BUSY: f64 = 0.8;

/// What the table of a row says of each side.
pub(super) const COLUMNS: [&str; 9] = [
    "server",
    "CPU s/GB",
    "with the load's",
    "rate",
    "answers/s",
    "ms to last byte p50, p99, p99.9",
    "own memory",
    "calls/GB",
    "TCP",
];

/// One server, asked one thing.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    #[serde(skip)]
    pub(super) who: Who,
    server: String,
    version: String,
    pub(super) asked: String,
    server_cores: usize,
    load_cores: usize,
    /// What its connections used, as the kernel says.
    pub(super) congestion: Option<String>,
    pub(super) runs: Vec<Measurement>,
}

impl Side {
    pub(super) fn new(who: Who, name: &str, version: &str, asked: String, cores: &Split) -> Self {
        Side {
            who,
            server: name.into(),
            version: version.into(),
            asked,
            server_cores: cores.server.len(),
            load_cores: cores.load.len(),
            congestion: None,
            runs: Vec::new(),
        }
    }

    /// Share of the time that the server's cores worked for it; `None` where a disk, or no connection, was what it waited for.
    #[expect(clippy::cast_precision_loss, reason = "cores of a machine are few")]
    fn busyness(&self) -> Option<f64> {
        let from_disk = |run: &Measurement| run.disk_bytes.is_some_and(|bytes| bytes > run.bytes() / 10);
        if self.runs.iter().any(|run| run.connections == 0 || from_disk(run)) {
            return None;
        }
        let busy = |run: &Measurement| {
            run.server_cpu.map_or(f64::NAN, |cost| cost.seconds) / run.seconds / self.server_cores as f64
        };
        self.spread(busy).map(|spread| spread.median)
    }

    pub(super) fn spread(&self, value: impl Fn(&Measurement) -> f64) -> Option<Spread> {
        Spread::of(self.runs.iter().map(value))
    }

    /// Takes the runs of the same server, asked the same, from another time it ran.
    pub(super) fn absorb(&mut self, other: Side) -> Option<Side> {
        if (self.who, &self.server, &self.version) != (other.who, &other.server, &other.version) {
            return Some(other);
        }
        self.congestion = self.congestion.take().or(other.congestion);
        self.runs.extend(other.runs);
        None
    }

    pub(super) fn title(&self) -> String {
        format!("{} {}", self.server, self.version).trim().to_owned()
    }

    /// Its line of the table, below [`COLUMNS`].
    pub(super) fn cells(&self) -> [String; COLUMNS.len()] {
        let cell = |spread: Option<Spread>| {
            let spread = spread.filter(|spread| spread.median.is_finite());
            spread.map_or_else(|| "–".into(), |spread| spread.to_string())
        };
        let cost = cell(self.spread(|run| Quantity::ServerCpu.of(run)));
        let both = cell(self.spread(|run| run.total_cpu_per_gb().unwrap_or(f64::NAN)));
        let rates = self.spread(Measurement::throughput);
        let rates = rates.map_or_else(String::new, |rates| {
            format!("{} ({}–{})", rate(rates.median), rate(rates.min), rate(rates.max))
        });
        let answers = self.spread(Measurement::answers_per_second).filter(|answers| answers.median > 0.0);
        let answers = answers.map_or_else(|| "–".into(), |answers| format!("{:.0}", answers.median));
        let percentile = |of: fn(&Summary) -> f64| {
            let values: Option<Vec<f64>> = self.runs.iter().map(|run| run.slowest().map(of)).collect();
            Some(format!("{:.2}", Spread::of(values?)?.median))
        };
        let latencies =
            [percentile(|all| all.p50_ms), percentile(|all| all.p99_ms), percentile(|all| all.p999_ms)];
        let latencies: Option<Vec<String>> = latencies.into_iter().collect();
        let latencies = latencies.map_or_else(|| "–".into(), |latencies| latencies.join(", "));
        let memory = self.runs.iter().filter_map(|run| run.memory).map(|memory| memory.anonymous_bytes).max();
        let memory = memory.map_or_else(|| "–".into(), |bytes| Size(bytes).to_string());
        let calls =
            Spread::of(self.runs.iter().filter_map(|run| run.syscalls.as_ref()).map(|calls| calls.per_gb));
        let calls = calls.map_or_else(|| "–".into(), |calls| format!("{:.0}", calls.median));
        let congestion = self.congestion.clone().unwrap_or_else(|| "–".into());
        let title = format!("{}, {}", self.title(), self.asked);
        [title, cost, both, rates, answers, latencies, memory, calls, congestion]
    }

    /// What speaks against believing the numbers.
    pub(super) fn doubts(&self) -> Vec<String> {
        let (title, mut doubts) = (self.title(), Vec::new());
        if let Some(busyness) = self.busyness().filter(|busyness| *busyness < BUSY) {
            let percent = busyness * 100.0;
            doubts.push(format!(
                "{title}: its cores were busy with it for {percent:.0} % of the time, so it could do more than this rate."
            ));
        }
        let served = self.runs.iter().filter(|run| run.connections_served < run.connections).count();
        if served > 0 {
            doubts.push(format!("{title}: in {served} runs not every connection was served."));
        }
        let errors: u64 = self.runs.iter().map(|run| run.errors).sum();
        if errors > 0 {
            let text = self.runs.iter().flat_map(|run| &run.error_texts).next().map_or("", String::as_str);
            doubts.push(format!("{title}: {errors} errors, such as: {text}"));
        }
        doubts
    }
}
