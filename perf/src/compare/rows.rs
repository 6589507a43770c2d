//! What is compared: the rows of the table of targets, each with what it owes first and what we are after then.

use crate::peers::nginx::Flavour;

/// A row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// `P1` and so on.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) kind: Kind,
    /// Ours comes first.
    pub(crate) entries: &'static [Entry],
    pub(crate) goals: &'static [Goal],
}

/// How a row is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs find all of the file in memory.
    Hot,
    /// Runs find nothing of it, and no room for more than a quarter.
    Cold,
    /// Nothing is served; bytes are hashed.
    Hashing,
}

/// One side of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) who: Who,
    pub(crate) ask: Ask,
}

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Millrace,
    Nginx(Flavour),
    /// Reads and sends nothing.
    Fio,
    /// Hashes alone.
    Openssl,
    Libtorrent,
    Transmission,
    Rqbit,
}

/// What is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Ranges at random over HTTP.
    Ranges { connections: usize, range_bytes: u64 },
    /// Random pieces, block by block, over BitTorrent.
    Blocks { leechers: usize, queue: usize },
    /// Reads at random of the file itself.
    Reads { depth: usize, bytes: u64 },
    /// Hashing on one core, in pieces of 1 MiB, out of a buffer that stays in the processor's cache.
    Hash(Digest),
}

/// A hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digest {
    /// Of a whole piece, as v1 torrents have it.
    Sha1,
    /// Of each 16 KiB and of the tree above them, as v2 torrents have it.
    Sha256,
}

/// A target: our median against the median of the best of those it names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Goal {
    pub(crate) quantity: Quantity,
    pub(crate) relation: Relation,
    /// Nobody named is everybody.
    pub(crate) against: &'static [Who],
    /// Owed.
    pub(crate) first: f64,
    /// What we are after.
    pub(crate) then: f64,
}

/// What is compared of two measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// CPU-seconds of the server for each GB.
    ServerCpu,
    Throughput,
    AnswersPerSecond,
}

/// Which side of the target is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    AtMost,
    AtLeast,
}

const MIB: Ask = Ask::Ranges { connections: 16, range_bytes: 1 << 20 };
const SMALL: Ask = Ask::Ranges { connections: 64, range_bytes: 16 << 10 };
const BLOCKS: Ask = Ask::Blocks { leechers: 64, queue: 64 };

const SHA1: Ask = Ask::Hash(Digest::Sha1);
const SHA256: Ask = Ask::Hash(Digest::Sha256);

const fn entry(who: Who, ask: Ask) -> Entry {
    Entry { who, ask }
}

const fn at_most(quantity: Quantity, first: f64, then: f64) -> Goal {
    Goal { quantity, relation: Relation::AtMost, against: &[], first, then }
}

const fn at_least(quantity: Quantity, first: f64, then: f64) -> Goal {
    Goal { quantity, relation: Relation::AtLeast, against: &[], first, then }
}

const NGINX: &[Who] = &[Who::Nginx(Flavour::Sendfile), Who::Nginx(Flavour::Threads)];

