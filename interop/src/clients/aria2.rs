//! aria2: HTTP in several connections, torrents, and metalinks that use both at once.

use std::path::Path;
use std::process::Command;

use crate::process::Process;
use crate::relay::free_address;

use super::Leecher;

/// Whether there is aria2.
#[must_use]
pub fn is_installed() -> bool {
    super::is_installed("aria2c", &["--version"], "apt install aria2")
}

/// Downloads whatever `source` is (URL, .torrent, .meta4, magnet) into `folder`, verifying what hashes there are.
#[must_use]
pub fn start(source: &str, folder: &Path, more: &[&str]) -> Leecher {
    let mut command = Command::new("aria2c");
    command.args(["--no-conf=true", "--no-netrc=true", "--all-proxy=", "--console-log-level=notice"]);
    command.args([
        "--summary-interval=0",
        "--show-console-readout=false",
        "--enable-color=false",
        "--allow-overwrite=true",
        "--file-allocation=none",
    ]);
    command.args(["--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false"]);
    command.args(["--enable-peer-exchange=false", "--seed-time=0", "--check-integrity=true"]);
    command.args(["--bt-tracker-interval=2", "--bt-hash-check-seed=true"]);
    command.arg(format!("--listen-port={}", free_address().port()));
    command.arg(format!("--dht-listen-port={}", free_address().port()));
    command.arg("--dir").arg(folder).args(more).arg(source);
    let process = Process::spawn(&mut command, folder.join("aria2.log"));
    Leecher { name: "aria2", process, done: None, folder: folder.to_owned() }
}
