//! The kernel's part alone: this program as the least that can serve a range, see [`bare`](crate::bare).

use std::process::Command;

use anyhow::Context as _;

use super::{Found, Ground, Peer};
use crate::server::{HttpFile, PATIENCE, Process, Server, free_address};

/// It is always here.
pub(crate) fn look() -> Found {
    Ok(vec![Peer::Bare])
}

/// Starts it on the test file.
///
/// # Errors
/// As [`Peer::start`].
pub(crate) fn start(ground: &Ground<'_>) -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.arg("bare").arg(ground.file).args(["--listen", &address.to_string()]);
    let mut process = Process::start(command, ground.cores, ground.folder.join("bare.log"))?;
    let listens = || Ok(std::net::TcpStream::connect(address).is_ok().then_some(()));
    process.wait_until("listen", PATIENCE, ground.interrupt, listens)?;
    Ok(Server {
        name: "bare loop".into(),
        version: String::new(),
        pid: Some(process.pid()),
        http: Some(HttpFile { address, host: address.to_string(), path: "/".into(), length: ground.length }),
        bittorrent: None,
        metrics: None,
        process: Some(process),
    })
}
