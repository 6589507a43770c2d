//! What came of a comparison: every run, what the medians say about the targets, for people as tables and for machines as JSON.

use std::fmt;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::rows::{Ask, Digest, Goal, Quantity, Row, Who};
use super::spread::Spread;
use crate::cli::ReportArgs;
use crate::cores::Split;
use crate::report::Measurement;
use crate::report::machine::Machine;
use crate::report::table::rate;

/// Share of the time below which a server's cores were not what held up its clients.
const BUSY: f64 = 0.8;

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// Version of this program.
    version: &'static str,
    /// The command, as it can be given again.
    command: Vec<String>,
    machine: Machine,
    repeats: usize,
    /// What a reader has to know: who is absent, and why numbers may mislead.
    notes: Vec<String>,
    pub(super) outcomes: Vec<Outcome>,
}

/// One row.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    name: &'static str,
    about: &'static str,
    pub(super) sides: Vec<Side>,
    verdicts: Vec<Verdict>,
}

/// One server, asked one thing.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    #[serde(skip)]
    who: Who,
    server: String,
    version: String,
    asked: String,
    server_cores: usize,
    load_cores: usize,
    /// What its connections used, as the kernel says.
    pub(super) congestion: Option<String>,
    pub(super) runs: Vec<Measurement>,
}

/// A target, and where we are.
#[derive(Debug, Serialize)]
struct Verdict {
    quantity: &'static str,
    /// The best of the others.
    against: String,
    /// Median by median; least and most are of runs that followed each other.
    ratio: Spread,
    sign: &'static str,
    first: f64,
    then: f64,
    first_met: bool,
    then_met: bool,
}

impl Comparison {
    pub(super) fn new(repeats: usize) -> Self {
        Comparison {
            version: env!("CARGO_PKG_VERSION"),
            command: std::env::args().collect(),
            machine: Machine::here(),
            repeats,
            notes: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// Adds a remark once, and shows it at once.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            eprintln!("note: {text}");
            self.notes.push(text);
        }
    }

    /// Whether everything that is owed first was reached.
    pub(super) fn owes_nothing(&self) -> bool {
        self.outcomes.iter().flat_map(|outcome| &outcome.verdicts).all(|verdict| verdict.first_met)
    }

    /// Writes the tables, and JSON where it was asked for.
    ///
    /// # Errors
    /// Those of the files.
    pub(super) fn write(&self, to: &ReportArgs) -> anyhow::Result<()> {
        let stdout = Some(Path::new("-"));
        if let Some(path) = &to.json {
            let json = serde_json::to_string_pretty(self)? + "\n";
            if to.json.as_deref() == stdout {
                return std::io::stdout().write_all(json.as_bytes()).context("standard output");
            }
            std::fs::write(path, json).with_context(|| format!("writing {}", path.display()))?;
        }
        write!(std::io::stdout(), "{self}").context("standard output")
    }
}

