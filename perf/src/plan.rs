//! From settings to a checked [`Plan`]: past this module nothing means "default", and every error names the flag that has to change.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use millrace_proto::units::{Rate, Size};

use crate::cores::Split;
use crate::load::{Aborting, BittorrentLoad, HttpLoad, Load, Order};
use crate::made::StorePlan;
use crate::payload::Payload;
use crate::report::floor::Floor;
use crate::server::Server;
use crate::server::relay::{self, RelayPlan};
use crate::server::scratch::Scratch;
use crate::settings::{Kind, OrderName, Settings};
use crate::subject::Subject;

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
    pub(crate) store: StorePlan,
    /// Connections that do nothing.
    pub(crate) idle: usize,
    /// Bytes of a file that is asked for beside the load and is not in memory; 0 is none.
    pub(crate) cold_bytes: u64,
    /// Whether system calls are counted.
    pub(crate) syscalls: bool,
    /// Whether this is one of a sweep over the number of connections.
    pub(crate) swept: bool,
    /// caps: bytes per second, at first and after the first change.
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
    /// Clients that go away in the middle.
    pub(crate) aborting: usize,
}

impl Plan {
    /// Whether a relay for the other plan serves this one as well.
    pub(crate) fn has_same_relay(&self, other: &Plan) -> bool {
        let has = |plan: &Plan| {
            let StorePlan { contents, sparse, .. } = plan.store;
            (contents, sparse, plan.content_bytes, plan.cold_bytes, plan.cores.server.clone())
        };
        has(self) == has(other)
    }

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
        let subject = Subject::of(settings)?;
        let is_running = matches!(subject, Subject::Running { .. });
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
            Kind::Caps => 80,
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
                aborting: settings.aborting.unwrap_or(0),
            },
            store: StorePlan {
                contents: settings.contents.unwrap_or(1),
                asked: settings.asked.or(settings.contents).unwrap_or(1),
                sparse: settings.sparse.unwrap_or(false),
                ranges: settings.ranges,
            },
            cold_bytes: settings.beside_cold.map_or(0, |Size(bytes)| bytes),
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

    /// What to put on `server`.
    ///
    /// # Errors
    /// A server that does not speak what is asked for.
    pub(crate) fn load(&self, server: &Server) -> anyhow::Result<Load> {
        let http = (self.http_connections > 0).then(|| {
            let file = server.http.clone().with_context(|| format!("{} has no HTTP address", server.name))?;
            anyhow::Ok(HttpLoad {
                file,
                paths: self.store.paths(),
                connections: self.http_connections,
                range_bytes: self.range_bytes,
                ranges: self.store.ranges,
                rate: self.rate,
            })
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
            aborting: Aborting::default(),
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
