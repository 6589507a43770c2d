//! A relay that this program starts: its own store and test file in a temporary folder, on cores of its own, with limits that the load
//! fits in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use millrace_proto::admin::ContentStatus;

use super::remote::{InfohashKind, Remote};
use super::{PATIENCE, Process, Server, fetch, find_in_path, free_address, is_program};
use crate::interrupt::Interrupt;
use crate::measure::paths::Metrics;

/// The program's name.
const NAME: &str = "millrace-relay";

/// Bytes per second that taking in and hashing a file surely reaches, on a busy machine as well.
const SLOWEST_INTAKE: u64 = 2_000_000;

/// A relay to start.
#[derive(Debug, Clone)]
pub(crate) struct RelayPlan {
    pub(crate) program: PathBuf,
    pub(crate) cores: Vec<usize>,
    /// The folder for its store, log and sockets.
    pub(crate) folder: PathBuf,
    /// Sources to pull: a file of the disk, or URLs.
    pub(crate) sources: Vec<String>,
    /// Connections that the load will hold.
    pub(crate) connections: usize,
    /// `--io`, if given.
    pub(crate) io: Option<String>,
    /// `--congestion`, if it is not to be the system's.
    pub(crate) congestion: Option<String>,
    pub(crate) infohash: InfohashKind,
    /// `--egress`, if given.
    pub(crate) egress: Option<String>,
    /// The origin of `/pull/perf/`, if there is one.
    pub(crate) pull_through: Option<SocketAddr>,
}

/// Finds the program: as named, else beside this one, else in `PATH`.
///
/// # Errors
/// It is in none of these places.
pub(crate) fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        if !is_program(path) {
            bail!("--relay {}: no such program", path.display());
        }
        // A bare name would be looked up in PATH when started.
        return path.canonicalize().with_context(|| format!("--relay {}", path.display()));
    }
    let own = std::env::current_exe().context("finding this program")?;
    let beside = own.with_file_name(NAME);
    if is_program(&beside) {
        return Ok(beside);
    }
    find_in_path(NAME).with_context(|| {
        format!(
            "no {NAME} beside {} or in PATH: name it with --relay, or a running one with --target",
            own.display()
        )
    })
}

/// Whether this user may choose a congestion control: an ordinary one only among those that `tcp_allowed_congestion_control` lists.
pub(crate) fn may_choose(congestion: &str) -> bool {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt::TcpCongestion};
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    socket.is_ok_and(|socket| setsockopt(&socket, TcpCongestion, &congestion.into()).is_ok())
}

/// What `--version` says, without the program's name; empty when it says nothing.
pub(crate) fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text =
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    text.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// A relay that runs.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) process: Process,
    admin: PathBuf,
    pub(crate) remote: Remote,
}

/// The admin socket of a relay whose things are in `folder`.
pub(crate) fn admin_in(folder: &Path) -> PathBuf {
    folder.join("admin.sock")
}

