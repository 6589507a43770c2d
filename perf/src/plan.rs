//! From settings to a checked [`Plan`]: past this module nothing means "default", and every error names the flag that has to change.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use millrace_proto::units::{Rate, Size};

use crate::cli::{InfohashName, Kind, OrderName, Settings};
use crate::cores::Split;
use crate::load::{BittorrentLoad, HttpLoad, Load, Order};
use crate::payload::Payload;
use crate::report::floor::Floor;
use crate::server::Server;
use crate::server::relay::{self, RelayPlan};
use crate::server::remote::{InfohashKind, Remote};
use crate::server::scratch::Scratch;

/// Connections that are more than anybody means.
const CONNECTIONS_MAX: usize = 1_000_000;

/// The congestion control that comparisons are made with.
const CONGESTION: &str = "cubic";

/// What to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    /// The scenario's sentence, or nothing.
    pub(crate) about: String,
    pub(crate) subject: Subject,
    pub(crate) cores: Split,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) http_connections: usize,
    pub(crate) bittorrent_connections: usize,
    pub(crate) range_bytes: u64,
    pub(crate) content_bytes: u64,
    pub(crate) order: Order,
    pub(crate) rate: Option<f64>,
    pub(crate) queue: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) verify: bool,
    pub(crate) seed: u64,
    pub(crate) floors: Vec<Floor>,
    pub(crate) pull: PullPlan,
    /// Connections that do nothing.
    pub(crate) idle: usize,
    /// Whether system calls are counted.
    pub(crate) syscalls: bool,
    /// Whether this is one of a sweep over the number of connections.
    pub(crate) swept: bool,
    /// caps: bytes per second, at first and from halfway on.
    pub(crate) caps: Option<(u64, u64)>,
}

/// What faststart does besides, and how often things are done over.
#[derive(Debug, Clone)]
pub(crate) struct PullPlan {
    /// Bytes per second; `None` is as fast as it goes.
    pub(crate) origin_rate: Option<u64>,
    pub(crate) origin_delay: Duration,
    pub(crate) rounds: usize,
    pub(crate) known_hashes: bool,
}

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    /// A relay that runs already; its process, if that is here.
    Running(Remote, Option<u32>),
    /// One to be started.
    Own { relay: Option<PathBuf>, io: Option<String>, congestion: Option<String>, infohash: InfohashKind },
}

impl Plan {
    /// One plan, or one for each number of connections of a sweep.
    ///
    /// # Errors
    /// As [`Plan::check`].
    pub(crate) fn check_all(
        kind: Kind,
        settings: &Settings,
        cores_allowed: &[usize],
    ) -> anyhow::Result<Vec<Plan>> {
        if settings.sweep.is_empty() {
            return Ok(vec![Plan::check(kind, settings, cores_allowed)?]);
        }
        let plan = |connections: &usize| {
            Plan::check(
                kind,
                &Settings { connections: Some(*connections), ..settings.clone() },
                cores_allowed,
            )
        };
        settings.sweep.iter().map(plan).collect()
    }

