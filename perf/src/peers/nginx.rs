//! nginx: one worker, its pages sent by sendfile, the file kept open, nothing logged.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::{Found, Ground, Peer};
use crate::server::{HttpFile, PATIENCE, Process, Server, fetch, free_address};

/// How it reads what is not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// By sendfile alone, which waits for the disk.
    Sendfile,
    /// `aio threads`: a pool of threads waits for the disk.
    Threads,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Flavour::Sendfile => "nginx",
            Flavour::Threads => "nginx aio threads",
        }
    }
}

/// nginx, where it is installed.
pub(crate) fn look(flavour: Flavour) -> Found {
    let program = super::find("nginx", "apt install nginx-light")?;
    Ok(vec![Peer::Nginx { program, flavour }])
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
    let config = ground.folder.join("nginx.conf");
    let site = format!("listen {address} backlog=4096; root {};", root.display());
    std::fs::write(&config, configuration(ground.folder, flavour, &site))?;
    let process = run(program, &config, ground)?;
    let path = format!("/{name}");
    let mut server = Server {
        name: flavour.name().into(),
        version: super::version(program, "-v"),
        pid: Some(process.pid()),
        http: Some(HttpFile { address, host: address.to_string(), path, length: ground.length }),
        bittorrent: None,
        metrics: None,
        process: Some(process),
    };
    let answers = || Ok(fetch::get(address, "test", "/none").is_ok().then_some(()));
    let process = server.process.as_mut().context("a process that was just started")?;
    process.wait_until("answer", PATIENCE, ground.interrupt, answers)?;
    Ok(server)
}

fn run(program: &Path, config: &Path, ground: &Ground<'_>) -> anyhow::Result<Process> {
    let mut command = Command::new(program);
    command.arg("-p").arg(ground.folder).arg("-c").arg(config).arg("-e").arg(error_log(ground.folder));
    Process::start(command, ground.cores, ground.folder.join("nginx.log"))
}

fn error_log(folder: &Path) -> PathBuf {
    folder.join("nginx-error.log")
}

/// `site` goes into its one server.
///
/// The worker is not told its core: it inherits ours. Whoever is root in a user namespace of their own cannot change user, so there the
/// master's work is done by the worker; the loop that serves is the same.
fn configuration(folder: &Path, flavour: Flavour, site: &str) -> String {
    let is_root = nix::unistd::geteuid().is_root();
    let user = if is_root { "user root;" } else { "" };
    let master = if is_root && crate::compare::network::is_real_root() { "" } else { "master_process off;" };
    let (pool, aio) = match flavour {
        Flavour::Sendfile => ("", ""),
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
         server {{ {site} }}\n}}\n",
        folder.display(),
        error_log(folder).display(),
    )
}
