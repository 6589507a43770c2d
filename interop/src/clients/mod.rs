//! Real clients, one file each: how it is started without touching the user's settings, without talking to anything but
//! the relay, and how one sees that it is done.

pub mod aria2;
pub mod curl;
pub mod libtorrent;
pub mod qbittorrent;
pub mod transmission;
pub mod wget;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::PATIENCE;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::until;

/// What a BitTorrent client is given.
#[derive(Debug, Clone)]
pub enum Job {
    /// A .torrent file.
    Torrent(PathBuf),
    /// A magnet link.
    Magnet(String),
}

impl Job {
    fn as_argument(&self) -> String {
        match self {
            Job::Torrent(path) => path.display().to_string(),
            Job::Magnet(link) => link.clone(),
        }
    }
}

/// A BitTorrent client of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// libtorrent from PyPI.
    Libtorrent,
    /// transmission-daemon.
    Transmission,
    /// qbittorrent-nox.
    Qbittorrent,
    /// aria2c.
    Aria2,
}

impl Client {
    /// All of them.
    pub const ALL: [Client; 4] =
        [Client::Libtorrent, Client::Transmission, Client::Qbittorrent, Client::Aria2];

    /// Those that are installed; says which are not.
    ///
    /// # Panics
    /// If one is required and not there.
    #[must_use]
    pub fn installed() -> Vec<Client> {
        Self::ALL.into_iter().filter(|client| client.is_installed()).collect()
    }

    /// Whether it is installed; says so if it is not.
    ///
    /// # Panics
    /// If it is required and not there.
    #[must_use]
    pub fn is_installed(self) -> bool {
        match self {
            Client::Libtorrent => libtorrent::is_installed(),
            Client::Transmission => transmission::is_installed(),
            Client::Qbittorrent => qbittorrent::is_installed(),
            Client::Aria2 => aria2::is_installed(),
        }
    }

    /// Whether it can use hybrid torrents at all, libtorrent's own included. The empty key in BEP 52's file tree is no key
    /// to Transmission before 4.0, and aria2 before 1.37 loses it and with it the infohash; both read v1 alone.
    #[must_use]
    pub fn reads_hybrids(self) -> bool {
        match self {
            Client::Libtorrent | Client::Qbittorrent => true,
            Client::Transmission => version("transmission-daemon") >= (4, 0),
            Client::Aria2 => version("aria2c") >= (1, 37),
        }
    }

    /// Those that are installed and read hybrids; says which do not.
    ///
    /// # Panics
    /// If one is required and not there.
    #[must_use]
    pub fn of_hybrids() -> Vec<Client> {
        let mut clients = Self::installed();
        clients.retain(|client| {
            client.reads_hybrids() || say(&format!("left out: this {client:?} reads no hybrids"))
        });
        clients
    }

    /// Downloads into a new folder of its own in `scratch`, which it returns.
    ///
    /// # Panics
    /// If it cannot be started, does not take the job, fails, or does not finish; its own output is shown.
    #[track_caller]
    #[must_use]
    pub fn download(self, job: &Job, scratch: &Scratch) -> PathBuf {
        self.start(job, scratch).finish()
    }

    /// Starts to download into a new folder of its own in `scratch`.
    ///
    /// # Panics
    /// If it cannot be started or does not take the job.
    #[must_use]
    pub fn start(self, job: &Job, scratch: &Scratch) -> Leecher {
        // Settings lie beside the folder, so no second start may find those of a first.
        let mut names = (1..).map(|number| format!("{self:?}-{number}"));
        let unused = names.find(|name| !scratch.join(name).exists());
        let folder = scratch.folder(&unused.expect("endless names"));
        match self {
            Client::Libtorrent => libtorrent::start(job, &folder, &[]),
            Client::Transmission => transmission::start(job, &folder),
            Client::Qbittorrent => qbittorrent::start(job, &folder),
            Client::Aria2 => aria2::start(&job.as_argument(), &folder, &[]),
        }
    }
}

/// A client at work.
pub struct Leecher {
    /// Its name.
    pub name: &'static str,
    process: Process,
    /// Whether everything is there, for a client that does not end by itself.
    done: Option<Box<dyn FnMut() -> bool + Send>>,
    folder: PathBuf,
}

impl Leecher {
    /// Waits until it has everything, ends it, and gives the folder of what it downloaded.
    ///
    /// # Panics
    /// If it fails or does not finish within [`PATIENCE`]; its own output is shown.
    #[track_caller]
    pub fn finish(mut self) -> PathBuf {
        match &mut self.done {
            None => self.process.succeed(PATIENCE),
            Some(done) => until(&format!("{} to finish", self.name), PATIENCE, || {
                let ended = self.process.ended();
                assert!(ended.is_none(), "{} ended: {}", self.name, self.process.output());
                done().then_some(())
            }),
        }
        self.folder.clone()
    }
}

/// Whether a program can be run; says so where it cannot, and fails where `MILLRACE_REQUIRE_CLIENTS=1`.
///
/// # Panics
/// If it is required and not there.
#[must_use]
pub fn is_installed(program: &str, probe: &[&str], install: &str) -> bool {
    let mut command = Command::new(program);
    command.args(probe).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        return true;
    }
    skip(&format!("{program} is not installed ({install})"));
    false
}

/// Says on the real standard error, which the test harness does not swallow, that something was not tested.
///
/// # Panics
/// Where `MILLRACE_REQUIRE_CLIENTS=1`.
pub fn skip(why: &str) {
    let required = std::env::var("MILLRACE_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
    assert!(!required, "required by MILLRACE_REQUIRE_CLIENTS=1: {why}");
    say(&format!("skipped: {why}"));
}

/// A line on the real standard error; `false`, for the end of a condition.
pub fn say(line: &str) -> bool {
    writeln!(std::io::stderr(), "{line}").ok();
    false
}

/// Major and minor version of a program: the first `N.N` that it says of itself.
fn version(program: &str) -> (u32, u32) {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let number = |word: &str| {
        let mut parts = word.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    text.split_whitespace().find_map(number).unwrap_or((0, 0))
}

/// How long a client's control interface may take to answer.
const PROMPT: Duration = Duration::from_secs(60);
