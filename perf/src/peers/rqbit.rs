//! rqbit: a download that is complete already goes on as a seed. It opens its files for writing and sets their length, which changes their
//! times, and a relay that serves a file in place then takes it for changed; so rqbit gets a copy.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::{Found, Ground, Peer, hello};
use crate::server::{Process, Server, free_address};

/// rqbit, where it is installed.
pub(crate) fn look() -> Found {
    let program =
        super::find("rqbit", "cargo install rqbit --locked --no-default-features --features rust-tls")?;
    Ok(vec![Peer::Rqbit { program }])
}

/// Starts it on the test file, which it hashes first.
///
/// # Errors
/// As [`Peer::start`].
pub(crate) fn start(program: &Path, ground: &Ground<'_>) -> anyhow::Result<Server> {
    let seed = ground.seed.context("nothing to seed")?;
    let name = ground.file.file_name().context("the test file has no name")?;
    std::fs::copy(ground.file, ground.folder.join(name)).context("copying the test file")?;
    let address = free_address()?;
    let mut command = Command::new(program);
    command.args([
        "--disable-dht",
        "--disable-lsd",
        "--disable-upnp-port-forward",
        "--disable-trackers",
        "--ipv4-only",
    ]);
    command.args(["--listen-ip", &address.ip().to_string(), "--listen-port", &address.port().to_string()]);
    command.args(["--peer-limit", &(ground.connections * 2).to_string(), "-v", "error"]);
    command.args(["download", "--disable-http-api", "--overwrite", "-o"]);
    command.arg(ground.folder).arg(&seed.path);
    command.env("HOME", ground.folder);
    let mut process = Process::start(command, ground.cores, ground.folder.join("rqbit.log"))?;
    hello::wait_for_seed(&mut process, address, seed, ground)?;
    Ok(super::seeder("rqbit", &super::version(program, "--version"), process, address, ground, seed))
}
