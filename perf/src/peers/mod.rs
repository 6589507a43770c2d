//! Other programs that serve files, each started as its own experts would start it: what a relay is compared with.

pub(crate) mod aria2;
pub(crate) mod bare;
pub(crate) mod fio;
mod hello;
pub(crate) mod libtorrent;
pub(crate) mod nginx;
pub(crate) mod openssl;
pub(crate) mod rqbit;
pub(crate) mod transmission;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::interrupt::Interrupt;
use crate::server::{Server, find_in_path};

/// What every server of a comparison is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ground<'a> {
    /// The test file. Peers serve it from where it is, so that all share its pages; who writes to it gets a copy of the same name.
    pub(crate) file: &'a Path,
    pub(crate) length: u64,
    /// For configuration and logs; nothing of another server is in it.
    pub(crate) folder: &'a Path,
    pub(crate) cores: &'a [usize],
    /// Connections that the load will hold.
    pub(crate) connections: usize,
    /// What to seed, where BitTorrent is compared.
    pub(crate) seed: Option<&'a Seed>,
    pub(crate) interrupt: &'a Interrupt,
}

/// A torrent of the test file that every client can read: v1, without trackers and web seeds.
#[derive(Debug, Clone)]
pub(crate) struct Seed {
    pub(crate) path: PathBuf,
    pub(crate) infohash: [u8; 20],
    pub(crate) piece_bytes: u32,
}

/// A peer that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    Nginx {
        program: PathBuf,
        flavour: nginx::Flavour,
    },
    Libtorrent {
        python: PathBuf,
        version: String,
    },
    Transmission {
        program: PathBuf,
    },
    Rqbit {
        program: PathBuf,
    },
    /// This program itself.
    Bare,
}

/// A peer that is not, or that cannot be compared here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Absent {
    pub(crate) name: &'static str,
    /// What to do about it.
    pub(crate) remedy: String,
}

/// What is found of one kind of peer; libtorrent may be there in several versions.
pub(crate) type Found = Result<Vec<Peer>, Absent>;

impl Peer {
    /// Starts it and waits until it serves the test file.
    ///
    /// # Errors
    /// It cannot be started, or does not serve it.
    pub(crate) fn start(&self, ground: &Ground<'_>) -> anyhow::Result<Server> {
        match self {
            Peer::Nginx { program, flavour } => nginx::start(program, *flavour, ground),
            Peer::Libtorrent { python, version } => libtorrent::start(python, version, ground),
            Peer::Transmission { program } => transmission::start(program, ground),
            Peer::Rqbit { program } => rqbit::start(program, ground),
            Peer::Bare => bare::start(ground),
        }
    }
}

/// A program in `PATH`, or where distributions keep those that only root is expected to run.
pub(crate) fn find(name: &'static str, remedy: &str) -> Result<PathBuf, Absent> {
    let beyond = || Some(Path::new("/usr/sbin").join(name)).filter(|path| crate::server::is_program(path));
    find_in_path(name).or_else(beyond).ok_or_else(|| Absent { name, remedy: remedy.to_owned() })
}

/// The version of a program by its name; empty where it is not installed.
pub(crate) fn version_of(name: &'static str, flag: &str) -> String {
    find(name, "").map(|program| version(&program, flag)).unwrap_or_default()
}

/// The first number with a dot in what `program flag` says, on either output.
fn version(program: &Path, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output() else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let mut words = text.split(|c: char| !(c.is_ascii_digit() || c == '.')).filter(|word| word.contains('.'));
    words.next().unwrap_or_default().trim_matches('.').to_owned()
}

/// A server of a torrent alone.
fn seeder(
    name: &str,
    version: &str,
    process: crate::server::Process,
    at: SocketAddr,
    ground: &Ground<'_>,
    seed: &Seed,
) -> Server {
    Server {
        name: name.to_owned(),
        version: version.to_owned(),
        pid: Some(process.pid()),
        http: None,
        bittorrent: Some(seed.at(at, ground.length)),
        metrics: None,
        process: Some(process),
    }
}

impl Seed {
    /// This torrent at an address.
    pub(crate) fn at(&self, address: SocketAddr, length: u64) -> crate::server::Torrent {
        crate::server::Torrent {
            address,
            infohash: self.infohash,
            piece_bytes: self.piece_bytes,
            length,
            one_address_each: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_first_number_with_a_dot() {
        let folder = crate::server::scratch::Scratch::create(None).unwrap();
        let check = |says: &str, expected: &str| {
            let program = folder.path().join("program");
            std::fs::write(&program, format!("#!/bin/sh\necho '{says}' >&2\n")).unwrap();
            std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
            assert_eq!(version(&program, "-v"), expected);
        };
        check("nginx version: nginx/1.22.1", "1.22.1");
        check("transmission-daemon 3.00 (bb6b5a062e)", "3.00");
        check("program of the year 2026. It has none", "2026");
        check("none", "");
        assert_eq!(version(&folder.path().join("absent"), "-v"), "");
    }
}
