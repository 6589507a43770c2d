//! What a row of the table of targets is made of.

use std::fmt;

use millrace_proto::units::Size;

use crate::peers::aria2;
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

impl Row {
    /// The most connections that any entry holds.
    pub(crate) fn connections(&self) -> usize {
        self.entries.iter().map(|entry| entry.ask.connections()).max().unwrap_or(0)
    }

    /// Whether anything of it is over BitTorrent.
    pub(crate) fn needs_torrent(&self) -> bool {
        self.entries.iter().any(|entry| entry.ask.needs_torrent())
    }
}

/// How a row is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs find all of the file in memory.
    Hot,
    /// As hot ones, by people's own client and with a shorter file, since it takes all of it.
    Download,
    /// Runs find nothing of it, and no room for more than a quarter.
    Cold,
    /// Nothing is served; bytes are hashed.
    Hashing,
    /// One of the other commands, as a scenario file has it; we are alone, and what it finds is held against the targets.
    Scenario(&'static str),
    /// Scenarios that ask the same of a relay that has more, in turn with the last one, whose relay has little.
    Scale(&'static [&'static str]),
    /// A content is pulled whole from an origin of bounded rate that waits so many milliseconds before each answer.
    Pulling { delay_ms: u64 },
    /// A scenario by a relay of two shards, in turn with one of a single shard.
    Shards(&'static str),
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
    /// Nobody between the client and the origin.
    Direct,
    /// The rate that the origin is held to.
    Origin,
    /// The kernel's part alone.
    Bare,
}

/// Those that `--against` can name.
pub(crate) const PEERS: [&str; 6] = ["nginx", "libtorrent", "transmission", "rqbit", "fio", "openssl"];

impl Who {
    /// Its name of [`PEERS`]; `None` of what belongs to us or to the row.
    pub(crate) fn peer(self) -> Option<&'static str> {
        match self {
            Who::Millrace | Who::Direct | Who::Origin | Who::Bare => None,
            Who::Nginx(_) => Some("nginx"),
            Who::Libtorrent => Some("libtorrent"),
            Who::Transmission => Some("transmission"),
            Who::Rqbit => Some("rqbit"),
            Who::Fio => Some("fio"),
            Who::Openssl => Some("openssl"),
        }
    }
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
    /// The whole file by aria2, over HTTP with as many connections as it opens, or over BitTorrent.
    Download { bittorrent: bool },
    /// One whole file that it has to pull first.
    Pull { bytes: u64 },
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

/// A target: our median against the median of the best of those it names, or a number by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Goal {
    pub(crate) quantity: Quantity,
    pub(crate) relation: Relation,
    /// Nobody named is everybody.
    pub(crate) against: &'static [Who],
    /// Owed; infinite where the number is only to be seen.
    pub(crate) first: f64,
    /// What we are after.
    pub(crate) then: f64,
}

/// What a target is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// CPU-seconds of the server for each GB, by another's.
    ServerCpu,
    /// By another's.
    Throughput,
    /// By another's.
    AnswersPerSecond,
    /// The 99th percentile of the first byte's time after the origin's, beyond that of a direct download, in milliseconds.
    FirstByteLater,
    /// The same, less the time that the origin takes for a piece.
    FirstByteAfterPiece,
    /// Bytes that the origin sent, by the size; of all rounds the most.
    OriginRatio,
    /// Throughput beside connections that do nothing, by that without them.
    BesideIdle,
    /// Bytes of the server's own memory for each of them.
    IdleMemory,
    /// The 99th percentile of the time to the last byte beside cold requests, by that without them.
    BesideCold,
    /// The most within a second, by the larger of the cap and 1 % or 64 KiB more.
    WorstSecond,
    /// What arrived on average, by the cap.
    CapMean,
    /// Milliseconds until a new cap is kept to.
    CapInForce,
    /// Connections and clients that failed.
    Failed,
}

/// Which side of the target is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    AtMost,
    AtLeast,
}

pub(super) const fn entry(who: Who, ask: Ask) -> Entry {
    Entry { who, ask }
}

pub(super) const fn at_most(quantity: Quantity, first: f64, then: f64) -> Goal {
    Goal { quantity, relation: Relation::AtMost, against: &[], first, then }
}

pub(super) const fn at_least(quantity: Quantity, first: f64, then: f64) -> Goal {
    Goal { quantity, relation: Relation::AtLeast, against: &[], first, then }
}

impl Ask {
    /// Whether it is over BitTorrent.
    pub(crate) fn needs_torrent(self) -> bool {
        matches!(self, Ask::Blocks { .. } | Ask::Download { bittorrent: true })
    }

    /// Connections of it.
    pub(crate) fn connections(self) -> usize {
        match self {
            Ask::Ranges { connections, .. } => connections,
            Ask::Blocks { leechers, .. } => leechers,
            Ask::Download { bittorrent: false } => aria2::CONNECTIONS,
            Ask::Download { bittorrent: true } => 1,
            Ask::Pull { .. } => 1,
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
            Quantity::FirstByteLater => "first byte after a direct download's, p99",
            Quantity::FirstByteAfterPiece => "first byte after a direct download's and one piece, p99",
            Quantity::OriginRatio => "sent by the origin, by the size",
            Quantity::BesideIdle => "throughput beside idle connections, by that without",
            Quantity::IdleMemory => "memory of an idle connection",
            Quantity::BesideCold => "p99 beside cold requests, by that without",
            Quantity::WorstSecond => "most within a second, by what the cap allows",
            Quantity::CapMean => "mean, by the cap",
            Quantity::CapInForce => "new cap in force",
            Quantity::Failed => "connections that failed",
        }
    }

    /// Unit of its values; nothing for ratios and counts.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Quantity::FirstByteLater | Quantity::FirstByteAfterPiece | Quantity::CapInForce => " ms",
            Quantity::IdleMemory => " bytes",
            _ => "",
        }
    }

    /// Digits behind the point.
    pub(crate) fn decimals(self) -> usize {
        match self {
            Quantity::OriginRatio | Quantity::WorstSecond | Quantity::CapMean | Quantity::BesideIdle => 3,
            Quantity::IdleMemory | Quantity::Failed => 0,
            _ => 2,
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

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Ranges { connections, range_bytes } => {
                write!(f, "HTTP {connections} × {}", Size(*range_bytes))
            }
            Ask::Blocks { leechers, queue } => write!(f, "BitTorrent {leechers} × {queue} blocks"),
            Ask::Reads { depth, bytes } => {
                write!(f, "{depth} reads of {}", Size(*bytes))
            }
            Ask::Download { bittorrent: false } => write!(f, "aria2, HTTP × {}", aria2::CONNECTIONS),
            Ask::Download { bittorrent: true } => f.write_str("aria2, BitTorrent"),
            Ask::Pull { bytes } => write!(f, "pull of {}", Size(*bytes)),
            Ask::Hash(Digest::Sha1) => f.write_str("SHA-1"),
            Ask::Hash(Digest::Sha256) => f.write_str("SHA-256"),
        }
    }
}
