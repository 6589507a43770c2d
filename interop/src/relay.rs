//! The relay program as an operator runs it: `serve` as a child process, everything else by its command line and its HTTP
//! addresses.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use millrace_proto::admin::{ContentState, ContentStatus, PerProtocol};

use crate::http::{self, Answer};
use crate::process::{Finished, Process, run};
use crate::scratch::Scratch;
use crate::until;

/// How long starting up, and any one command, may take on a busy machine.
const PROMPT: Duration = Duration::from_secs(30);

/// Where relays and clients of tests listen.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 20_000;

/// A relay and what is needed to start it again on the same store and addresses.
#[derive(Debug)]
pub struct Relay {
    process: Option<Process>,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where BitTorrent is served.
    pub bittorrent: SocketAddr,
    /// Where metrics are.
    pub metrics: SocketAddr,
    /// Its store.
    pub store: PathBuf,
    /// Its admin socket.
    pub admin: PathBuf,
    log: PathBuf,
    flags: Vec<String>,
}

impl Relay {
    /// Starts a relay with an empty store in `scratch` on free loopback ports, and waits until it is ready.
    ///
    /// # Panics
    /// If it is not ready within half a minute.
    #[must_use]
    #[track_caller]
    pub fn start(scratch: &Scratch, flags: &[&str]) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, scratch, flags)
    }

    /// As [`Relay::start`] on the address that this machine has on its network, where it has one: Transmission refuses
    /// peers on loopback. What is sent there still goes through loopback.
    #[must_use]
    #[track_caller]
    pub fn start_for_peers(scratch: &Scratch, flags: &[&str]) -> Self {
        Self::start_at(network_address().unwrap_or(Ipv4Addr::LOCALHOST), scratch, flags)
    }

    #[track_caller]
    fn start_at(address: Ipv4Addr, scratch: &Scratch, flags: &[&str]) -> Self {
        let mut relay = Relay {
            process: None,
            http: free_address_on(address),
            bittorrent: free_address_on(address),
            metrics: free_address(),
            store: scratch.join("store"),
            admin: scratch.join("admin.sock"),
            log: scratch.join("relay.log"),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        relay.restart();
        relay
    }

    /// The command that serves.
    #[must_use]
    pub fn serve_command(&self) -> Command {
        let mut command = Command::new(program());
        command.arg("serve").arg("--store").arg(&self.store).arg("--admin").arg(&self.admin);
        command.args(["--http", &self.http.to_string(), "--bt", &self.bittorrent.to_string()]);
        command.args(["--metrics", &self.metrics.to_string(), "--public-url", &self.url("/")]);
        if let Ok(io) = std::env::var("MILLRACE_INTEROP_IO") {
            command.args(["--io", &io]);
        }
        command.args(&self.flags);
        command
    }

    /// SIGKILL, if it is running.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills it if it is running, starts it, and waits until it is ready.
    ///
    /// # Panics
    /// If it ends, or is not ready within half a minute.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        // io_uring gives its sockets back a moment after the process is gone; a supervisor would try again.
        let free = |address: SocketAddr| TcpListener::bind(address).is_ok();
        until("the addresses to be free", PROMPT, || {
            (free(self.http) && free(self.bittorrent)).then_some(())
        });
        let mut process = Process::spawn(&mut self.serve_command(), self.log.clone());
        let address = self.http;
        until("the relay to be ready", PROMPT, || {
            if let Some(status) = process.ended() {
                panic!("the relay ended: {status}\n{}", process.output());
            }
            http::get(address, "/readyz", &["Connection: close"]).ok().filter(|answer| answer.status == 200)
        });
        self.process = Some(process);
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a running relay")
    }

    /// What it logged, or the end of that.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The address of a path on this relay.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// GET on this relay.
    ///
    /// # Panics
    /// If no answer arrives.
    #[must_use]
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        http::get(self.http, path, &["Connection: close"])
            .unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Runs another command of the program against this relay.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Finished {
        run(Command::new(program()).args(arguments).arg("--admin").arg(&self.admin), PROMPT)
    }

    /// `add`, and the content that came of it.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    #[track_caller]
    pub fn add(&self, arguments: &[&str]) -> ContentStatus {
        let mut line = vec!["add", "--json"];
        line.extend(arguments);
        let finished = self.command(&line);
        assert!(finished.status.success(), "add {arguments:?}: {}", finished.stderr);
        serde_json::from_slice(&finished.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", finished.text()))
    }

    /// A command about one content.
    ///
    /// # Panics
    /// If it is refused.
    #[track_caller]
    pub fn order(&self, command: &str, id: &str) {
        let finished = self.command(&[command, id]);
        assert!(finished.status.success(), "{command} {id}: {}", finished.stderr);
    }

    /// How a content stands, as everybody can see it.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    #[track_caller]
    pub fn status(&self, id: &str) -> ContentStatus {
        let answer = self.get(&format!("/c/{id}.json"));
        assert_eq!(answer.status, 200, "/c/{id}.json: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
    }

    /// Waits until a content is in `state`.
    ///
    /// # Panics
    /// If it does not get there `within` that time, or fails on the way.
    #[track_caller]
    pub fn wait_for(&self, id: &str, state: ContentState, within: Duration) -> ContentStatus {
        until(&format!("{id} to be {state:?}"), within, || {
            let status = self.status(id);
            let given_up = status.state == ContentState::Failed && state != ContentState::Failed;
            assert!(!given_up, "the pull failed: {:?}", status.error);
            (status.state == state).then_some(status)
        })
    }

    /// Bytes of a content served so far.
    #[must_use]
    #[track_caller]
    pub fn served(&self, id: &str) -> PerProtocol {
        self.status(id).served
    }

    /// The .torrent that a client can use: the v1 half for those that stumble over hybrids.
    ///
    /// # Panics
    /// If there is none soon.
    #[must_use]
    #[track_caller]
    pub fn torrent_for(&self, client: crate::clients::Client, id: &str, web_seeds: bool) -> Vec<u8> {
        if client.reads_hybrids() {
            self.torrent(id, web_seeds)
        } else {
            self.torrent(&format!("{id}.v1"), web_seeds)
        }
    }

    /// Waits for a content's .torrent and gives it, with its web seeds or without.
    ///
    /// # Panics
    /// If there is none soon.
    #[must_use]
    #[track_caller]
    pub fn torrent(&self, id: &str, web_seeds: bool) -> Vec<u8> {
        let path = format!("/c/{id}.torrent");
        let answer = until(&path, PROMPT, || Some(self.get(&path)).filter(|answer| answer.status == 200));
        if web_seeds { answer.body } else { crate::torrent::without_web_seeds(&answer.body) }
    }

    /// Path of a content's only file.
    #[must_use]
    pub fn path_of(&self, content: &ContentStatus) -> String {
        let base = self.url("");
        content.http_url.strip_prefix(&base).unwrap_or(&content.http_url).to_owned()
    }
}

/// A loopback address that was free a moment ago.
#[must_use]
pub fn free_address() -> SocketAddr {
    free_address_on(Ipv4Addr::LOCALHOST)
}

fn free_address_on(address: Ipv4Addr) -> SocketAddr {
    // Below the ports that the kernel gives to outgoing connections (`ip_local_port_range`): one of those could be in use by the time
    // that it is wanted. Each process goes its own way through them, from a random start, and takes none twice.
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        let [low, high, ..] = RandomState::new().hash_one(()).to_le_bytes();
        AtomicU16::new(u16::from_le_bytes([low, high]))
    });
    let mut ports = (0..PORTS).map(|_| FIRST_PORT + next.fetch_add(1, Ordering::Relaxed) % PORTS);
    let free = ports.find(|port| TcpListener::bind((address, *port)).is_ok());
    SocketAddr::from((address, free.expect("a free port")))
}

