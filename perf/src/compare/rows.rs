//! The rows of the table of targets, each with what it owes first and what we are after then.

use super::row::{Ask, Digest, Goal, Kind, Quantity, Row, Who, at_least, at_most, entry};
use crate::peers::nginx::Flavour;

const MIB: Ask = Ask::Ranges { connections: 16, range_bytes: 1 << 20 };
const SMALL: Ask = Ask::Ranges { connections: 64, range_bytes: 16 << 10 };
const BLOCKS: Ask = Ask::Blocks { leechers: 64, queue: 64 };

const SHA1: Ask = Ask::Hash(Digest::Sha1);
const SHA256: Ask = Ask::Hash(Digest::Sha256);

const NGINX: &[Who] = &[Who::Nginx(Flavour::Sendfile), Who::Nginx(Flavour::Threads)];

const NOBODY_FAILS: Goal = at_most(Quantity::Failed, 0.0, 0.0);

/// How far it is to what cannot be avoided.
const BESIDE_THE_KERNEL: Goal =
    Goal { against: &[Who::Bare], ..at_most(Quantity::ServerCpu, f64::INFINITY, f64::INFINITY) };

/// What connections that do nothing may cost.
const IDLE: &[Goal] = &[
    at_least(Quantity::BesideIdle, 0.95, 0.95),
    at_most(Quantity::IdleMemory, 4096.0, 4096.0),
    NOBODY_FAILS,
];

/// What more of something may cost.
const FLAT: &[Goal] = &[at_most(Quantity::ServerCpu, 1.1, 1.03)];

/// What a pull owes to the origin's rate, and to a cache.
const PULL_RATE: &[Goal] = &[
    Goal { against: &[Who::Origin], ..at_least(Quantity::Throughput, 0.95, 0.99) },
    Goal { against: &[Who::Nginx(Flavour::Slices)], ..at_least(Quantity::Throughput, 1.0, 1.0) },
];

