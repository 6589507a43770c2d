//! The settings of a load: each is a flag, and under the same name a key of a scenario file; the flag wins.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use millrace_proto::units::{Rate, Size};
use serde::{Deserialize, Deserializer};

/// What is measured and how. What is not said is decided in [`crate::plan`].
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Settings {
    /// Which command the scenario is for.
    #[arg(skip)]
    pub(crate) kind: Option<Kind>,
    /// What the scenario shows, in a sentence.
    #[arg(skip)]
    pub(crate) about: Option<String>,

    /// URL of a relay that is running, here or on another box [default: start one]
    #[arg(long, value_name = "URL")]
    pub(crate) target: Option<String>,
    /// Its address for BitTorrent [default: its host, port 6881]
    #[arg(long, value_name = "ADDR")]
    pub(crate) target_bt: Option<SocketAddr>,
    /// Its address for metrics, where it tells by which way it sends: how much a card took without a copy [default: its host, port 9185]
    #[arg(long, value_name = "ADDR")]
    pub(crate) target_metrics: Option<SocketAddr>,
    /// Id, infohash or name of its content to ask for [default: the first complete one]
    #[arg(long, value_name = "ID")]
    pub(crate) content: Option<String>,
    /// Process id of the server, if it runs here: its CPU time and memory are then reported
    #[arg(long, value_name = "PID")]
    pub(crate) target_pid: Option<u32>,
    /// The relay program to start [default: millrace-relay beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) relay: Option<PathBuf>,
    /// Cores for the relay, such as 0 or 0-1 [default: the first that is free]
    #[arg(long, alias = "server-cores", value_name = "LIST")]
    pub(crate) server_core: Option<String>,
    /// Cores for the load, a thread on each [default: all others]
    #[arg(long, value_name = "LIST")]
    pub(crate) load_cores: Option<String>,
    /// How the relay talks to the kernel: auto, uring or epoll [default: auto]
    #[arg(long, value_name = "KIND")]
    pub(crate) io: Option<String>,
    /// Congestion control of the relay, such as bbr [default: cubic where this user may choose it, since BBR's pacing dominates everything over loopback]
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// Folder for the test file and the store, on the disk to be measured [default: where temporary files go]
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,

    /// Connections; with faststart, clients [default: 16 of HTTP, 64 of BitTorrent; faststart: 1]
    #[arg(long, value_name = "COUNT")]
    pub(crate) connections: Option<usize>,
    /// Measure with each of these numbers of connections in turn, such as 1,16,256
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub(crate) sweep: Vec<usize>,
    /// Length of the ranges asked for [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) range_bytes: Option<Size>,
    /// Length of the test file [default: 256MiB; faststart: 16MiB; cold: 2GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) content_bytes: Option<Size>,
    /// Which part is asked for next [default: random]
    #[arg(long, value_name = "ORDER")]
    pub(crate) order: Option<OrderName>,
    /// HTTP requests per second of all connections together; latencies then count from when each was due [default: as many as are answered]
    #[arg(long, value_name = "COUNT")]
    pub(crate) rate: Option<f64>,
    /// BitTorrent requests that each peer keeps unanswered [default: 64]
    #[arg(long, value_name = "COUNT")]
    pub(crate) queue: Option<usize>,
    /// Which infohash BitTorrent peers name [default: v1]
    #[arg(long, value_name = "VERSION")]
    pub(crate) infohash: Option<InfohashName>,
    /// Time that is measured [default: 10s; caps: 80s, in eight steps; soak: 10m; cold: a minute at most for each pass]
    #[arg(long, value_name = "TIME")]
    pub(crate) duration: Option<Span>,
    /// Time before that, in which everything gets up to speed [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub(crate) warm_up: Option<Span>,
    /// faststart: bytes per second of the origin, all connections together [default: 100MB/s]
    #[arg(long, value_name = "RATE")]
    pub(crate) origin_rate: Option<Rate>,
    /// faststart: time before each answer of the origin, as a long way would take [default: 0ms]
    #[arg(long, value_name = "TIME")]
    pub(crate) origin_delay: Option<Span>,
    /// faststart: pulls, each of a new content [default: 20]; cold: passes over the file [default: 3]; with --idle, pairs of runs [default: 3]
    #[arg(long, value_name = "COUNT")]
    pub(crate) rounds: Option<usize>,
    /// Connections that are opened and do nothing; the load is measured without and beside them in turn
    #[arg(long, value_name = "COUNT")]
    pub(crate) idle: Option<usize>,
    /// http: a file of this length that is not in memory; the load is measured without and beside 16 connections that ask for 1 MiB of it at
    /// random, with memory for a quarter of it
    #[arg(long, value_name = "SIZE")]
    pub(crate) beside_cold: Option<Size>,
    /// http: contents that the relay has, each as long as the test file [default: 1]
    #[arg(long, value_name = "COUNT")]
    pub(crate) contents: Option<usize>,
    /// http: how many of them are asked for, at random [default: all]
    #[arg(long, value_name = "COUNT")]
    pub(crate) asked: Option<usize>,
    /// http: the test file is a hole, which may be longer than the disk
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) sparse: Option<bool>,
    /// http: how many different ranges are asked for, evenly spread over the file [default: all]
    #[arg(long, value_name = "COUNT")]
    pub(crate) ranges: Option<u64>,
    /// caps: bytes per second that the relay may send [default: 200MB/s]
    #[arg(long, value_name = "RATE")]
    pub(crate) cap: Option<Rate>,
    /// caps: what it may send in the second step [default: half of that]
    #[arg(long, value_name = "RATE")]
    pub(crate) cap_then: Option<Rate>,
    /// faststart: give the relay the piece hashes first; half of the clients then come by BitTorrent
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) known_hashes: Option<bool>,
    /// faststart: how many of the clients go away when they have half [default: 0]
    #[arg(long, value_name = "COUNT")]
    pub(crate) aborting: Option<usize>,
    /// Count system calls of the relay for a second after the measured time, by perf or strace
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) syscalls: Option<bool>,
    /// Check every byte instead of throwing it away; costs the load CPU time
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) verify: Option<bool>,
    /// Decides what the test file holds and what is asked for in which order [default: 1]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Exit with 1 if a result is worse than this, such as throughput=1GB/s, cpu-per-gb=0.2 or p99-ms=5; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) floor: Vec<String>,
}

