//! GNU Wget.

use std::path::Path;
use std::process::Command;

use crate::process::Process;

use super::Leecher;

/// Whether there is wget.
#[must_use]
pub fn is_installed() -> bool {
    super::is_installed("wget", &["--version"], "apt install wget")
}

/// Downloads `url` into `folder`, continuing what is there.
#[must_use]
pub fn start(url: &str, folder: &Path) -> Leecher {
    let mut command = Command::new("wget");
    command.args(["--no-config", "--no-proxy", "--no-verbose", "--tries=3", "--continue"]);
    command.arg("--directory-prefix").arg(folder).arg(url);
    let process = Process::spawn(&mut command, folder.join("wget.log"));
    Leecher { name: "wget", process, done: None, folder: folder.to_owned() }
}