    /// Checks settings, with the cores that this process may use.
    ///
    /// # Errors
    /// The first flag that cannot be.
    pub(crate) fn check(kind: Kind, settings: &Settings, cores_allowed: &[usize]) -> anyhow::Result<Plan> {
        let subject = subject(settings)?;
        let is_running = matches!(subject, Subject::Running(..));
        let known_hashes = settings.known_hashes.unwrap_or(false);
        let connections = |default| settings.connections.unwrap_or(default);
        let (http_connections, bittorrent_connections) = match kind {
            Kind::Http => (connections(16), 0),
            Kind::Bt => (0, connections(64)),
            Kind::Mixed | Kind::Caps | Kind::Soak => (connections(16), connections(64)),
            Kind::Cold => (connections(16), 0),
            Kind::Faststart if known_hashes => (connections(1).div_ceil(2), connections(1) / 2),
            Kind::Faststart => (connections(1), 0),
        };
        let content_bytes = match kind {
            Kind::Faststart => 16 << 20,
            Kind::Cold => 2 << 30,
            _ => 256 << 20,
        };
        let duration = match kind {
            Kind::Cold => 60,
            Kind::Caps => 20,
            Kind::Soak => 600,
            _ => 10,
        };
        let plan = Plan {
            kind,
            about: settings.about.clone().unwrap_or_default(),
            subject,
            cores: Split::choose(
                settings.server_core.as_deref(),
                settings.load_cores.as_deref(),
                is_running,
                cores_allowed,
            )?,
            folder: settings.folder.clone(),
            http_connections,
            bittorrent_connections,
            range_bytes: settings.range_bytes.map_or(1 << 20, |Size(bytes)| bytes),
            content_bytes: settings.content_bytes.map_or(content_bytes, |Size(bytes)| bytes),
            order: match settings.order {
                _ if kind == Kind::Cold => Order::Once,
                None | Some(OrderName::Random) => Order::Random,
                Some(OrderName::Sequential) => Order::Sequential,
            },
            rate: settings.rate,
            queue: settings.queue.unwrap_or(64),
            warm_up: settings.warm_up.map_or(Duration::from_secs(2), |span| span.0),
            duration: settings.duration.map_or(Duration::from_secs(duration), |span| span.0),
            verify: settings.verify.unwrap_or(false),
            seed: settings.seed.unwrap_or(1),
            floors: settings.floor.iter().map(|text| text.parse()).collect::<anyhow::Result<_>>()?,
            pull: PullPlan {
                origin_rate: settings.origin_rate.map(|Rate(rate)| rate).or(Some(100_000_000)),
                origin_delay: settings.origin_delay.map_or(Duration::ZERO, |span| span.0),
                rounds: settings.rounds.unwrap_or(if kind == Kind::Faststart { 20 } else { 3 }),
                known_hashes,
            },
            idle: settings.idle.unwrap_or(0),
            syscalls: settings.syscalls.unwrap_or(false),
            swept: !settings.sweep.is_empty(),
            caps: (kind == Kind::Caps).then(|| {
                let first = settings.cap.map_or(200_000_000, |Rate(rate)| rate);
                (first, settings.cap_then.map_or(first / 2, |Rate(rate)| rate))
            }),
        };
        plan.bounds()?;
        Ok(plan)
    }

    fn bounds(&self) -> anyhow::Result<()> {
        let connections = self.http_connections + self.bittorrent_connections;
        if connections == 0 || connections > CONNECTIONS_MAX {
            bail!("--connections: from 1 to {CONNECTIONS_MAX}");
        }
        if self.range_bytes == 0 {
            bail!("--range-bytes: at least 1");
        }
        if self.content_bytes < 16 * 1024 {
            bail!("--content-bytes: at least 16KiB");
        }
        if self.queue == 0 || self.queue > 100_000 {
            bail!("--queue: from 1 to 100000");
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            bail!("--rate: more than 0");
        }
        if self.pull.rounds == 0 || self.pull.rounds > 100_000 {
            bail!("--rounds: from 1 to 100000");
        }
        if self.pull.origin_rate == Some(0) {
            bail!("--origin-rate: more than 0");
        }
        if self.kind == Kind::Faststart && !self.floors.is_empty() {
            bail!("--floor: faststart has none yet");
        }
        if self.idle > CONNECTIONS_MAX {
            bail!("--idle: at most {CONNECTIONS_MAX}");
        }
        if self.caps.is_some_and(|(first, then)| first == 0 || then == 0) {
            bail!("--cap, --cap-then: more than 0");
        }
        if self.kind == Kind::Caps && matches!(self.subject, Subject::Running(..)) {
            bail!("caps starts its own relay: leave --target out");
        }
        if self.duration.is_zero() {
            bail!("--duration: more than 0");
        }
        Ok(())
    }

    /// What to put on `server`.
    ///
    /// # Errors
    /// A server that does not speak what is asked for.
    pub(crate) fn load(&self, server: &Server) -> anyhow::Result<Load> {
        let http = (self.http_connections > 0).then(|| {
            let file = server.http.clone().with_context(|| format!("{} has no HTTP address", server.name))?;
            let (connections, range_bytes, rate) = (self.http_connections, self.range_bytes, self.rate);
            anyhow::Ok(HttpLoad { file, connections, range_bytes, rate })
        });
        let bittorrent = (self.bittorrent_connections > 0).then(|| {
            let torrent = server.bittorrent.clone();
            let torrent = torrent.with_context(|| format!("{} has no BitTorrent address", server.name))?;
            anyhow::Ok(BittorrentLoad {
                torrent,
                connections: self.bittorrent_connections,
                queue: self.queue,
            })
        });
        Ok(Load {
            http: http.transpose()?,
            bittorrent: bittorrent.transpose()?,
            order: self.order,
            seed: self.seed,
            verify: self.verify.then(|| Payload::new(self.seed)),
        })
    }

