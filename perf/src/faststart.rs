//! Serving what is still being pulled: how long after the origin's first byte a client has its own, how fast the pull is, and how often the
//! origin has to send each byte, with one client or a thousand, over both protocols. Every other round goes to the origin directly, for
//! comparison.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use millrace_proto::merkle::{PieceHasher, leaf_width};
use millrace_proto::metainfo::{Builder, Metainfo, choose_piece_bytes, plan_files};
use millrace_proto::units::Size;

use crate::interrupt::Interrupt;
use crate::load::once::Download;
use crate::load::runtime::Runtime;
use crate::load::{Aborting, BittorrentLoad, HttpLoad, Load, Order};
use crate::measure::cpu;
use crate::measure::latency::Latencies;
use crate::origin::{Origin, OriginPlan};
use crate::payload::Payload;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::pull::PullMeasurement;
use crate::report::spread::Spread;
use crate::report::{Cost, Report};
use crate::server::relay::{self, Relay, RelayPlan};
use crate::server::{HttpFile, Torrent};
use crate::stage::Stage;

/// Longest a round may take beyond what the origin's rate makes of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether all are done.
const LOOK: Duration = Duration::from_millis(5);

/// Runs all rounds and adds what came of them to `report`.
///
/// # Errors
/// Whatever keeps it from being measured.
pub(crate) fn run(stage: &Stage<'_>, report: &mut Report) -> anyhow::Result<()> {
    let pull = measure(stage)?;
    report.missed.extend(stage.plan.floors.iter().filter_map(|floor| floor.missed_by_pull(&pull)));
    report.pulls.push(pull);
    report.note("the origin runs on the cores of the load");
    Ok(())
}

/// Runs all rounds.
///
/// # Errors
/// Whatever keeps it from being measured.
pub(crate) fn measure(stage: &Stage<'_>) -> anyhow::Result<PullMeasurement> {
    let (plan, interrupt) = (stage.plan, stage.interrupt);
    let origin = Origin::start(OriginPlan {
        seed: plan.seed,
        length: plan.content_bytes,
        rate: plan.pull.origin_rate,
        delay: plan.pull.origin_delay,
        piece_bytes: choose_piece_bytes(plan.content_bytes).into(),
    })
    .context("starting the origin")?;
    let relay_plan = RelayPlan { pull_through: Some(origin.address()), ..stage.relay(Vec::new())? };
    let relay = relay_plan.start(interrupt)?;
    let progress = Progress::rounds(&name(plan), plan.pull.rounds);
    let rounds = Rounds {
        plan,
        runtime: stage.runtime,
        interrupt,
        origin: &origin,
        relay: &relay,
        relay_plan: &relay_plan,
        progress,
    };
    rounds.run()
}

fn name(plan: &Plan) -> String {
    let clients = plan.http_connections + plan.bittorrent_connections;
    let hashes = if plan.pull.known_hashes { "known" } else { "unknown" };
    let size = Size(plan.content_bytes);
    let aborting = match plan.pull.aborting {
        0 => String::new(),
        count => format!(", {count} of which go away"),
    };
    format!("pull of {size} by {clients} clients{aborting}, hashes {hashes}")
}

struct Rounds<'a> {
    plan: &'a Plan,
    runtime: Runtime,
    interrupt: &'a Interrupt,
    origin: &'a Origin,
    relay: &'a Relay,
    relay_plan: &'a RelayPlan,
    progress: Progress,
}

/// What rounds of one kind came to.
#[derive(Default)]
struct Tally {
    first_bytes: Latencies,
    /// First bytes after the origin's first piece instead of its first byte.
    after_pieces: Latencies,
    rates: Vec<f64>,
    ratios: Vec<f64>,
    bytes: u64,
    errors: u64,
    error_texts: Vec<String>,
}

