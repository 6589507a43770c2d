//! Carrying out a row: every server is started, then each is measured in turn, and again, so that what changes on the machine meanwhile
//! meets all of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::CompareArgs;
use super::network;
use super::outcome::{Comparison, Outcome};
use super::residency;
use super::row::{Ask, Kind, Row, Who};
use super::side::Side;
use crate::cores::Split;
use crate::interrupt::{Interrupt, Interrupted};
use crate::load::runtime::Runtime;
use crate::load::{Aborting, BittorrentLoad, HttpLoad, Load, Order};
use crate::measure::{Window, disk, measure};
use crate::report::Measurement;
use crate::server::Server;
use crate::server::scratch::Scratch;
use crate::stage::write_payload;

/// Time for connections to open and windows to grow before each window.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);

/// What drives the load. A server that sends to a reader who sleeps pays for waking it, by an interrupt to the other core each time: with
/// answers of 16 KiB over loopback that can cost as much as half of what the server itself costs, and hides what is compared. No card makes
/// a server pay that.
pub(super) const LOAD: Runtime = Runtime::Spinning;

/// What the test file and the order of requests follow from.
pub(super) const SEED: u64 = 1;

pub(super) const FILE_NAME: &str = "payload.bin";

/// The torrent that seeds are given, without trackers.
pub(super) const TORRENT_NAME: &str = "test.torrent";

/// All that a comparison needs to know.
pub(super) struct Contest<'a> {
    pub(super) args: &'a CompareArgs,
    pub(super) cores: Split,
    pub(super) duration: Duration,
    pub(super) own_network: bool,
    pub(super) interrupt: Interrupt,
}

/// A server that is asked one thing.
struct Contender {
    /// Which server.
    server: usize,
    side: Side,
    ask: Ask,
}