impl Settings {
    /// These, and what they do not say as `base` has it.
    #[must_use]
    pub(crate) fn over(self, base: Settings) -> Settings {
        Settings {
            kind: self.kind.or(base.kind),
            about: self.about.or(base.about),
            target: self.target.or(base.target),
            target_bt: self.target_bt.or(base.target_bt),
            target_metrics: self.target_metrics.or(base.target_metrics),
            content: self.content.or(base.content),
            target_pid: self.target_pid.or(base.target_pid),
            relay: self.relay.or(base.relay),
            server_core: self.server_core.or(base.server_core),
            load_cores: self.load_cores.or(base.load_cores),
            io: self.io.or(base.io),
            congestion: self.congestion.or(base.congestion),
            folder: self.folder.or(base.folder),
            connections: self.connections.or(base.connections),
            sweep: if self.sweep.is_empty() { base.sweep } else { self.sweep },
            range_bytes: self.range_bytes.or(base.range_bytes),
            content_bytes: self.content_bytes.or(base.content_bytes),
            order: self.order.or(base.order),
            rate: self.rate.or(base.rate),
            queue: self.queue.or(base.queue),
            infohash: self.infohash.or(base.infohash),
            duration: self.duration.or(base.duration),
            warm_up: self.warm_up.or(base.warm_up),
            origin_rate: self.origin_rate.or(base.origin_rate),
            origin_delay: self.origin_delay.or(base.origin_delay),
            rounds: self.rounds.or(base.rounds),
            known_hashes: self.known_hashes.or(base.known_hashes),
            idle: self.idle.or(base.idle),
            beside_cold: self.beside_cold.or(base.beside_cold),
            contents: self.contents.or(base.contents),
            asked: self.asked.or(base.asked),
            sparse: self.sparse.or(base.sparse),
            ranges: self.ranges.or(base.ranges),
            aborting: self.aborting.or(base.aborting),
            syscalls: self.syscalls.or(base.syscalls),
            cap: self.cap.or(base.cap),
            cap_then: self.cap_then.or(base.cap_then),
            verify: self.verify.or(base.verify),
            seed: self.seed.or(base.seed),
            floor: if self.floor.is_empty() { base.floor } else { self.floor },
        }
    }
}

/// The command a scenario is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Http,
    Bt,
    Mixed,
    Faststart,
    Cold,
    Caps,
    Soak,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Bt => "bt",
            Kind::Mixed => "mixed",
            Kind::Faststart => "faststart",
            Kind::Cold => "cold",
            Kind::Caps => "caps",
            Kind::Soak => "soak",
        }
    }
}

/// `--order`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderName {
    /// Any part, as the seed has it
    Random,
    /// The part behind the last, each connection from its own place
    Sequential,
}

/// `--infohash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum InfohashName {
    V1,
    V2,
}

/// A time as people write it: `300ms`, `10s`, `5m`, `1h`; a plain number is seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let factor = match unit.trim() {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return Err("write a time as 300ms, 10s, 5m or 1h".into()),
        };
        let number: f64 = number.parse().map_err(|_| "write a time as 300ms, 10s, 5m or 1h".to_owned())?;
        Duration::try_from_secs_f64(number * factor).map(Span).map_err(|error| error.to_string())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
        assert_eq!(read("300ms"), Ok(300));
        assert_eq!(
            (read("1.5s"), read("2"), read("5m"), read("1h")),
            (Ok(1500), Ok(2000), Ok(300_000), Ok(3_600_000))
        );
        for text in ["", "s", "1d", "-1s", "1.2.3s"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
