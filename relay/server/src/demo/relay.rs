//! The demo's relay: this very program, started as a user would start it, asked over its admin socket, ended with SIGTERM.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use millrace_proto::admin::{Addresses, ContentStatus, RelayStatus};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Time a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A relay process; it ends with this value.
#[derive(Debug)]
pub(super) struct Relay {
    program: PathBuf,
    child: Child,
    admin: PathBuf,
    pub(super) http: SocketAddr,
    pub(super) bittorrent: SocketAddr,
}

impl Relay {
    /// Starts `millrace-relay serve` with everything it keeps in `folder`.
    pub(super) fn start(folder: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let admin = folder.join("admin.sock");
        let log = std::fs::File::create(folder.join("relay.log"))?;
        let child = Command::new(&program)
            .arg("serve")
            .args(["--http", "127.0.0.1:0", "--bt", "127.0.0.1:0", "--metrics", "off"])
            .arg("--store")
            .arg(folder.join("store"))
            .arg("--admin")
            .arg(&admin)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let mut relay = Relay { program, child, admin, http: nowhere, bittorrent: nowhere };
        let addresses = relay.wait_until_ready(folder)?;
        (relay.http, relay.bittorrent) = (addresses.http, addresses.bittorrent);
        Ok(relay)
    }

    fn wait_until_ready(&mut self, folder: &Path) -> anyhow::Result<Addresses> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(folder.join("relay.log")).unwrap_or_default();
                bail!("the relay ended with {status}: {}", log.trim());
            }
            if self.admin.exists()
                && let Ok(status) = self.status()
            {
                return Ok(status.addresses);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the relay was not ready within {} seconds", PATIENCE.as_secs())
    }

    /// `millrace-relay add URL --metainfo FILE`.
    pub(super) fn add(&self, url: &str, metainfo: &Path) -> anyhow::Result<ContentStatus> {
        let metainfo = metainfo.to_str().context("a temporary path that is not UTF-8")?;
        Ok(serde_json::from_slice(&self.run(&["add", url, "--metainfo", metainfo])?)?)
    }

    /// `millrace-relay status`.
    pub(super) fn status(&self) -> anyhow::Result<RelayStatus> {
        #[derive(serde::Deserialize)]
        struct Status {
            relay: RelayStatus,
        }
        let status: Status = serde_json::from_slice(&self.run(&["status"])?)?;
        Ok(status.relay)
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = Command::new(&self.program)
            .args(arguments)
            .arg("--json")
            .arg("--admin")
            .arg(&self.admin)
            .output()?;
        if !output.status.success() {
            bail!("{} failed: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output.stdout)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
