//! Rows about how fast a content is pulled whole from an origin whose rate is bounded: by our relay, by a cache that fills itself range by
//! range, and by one plain download, in turn, each time a file that nobody has yet. The rate is from the first byte that leaves the origin
//! to the last one at the client: how long the first one takes is what another row is about.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::contest::Contest;
use super::outcome::{Comparison, Outcome};
use super::row::{Ask, Row, Who};
use super::side::Side;
use crate::interrupt::Interrupted;
use crate::load::runtime::Runtime;
use crate::load::{Aborting, HttpLoad, Load, Order};
use crate::measure::cpu;
use crate::origin::{Origin, OriginPlan};
use crate::peers::{Absent, nginx};
use crate::report::{Cost, Measurement};
use crate::server::relay::{self, Relay, RelayPlan};
use crate::server::remote::InfohashKind;
use crate::server::scratch::Scratch;
use crate::server::{HttpFile, Server};

/// The origin's rate.
const RATE: u64 = 50_000_000;

/// Longest content: what is after the first seconds is all alike.
const CONTENT_BYTES_MAX: u64 = 256 << 20;

/// The origin's threads share the cores of the load, which so must sleep.
const LOAD: Runtime = Runtime::Epoll;

/// Longest time of a pull: a range of 4 MiB in each round trip takes 20 s.
const PATIENCE: Duration = Duration::from_secs(120);

const LOOK: Duration = Duration::from_millis(5);

/// The folder of the cache that the relay is compared with.
const CACHE: &str = "nginx";

/// Who is asked for the origin's files, and below which path.
struct Contender {
    side: Side,
    address: SocketAddr,
    folder: &'static str,
    /// The process that does the work; the origin itself is this one.
    pid: Option<u32>,
}

/// CPU time: of the server, where there is one, and of this process, which is the client and the origin.
#[derive(Default)]
struct Cpu {
    server: Option<Duration>,
    load: Duration,
}

