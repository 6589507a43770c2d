//! What came of a comparison: every run, what the medians say about the targets, for people as tables and for machines as JSON.

use std::fmt;

use serde::Serialize;

use super::page;
use super::row::Row;
use super::side::{COLUMNS, Side};
use super::verdict::Verdict;
use crate::cli::ReportArgs;
use crate::report::Measurement;
use crate::report::machine::Machine;
use crate::report::pull::PullMeasurement;
use crate::report::table::{rows, title};

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// Version of this program.
    pub(super) version: &'static str,
    /// The command, as it can be given again.
    pub(super) command: Vec<String>,
    pub(super) machine: Machine,
    repeats: usize,
    /// What a reader has to know: who is absent, and why numbers may mislead.
    pub(super) notes: Vec<String>,
    /// Rows that could not be measured, and why.
    pub(super) failed: Vec<String>,
    pub(super) outcomes: Vec<Outcome>,
}

/// One row.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) sides: Vec<Side>,
    /// What one of our own commands measured, where the row is about us alone.
    pub(super) loads: Vec<Measurement>,
    pub(super) pulls: Vec<PullMeasurement>,
    pub(super) verdicts: Vec<Verdict>,
}

impl Comparison {
    pub(super) fn new(repeats: usize) -> Self {
        Comparison {
            version: env!("CARGO_PKG_VERSION"),
            command: std::env::args().collect(),
            machine: Machine::here(),
            repeats,
            notes: Vec::new(),
            failed: Vec::new(),
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

    /// Adds a row that could not be measured; the others are, all the same.
    pub(super) fn fail(&mut self, row: &str, error: &anyhow::Error) {
        let text = format!("{row}: could not be measured: {error:#}");
        eprintln!("{text}");
        self.failed.push(text);
    }

    /// Whether everything was measured, and all that is owed first was reached.
    pub(super) fn owes_nothing(&self) -> bool {
        self.failed.is_empty()
            && self.outcomes.iter().flat_map(|outcome| &outcome.verdicts).all(|verdict| verdict.first_met)
    }

    /// Writes the tables, and JSON, page and picture where they were asked for.
    ///
    /// # Errors
    /// Those of the files.
    pub(super) fn write(&self, to: &ReportArgs) -> anyhow::Result<()> {
        to.write(self, || self.to_string(), || page::page(self), || page::picture(self))
    }
}

impl Outcome {
    /// Judges our side, the first, by the others; sides without a run are left out.
    pub(super) fn judge(row: &Row, sides: Vec<Side>) -> Self {
        let sides: Vec<Side> = sides.into_iter().filter(|side| !side.runs.is_empty()).collect();
        let verdicts = row.goals.iter().filter_map(|goal| Verdict::against_best(goal, &sides)).collect();
        Outcome { sides, verdicts, ..Self::of(row) }
    }

    /// Judges each side by the last.
    pub(super) fn judge_each(row: &Row, sides: Vec<Side>) -> Self {
        let verdicts = sides.split_last().map(|(last, others)| {
            let of_side = |side| row.goals.iter().filter_map(move |goal| Verdict::of_one(goal, side, last));
            others.iter().flat_map(of_side).collect()
        });
        Outcome { verdicts: verdicts.unwrap_or_default(), sides, ..Self::of(row) }
    }

    /// Judges what one of our own commands measured.
    pub(super) fn found(row: &Row, loads: Vec<Measurement>, pulls: Vec<PullMeasurement>) -> Self {
        let verdicts = row.goals.iter().map(|goal| Verdict::found(goal, &loads, &pulls)).collect();
        Outcome { loads, pulls, verdicts, ..Self::of(row) }
    }

    fn of(row: &Row) -> Self {
        let Row { name, about, .. } = *row;
        Outcome { name, about, sides: Vec::new(), loads: Vec::new(), pulls: Vec::new(), verdicts: Vec::new() }
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
        for failed in &self.failed {
            writeln!(f, "\n{failed}")?;
        }
        Ok(())
    }
}

/// Tables as Markdown has them, so that they can be quoted as they are.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.sides.is_empty() {
            writeln!(f, "| {} |\n|{}", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()))?;
        }
        for side in &self.sides {
            writeln!(f, "| {} |", side.cells().join(" | "))?;
        }
        for load in &self.loads {
            write_found(f, &title(load), &rows(load), &load.error_texts)?;
        }
        for pull in &self.pulls {
            write_found(f, &pull.title(), &pull.rows(), &pull.error_texts)?;
        }
        for verdict in &self.verdicts {
            writeln!(f, "\n{verdict}")?;
        }
        for doubt in self.sides.iter().flat_map(Side::doubts) {
            writeln!(f, "\n{doubt}")?;
        }
        Ok(())
    }
}

/// A table of everything that a command measured.
fn write_found(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    rows: &[(&str, String)],
    errors: &[String],
) -> fmt::Result {
    writeln!(f, "\n| {title} | |\n|---|---|")?;
    for (name, value) in rows {
        writeln!(f, "| {} | {value} |", name.trim())?;
    }
    for text in errors {
        writeln!(f, "| error | {text} |")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::row::{Ask, Who};
    use super::super::rows::ROWS;
    use super::*;
    use crate::cores::Split;
    use crate::peers::nginx::Flavour;
    use crate::report::Cost;
    use crate::report::tests::sample;

    fn side(name: &str, runs: Vec<Measurement>) -> Side {
        let cores = Split { server: vec![0], load: vec![1] };
        let asked = Ask::Ranges { connections: 16, range_bytes: 1 << 20 };
        let mut side = Side::new(Who::Nginx(Flavour::Sendfile), name, "1.0", asked.to_string(), &cores);
        side.runs = runs;
        side
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
        let mut kernel = costing("kernel", &[60; 3]);
        kernel.who = Who::Bare;
        let sides = vec![
            costing("ours", &[80, 90, 100]),
            costing("slow", &[900; 3]),
            costing("best", &[100; 3]),
            costing("none", &[]),
            kernel,
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
        // What cannot be avoided is shown, and owed by nobody.
        assert!(text.contains("server CPU per GB: 1.50 × kernel 1.0** (1.33–1.67)\n"), "{text}");
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
    fn a_row_that_could_not_be_measured_is_told_and_owed() {
        let mut comparison = Comparison::new(1);
        comparison.fail("P5", &anyhow::anyhow!("no disk").context("the test file"));
        assert!(!comparison.owes_nothing());
        let told = "P5: could not be measured: the test file: no disk";
        assert!(comparison.to_string().contains(told) && page::page(&comparison).contains(told));
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
