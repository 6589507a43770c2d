//! From flags, file and environment to a checked [`Config`]: past this module no `Option` means "default", and every error names the
//! flag, or the file, line and key, that has to change. A flag wins over the file, and the file over the default.

mod access;
mod caps;
mod check;
mod file;
mod show;
mod tls_keys;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_engine::limits::Limits;
use millrace_proto::admin::caps::Caps;
use millrace_send::tls::HandshakeLimits;
use tracing_subscriber::filter::Targets;
use url::Url;

use crate::cli::ServeArgs;
use crate::tls;

pub use access::AccessConfig;

/// Longest path of a Unix socket, in bytes (`sun_path` less its final NUL).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Where HTTP is served by default.
pub const HTTP_PORT: u16 = 8080;
/// Where BitTorrent is served by default.
pub const BITTORRENT_PORT: u16 = 6881;
const METRICS: &str = "127.0.0.1:9185";

/// A wrong flag, key or combination: exit status 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Which back end to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// io_uring where it works, epoll where it is forbidden.
    Auto,
    /// io_uring, or fail.
    Uring,
    /// epoll.
    Epoll,
}

/// How ingest is to write files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestIo {
    /// What takes less CPU: `pwrite`, today.
    Auto,
    /// Through io_uring, or fail.
    Uring,
    /// `pwrite`.
    Pwrite,
}

/// Who encrypts what HTTPS sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsKernel {
    /// The kernel, where it can.
    Auto,
    /// The relay.
    Off,
}

/// How to write the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// What `/pull/NAME/` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The URL that paths are appended to; its path ends in `/`.
    pub url: Url,
    /// Header fields to send to it.
    pub headers: Vec<(String, String)>,
}

/// Where the pages for people and the index are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Where HTTP is.
    WithData,
    /// On an address of their own, and nowhere else.
    Apart(SocketAddr),
    /// Nowhere.
    Off,
}

/// How HTTPS is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Https {
    /// Where.
    pub address: SocketAddr,
    /// By which certificate.
    pub files: tls::Files,
}

/// How long an upgrade may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpgradeTimes {
    /// Until the new program is ready; then the running one goes on as before.
    pub ready: Duration,
    /// Until what the old program still serves is closed.
    pub drain: Duration,
}

impl Default for UpgradeTimes {
    fn default() -> Self {
        UpgradeTimes { ready: Duration::from_secs(60), drain: Duration::from_secs(86_400) }
    }
}

/// Everything that a relay is told when it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// What to pull and serve from the start.
    pub sources: Vec<String>,
    /// Folder of the store.
    pub store: PathBuf,
    /// Most bytes to store; `None` is unlimited.
    pub capacity: Option<u64>,
    /// Bytes of the store's file system that contents leave to others.
    pub keep_free: u64,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where HTTPS is served, if it is.
    pub https: Option<Https>,
    /// Where BitTorrent and the UDP tracker are served.
    pub bittorrent: SocketAddr,
    /// What links name; `None` is worked out from the machine's addresses once the port is known.
    pub public_url: Option<Url>,
    /// The caps to begin with, the operator's layer; those that were set later while a relay ran hold instead.
    pub caps: Caps,
    /// The admin socket.
    pub admin: PathBuf,
    /// Where the pages for people are served.
    pub pages: Pages,
    /// Where metrics are served; `None` is only on the admin socket.
    pub metrics: Option<SocketAddr>,
    /// Cores to run shards on; at least one, at most 64.
    pub cores: Vec<usize>,
    /// The back end asked for.
    pub io: Io,
    /// How ingest is to write files; never [`IngestIo::Uring`] with [`Io::Epoll`].
    pub ingest_io: IngestIo,
    /// The congestion control of listening sockets, which accepted ones inherit; `None` is the system's.
    pub congestion: Option<String>,
    /// How to write the log.
    pub log_format: LogFormat,
    /// What to log.
    pub log_level: Targets,
    /// Who may have what.
    pub access: AccessConfig,
    /// Bounds of each shard.
    pub limits: Limits,
    /// Who encrypts what HTTPS sends.
    pub tls_kernel: TlsKernel,
    /// Bounds on TLS handshakes, of each shard.
    pub handshakes: HandshakeLimits,
    /// How long an upgrade may take.
    pub upgrade: UpgradeTimes,
    /// Certificates (PEM) that origins are trusted by, besides those of the system.
    pub origin_ca: Option<PathBuf>,
    /// Connections to one origin at a time, at least one.
    pub origin_connections: usize,
    /// Origins of pull-through, by name.
    pub origins: BTreeMap<String, Origin>,
}

