//! What is measured: a relay that this program starts, one on another box, or something else that serves the same file.

pub(crate) mod fetch;
pub(crate) mod guard;
pub(crate) mod memory_limit;
pub(crate) mod relay;
pub(crate) mod remote;
pub(crate) mod scratch;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::interrupt::Interrupt;
use crate::measure::paths::Metrics;
use guard::Guarded;

/// Time a server may take to start, or to end when told to.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks at something that cannot be waited for otherwise.
const LOOK: Duration = Duration::from_millis(10);

/// A file over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpFile {
    pub(crate) address: SocketAddr,
    /// For the `Host` field.
    pub(crate) host: String,
    /// Path and query, as they go into the request line.
    pub(crate) path: String,
    pub(crate) length: u64,
}

/// A torrent of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Torrent {
    pub(crate) address: SocketAddr,
    /// What the handshake names: the v1 infohash, or the first 20 bytes of the v2 one.
    pub(crate) infohash: [u8; 20],
    pub(crate) piece_bytes: u32,
    /// Bytes of the content, in the order of the torrent.
    pub(crate) length: u64,
    /// Whether each leecher shall ask at an address of its own, counted from `address`, for a server that keeps one connection to an address.
    /// Where connections come from the address that they go to, it then knows each leecher by another one.
    pub(crate) one_address_each: bool,
}

impl Torrent {
    /// Where the leecher of this number connects to.
    pub(crate) fn address_for(&self, leecher: usize) -> SocketAddr {
        match self.address {
            SocketAddr::V4(address) if self.one_address_each => {
                let number = u32::try_from(leecher).unwrap_or(0);
                SocketAddr::new(
                    Ipv4Addr::from_bits(address.ip().to_bits().wrapping_add(number)).into(),
                    address.port(),
                )
            }
            address => address,
        }
    }
}

/// Something that serves one content, started by us or not.
#[derive(Debug)]
pub(crate) struct Server {
    /// What it is called in reports.
    pub(crate) name: String,
    pub(crate) version: String,
    /// The process whose CPU time and memory are charged, with everything below it; `None` for another box.
    pub(crate) pid: Option<u32>,
    pub(crate) http: Option<HttpFile>,
    pub(crate) bittorrent: Option<Torrent>,
    /// Where it tells how it sends, if it is a relay.
    pub(crate) metrics: Option<Metrics>,
    /// Ends it, if it is ours. Declared last: it goes after everything that talks to it.
    pub(crate) process: Option<Process>,
}

/// A child that ends with this value, whatever way that is lost.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Ends it where this value is never dropped.
    guarded: Option<Guarded>,
}

impl Process {
    /// Starts `command` on `cores`, with both outputs in the file `log`. It gets a process group of its own, so that Ctrl-C at the terminal
    /// reaches us alone and we end it in order.
    ///
    /// # Errors
    /// A program that cannot be started, or cores that may not be used.
    pub(crate) fn start(mut command: Command, cores: &[usize], log: PathBuf) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let name = command.get_program().to_string_lossy().into_owned();
        let output = std::fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        // A child inherits the cores of the thread that starts it, so it never runs anywhere else.
        let cores = cores.to_owned();
        let started = std::thread::spawn(move || {
            crate::load::runtime::pin_to(&cores)
                .with_context(|| format!("keeping the server on the cores {cores:?}"))?;
            command.spawn().with_context(|| format!("starting {}", command.get_program().to_string_lossy()))
        });
        let child =
            started.join().map_err(|_| anyhow::anyhow!("the thread that starts {name} panicked"))??;
        let guarded = Some(Guarded::group(child.id()));
        Ok(Process { name, child, log, guarded })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks `ready` until it gives something.
    ///
    /// # Errors
    /// The process ends first, time runs out, or Ctrl-C.
    pub(crate) fn wait_until<T>(
        &mut self,
        what: &str,
        within: Duration,
        interrupt: &Interrupt,
        mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            interrupt.check()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.last_words());
            }
            if let Some(value) = ready()? {
                return Ok(value);
            }
            if started.elapsed() > within {
                bail!("{}: no {what} within {} s: {}", self.name, within.as_secs(), self.last_words());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until it ends well.
    ///
    /// # Errors
    /// It fails, takes longer, or Ctrl-C.
    pub(crate) fn wait_for_end(&mut self, within: Duration, interrupt: &Interrupt) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            interrupt.check()?;
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}: {}", self.name, self.last_words()),
                None if started.elapsed() > within => bail!("{}: takes too long", self.name),
                None => std::thread::sleep(LOOK),
            }
        }
    }

    /// The end of its log, in one line.
    fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(3)..].join(" / ");
        if last.is_empty() { "it said nothing".into() } else { last }
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(-pid), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let told = Instant::now();
        while told.elapsed() < Duration::from_secs(3) {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK),
                _ => break,
            }
        }
        self.signal(Signal::SIGKILL);
        // Before its number is free for another process.
        drop(self.guarded.take());
        // Nothing can be done about a child that cannot be waited for.
        let _ = self.child.wait();
    }
}

/// A loopback address that was free a moment ago.
///
/// # Errors
/// No port is free.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
    Ok(listener.local_addr()?)
}

/// Whether `path` is a program that may be started.
pub(crate) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// A program in the folders of `PATH`.
pub(crate) fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| is_program(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_and_its_children_end_with_their_value() {
        let folder = scratch::Scratch::create(None).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]);
        let cores = crate::cores::allowed().unwrap();
        let log = folder.path().join("log");
        let mut process = Process::start(command, &cores[..1], log.clone()).unwrap();
        let interrupt = Interrupt::default();
        let read = || Ok(std::fs::read_to_string(&log)?.trim().parse::<u32>().ok());
        let grandchild = process.wait_until("pid", PATIENCE, &interrupt, read).unwrap();
        let runs = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        assert_eq!(list.trim(), cores[0].to_string());
        assert!(runs(process.pid()) && runs(grandchild));
        drop(process);
        let began = Instant::now();
        while runs(grandchild) && began.elapsed() < PATIENCE {
            std::thread::sleep(LOOK);
        }
        assert!(!runs(grandchild), "a grandchild outlived its server");
    }

    #[test]
    fn an_early_end_is_told_with_its_reason() {
        let folder = scratch::Scratch::create(None).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such disk >&2; exit 3"]);
        let cores = crate::cores::allowed().unwrap();
        let mut process = Process::start(command, &cores, folder.path().join("log")).unwrap();
        let never = || Ok(None::<()>);
        let error =
            process.wait_until("end", PATIENCE, &Interrupt::default(), never).unwrap_err().to_string();
        assert!(error.contains("no such disk") && error.contains('3'), "{error}");
    }
}