/// All of them.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "P1",
        about: "HTTP ranges of 1 MiB, hot, 16 connections",
        kind: Kind::Hot,
        entries: &[
            entry(Who::Millrace, MIB),
            entry(Who::Nginx(Flavour::Sendfile), MIB),
            entry(Who::Bare, MIB),
        ],
        goals: &[
            Goal { against: NGINX, ..at_most(Quantity::ServerCpu, 0.90, 0.80) },
            Goal { against: NGINX, ..at_least(Quantity::Throughput, 1.0, 1.0) },
            BESIDE_THE_KERNEL,
        ],
    },
    Row {
        name: "P2",
        about: "HTTP ranges of 16 KiB, hot, 64 connections",
        kind: Kind::Hot,
        entries: &[
            entry(Who::Millrace, SMALL),
            entry(Who::Nginx(Flavour::Sendfile), SMALL),
            entry(Who::Bare, SMALL),
        ],
        goals: &[
            Goal { against: NGINX, ..at_most(Quantity::ServerCpu, 0.85, 0.72) },
            Goal { against: NGINX, ..at_least(Quantity::AnswersPerSecond, 1.1, 1.3) },
            BESIDE_THE_KERNEL,
        ],
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
        name: "P6",
        about: "hot HTTP ranges of 16 KiB, 2,000 a second, while cold ranges of 1 MiB are asked for beside them",
        kind: Kind::Scenario(include_str!("../../scenarios/beside-cold.toml")),
        entries: &[],
        goals: &[at_most(Quantity::BesideCold, 2.0, 1.3)],
    },
    Row {
        name: "P7",
        about: "first byte of what is being pulled, hashes unknown, against a direct download",
        kind: Kind::Scenario(include_str!("../../scenarios/faststart.toml")),
        entries: &[],
        goals: &[at_most(Quantity::FirstByteLater, 2.0, 0.5), NOBODY_FAILS],
    },
    Row {
        name: "P7",
        about: "first byte of what is being pulled, hashes known, against a direct download and one piece",
        kind: Kind::Scenario(include_str!("../../scenarios/faststart-known.toml")),
        entries: &[],
        goals: &[at_most(Quantity::FirstByteAfterPiece, 2.0, 0.5), NOBODY_FAILS],
    },
    Row {
        name: "P8",
        about: "pull of one content from an origin of 50 MB/s",
        kind: Kind::Pulling { delay_ms: 0 },
        entries: &[],
        goals: PULL_RATE,
    },
    Row {
        name: "P8",
        about: "pull of one content from an origin of 50 MB/s whose answers take 200 ms to begin",
        kind: Kind::Pulling { delay_ms: 200 },
        entries: &[],
        goals: PULL_RATE,
    },
    Row {
        name: "P9",
        about: "1,000 clients of both protocols on one content being pulled",
        kind: Kind::Scenario(include_str!("../../scenarios/crowd.toml")),
        entries: &[],
        goals: &[at_most(Quantity::OriginRatio, 1.0, 1.0), NOBODY_FAILS],
    },
    Row {
        name: "P9",
        about: "1,000 clients of both protocols on one content being pulled, 500 of which go away in the middle",
        kind: Kind::Scenario(include_str!("../../scenarios/crowd-aborting.toml")),
        entries: &[],
        goals: &[at_most(Quantity::OriginRatio, 1.0, 1.0), NOBODY_FAILS],
    },
    Row {
        name: "P10",
        about: "10,000 idle HTTP connections beside ranges of 1 MiB",
        kind: Kind::Scenario(include_str!("../../scenarios/idle.toml")),
        entries: &[],
        goals: IDLE,
    },
    Row {
        name: "P10",
        about: "10,000 idle BitTorrent peers beside 64 leechers",
        kind: Kind::Scenario(include_str!("../../scenarios/idle-bt.toml")),
        entries: &[],
        goals: IDLE,
    },
    Row {
        name: "P11",
        about: "a cap on everything, 1,000 connections of both protocols, changed while it runs",
        kind: Kind::Scenario(include_str!("../../scenarios/caps.toml")),
        entries: &[],
        goals: &[
            at_most(Quantity::WorstSecond, 1.0, 1.0),
            at_least(Quantity::CapMean, 0.98, 0.98),
            at_most(Quantity::CapInForce, 100.0, 100.0),
            NOBODY_FAILS,
        ],
    },
    Row {
        name: "P12",
        about: "HTTP ranges of 16 KiB, 64 connections: ten contents against 100,000",
        kind: Kind::Scale(&[
            include_str!("../../scenarios/many-contents.toml"),
            include_str!("../../scenarios/all-contents.toml"),
            include_str!("../../scenarios/ten-contents.toml"),
        ]),
        entries: &[],
        goals: FLAT,
    },
    Row {
        name: "P12",
        about: "HTTP ranges of 1 MiB, 16 connections: a file of 1 GiB against one of 64 GiB",
        kind: Kind::Scale(&[
            include_str!("../../scenarios/sparse-64gib.toml"),
            include_str!("../../scenarios/sparse-1gib.toml"),
        ]),
        entries: &[],
        goals: FLAT,
    },
    Row {
        name: "P12",
        about: "HTTP ranges of 16 KiB, 64 connections: a file of 1 GiB against one of 64 GiB",
        kind: Kind::Scale(&[
            include_str!("../../scenarios/sparse-64gib-16kib.toml"),
            include_str!("../../scenarios/sparse-1gib-16kib.toml"),
        ]),
        entries: &[],
        goals: FLAT,
    },
    Row {
        name: "P12",
        about: "HTTP ranges of 1 MiB: two shards against one",
        kind: Kind::Shards(include_str!("../../scenarios/http-1mib.toml")),
        entries: &[],
        goals: FLAT,
    },
    Row {
        name: "P12",
        about: "HTTP ranges of 16 KiB: two shards against one",
        kind: Kind::Shards(include_str!("../../scenarios/http-16kib.toml")),
        entries: &[],
        goals: FLAT,
    },
    Row {
        name: "P12",
        about: "BitTorrent seeding: two shards against one",
        kind: Kind::Shards(include_str!("../../scenarios/bt-seeding.toml")),
        entries: &[],
        goals: FLAT,
    },
    Row {
        name: "aria2",
        about: "aria2 downloads a file of 256 MiB over HTTP with 16 connections",
        kind: Kind::Download,
        entries: &[
            entry(Who::Millrace, Ask::Download { bittorrent: false }),
            entry(Who::Nginx(Flavour::Sendfile), Ask::Download { bittorrent: false }),
        ],
        goals: &[],
    },
    Row {
        name: "aria2",
        // Not from Transmission, which sends what is queued twice a second: with the few requests that aria2 queues, that is 1 MB/s.
        about: "aria2 downloads a file of 256 MiB over BitTorrent from one peer",
        kind: Kind::Download,
        entries: &[
            entry(Who::Millrace, Ask::Download { bittorrent: true }),
            entry(Who::Libtorrent, Ask::Download { bittorrent: true }),
            entry(Who::Rqbit, Ask::Download { bittorrent: true }),
        ],
        goals: &[],
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

/// The rows of a list such as `P1,P3`, in the order of the table; all of them for `None`.
///
/// # Errors
/// A name that is none.
pub(crate) fn choose(list: Option<&str>) -> anyhow::Result<Vec<&'static Row>> {
    let Some(list) = list else { return Ok(ROWS.iter().collect()) };
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    for name in &names {
        if !ROWS.iter().any(|row| row.name.eq_ignore_ascii_case(name)) {
            let mut known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            known.dedup();
            anyhow::bail!("--rows {name}: there are {}", known.join(", "));
        }
    }
    Ok(ROWS.iter().filter(|row| names.iter().any(|name| row.name.eq_ignore_ascii_case(name))).collect())
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
            if matches!(row.kind, Kind::Hot | Kind::Cold | Kind::Hashing) {
                assert_eq!(row.entries[0].who, Who::Millrace, "{}", row.name);
                assert!(row.entries.len() > 1, "{}", row.name);
            }
            for goal in row.goals {
                assert!(goal.relation.holds(goal.then, goal.first), "{}: {goal:?}", row.name);
            }
        }
    }
}