impl RelayPlan {
    /// Where its store is, or will be.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    fn admin(&self) -> PathBuf {
        admin_in(&self.folder)
    }

    /// Starts it and waits until it is ready to serve.
    ///
    /// # Errors
    /// It cannot be started, or ends, with what it said last.
    pub(crate) fn start(&self, interrupt: &Interrupt) -> anyhow::Result<Relay> {
        let (http, bittorrent) = (free_address()?, free_address()?);
        let config = self.folder.join("relay.toml");
        std::fs::write(&config, self.config()).context("writing the relay's configuration")?;
        let mut command = Command::new(&self.program);
        command.arg("serve").args(&self.sources).arg("--config").arg(&config);
        command.arg("--store").arg(self.store()).arg("--admin").arg(self.admin());
        command.args(["--http", &http.to_string(), "--bt", &bittorrent.to_string(), "--metrics", "off"]);
        command.args(["--public-url", &format!("http://{http}/")]);
        let cores: Vec<String> = self.cores.iter().map(usize::to_string).collect();
        command.args(["--cores", &cores.join(",")]);
        for (flag, value) in
            [("--io", &self.io), ("--congestion", &self.congestion), ("--egress", &self.egress)]
        {
            if let Some(value) = value {
                command.args([flag, value]);
            }
        }
        let mut process = Process::start(command, &self.cores, self.folder.join("relay.log"))?;
        let remote = Remote {
            address: http,
            host: http.to_string(),
            bittorrent,
            content: None,
            infohash: self.infohash,
        };
        process.wait_until("answer", PATIENCE, interrupt, || Ok(remote.is_ready().then_some(())))?;
        Ok(Relay { process, admin: self.admin(), remote })
    }

    /// `millrace-relay add URL --metainfo FILE` at the relay that runs by this plan.
    ///
    /// # Errors
    /// What it says.
    pub(crate) fn add(&self, url: &str, metainfo: &Path) -> anyhow::Result<ContentStatus> {
        let answer = self.tell("add", |command| command.args([url, "--json", "--metainfo"]).arg(metainfo))?;
        serde_json::from_slice(&answer).context("the answer of add")
    }

    /// `millrace-relay remove ID` at the relay that runs by this plan.
    ///
    /// # Errors
    /// What it says.
    pub(crate) fn remove(&self, id: &str) -> anyhow::Result<()> {
        self.tell("remove", |command| command.arg(id)).map(drop)
    }

    fn tell(&self, word: &str, rest: impl FnOnce(&mut Command) -> &mut Command) -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new(&self.program);
        let output = rest(command.arg(word)).arg("--admin").arg(self.admin()).output()?;
        if !output.status.success() {
            bail!("{NAME} {word}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output.stdout)
    }

    /// Limits that leave the measuring to what is measured: one address holds every connection, all of them are served, and idle ones
    /// stay.
    fn config(&self) -> String {
        let connections = (self.connections * 2).max(16_384);
        let slots = self.connections.max(512);
        let origins = self
            .pull_through
            .map_or_else(String::new, |origin| format!("[origins.perf]\nurl = \"http://{origin}/\"\n"));
        format!(
            "{origins}[limits]\nconnections = {connections}\nconnections-per-address = {connections}\nupload-slots = {slots}\n\
             idle-timeout = 3600\npeer-idle-timeout = 3600\n"
        )
    }
}

impl Relay {
    /// Waits until the content of `length` bytes is complete, hashed if `torrent` is wanted, and gives the relay as a server.
    ///
    /// # Errors
    /// The relay ends, fails, or takes too long.
    pub(crate) fn into_server(
        mut self,
        program: &Path,
        length: u64,
        torrent: bool,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Server> {
        let within = PATIENCE + Duration::from_secs(length / SLOWEST_INTAKE);
        let complete = || self.remote.complete(torrent);
        let content = self.process.wait_until("complete content", within, interrupt, complete)?;
        let mut server = self.remote.describe(&content, torrent)?;
        server.version = version(program);
        server.metrics = Some(Metrics::Socket(self.admin));
        server.pid = Some(self.process.pid());
        server.process = Some(self.process);
        Ok(server)
    }
}

/// What a relay tells about its content under `/c/{id}.{kind}`.
///
/// # Errors
/// It does not answer.
pub(crate) fn about_content(relay: &Server, kind: &str) -> anyhow::Result<Vec<u8>> {
    let file = relay.http.as_ref().context("the relay has no HTTP address")?;
    let id = file.path.split('/').nth(2).context("a content without an id")?;
    fetch::get_ok(file.address, &file.host, &format!("/c/{id}.{kind}"))
}

/// Waits for the digest of a whole file, which follows some time after its pieces: computing it would be charged to the first run.
///
/// # Errors
/// The relay ends, or takes too long.
pub(crate) fn wait_for_digest(relay: &mut Server, length: u64, interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut process = relay.process.take().context("a relay that is not ours")?;
    let within = PATIENCE + Duration::from_secs(length / SLOWEST_INTAKE);
    let known = || {
        let status: ContentStatus = serde_json::from_slice(&about_content(relay, "json")?)?;
        Ok(status.sha256.map(drop))
    };
    process.wait_until("digest", within, interrupt, known)?;
    relay.process = Some(process);
    Ok(())
}