/// All of them.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "P1",
        about: "HTTP ranges of 1 MiB, hot, 16 connections",
        kind: Kind::Hot,
        entries: &[entry(Who::Millrace, MIB), entry(Who::Nginx(Flavour::Sendfile), MIB)],
        goals: &[at_most(Quantity::ServerCpu, 0.90, 0.80), at_least(Quantity::Throughput, 1.0, 1.0)],
    },
    Row {
        name: "P2",
        about: "HTTP ranges of 16 KiB, hot, 64 connections",
        kind: Kind::Hot,
        entries: &[entry(Who::Millrace, SMALL), entry(Who::Nginx(Flavour::Sendfile), SMALL)],
        goals: &[at_most(Quantity::ServerCpu, 0.85, 0.72), at_least(Quantity::AnswersPerSecond, 1.1, 1.3)],
    },
    Row {
        name: "P3",
        about: "BitTorrent seeding, blocks of 16 KiB, hot, 64 leechers that queue 64 each",
        kind: Kind::Hot,
        entries: &[
            entry(Who::Millrace, BLOCKS),
            entry(Who::Libtorrent, BLOCKS),
            entry(Who::Transmission, BLOCKS),
            entry(Who::Rqbit, BLOCKS),
        ],
        goals: &[at_most(Quantity::ServerCpu, 0.25, 0.15)],
    },
    Row {
        name: "P4",
        about: "our seeding (P3) against our file serving (P1)",
        kind: Kind::Hot,
        entries: &[entry(Who::Millrace, BLOCKS), entry(Who::Millrace, MIB)],
        goals: &[at_most(Quantity::ServerCpu, 2.0, 1.4)],
    },
    Row {
        name: "P5",
        about: "HTTP ranges of 1 MiB at random, cold, 16 connections, memory for a quarter of the file",
        kind: Kind::Cold,
        entries: &[
            entry(Who::Millrace, MIB),
            entry(Who::Nginx(Flavour::Sendfile), MIB),
            entry(Who::Nginx(Flavour::Threads), MIB),
            entry(Who::Fio, Ask::Reads { depth: 16, bytes: 1 << 20 }),
        ],
        goals: &[
            Goal { against: NGINX, ..at_least(Quantity::Throughput, 2.0, 3.0) },
            Goal { against: &[Who::Fio], ..at_least(Quantity::Throughput, 0.85, 0.95) },
        ],
    },
    Row {
        name: "P13",
        about: "hashing on arrival, SHA-1 of pieces",
        kind: Kind::Hashing,
        entries: &[entry(Who::Millrace, SHA1), entry(Who::Openssl, SHA1)],
        goals: &[at_least(Quantity::Throughput, 0.9, 1.0)],
    },
    Row {
        name: "P13",
        about: "hashing on arrival, SHA-256 of blocks of 16 KiB and the tree above them",
        kind: Kind::Hashing,
        entries: &[entry(Who::Millrace, SHA256), entry(Who::Openssl, SHA256)],
        goals: &[at_least(Quantity::Throughput, 0.9, 1.0)],
    },
];

impl Ask {
    /// Connections of it.
    pub(crate) fn connections(self) -> usize {
        match self {
            Ask::Ranges { connections, .. } => connections,
            Ask::Blocks { leechers, .. } => leechers,
            Ask::Reads { .. } | Ask::Hash(_) => 0,
        }
    }
}

impl Quantity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Quantity::ServerCpu => "server CPU per GB",
            Quantity::Throughput => "throughput",
            Quantity::AnswersPerSecond => "answers per second",
        }
    }
}

impl Relation {
    pub(crate) fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Relation::AtMost => value <= bound,
            Relation::AtLeast => value >= bound,
        }
    }

    pub(crate) fn sign(self) -> &'static str {
        match self {
            Relation::AtMost => "≤",
            Relation::AtLeast => "≥",
        }
    }
}

/// The rows of a list such as `P1,P3`, in the order of the table; all of them for `None`.
///
/// # Errors
/// A name that is none.
pub(crate) fn choose(list: Option<&str>) -> anyhow::Result<Vec<&'static Row>> {
    let Some(list) = list else { return Ok(ROWS.iter().collect()) };
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_ascii_uppercase()).collect();
    for name in &names {
        if !ROWS.iter().any(|row| row.name == name) {
            let mut known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            known.dedup();
            anyhow::bail!("--rows {name}: there are {}", known.join(", "));
        }
    }
    Ok(ROWS.iter().filter(|row| names.iter().any(|name| name == row.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_name() {
        let names = |list| choose(Some(list)).map(|rows| rows.iter().map(|row| row.name).collect::<Vec<_>>());
        assert_eq!(names("p3, P1").unwrap(), ["P1", "P3"]);
        assert!(names("P99").unwrap_err().to_string().contains("P99"));
        assert_eq!(choose(None).unwrap().len(), ROWS.len());
    }

    #[test]
    fn ours_is_first_and_targets_get_harder() {
        for row in ROWS {
            assert_eq!(row.entries[0].who, Who::Millrace, "{}", row.name);
            assert!(row.entries.len() > 1, "{}", row.name);
            for goal in row.goals {
                assert!(goal.relation.holds(goal.then, goal.first), "{}: {goal:?}", row.name);
            }
        }
    }
}