    /// The relay to start with its things in `scratch`, if one is to be started.
    ///
    /// # Errors
    /// The program is nowhere.
    pub(crate) fn relay(&self, scratch: &Scratch, sources: Vec<String>) -> anyhow::Result<Option<RelayPlan>> {
        let Subject::Own { relay, io, congestion, infohash } = &self.subject else { return Ok(None) };
        Ok(Some(RelayPlan {
            program: relay::find(relay.as_deref())?,
            cores: self.cores.server.clone(),
            folder: scratch.path().to_owned(),
            sources,
            connections: self.http_connections + self.bittorrent_connections + self.idle,
            io: io.clone(),
            congestion: congestion.clone(),
            infohash: *infohash,
            egress: self.caps.map(|(first, _)| first.to_string()),
            pull_through: None,
        }))
    }
}

fn subject(settings: &Settings) -> anyhow::Result<Subject> {
    let infohash = match settings.infohash {
        None | Some(InfohashName::V1) => InfohashKind::V1,
        Some(InfohashName::V2) => InfohashKind::V2,
    };
    let Some(url) = &settings.target else {
        for (flag, given) in [
            ("--target-bt", settings.target_bt.is_some()),
            ("--target-pid", settings.target_pid.is_some()),
            ("--content", settings.content.is_some()),
        ] {
            if given {
                bail!("{flag} goes with --target");
            }
        }
        let (relay, io) = (settings.relay.clone(), settings.io.clone());
        let usual = || relay::may_choose(CONGESTION).then(|| CONGESTION.to_owned());
        let congestion = settings.congestion.clone().or_else(usual);
        return Ok(Subject::Own { relay, io, congestion, infohash });
    };
    for (flag, given) in [
        ("--relay", settings.relay.is_some()),
        ("--server-core", settings.server_core.is_some()),
        ("--io", settings.io.is_some()),
        ("--congestion", settings.congestion.is_some()),
    ] {
        if given {
            bail!("{flag} is for a relay that this program starts: leave it out with --target");
        }
    }
    let mut remote = Remote::parse(url, settings.target_bt)?;
    remote.content = settings.content.clone();
    remote.infohash = infohash;
    Ok(Subject::Running(remote, settings.target_pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(settings: Settings, part: &str) {
        let error = format!("{:#}", Plan::check(Kind::Http, &settings, &[0, 1]).unwrap_err());
        assert!(error.contains(part), "`{error}` lacks `{part}`");
    }

    #[test]
    fn what_cannot_be_is_refused_by_the_name_of_its_flag() {
        let base = Settings::default;
        check_refused(Settings { connections: Some(0), ..base() }, "--connections");
        check_refused(Settings { range_bytes: Some(Size(0)), ..base() }, "--range-bytes");
        check_refused(Settings { rate: Some(f64::NAN), ..base() }, "--rate");
        check_refused(Settings { server_core: Some("7".into()), ..base() }, "--server-core");
        check_refused(Settings { target: Some("ftp://x/".into()), ..base() }, "--target");
        check_refused(Settings { target_pid: Some(1), ..base() }, "--target-pid");
        check_refused(Settings { floor: vec!["speed=1".into()], ..base() }, "speed");
        let target = Some("http://127.0.0.1:1/".into());
        check_refused(Settings { target, io: Some("epoll".into()), ..base() }, "--io");
    }

    #[test]
    fn a_sweep_is_a_plan_for_each_number_of_connections() {
        let settings = Settings { sweep: vec![1, 8], connections: Some(3), ..Settings::default() };
        let plans = Plan::check_all(Kind::Http, &settings, &[0, 1]).unwrap();
        assert_eq!(plans.iter().map(|plan| plan.http_connections).collect::<Vec<_>>(), [1, 8]);
        assert!(Plan::check_all(Kind::Http, &Settings { sweep: vec![0], ..settings }, &[0, 1]).is_err());
    }

    #[test]
    fn each_kind_has_the_connections_it_is_about() {
        let connections = |kind, connections| {
            let plan = Plan::check(kind, &Settings { connections, ..Settings::default() }, &[0, 1]).unwrap();
            (plan.http_connections, plan.bittorrent_connections)
        };
        assert_eq!((connections(Kind::Http, None), connections(Kind::Bt, None)), ((16, 0), (0, 64)));
        assert_eq!((connections(Kind::Mixed, None), connections(Kind::Mixed, Some(3))), ((16, 64), (3, 3)));
    }
}