impl Contest<'_> {
    /// Runs `rows` and adds what comes of them.
    ///
    /// # Errors
    /// Those of the disk, or Ctrl-C.
    pub(super) fn run(&self, rows: &[&Row], comparison: &mut Comparison) -> anyhow::Result<()> {
        let scratch = Scratch::create(self.args.folder.as_deref())?;
        let length = self.args.content_bytes.0;
        let file = write_payload(scratch.path(), FILE_NAME, SEED, length, &self.interrupt)?;
        for row in rows {
            eprintln!("{}: {}", row.name, row.about);
            match self.any_row(row, &file, comparison) {
                Ok(Some(outcome)) => {
                    eprintln!("{outcome}");
                    comparison.outcomes.push(outcome);
                }
                Ok(None) => {}
                Err(error) if error.is::<Interrupted>() => return Err(error),
                // Half an hour of other rows must not be lost by it.
                Err(error) => comparison.fail(row.name, &error),
            }
        }
        Ok(())
    }

    /// One row; `None` where this machine is too small for it.
    fn any_row(
        &self,
        row: &Row,
        file: &Path,
        comparison: &mut Comparison,
    ) -> anyhow::Result<Option<Outcome>> {
        let outcome = match row.kind {
            Kind::Hot => self.row(row, file, comparison),
            Kind::Download => self.download_row(row, comparison),
            Kind::Cold => self.cold_row(row, file, comparison),
            Kind::Hashing => self.hashing_row(row, comparison),
            Kind::Pulling { delay_ms } => self.pulling_row(row, Duration::from_millis(delay_ms), comparison),
            Kind::Scenario(text) => self.own_row(row, text),
            Kind::Scale(scenarios) => self.scale_row(row, scenarios),
            Kind::Shards(text) => {
                let outcome = self.shards_row(row, text)?;
                if outcome.is_none() {
                    comparison.note(format!(
                        "{}: not enough cores: two shards and two threads of load take four",
                        row.about
                    ));
                }
                return Ok(outcome);
            }
        };
        outcome.map(Some)
    }

    pub(super) fn row(&self, row: &Row, file: &Path, comparison: &mut Comparison) -> anyhow::Result<Outcome> {
        let scratch = Scratch::create(self.args.folder.as_deref())?;
        let torrent = scratch.path().join(TORRENT_NAME);
        let mut servers: Vec<(Who, Server)> = Vec::new();
        servers.push((Who::Millrace, self.start_ours(row, file, scratch.path())?));
        self.start_peers(row, file, scratch.path(), &mut servers, comparison)?;
        // Where the file system can share extents, the relay serves a clone, which has pages of its own; and some peers get a copy.
        let mut files = disk::files_below(scratch.path(), self.args.content_bytes.0)?;
        files.push(file.to_owned());
        let mut contenders = Vec::new();
        for entry in row.entries {
            let mine = servers.iter().enumerate().filter(|(_, (who, _))| *who == entry.who);
            contenders.extend(mine.map(|(server, (_, described))| {
                let side = Side::new(
                    entry.who,
                    &described.name,
                    &described.version,
                    entry.ask.to_string(),
                    &self.cores,
                );
                Contender { server, side, ask: entry.ask }
            }));
        }
        for repeat in 0..self.args.repeats {
            for contender in &mut contenders {
                for file in &files {
                    residency::heat(file)?;
                }
                let (who, server) = &servers[contender.server];
                let name = format!("{} {} {}/{}", row.name, server.name, repeat + 1, self.args.repeats);
                let run = match contender.ask {
                    Ask::Download { bittorrent } => {
                        self.download(server, bittorrent.then_some(torrent.as_path()))
                    }
                    ask => self.run_one(server, &mut contender.side, ask, &name),
                };
                match run {
                    Ok(measurement) => contender.side.runs.push(measurement),
                    Err(error) if error.is::<Interrupted>() || *who == Who::Millrace => return Err(error),
                    Err(error) => comparison.note(format!("{name}: {error:#}")),
                }
            }
        }
        let sides = contenders.into_iter().map(|contender| contender.side).collect();
        Ok(Outcome::judge(row, sides))
    }

    pub(super) fn run_one(
        &self,
        server: &Server,
        side: &mut Side,
        ask: Ask,
        name: &str,
    ) -> anyhow::Result<Measurement> {
        let cores = self.cores.load.clone();
        // Both are the same for every run of a server: once is enough.
        let looks = side.congestion.is_none();
        let steady = Window::steady(name.to_owned(), WARM_UP, self.duration, LOAD, cores);
        let window = Window { system_calls: looks, ..steady };
        let load = load(server, ask)?;
        let port = match ask {
            Ask::Ranges { .. } => server.http.as_ref().map(|file| file.address.port()),
            Ask::Blocks { .. } => server.bittorrent.as_ref().map(|torrent| torrent.address.port()),
            Ask::Download { .. } | Ask::Reads { .. } | Ask::Pull { .. } | Ask::Hash(_) => None,
        };
        let middle = WARM_UP + self.duration / 2;
        let look = port.filter(|_| looks).map(|port| {
            std::thread::spawn(move || {
                std::thread::sleep(middle);
                network::of_port(port)
            })
        });
        let measured = measure(server, &load, &window, &self.interrupt);
        if let Some(congestion) = look.and_then(|look| look.join().ok()).flatten() {
            side.congestion = Some(congestion);
        }
        measured
    }
}

fn load(server: &Server, ask: Ask) -> anyhow::Result<Load> {
    let (http, bittorrent) = match ask {
        Ask::Ranges { connections, range_bytes } => {
            let file = server.http.clone().with_context(|| format!("{} has no HTTP address", server.name))?;
            (
                Some(HttpLoad {
                    file,
                    paths: Arc::default(),
                    connections,
                    range_bytes,
                    ranges: None,
                    rate: None,
                }),
                None,
            )
        }
        Ask::Blocks { leechers, queue } => {
            let torrent = server.bittorrent.clone();
            let torrent = torrent.with_context(|| format!("{} has no BitTorrent address", server.name))?;
            (None, Some(BittorrentLoad { torrent, connections: leechers, queue }))
        }
        Ask::Download { .. } | Ask::Reads { .. } | Ask::Pull { .. } | Ask::Hash(_) => {
            bail!("no load of ours asks that")
        }
    };
    Ok(Load {
        http,
        bittorrent,
        order: Order::Random,
        seed: SEED,
        aborting: Aborting::default(),
        verify: None,
    })
}