impl Side {
    pub(super) fn new(who: Who, name: &str, version: &str, asked: Ask, cores: &Split) -> Self {
        Side {
            who,
            server: name.into(),
            version: version.into(),
            asked: asked.to_string(),
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

    fn spread(&self, value: impl Fn(&Measurement) -> f64) -> Option<Spread> {
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

    fn title(&self) -> String {
        format!("{} {}", self.server, self.version).trim().to_owned()
    }
}

impl Quantity {
    fn of(self, measurement: &Measurement) -> f64 {
        match self {
            Quantity::ServerCpu => measurement.server_cpu.map_or(f64::NAN, |cost| cost.per_gb),
            Quantity::Throughput => measurement.throughput(),
            Quantity::AnswersPerSecond => measurement.answers_per_second(),
        }
    }
}

impl Outcome {
    /// Judges what was measured; sides without a run are left out.
    pub(super) fn judge(row: &Row, sides: Vec<Side>) -> Self {
        let sides: Vec<Side> = sides.into_iter().filter(|side| !side.runs.is_empty()).collect();
        let verdicts = row.goals.iter().filter_map(|goal| Verdict::of(goal, &sides)).collect();
        Outcome { name: row.name, about: row.about, sides, verdicts }
    }
}

impl Verdict {
    /// `None` where there is nothing to compare with.
    fn of(goal: &Goal, sides: &[Side]) -> Option<Self> {
        let (ours, others) = sides.split_first()?;
        let value = |measurement: &Measurement| goal.quantity.of(measurement);
        let best = others
            .iter()
            .filter(|side| goal.against.is_empty() || goal.against.contains(&side.who))
            .filter_map(|side| Some((side.spread(value)?.median, side)));
        let best = best.reduce(|a, b| if goal.relation.holds(a.0, b.0) { a } else { b });
        let (theirs, other) = best?;
        let pairs = ours.runs.iter().zip(&other.runs).map(|(ours, other)| value(ours) / value(other));
        let ratio = Spread { median: ours.spread(value)?.median / theirs, ..Spread::of(pairs)? };
        Some(Verdict {
            quantity: goal.quantity.name(),
            against: if other.asked == ours.asked { other.title() } else { other.asked.clone() },
            ratio,
            sign: goal.relation.sign(),
            first: goal.first,
            then: goal.then,
            first_met: goal.relation.holds(ratio.median, goal.first),
            then_met: goal.relation.holds(ratio.median, goal.then),
        })
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Ranges { connections, range_bytes } => {
                write!(f, "HTTP {connections} × {}", millrace_proto::units::Size(*range_bytes))
            }
            Ask::Blocks { leechers, queue } => write!(f, "BitTorrent {leechers} × {queue} blocks"),
            Ask::Reads { depth, bytes } => {
                write!(f, "{depth} reads of {}", millrace_proto::units::Size(*bytes))
            }
            Ask::Hash(Digest::Sha1) => f.write_str("SHA-1"),
            Ask::Hash(Digest::Sha256) => f.write_str("SHA-256"),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "medians of {} runs, one after the other in turn, with least and most", self.repeats)?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for outcome in &self.outcomes {
            write!(f, "\n{}: {}\n\n{outcome}", outcome.name, outcome.about)?;
        }
        Ok(())
    }
}

/// Tables as Markdown has them, so that they can be quoted as they are.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| server | CPU s/GB | with the load's | rate | answers/s | ms to last byte p50, p99, p99.9 | own memory | calls/GB | TCP |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        for side in &self.sides {
            side.write_row(f)?;
        }
        for verdict in &self.verdicts {
            writeln!(f, "\n{verdict}")?;
        }
        for side in &self.sides {
            side.write_doubts(f)?;
        }
        Ok(())
    }
}

impl Side {
    fn write_row(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |spread: Option<Spread>| spread.map_or_else(|| "–".into(), |spread| spread.to_string());
        let cost = cell(self.spread(|run| Quantity::ServerCpu.of(run)));
        let both = cell(self.spread(|run| run.total_cpu_per_gb().unwrap_or(f64::NAN)));
        let rates = self.spread(Measurement::throughput);
        let rates = rates.map_or_else(String::new, |rates| {
            format!("{} ({}–{})", rate(rates.median), rate(rates.min), rate(rates.max))
        });
        let answers = self.spread(Measurement::answers_per_second).filter(|answers| answers.median > 0.0);
        let answers = answers.map_or_else(|| "–".into(), |answers| format!("{:.0}", answers.median));
        let percentile = |of: fn(&crate::measure::latency::Summary) -> f64| {
            let values: Option<Vec<f64>> = self.runs.iter().map(|run| run.slowest().map(of)).collect();
            Some(format!("{:.2}", Spread::of(values?)?.median))
        };
        let latencies =
            [percentile(|all| all.p50_ms), percentile(|all| all.p99_ms), percentile(|all| all.p999_ms)];
        let latencies: Option<Vec<String>> = latencies.into_iter().collect();
        let latencies = latencies.map_or_else(|| "–".into(), |latencies| latencies.join(", "));
        let memory = self.runs.iter().filter_map(|run| run.memory).map(|memory| memory.anonymous_bytes).max();
        let memory =
            memory.map_or_else(|| "–".into(), |bytes| millrace_proto::units::Size(bytes).to_string());
        let calls =
            Spread::of(self.runs.iter().filter_map(|run| run.syscalls.as_ref()).map(|calls| calls.per_gb));
        let calls = calls.map_or_else(|| "–".into(), |calls| format!("{:.0}", calls.median));
        let congestion = self.congestion.as_deref().unwrap_or("–");
        let title = format!("{}, {}", self.title(), self.asked);
        writeln!(
            f,
            "| {title} | {cost} | {both} | {rates} | {answers} | {latencies} | {memory} | {calls} | {congestion} |"
        )
    }