impl Rounds<'_> {
    fn run(&self) -> anyhow::Result<PullMeasurement> {
        let (mut relayed, mut direct) = (Tally::default(), Tally::default());
        let mut used = Duration::ZERO;
        let known_hashes = self.plan.pull.known_hashes;
        for round in 0..self.plan.pull.rounds {
            self.progress.round(round);
            let round = round as u64;
            self.round(&self.direct(round * 2), round * 2, &mut direct)?;
            let before = cpu::of_tree(self.relay.process.pid());
            let load = self.relayed(round * 2 + 1)?;
            self.round(&load, round * 2 + 1, &mut relayed)?;
            let after = cpu::of_tree(self.relay.process.pid());
            let spent = before.zip(after).context("the relay is gone")?;
            used += spent.1.saturating_sub(spent.0);
        }
        let first_byte = relayed.first_bytes.summaries().map(|(first, _)| first);
        let Some(first_byte) = first_byte else {
            bail!("no client came through: {}", relayed.error_texts.first().map_or("", String::as_str));
        };
        let (connections, content_bytes) =
            ((self.plan.http_connections + self.plan.bittorrent_connections) as u64, self.plan.content_bytes);
        Ok(PullMeasurement {
            workload: name(self.plan),
            version: relay::version(&self.relay_plan.program),
            clients: connections,
            aborting: self.plan.pull.aborting as u64,
            rounds: self.plan.pull.rounds as u64,
            content_bytes,
            known_hashes,
            piece_bytes: known_hashes.then(|| choose_piece_bytes(content_bytes)),
            origin_rate: self.plan.pull.origin_rate,
            origin_delay_ms: self.plan.pull.origin_delay.as_secs_f64() * 1000.0,
            first_byte,
            after_first_piece: relayed
                .after_pieces
                .summaries()
                .map(|(first, _)| first)
                .filter(|_| self.plan.pull.known_hashes),
            direct_first_byte: direct.first_bytes.summaries().map(|(first, _)| first).unwrap_or_default(),
            rate: of_rounds(relayed.rates)?,
            direct_rate: of_rounds(direct.rates)?,
            origin_ratio: of_rounds(relayed.ratios)?,
            server_cpu: Cost::of(used, relayed.bytes),
            errors: relayed.errors + direct.errors,
            error_texts: [relayed.error_texts, direct.error_texts].concat(),
        })
    }

    /// All clients download file `number`, and everything about it is noted.
    fn round(&self, load: &Load, number: u64, tally: &mut Tally) -> anyhow::Result<()> {
        let by_rate = self.plan.pull.origin_rate.map_or(0, |rate| self.plan.content_bytes / rate.max(1));
        let deadline = Instant::now() + PATIENCE + Duration::from_secs(by_rate);
        let downloads = load.download(self.runtime, &self.plan.cores.load);
        while !downloads.are_done() {
            self.interrupt.check()?;
            if Instant::now() > deadline {
                tally.error_texts.push("clients were still waiting when time was up".into());
                tally.errors += 1;
                break;
            }
            std::thread::sleep(LOOK);
        }
        let board = downloads.board.clone();
        let done = downloads.finish()?;
        let totals = board.totals();
        tally.errors += totals.errors;
        tally.error_texts.extend(board.errors());
        tally.bytes += totals.bytes();
        self.note(&done, number, tally);
        Ok(())
    }

    fn note(&self, done: &[Download], number: u64, tally: &mut Tally) {
        let served = self.origin.served(number);
        let began = done.iter().map(|download| download.began).min();
        let last = done.iter().map(|download| download.done).max();
        let (Some(began), Some(last), Some(origin_first)) = (began, last, served.first_byte) else { return };
        for download in done {
            let whole = download.done - download.began;
            tally.first_bytes.record(download.first_byte.saturating_duration_since(origin_first), whole);
            if let Some(piece) = served.first_piece {
                tally.after_pieces.record(download.first_byte.saturating_duration_since(piece), whole);
            }
        }
        let gigabytes = crate::report::gigabytes(self.plan.content_bytes);
        tally.rates.push(gigabytes * 1e9 / (last - began).as_secs_f64());
        tally.ratios.push(crate::report::gigabytes(served.bytes) / gigabytes);
    }

    /// One client at the origin itself.
    fn direct(&self, number: u64) -> Load {
        let address = self.origin.address();
        self.load(number, Some((address, Origin::path(number), 1)), None)
    }

    /// All clients at the relay, for a file that it has not heard of, or has just been told the hashes of.
    fn relayed(&self, number: u64) -> anyhow::Result<Load> {
        let remote = &self.relay.remote;
        let (http, bittorrent) = (self.plan.http_connections, self.plan.bittorrent_connections);
        if !self.plan.pull.known_hashes {
            let path = format!("/pull/perf{}", Origin::path(number));
            let load = self.load(number, Some((remote.address, path, http)), None);
            return Ok(Load { aborting: self.aborting(), ..load });
        }
        let url = format!("http://{}{}", self.origin.address(), Origin::path(number));
        let content = self.relay_plan.add(&url, &self.torrent(number)?)?;
        let server = remote.describe(&content, true)?;
        let file = server.http.context("the relay named no file")?;
        let torrent = server.bittorrent.filter(|_| bittorrent > 0);
        Ok(Load {
            aborting: self.aborting(),
            ..self.load(
                number,
                (http > 0).then_some((remote.address, file.path, http)),
                torrent.map(|torrent| (torrent, bittorrent)),
            )
        })
    }

    /// Of both protocols alike.
    fn aborting(&self) -> Aborting {
        let (http, bittorrent) = (self.plan.http_connections, self.plan.bittorrent_connections);
        let of_http = (self.plan.pull.aborting * http).div_ceil(http + bittorrent);
        Aborting { http: of_http, bittorrent: self.plan.pull.aborting - of_http }
    }

    fn load(
        &self,
        number: u64,
        http: Option<(std::net::SocketAddr, String, usize)>,
        bittorrent: Option<(Torrent, usize)>,
    ) -> Load {
        let length = self.plan.content_bytes;
        let http = http.map(|(address, path, connections)| HttpLoad {
            file: HttpFile { address, host: address.to_string(), path, length },
            paths: std::sync::Arc::default(),
            connections,
            range_bytes: length,
            ranges: None,
            rate: None,
        });
        let queue = self.plan.queue;
        let bittorrent =
            bittorrent.map(|(torrent, connections)| BittorrentLoad { torrent, connections, queue });
        Load {
            http,
            bittorrent,
            order: Order::Sequential,
            seed: self.plan.seed,
            aborting: Aborting::default(),
            verify: self.plan.verify.then(|| self.origin.payload(number)),
        }
    }

    /// Writes the torrent that a publisher would have made of file `number`.
    fn torrent(&self, number: u64) -> anyhow::Result<PathBuf> {
        let length = self.plan.content_bytes;
        let metainfo = metainfo(self.origin.payload(number), &format!("{number}.bin"), length)?;
        let path = self.relay_plan.folder.join(format!("{number}.torrent"));
        std::fs::write(&path, metainfo.to_bytes())?;
        Ok(path)
    }
}

/// What all rounds came to.
fn of_rounds(values: Vec<f64>) -> anyhow::Result<Spread> {
    Spread::of(values).context("no download came through")
}

/// Hashes a content.
fn metainfo(payload: Payload, name: &str, length: u64) -> anyhow::Result<Metainfo> {
    let piece_bytes = choose_piece_bytes(length);
    let mut pieces = Vec::new();
    let mut piece = vec![0; piece_bytes as usize];
    let mut at = 0;
    while at < length {
        let count = usize::try_from(length - at).map_or(piece.len(), |left| left.min(piece.len()));
        payload.fill(at, &mut piece[..count]);
        let mut hasher = PieceHasher::new(true, true);
        hasher.update(&piece[..count]);
        pieces.push(hasher.finish(leaf_width(length, piece_bytes)));
        at += count as u64;
    }
    let plan = plan_files(name, piece_bytes, &[(vec![], length)])?;
    Ok(Builder::new(plan).build(&pieces)?)
}
