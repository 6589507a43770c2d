//! The recorded counts: a text file to be read by people, with the conditions under which they hold.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use crate::Case;
use crate::conditions::conditions;

/// A count may move by this much: the compiler arranges unchanged code anew when other code changes.
const TOLERANCE_PERCENT: u64 = 5;

/// The same for operations so short that a percentage says nothing.
const TOLERANCE_INSTRUCTIONS: u64 = 8;

/// What the file says.
pub(crate) struct Record {
    conditions: BTreeMap<String, String>,
    counts: BTreeMap<String, u64>,
    text: String,
}

/// What became of a count: recorded, and now.
pub(crate) enum Verdict {
    Same(Change),
    More(Change),
    Fewer(Change),
    New(u64),
}

pub(crate) struct Change {
    recorded: u64,
    now: u64,
}

impl Record {
    /// A record of what was counted just now.
    pub(crate) fn of(counts: impl Iterator<Item = (&'static Case, u64)>) -> Self {
        let mut text = format!(
            "# Instructions per operation, as callgrind counts them: written with `--update`, see instructions/main.rs.\n\
             # A count may move by {TOLERANCE_PERCENT} % or {TOLERANCE_INSTRUCTIONS} instructions, up or down. They hold under these conditions:\n",
        );
        for (name, value) in conditions() {
            writeln!(text, "{name} = {value}").unwrap();
        }
        text.push('\n');
        for (case, count) in counts {
            writeln!(text, "{:<28} {count:>9}  # {}", case.name, case.operation).unwrap();
        }
        Record::parse(text)
    }

    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(path());
        Record::parse(text.unwrap_or_else(|error| panic!("{}: {error}", path().display())))
    }

    fn parse(text: String) -> Self {
        let (mut conditions, mut counts) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
            if let Some((name, value)) = line.split_once(" = ") {
                conditions.insert(name.to_owned(), value.to_owned());
            } else if let Some((name, count)) = line.split_once(' ') {
                let count = count.trim().parse().unwrap_or_else(|_| panic!("not a count: {line}"));
                counts.insert(name.to_owned(), count);
            }
        }
        Record { conditions, counts, text }
    }

    pub(crate) fn write(&self) {
        std::fs::write(path(), &self.text).unwrap();
        println!("{}", self.text);
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.counts.keys().map(String::as_str)
    }

    pub(crate) fn judge(&self, name: &str, now: u64) -> Verdict {
        let Some(&recorded) = self.counts.get(name) else { return Verdict::New(now) };
        let change = Change { recorded, now };
        let tolerance = TOLERANCE_INSTRUCTIONS.max(recorded * TOLERANCE_PERCENT / 100);
        if now > recorded + tolerance {
            Verdict::More(change)
        } else if now + tolerance < recorded {
            Verdict::Fewer(change)
        } else {
            Verdict::Same(change)
        }
    }

    /// The conditions that are not those of the record, in words.
    pub(crate) fn differences(&self) -> Vec<String> {
        let recorded = |name: &str| self.conditions.get(name).map_or("nothing", String::as_str);
        let differ = conditions().into_iter().filter(|(name, value)| recorded(name) != value);
        differ.map(|(name, value)| format!("{name} is {value}, recorded was {}", recorded(name))).collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (change, word) = match self {
            Verdict::New(now) => return write!(f, "{:>12} {now:>12}            NEW", ""),
            Verdict::Same(change) => (change, ""),
            Verdict::More(change) => (change, "  MORE"),
            Verdict::Fewer(change) => (change, "  FEWER"),
        };
        let percent = (change.now as f64 / change.recorded.max(1) as f64 - 1.0) * 100.0;
        write!(f, "{:>12} {:>12} {percent:>+7.1} %{word}", change.recorded, change.now)
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}