    /// What speaks against believing the numbers.
    fn write_doubts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = self.title();
        if let Some(busyness) = self.busyness().filter(|busyness| *busyness < BUSY) {
            let percent = busyness * 100.0;
            writeln!(
                f,
                "\n{title}: its cores were busy with it for {percent:.0} % of the time, so it could do more than this rate."
            )?;
        }
        let served = self.runs.iter().filter(|run| run.connections_served < run.connections).count();
        if served > 0 {
            writeln!(f, "\n{title}: in {served} runs not every connection was served.")?;
        }
        let errors: u64 = self.runs.iter().map(|run| run.errors).sum();
        if errors > 0 {
            let text = self.runs.iter().flat_map(|run| &run.error_texts).next().map_or("", String::as_str);
            writeln!(f, "\n{title}: {errors} errors, such as: {text}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { quantity, against, ratio, sign, first, then, .. } = self;
        let met = |is_met: bool| if is_met { "met" } else { "MISSED" };
        write!(
            f,
            "**{quantity}: {:.2} × {against}** ({:.2}–{:.2}); owed {sign} {first:.2}: {}, then {sign} {then:.2}: {}",
            ratio.median,
            ratio.min,
            ratio.max,
            met(self.first_met),
            met(self.then_met),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::rows::ROWS;
    use super::*;
    use crate::report::Cost;
    use crate::report::tests::sample;

    fn side(name: &str, runs: Vec<Measurement>) -> Side {
        let cores = Split { server: vec![0], load: vec![1] };
        let asked = Ask::Ranges { connections: 16, range_bytes: 1 << 20 };
        Side { runs, ..Side::new(Who::Rqbit, name, "1.0", asked, &cores) }
    }

    fn costing(name: &str, cpu_ms: &[u64]) -> Side {
        let run = |ms: &u64| Measurement {
            server_cpu: Some(Cost::of(Duration::from_millis(*ms), 2_000_000_000)),
            ..sample()
        };
        side(name, cpu_ms.iter().map(run).collect())
    }

    #[test]
    fn we_are_judged_by_the_best_of_the_others() {
        let sides = vec![
            costing("ours", &[80, 90, 100]),
            costing("slow", &[900; 3]),
            costing("best", &[100; 3]),
            costing("none", &[]),
        ];
        let outcome = Outcome::judge(&ROWS[0], sides);
        let text = outcome.to_string();
        assert!(
            text.contains(
                "server CPU per GB: 0.90 × best 1.0** (0.80–1.00); owed ≤ 0.90: met, then ≤ 0.80: MISSED"
            ),
            "{text}"
        );
        assert!(text.contains("throughput: 1.00 ×"), "{text}");
        assert!(!text.contains("none"), "{text}");
        let mut comparison = Comparison::new(3);
        comparison.outcomes.push(outcome);
        assert!(comparison.owes_nothing());
        comparison
            .outcomes
            .push(Outcome::judge(&ROWS[0], vec![costing("ours", &[95]), costing("best", &[100])]));
        assert!(!comparison.owes_nothing());
        let json = serde_json::to_value(&comparison).unwrap();
        assert_eq!(json["outcomes"][1]["verdicts"][0]["first_met"], false);
    }

    #[test]
    fn alone_there_is_nothing_to_judge() {
        let outcome = Outcome::judge(&ROWS[0], vec![costing("ours", &[80])]);
        assert!(outcome.verdicts.is_empty());
        assert!(outcome.to_string().contains("| ours 1.0, HTTP 16 × 1.0 MiB | 0.0400"), "{outcome}");
    }

    #[test]
    fn a_server_that_was_not_busy_and_errors_are_told() {
        let run = Measurement { errors: 2, error_texts: vec!["closed".into()], ..sample() };
        let told = |run| Outcome::judge(&ROWS[0], vec![side("ours", vec![run])]).to_string();
        let text = told(run.clone());
        assert!(text.contains("busy with it for 25 % of the time"), "{text}");
        assert!(text.contains("2 errors, such as: closed"), "{text}");
        let cold = told(Measurement { disk_bytes: Some(run.bytes()), ..run });
        assert!(!cold.contains("busy with it"), "{cold}");
    }
}
