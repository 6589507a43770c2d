//! Where a plan is carried out: a folder that goes away with it, the test file, and the relay that it asks for. One place for what every
//! command sets up.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::interrupt::Interrupt;
use crate::load::runtime::Runtime;
use crate::made;
use crate::measure::LOOK;
use crate::measure::paths::Metrics;
use crate::payload::Payload;
use crate::plan::Plan;
use crate::server::relay::{self, RelayPlan};
use crate::server::remote::Remote;
use crate::server::scratch::Scratch;
use crate::server::{HttpFile, PATIENCE, Server};
use crate::subject::Subject;

/// The file that is in memory, and the one that is not.
const FILE_NAME: &str = "payload.bin";
const COLD_NAME: &str = "cold.bin";

/// Bytes of a test file that are written before they are waited for.
const SYNCED_BYTES: u64 = 128 << 20;

/// A plan with everything it needs to be carried out.
pub(crate) struct Stage<'a> {
    pub(crate) plan: &'a Plan,
    /// What drives the load.
    pub(crate) runtime: Runtime,
    pub(crate) interrupt: &'a Interrupt,
    scratch: Scratch,
}

impl<'a> Stage<'a> {
    /// Makes the folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn set(plan: &'a Plan, runtime: Runtime, interrupt: &'a Interrupt) -> anyhow::Result<Self> {
        let folder = plan.folder.as_deref();
        // Each of many contents is synced when it is made, which takes a disk hours.
        let is_many = plan.store.contents > 1;
        let scratch = if is_many { Scratch::create_in_memory(folder)? } else { Scratch::create(folder)? };
        Ok(Stage { plan, runtime, interrupt, scratch })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// A relay of our own that has `sources`; for commands that cannot measure any other.
    ///
    /// # Errors
    /// The plan names a relay that runs already, or the program is nowhere.
    pub(crate) fn relay(&self, sources: Vec<String>) -> anyhow::Result<RelayPlan> {
        let kind = self.plan.kind.name();
        self.plan
            .relay(&self.scratch, sources)?
            .with_context(|| format!("{kind} starts its own relay: leave --target out"))
    }

    /// A relay of our own that has what the plan wants it to have, all of which is made for it: the test file whole, or many contents.
    ///
    /// # Errors
    /// As [`Stage::relay`], and those of the file system.
    pub(crate) fn relay_of_file(&self) -> anyhow::Result<RelayPlan> {
        let Plan { seed, content_bytes, cold_bytes, store, .. } = *self.plan;
        if store.is_made() {
            let relay = self.relay(Vec::new())?;
            if store.sparse {
                made::build_hole(&relay.store(), content_bytes)?;
            } else {
                made::build_many(&relay.store(), store.contents as u64, content_bytes, seed, self.interrupt)?;
            }
            return Ok(relay);
        }
        let mut files = vec![write_payload(self.folder(), FILE_NAME, seed, content_bytes, self.interrupt)?];
        if cold_bytes > 0 {
            let seed = seed.wrapping_add(1);
            files.push(write_payload(self.folder(), COLD_NAME, seed, cold_bytes, self.interrupt)?);
        }
        let source = |file: &PathBuf| {
            Ok(file.to_str().context("a temporary folder whose path is not UTF-8")?.to_owned())
        };
        self.relay(files.iter().map(source).collect::<anyhow::Result<_>>()?)
    }

    /// The server, ready: the relay that runs, or one of our own with the whole test file.
    ///
    /// # Errors
    /// It is not there, or does not start.
    pub(crate) fn server(&self) -> anyhow::Result<Server> {
        let torrent = self.plan.bittorrent_connections > 0;
        if let Subject::Running { remote, pid, metrics } = &self.plan.subject {
            let content =
                remote.complete(torrent)?.context("the relay has no complete content to ask for")?;
            let server = remote.describe(&content, torrent)?;
            return Ok(Server { pid: *pid, metrics: Some(Metrics::Address(*metrics)), ..server });
        }
        let relay = self.relay_of_file()?;
        let mut starting = relay.start(self.interrupt)?;
        let is_made = self.plan.store.is_made();
        if !is_made {
            starting.remote.content = Some(FILE_NAME.to_owned());
        }
        let length = self.plan.content_bytes + self.plan.cold_bytes;
        let mut server = starting.into_server(&relay.program, length, torrent, self.interrupt)?;
        if !is_made {
            relay::wait_for_digest(&mut server, length, self.interrupt)?;
        }
        Ok(server)
    }

    /// The file that is not in memory, once the relay has it complete.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn cold_file(&self, server: &Server) -> anyhow::Result<HttpFile> {
        let file = server.http.as_ref().context("a relay without HTTP")?;
        let remote = Remote::at(file.address, COLD_NAME);
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.interrupt.check()?;
            // Hashing it would be charged to the first run.
            if let Some(content) = remote.complete(false)?.filter(|content| content.sha256.is_some()) {
                return remote.describe(&content, false)?.http.context("a content without a file");
            }
            if Instant::now() > deadline {
                bail!("the relay does not take in the cold file");
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Writes a test file, all of it to the disk, so that nobody's measurement pays for it.
///
/// # Errors
/// Those of the file system, and Ctrl-C.
pub(crate) fn write_payload(
    folder: &Path,
    name: &str,
    seed: u64,
    length: u64,
    interrupt: &Interrupt,
) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    let mut file = File::create_new(&path).with_context(|| format!("creating {}", path.display()))?;
    let mut position = 0;
    let payload = Payload::new(seed);
    // Synced as it goes: at the end it would take seconds in which nobody hears Ctrl-C.
    while position < length {
        let end = length.min(position + SYNCED_BYTES);
        let written = payload.write(&mut file, position..end, interrupt);
        written.with_context(|| format!("writing {}", path.display()))?;
        file.sync_data()?;
        position = end;
    }
    Ok(path)
}
