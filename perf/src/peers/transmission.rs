//! Transmission, the daemon: enough slots for everybody, nothing but TCP in the clear.
//!
//! It refuses peers on loopback and keeps one connection to an address, so it can be compared only in a network of our own, where each
//! leecher has its own address. It lets new peers wait for up to ten seconds.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::{Absent, Found, Ground, Peer, hello};
use crate::compare::network;
use crate::server::{Process, Server, Torrent, free_address};

/// Transmission, where it is installed and can be reached.
pub(crate) fn look(own_network: bool) -> Found {
    let program = super::find("transmission-daemon", "apt install transmission-daemon")?;
    if !own_network {
        let remedy = "it refuses peers on loopback: run this where network namespaces are allowed".into();
        return Err(Absent { name: "Transmission", remedy });
    }
    Ok(vec![Peer::Transmission { program }])
}

/// Starts it on the test file, which it hashes first.
///
/// # Errors
/// As [`Peer::start`].
pub(crate) fn start(program: &Path, ground: &Ground<'_>) -> anyhow::Result<Server> {
    let seed = ground.seed.context("nothing to seed")?;
    let (peers, control) = (free_address()?.port(), free_address()?.port());
    let (home, watched) = (ground.folder.join("transmission"), ground.folder.join("watched"));
    std::fs::create_dir_all(&home)?;
    std::fs::create_dir_all(&watched)?;
    std::fs::copy(&seed.path, watched.join("test.torrent"))?;
    let settings = serde_json::json!({
        "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false,
        "port-forwarding-enabled": false, "encryption": 0, "peer-port": peers, "bind-address-ipv4": "0.0.0.0",
        "rpc-port": control, "rpc-bind-address": "127.0.0.1",
        "download-dir": ground.file.parent().context("the test file lies in no folder")?,
        "incomplete-dir-enabled": false, "watch-dir": watched, "watch-dir-enabled": true, "preallocation": 0,
        "ratio-limit-enabled": false, "idle-seeding-limit-enabled": false, "speed-limit-up-enabled": false,
        "queue-stalled-enabled": false, "seed-queue-enabled": false, "cache-size-mb": 64,
        "upload-slots-per-torrent": ground.connections * 2,
        "peer-limit-per-torrent": ground.connections * 2, "peer-limit-global": ground.connections * 2,
        "message-level": 2,
    });
    std::fs::write(home.join("settings.json"), settings.to_string())?;
    let mut command = Command::new(program);
    command.args(["--foreground", "--config-dir"]).arg(&home).env("HOME", &home);
    let mut process = Process::start(command, ground.cores, ground.folder.join("transmission.log"))?;
    // Asked at an address that no leecher will have.
    hello::wait_for_seed(&mut process, SocketAddr::new(network::SERVER.into(), peers), seed, ground)?;
    let address = SocketAddr::new(network::FIRST_LEECHER.into(), peers);
    let torrent = Torrent { one_address_each: true, ..seed.at(address, ground.length) };
    let server =
        super::seeder("Transmission", &super::version(program, "--version"), process, address, ground, seed);
    Ok(Server { bittorrent: Some(torrent), ..server })
}