impl Contest<'_> {
    /// Pulls in turn, from an origin that waits `delay` before each answer.
    pub(super) fn pulling_row(
        &self,
        row: &Row,
        delay: Duration,
        comparison: &mut Comparison,
    ) -> anyhow::Result<Outcome> {
        let scratch = Scratch::create(self.args.folder.as_deref())?;
        let length = self.args.content_bytes.0.min(CONTENT_BYTES_MAX);
        let origin =
            Origin::start(OriginPlan { seed: 1, length, piece_bytes: length, rate: Some(RATE), delay })
                .context("starting the origin")?;
        // They run until the row is over.
        let relay_plan = self.puller(scratch.path(), &origin)?;
        let mut relay = relay_plan.start(&self.interrupt)?;
        let cache = self.cache(row, scratch.path(), &origin, comparison)?;
        let version = relay::version(&relay_plan.program);
        let side = |who, name: &str, version: &str| {
            Side::new(who, name, version, Ask::Pull { bytes: length }.to_string(), &self.cores)
        };
        let mut contenders = vec![Contender {
            side: side(Who::Millrace, "millrace", &version),
            address: relay.remote.address,
            folder: "/pull/perf",
            pid: Some(relay.process.pid()),
        }];
        contenders.extend(cache.as_ref().and_then(|cache| {
            let side = side(Who::Nginx(nginx::Flavour::Slices), &cache.name, &cache.version);
            Some(Contender { side, address: cache.http.as_ref()?.address, folder: "", pid: cache.pid })
        }));
        let plain = side(Who::Direct, "one plain download", "");
        contenders.push(Contender { side: plain, address: origin.address(), folder: "", pid: None });
        let mut number = 0;
        for _ in 0..self.args.repeats {
            for contender in &mut contenders {
                number += 1;
                let pulled = self.pull_once(contender, &origin, number, length);
                // So that two copies are on the disk at most.
                let forgotten = match contender.side.who {
                    Who::Millrace => self.forget(&relay_plan, &mut relay),
                    Who::Nginx(_) => Ok(nginx::empty_cache(&scratch.path().join(CACHE))?),
                    _ => Ok(()),
                };
                match pulled.and_then(|measurement| forgotten.map(|()| measurement)) {
                    Ok(measurement) => contender.side.runs.push(measurement),
                    Err(error) if error.is::<Interrupted>() || contender.side.who == Who::Millrace => {
                        return Err(error);
                    }
                    Err(error) => comparison.note(format!("{}: {error:#}", row.name)),
                }
            }
        }
        let mut bound = side(Who::Origin, "the origin's rate", "");
        let second = measured(RATE, Duration::from_secs(1), Cpu::default());
        bound.runs.extend(std::iter::repeat_n(second, self.args.repeats));
        let sides = contenders.into_iter().map(|contender| contender.side).chain([bound]);
        Ok(Outcome::judge(row, sides.collect()))
    }

    fn puller(&self, scratch: &Path, origin: &Origin) -> anyhow::Result<RelayPlan> {
        let folder = folder_in(scratch, "millrace")?;
        Ok(RelayPlan {
            program: relay::find(self.args.relay.as_deref())?,
            cores: self.cores.server.clone(),
            folder,
            sources: Vec::new(),
            connections: 1,
            io: self.args.io.clone(),
            congestion: None,
            infohash: InfohashKind::V1,
            egress: None,
            pull_through: Some(origin.address()),
        })
    }

    fn cache(
        &self,
        row: &Row,
        scratch: &Path,
        origin: &Origin,
        comparison: &mut Comparison,
    ) -> anyhow::Result<Option<Server>> {
        if !self.args.is_against(Who::Nginx(nginx::Flavour::Slices)) {
            return Ok(None);
        }
        let program = match nginx::find() {
            Ok(program) => program,
            Err(Absent { name, remedy }) => {
                comparison.note(format!("{name} is not compared: {remedy}"));
                return Ok(None);
            }
        };
        let folder = folder_in(scratch, CACHE)?;
        let cache =
            nginx::start_cache(&program, &folder, &self.cores.server, origin.address(), &self.interrupt);
        // One without the module, for instance.
        Ok(cache.map_err(|error| comparison.note(format!("{}: not compared: {error:#}", row.name))).ok())
    }

    /// Removes what the relay has pulled, once it is through with it.
    fn forget(&self, plan: &RelayPlan, relay: &mut Relay) -> anyhow::Result<()> {
        let complete = || relay.remote.complete(false);
        let content = relay.process.wait_until("complete content", PATIENCE, &self.interrupt, complete)?;
        plan.remove(&content.id)
    }

    /// One client takes file `number` whole.
    fn pull_once(
        &self,
        contender: &Contender,
        origin: &Origin,
        number: u64,
        length: u64,
    ) -> anyhow::Result<Measurement> {
        let before = contender.cpu()?;
        let path = format!("{}{}", contender.folder, Origin::path(number));
        let downloads = whole(contender.address, path, length).download(LOAD, &self.cores.load);
        let deadline = Instant::now() + PATIENCE;
        while !downloads.are_done() && Instant::now() < deadline {
            self.interrupt.check()?;
            std::thread::sleep(LOOK);
        }
        let board = downloads.board.clone();
        let done = downloads.finish()?;
        let Some(done) = done.first().map(|download| download.done) else {
            let errors = board.errors();
            bail!("no download in {} s: {}", PATIENCE.as_secs(), errors.first().map_or("", String::as_str));
        };
        let served = origin.served(number);
        let began = served.first_byte.context("the origin was not asked")?;
        if served.bytes != length {
            bail!("the origin sent {} bytes of {length}", served.bytes);
        }
        let after = contender.cpu()?;
        let used = Cpu {
            server: after.server.zip(before.server).map(|(after, before)| after.saturating_sub(before)),
            load: after.load.saturating_sub(before.load),
        };
        Ok(measured(length, done.saturating_duration_since(began), used))
    }
}

impl Contender {
    fn cpu(&self) -> anyhow::Result<Cpu> {
        let server = self.pid.map(|pid| cpu::of_tree(pid).context("the server is gone")).transpose()?;
        Ok(Cpu { server, load: cpu::own() })
    }
}

fn measured(bytes: u64, time: Duration, cpu: Cpu) -> Measurement {
    Measurement {
        seconds: time.as_secs_f64(),
        http_bytes: bytes,
        server_cpu: cpu.server.map(|cpu| Cost::of(cpu, bytes)),
        load_cpu: Cost::of(cpu.load, bytes),
        ..Measurement::default()
    }
}

/// A client that takes a file of `length` bytes by one request.
fn whole(address: SocketAddr, path: String, length: u64) -> Load {
    let http = HttpLoad {
        file: HttpFile { address, host: address.to_string(), path, length },
        paths: std::sync::Arc::default(),
        connections: 1,
        range_bytes: length,
        ranges: None,
        rate: None,
    };
    Load {
        http: Some(http),
        bittorrent: None,
        order: Order::Sequential,
        seed: 1,
        aborting: Aborting::default(),
        verify: None,
    }
}

fn folder_in(parent: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = parent.join(name);
    std::fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}