/// What the process was started with, besides its arguments; tests give their own.
pub struct Environment<'a> {
    /// Reads a variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Cores that this process may use.
    pub cores_allowed: Vec<usize>,
    /// Whether a socket can be bound to an IPv6 address here.
    pub has_ipv6: bool,
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("cores_allowed", &self.cores_allowed).finish_non_exhaustive()
    }
}

impl Environment<'_> {
    /// The first folder of a variable that systemd sets to a list of them.
    fn folder(&self, name: &str) -> Option<PathBuf> {
        let value = (self.variable)(name)?.into_string().ok()?;
        value.split(':').next().filter(|folder| !folder.is_empty()).map(PathBuf::from)
    }

    /// Folder of the store where none is named.
    #[must_use]
    pub fn default_store(&self) -> PathBuf {
        self.folder("STATE_DIRECTORY").unwrap_or_else(|| PathBuf::from("./millrace-store"))
    }

    /// The admin socket that `serve` makes where none is named.
    #[must_use]
    pub fn default_admin(&self, store: &Path) -> PathBuf {
        if let Some(named) = (self.variable)("MILLRACE_ADMIN").filter(|value| !value.is_empty()) {
            return PathBuf::from(named);
        }
        self.folder("RUNTIME_DIRECTORY").unwrap_or_else(|| store.to_owned()).join("admin.sock")
    }

    /// The file of a secret that the service manager passes (systemd.exec(5), LoadCredential=).
    fn credential(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder("CREDENTIALS_DIRECTORY")?.join(name))
    }

    /// The places where a client looks for the socket of a running relay, in order.
    #[must_use]
    pub fn admin_candidates(&self, named: Option<&Path>) -> Vec<PathBuf> {
        if let Some(named) = named {
            return vec![named.to_owned()];
        }
        if let Some(named) = (self.variable)("MILLRACE_ADMIN").filter(|value| !value.is_empty()) {
            return vec![PathBuf::from(named)];
        }
        let runtime = self.folder("RUNTIME_DIRECTORY").map(|folder| folder.join("admin.sock"));
        let fixed = [PathBuf::from("/run/millrace/admin.sock"), self.default_store().join("admin.sock")];
        runtime.into_iter().chain(fixed).collect()
    }
}

impl Config {
    /// Reads the configuration file, if one is named, and checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line.
    pub fn load(args: &ServeArgs, environment: &Environment<'_>) -> Result<Config, ConfigError> {
        let text = match &args.config {
            Some(path) => Some((
                path.as_path(),
                std::fs::read_to_string(path)
                    .map_err(|error| ConfigError(format!("{}: {error}; check --config", path.display())))?,
            )),
            None => None,
        };
        Self::check(args, text.as_ref().map(|(path, text)| (*path, text.as_str())), environment)
    }
}

/// Refuses a path that no Unix socket can have.
///
/// # Errors
/// One line with the length and what to do.
pub fn check_socket_path(path: &Path) -> Result<(), ConfigError> {
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        return Err(ConfigError(format!(
            "the admin socket path {} is {bytes} bytes long, and {SOCKET_PATH_BYTES_MAX} is the most a socket may have: choose a shorter one with --admin",
            path.display()
        )));
    }
    Ok(())
}
