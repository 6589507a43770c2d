//! libtorrent, by its Python binding: its own preset for seeding fast, then nothing but TCP, and nobody choked.
//!
//! The binding does not let the disk back end be chosen (a name it does not know is ignored): what is compiled in is used, which is mmap
//! in 2.0 and pread in 2.1. So every version that some interpreter has is a peer of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::{Absent, Found, Ground, Peer, hello};
use crate::server::{Process, Server, find_in_path, free_address};

/// What drives it.
const DRIVER: &str = include_str!("../../peers/libtorrent_seed.py");

/// Memory that the allocator of glibc keeps, instead of giving it back and having it zeroed again, which costs a seed much CPU time.
const ALLOCATOR: [(&str, &str); 4] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_TRIM_THRESHOLD_", "2000000000"),
    ("MALLOC_TOP_PAD_", "67108864"),
    ("MALLOC_MMAP_THRESHOLD_", "1000000000"),
];

/// Each version that the Python of `PATH` or the system's has.
pub(crate) fn look() -> Found {
    let mut found: Vec<Peer> = Vec::new();
    let mut known = Vec::new();
    let system = Path::new("/usr/bin/python3");
    for python in [find_in_path("python3"), crate::server::is_program(system).then(|| system.to_owned())] {
        let Some((python, version)) = python.and_then(|python| Some((python.clone(), version(&python)?)))
        else {
            continue;
        };
        if !known.contains(&version) {
            known.push(version.clone());
            found.push(Peer::Libtorrent { python, version });
        }
    }
    let remedy = "apt install python3-libtorrent, or pip install libtorrent";
    if found.is_empty() { Err(Absent { name: "libtorrent", remedy: remedy.into() }) } else { Ok(found) }
}

fn version(python: &PathBuf) -> Option<String> {
    let output = Command::new(python)
        .args(["-c", "import libtorrent; print(libtorrent.__version__)"])
        .output()
        .ok()?;
    let version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !version.is_empty()).then_some(version)
}

/// Starts it on the test file, which it takes as complete.
///
/// # Errors
/// As [`Peer::start`].
pub(crate) fn start(python: &Path, version: &str, ground: &Ground<'_>) -> anyhow::Result<Server> {
    let seed = ground.seed.context("nothing to seed")?;
    let address = free_address()?;
    let driver = ground.folder.join("libtorrent_seed.py");
    std::fs::write(&driver, DRIVER)?;
    let mut command = Command::new(python);
    command.arg(driver).arg(&seed.path).arg(ground.file.parent().context("the test file lies in no folder")?);
    command.arg(address.to_string()).arg((ground.connections * 2).to_string()).envs(ALLOCATOR);
    let mut process = Process::start(command, ground.cores, ground.folder.join("libtorrent.log"))?;
    hello::wait_for_seed(&mut process, address, seed, ground)?;
    Ok(super::seeder("libtorrent", version, process, address, ground, seed))
}
