//! nginx: one worker, its pages sent by sendfile, the file kept open, nothing logged.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::{Absent, Found, Ground, Peer};
use crate::interrupt::Interrupt;
use crate::server::{HttpFile, PATIENCE, Process, Server, fetch, free_address};

/// As large as our relay's requests are at most.
const SLICE_BYTES: u64 = 4 << 20;

/// Its configuration, in its folder.
const CONFIG: &str = "nginx.conf";

/// The folder of its cache, in its folder.
const CACHE: &str = "cache";

/// How it reads what is not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// By sendfile alone, which waits for the disk.
    Sendfile,
    /// `aio threads`: a pool of threads waits for the disk.
    Threads,
    /// As a cache before an origin: `proxy_cache` with lock, and `slice`.
    Slices,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Flavour::Sendfile => "nginx",
            Flavour::Threads => "nginx aio threads",
            Flavour::Slices => "nginx proxy_cache, slice",
        }
    }
}

/// nginx, where it is installed.
pub(crate) fn look(flavour: Flavour) -> Found {
    Ok(vec![Peer::Nginx { program: find()?, flavour }])
}

/// The program.
///
/// # Errors
/// It is not installed.
pub(crate) fn find() -> Result<PathBuf, Absent> {
    super::find("nginx", "apt install nginx-light")
}

/// Starts it on the test file.
///
/// # Errors
/// As [`Peer::start`].
pub(crate) fn start(program: &Path, flavour: Flavour, ground: &Ground<'_>) -> anyhow::Result<Server> {
    let address = free_address()?;
    let root = ground.file.parent().context("the test file lies in no folder")?;
    let name =
        ground.file.file_name().and_then(|name| name.to_str()).context("a file name that is not UTF-8")?;
    let config = ground.folder.join(CONFIG);
    let site = format!("listen {address} backlog=4096; root {};", root.display());
    std::fs::write(&config, configuration(ground.folder, flavour, "", &site))?;
    let file =
        HttpFile { address, host: address.to_string(), path: format!("/{name}"), length: ground.length };
    run(program, flavour, ground.folder, ground.cores, file, ground.interrupt)
}

/// Starts it as a cache of all that is at `origin`: whoever asks, each slice is fetched once.
///
/// # Errors
/// As [`Peer::start`].
pub(crate) fn start_cache(
    program: &Path,
    folder: &Path,
    cores: &[usize],
    origin: SocketAddr,
    interrupt: &Interrupt,
) -> anyhow::Result<Server> {
    let address = free_address()?;
    let http = format!(
        "proxy_cache_path {}/{CACHE} keys_zone=slices:10m max_size=100g inactive=1h use_temp_path=off;\n\
         upstream origin {{ server {origin}; keepalive 64; }}",
        folder.display()
    );
    let site = format!(
        "listen {address} backlog=4096; location / {{\n\
         slice {}; proxy_cache slices; proxy_cache_key $uri$slice_range; proxy_set_header Range $slice_range;\n\
         proxy_cache_valid 200 206 1h; proxy_cache_lock on; proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h;\n\
         proxy_http_version 1.1; proxy_set_header Connection ''; proxy_buffer_size 64k; proxy_buffers 64 64k;\n\
         proxy_busy_buffers_size 256k; proxy_pass http://origin; }}",
        SLICE_BYTES
    );
    std::fs::write(folder.join(CONFIG), configuration(folder, Flavour::Slices, &http, &site))?;
    let file = HttpFile { address, host: address.to_string(), path: "/".into(), length: 0 };
    run(program, Flavour::Slices, folder, cores, file, interrupt)
}

/// Starts it by the configuration in `folder`, and waits until it answers.
fn run(
    program: &Path,
    flavour: Flavour,
    folder: &Path,
    cores: &[usize],
    file: HttpFile,
    interrupt: &Interrupt,
) -> anyhow::Result<Server> {
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).arg("-c").arg(folder.join(CONFIG)).arg("-e").arg(error_log(folder));
    let mut process = Process::start(command, cores, folder.join("nginx.log"))?;
    let address = file.address;
    let answers = || Ok(fetch::get(address, "test", "/none").is_ok().then_some(()));
    process.wait_until("answer", PATIENCE, interrupt, answers)?;
    Ok(Server {
        name: flavour.name().into(),
        version: super::version(program, "-v"),
        pid: Some(process.pid()),
        http: Some(file),
        bittorrent: None,
        metrics: None,
        process: Some(process),
    })
}

/// Empties the cache of one that [`start_cache`] started in `folder`. What was in it must not be asked for again.
///
/// # Errors
/// Those of the file system.
pub(crate) fn empty_cache(folder: &Path) -> std::io::Result<()> {
    for slice in std::fs::read_dir(folder.join(CACHE))? {
        std::fs::remove_file(slice?.path())?;
    }
    Ok(())
}

fn error_log(folder: &Path) -> PathBuf {
    folder.join("nginx-error.log")
}

/// `http` goes before its one server, `site` into it.
///
/// The worker is not told its core: it inherits ours. Whoever is root in a user namespace of their own cannot change user, so there the
/// master's work is done by the worker; the loop that serves is the same.
fn configuration(folder: &Path, flavour: Flavour, http: &str, site: &str) -> String {
    let is_root = nix::unistd::geteuid().is_root();
    let user = if is_root { "user root;" } else { "" };
    let master = if is_root && crate::compare::network::is_real_root() { "" } else { "master_process off;" };
    let (pool, aio) = match flavour {
        Flavour::Sendfile | Flavour::Slices => ("", ""),
        Flavour::Threads => ("thread_pool default threads=32 max_queue=65536;", "aio threads;"),
    };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
        .concat();
    format!(
        "{user} {master} daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {0}/nginx.pid; error_log {1} error; {pool}\n\
         events {{ worker_connections 16384; use epoll; multi_accept on; }}\n\
         http {{\n{temporary}\
         sendfile on; sendfile_max_chunk 2m; tcp_nopush on; tcp_nodelay on; {aio}\n\
         access_log off; etag on; server_tokens off;\n\
         open_file_cache max=10000 inactive=1h; open_file_cache_valid 1h; open_file_cache_min_uses 1;\n\
         keepalive_timeout 1h; keepalive_requests 1000000000; reset_timedout_connection on;\n\
         {http}\n\
         server {{ {site} }}\n}}\n",
        folder.display(),
        error_log(folder).display(),
    )
}
