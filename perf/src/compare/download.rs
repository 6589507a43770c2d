//! Rows in which people's own client downloads a whole file.

use std::path::Path;

use millrace_proto::units::Size;

use super::CompareArgs;
use super::contest::{Contest, FILE_NAME, SEED};
use super::outcome::{Comparison, Outcome};
use super::row::Row;
use crate::peers::{self, Absent, aria2};
use crate::report::Measurement;
use crate::server::Server;
use crate::server::scratch::Scratch;
use crate::stage::write_payload;

/// Longest file, and most downloads from each server: a download takes as long as it takes.
const LENGTH_MAX: u64 = 256 << 20;
const REPEATS_MAX: usize = 3;

impl Contest<'_> {
    /// As a hot row, with a file of its own; nothing but a remark where the client is not installed.
    pub(super) fn download_row(&self, row: &Row, comparison: &mut Comparison) -> anyhow::Result<Outcome> {
        if let Err(Absent { name, remedy }) = peers::find(aria2::PROGRAM, aria2::REMEDY) {
            comparison.note(format!("{name} is not here, so its downloads are not compared: {remedy}"));
            return Ok(Outcome::judge(row, Vec::new()));
        }
        let args = &CompareArgs {
            content_bytes: Size(self.args.content_bytes.0.min(LENGTH_MAX)),
            repeats: self.args.repeats.min(REPEATS_MAX),
            ..self.args.clone()
        };
        let scratch = Scratch::create(args.folder.as_deref())?;
        let file = write_payload(scratch.path(), FILE_NAME, SEED, args.content_bytes.0, &self.interrupt)?;
        let (cores, interrupt) = (self.cores.clone(), self.interrupt.clone());
        Contest { args, cores, interrupt, ..*self }.row(row, &file, comparison)
    }

    /// One download from `server`.
    pub(super) fn download(&self, server: &Server, torrent: Option<&Path>) -> anyhow::Result<Measurement> {
        let program = peers::find(aria2::PROGRAM, aria2::REMEDY)
            .map_err(|absent| anyhow::anyhow!("{}: {}", absent.name, absent.remedy))?;
        // A disk would be the slowest part of it.
        let scratch = Scratch::create_in_memory(None)?;
        let order = aria2::Order {
            program: &program,
            torrent,
            length: self.args.content_bytes.0,
            cores: &self.cores.load,
            folder: scratch.path(),
        };
        aria2::download(&order, server, &self.interrupt)
    }
}