/// The address this machine would be seen by, if it is on any network.
#[must_use]
pub fn network_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Connecting a UDP socket sends nothing; it asks the routes which address would be used (RFC 5737 names nobody).
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
        _ => None,
    }
}

/// The relay program: `MILLRACE_RELAY`, or the one that cargo builds beside these tests.
#[must_use]
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os("MILLRACE_RELAY") {
        Some(path) => path.into(),
        None => build(),
    })
}

/// Builds the program in the profile and target folder of this test: cargo alone knows whether what is there is stale.
fn build() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this test");
    // target/PROFILE/deps/this
    let folder = this.ancestors().nth(2).expect("a folder of the profile");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // As `cargo test --workspace` does, or dependencies would have other features and be built again.
    command.args(["build", "--quiet", "--workspace", "--tests"]);
    // What cargo tells a test about its package, build scripts take for theirs, and run again.
    let told = std::env::vars_os().map(|(name, _)| name);
    for name in
        told.filter(|name| name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR")
    {
        command.env_remove(name);
    }
    command.args(folder.ends_with("release").then_some("--release"));
    command.arg("--target-dir").arg(folder.parent().expect("the target folder"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let finished = run(&mut command, Duration::from_secs(900));
    assert!(finished.status.success(), "the relay does not build:\n{}", finished.stderr);
    folder.join("millrace-relay")
}
