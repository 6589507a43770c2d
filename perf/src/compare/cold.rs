//! Rows in which nothing is in memory. Every server starts anew for each run, since pages that it has mapped would stay from one run to the
//! next, and has memory for a quarter of the file: a memory cgroup sees to that, or where none can be had, somebody who drops pages behind it.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::contest::Contest;
use super::outcome::{Comparison, Outcome};
use super::row::{Ask, Entry, Row, Who};
use super::side::Side;
use crate::interrupt::Interrupted;
use crate::measure::cool::{Behind, RESIDENT_MAX, cool};
use crate::measure::{cpu, disk};
use crate::peers::{self, Ground, fio};
use crate::server::Server;
use crate::server::memory_limit::{MemoryLimit, SERVER_BYTES_MIN};
use crate::server::scratch::Scratch;

/// The share of the file that fits in memory.
const ALLOWED: u64 = 4;

impl Contest<'_> {
    /// As a hot row, with a start for each run.
    pub(super) fn cold_row(
        &self,
        row: &Row,
        file: &Path,
        comparison: &mut Comparison,
    ) -> anyhow::Result<Outcome> {
        let allowed = (self.args.content_bytes.0 / ALLOWED).max(SERVER_BYTES_MIN);
        let limit = match MemoryLimit::new(allowed) {
            Ok(limit) => Some(limit),
            Err(error) => {
                comparison
                    .note(format!("{}: {error}, so pages are dropped behind the servers instead", row.name));
                None
            }
        };
        let mut sides: Vec<Side> = Vec::new();
        for repeat in 1..=self.args.repeats {
            for entry in row.entries.iter().filter(|entry| self.args.is_against(entry.who)) {
                let run = format!("{} {}/{}", row.name, repeat, self.args.repeats);
                match self.cold_run(row, entry, file, limit.as_ref(), &run) {
                    Ok(side) => {
                        let new = sides.iter_mut().try_fold(side, |side, known| known.absorb(side));
                        sides.extend(new);
                    }
                    Err(error) if error.is::<Interrupted>() || entry.who == Who::Millrace => {
                        return Err(error);
                    }
                    Err(error) => comparison.note(format!("{}: not compared: {error:#}", row.name)),
                }
            }
        }
        Ok(Outcome::judge(row, sides))
    }

    fn cold_run(
        &self,
        row: &Row,
        entry: &Entry,
        file: &Path,
        limit: Option<&MemoryLimit>,
        run: &str,
    ) -> anyhow::Result<Side> {
        if entry.who == Who::Fio {
            return self.fio_run(entry, file, run);
        }
        let scratch = Scratch::create(self.args.folder.as_deref())?;
        let server = self.start_one(row, entry.who, file, scratch.path())?;
        if let (Some(limit), Some(root)) = (limit, server.pid) {
            limit.add(&cpu::tree(root))?;
        }
        let mut files = disk::files_below(scratch.path(), self.args.content_bytes.0)?;
        files.push(file.to_owned());
        let left = cool(&files)?.context("no fincore here: apt install util-linux")?;
        if left > RESIDENT_MAX {
            bail!("{:.0} % of the test file stay in memory", left * 100.0);
        }
        let behind = limit.is_none().then(|| Behind::start(files));
        let mut side =
            Side::new(entry.who, &server.name, &server.version, entry.ask.to_string(), &self.cores);
        let name = format!("{run} {}", server.name);
        let measured = self.run_one(&server, &mut side, entry.ask, &name);
        drop(behind);
        side.runs.push(measured?);
        Ok(side)
    }

    fn start_one(&self, row: &Row, who: Who, file: &Path, scratch: &Path) -> anyhow::Result<Server> {
        if who == Who::Millrace {
            return self.start_ours(row, file, scratch);
        }
        let found = self.look(who).map_err(|absent| anyhow::anyhow!("{}: {}", absent.name, absent.remedy))?;
        let ground = Ground {
            file,
            length: self.args.content_bytes.0,
            folder: scratch,
            cores: &self.cores.server,
            connections: row.connections(),
            seed: None,
            interrupt: &self.interrupt,
        };
        found.first().context("no such server")?.start(&ground)
    }

    fn fio_run(&self, entry: &Entry, file: &Path, run: &str) -> anyhow::Result<Side> {
        let Ask::Reads { depth, bytes } = entry.ask else { bail!("fio only reads") };
        let program = peers::find("fio", "apt install fio");
        let program = program.map_err(|absent| anyhow::anyhow!("{}: {}", absent.name, absent.remedy))?;
        let cores = &self.cores.server;
        let reading = fio::Reading { file, cores, range_bytes: bytes, depth, duration: self.duration };
        let measurement = fio::run(&program, run, &reading, &self.interrupt)?;
        let (name, version) = (measurement.server.clone(), measurement.version.clone());
        let mut side = Side::new(entry.who, &name, &version, entry.ask.to_string(), &self.cores);
        side.runs.push(measurement);
        Ok(side)
    }
}
