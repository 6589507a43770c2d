//! The checks: each value with the place it came from, so that the error says what to change.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_engine::limits::Limits;
use millrace_pagecache::waiting::SHARDS_MAX;
use millrace_proto::units::Size;
use socket2::{Domain, Socket, Type};
use tracing_subscriber::filter::{LevelFilter, Targets};
use url::Url;

use super::check_socket_path;
use super::file::{self, Entry, File, LimitKeys};
use super::{
    BITTORRENT_PORT, Config, ConfigError, Environment, HTTP_PORT, IngestIo, Io, LogFormat, METRICS, Origin,
    Pages, UpgradeTimes,
};
use super::{access, caps, tls_keys};
use crate::cli::ServeArgs;
use crate::ingest::ORIGIN_CONNECTIONS;
use crate::logging;

/// Where the kernel lists its congestion controls.
const CONGESTION_CONTROLS: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// Where a value stands.
pub(super) enum Place<'a> {
    Flag(&'static str),
    Key { path: &'a Path, line: usize, key: String },
    Default,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Flag(flag) => write!(f, "--{flag}"),
            Place::Key { path, line, key } => write!(f, "{}:{line}: {key}", path.display()),
            Place::Default => f.write_str("default"),
        }
    }
}

/// A value as text, and its place.
pub(super) struct Found<'a> {
    pub(super) text: String,
    pub(super) place: Place<'a>,
}

impl Found<'_> {
    pub(super) fn read<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        read(&self.text).map_err(|problem| ConfigError(format!("{}: `{}`: {problem}", self.place, self.text)))
    }
}

/// The file with its name and text, for lines.
pub(super) struct Lookup<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl<'a> Lookup<'a> {
    pub(super) fn flag(flag: &'static str, value: Option<&str>) -> Option<Found<'a>> {
        value.map(|text| Found { text: text.to_owned(), place: Place::Flag(flag) })
    }

    pub(super) fn entry(&self, key: impl Into<String>, entry: &Entry) -> Option<Found<'a>> {
        entry.as_ref().map(|value| Found {
            text: value.get_ref().0.clone(),
            place: Place::Key {
                path: self.path,
                line: file::line_of(self.text, value.span().start),
                key: key.into(),
            },
        })
    }

    /// The flag, else the key of the same name.
    pub(super) fn either(&self, name: &'static str, flag: Option<&str>, entry: &Entry) -> Option<Found<'a>> {
        Self::flag(name, flag).or_else(|| self.entry(name, entry))
    }
}

impl Config {
    /// Checks flags and the text of a configuration file.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line.
    pub fn check(
        args: &ServeArgs,
        named: Option<(&Path, &str)>,
        environment: &Environment<'_>,
    ) -> Result<Config, ConfigError> {
        let (path, text) = named.unwrap_or((Path::new(""), ""));
        let file = file::parse(path, text).map_err(ConfigError)?;
        let lookup = Lookup { path, text };
        let File { store, capacity, http, bt, public_url, admin, metrics, cores, log_format, .. } = &file;

        let path_text =
            |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let store = match &args.store {
            Some(path) => path.clone(),
            None => lookup
                .entry("store", store)
                .map_or_else(|| environment.default_store(), |found| found.text.into()),
        };
        let admin = match &args.admin {
            Some(path) => path.clone(),
            None => lookup
                .entry("admin", admin)
                .map_or_else(|| environment.default_admin(&store), |found| found.text.into()),
        };
        check_socket_path(&admin)?;
        if path_text(&args.store).is_some_and(|path| path.is_empty()) {
            return Err(ConfigError("--store: name a folder".into()));
        }
        let io = optional(lookup.either("io", args.io.as_deref(), &file.io), io_kind)?.unwrap_or(Io::Auto);
        let ingest_io = lookup.either("ingest-io", args.ingest_io.as_deref(), &file.ingest_io);
        let ingest_io = optional(ingest_io, |text| ingest_io_kind(text, io))?.unwrap_or(IngestIo::Auto);
        let listen =
            |name, flag: &Option<String>, entry, port| match lookup.either(name, flag.as_deref(), entry) {
                Some(found) => found.read(address),
                None => Ok(any_address(environment, port)),
            };
        Ok(Config {
            sources: if args.sources.is_empty() {
                file.sources.clone().unwrap_or_default()
            } else {
                args.sources.clone()
            },
            capacity: optional(lookup.either("capacity", args.capacity.as_deref(), capacity), size_limit)?
                .flatten(),
            keep_free: optional(
                lookup.either("keep-free", args.keep_free.as_deref(), &file.keep_free),
                size,
            )?
            .unwrap_or(0),
            http: listen("http", &args.http, http, HTTP_PORT)?,
            https: tls_keys::https(&lookup, args, &file, environment)?,
            bittorrent: listen("bt", &args.bt, bt, BITTORRENT_PORT)?,
            public_url: optional(
                lookup.either("public-url", args.public_url.as_deref(), public_url),
                public,
            )?,
            caps: caps::caps(&lookup, args, &file)?,
            pages: optional(lookup.either("pages", args.pages.as_deref(), &file.pages), pages)?
                .unwrap_or(Pages::WithData),
            metrics: lookup
                .either("metrics", args.metrics.as_deref(), metrics)
                .unwrap_or(Found { text: METRICS.into(), place: Place::Default })
                .read(|text| if text == "off" { Ok(None) } else { address(text).map(Some) })?,
            cores: match lookup.either("cores", args.cores.as_deref(), cores) {
                Some(found) => found.read(|text| core_list(text, &environment.cores_allowed))?,
                None => environment.cores_allowed.iter().copied().take(SHARDS_MAX as usize).collect(),
            },
            io,
            ingest_io,
            congestion: optional(
                lookup.either("congestion", args.congestion.as_deref(), &file.congestion),
                congestion_control,
            )?,
            log_format: optional(
                lookup.either("log-format", args.log_format.as_deref(), log_format),
                log_kind,
            )?
            .unwrap_or(LogFormat::Text),
            log_level: optional(lookup.entry("log-level", &file.log_level), logging::levels)?
                .unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO)),
            access: access::access(&lookup, &file, environment)?,
            limits: limits(&lookup, &file.limits)?,
            tls_kernel: tls_keys::kernel(&lookup, &file)?,
            handshakes: tls_keys::handshakes(&lookup, &file)?,
            upgrade: upgrade(&lookup, &file.limits)?,
            origin_ca: optional(lookup.entry("origin-ca", &file.origin_ca), readable_file)?,
            origin_connections: optional(
                lookup.entry("origin-connections", &file.origin_connections),
                connection_count,
            )?
            .unwrap_or(ORIGIN_CONNECTIONS),
            origins: origins(&lookup, &file)?,
            store,
            admin,
        })
    }
}

pub(super) fn optional<T>(
    found: Option<Found<'_>>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    found.map(|found| found.read(read)).transpose()
}

/// A file that can be opened now; what is in it is for its user to judge.
fn readable_file(text: &str) -> Result<PathBuf, String> {
    std::fs::File::open(text).map(|_| PathBuf::from(text)).map_err(|error| error.to_string())
}

fn any_address(environment: &Environment<'_>, port: u16) -> SocketAddr {
    let any = if environment.has_ipv6 {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    };
    SocketAddr::new(any, port)
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an address and a port, such as 127.0.0.1:8080 or [::]:8080".into())
}

/// A count or size within bounds.
pub(super) fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let value = text.parse().ok().map(|Size(value)| value).filter(|value| (least..=most).contains(value));
    value.ok_or_else(|| format!("write a number from {least} to {most}"))
}

fn size_limit(text: &str) -> Result<Option<u64>, String> {
    if text == "none" { Ok(None) } else { size(text).map(Some) }
}

fn size(text: &str) -> Result<u64, String> {
    text.parse().map(|Size(size)| size).map_err(|error| error.to_string())
}

fn public(text: &str) -> Result<Url, String> {
    let problem = "write an http or https URL without query, such as https://files.example.org/";
    let url = Url::parse(text).map_err(|_| problem)?;
    let usable =
        matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
    if usable { Ok(with_slash(url)) } else { Err(problem.into()) }
}

/// So that joining appends to the path instead of replacing its last segment.
fn with_slash(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url
}

fn io_kind(text: &str) -> Result<Io, String> {
    match text {
        "auto" => Ok(Io::Auto),
        "uring" => Ok(Io::Uring),
        "epoll" => Ok(Io::Epoll),
        _ => Err("write auto, uring or epoll".into()),
    }
}

fn ingest_io_kind(text: &str, io: Io) -> Result<IngestIo, String> {
    match text {
        "auto" => Ok(IngestIo::Auto),
        "uring" if io == Io::Epoll => {
            Err("io = epoll opens no ring: write auto or pwrite, or another io".into())
        }
        "uring" => Ok(IngestIo::Uring),
        "pwrite" => Ok(IngestIo::Pwrite),
        _ => Err("write auto, uring or pwrite".into()),
    }
}

/// A congestion control that this process may set: which ones depends on the kernel's modules and on privilege, and only setting one
/// tells (tcp(7)).
fn congestion_control(text: &str) -> Result<String, String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(|error| error.to_string())?;
    match socket.set_tcp_congestion(text.as_bytes()) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{error}; the kernel has {}",
            std::fs::read_to_string(CONGESTION_CONTROLS).unwrap_or_default().trim()
        )),
    }
}

/// As many connections to one origin as all origins together may have requests.
fn connection_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=64).contains(count));
    count.ok_or_else(|| "write a number from 1 to 64".into())
}

fn pages(text: &str) -> Result<Pages, String> {
    match text {
        "data" => Ok(Pages::WithData),
        "off" => Ok(Pages::Off),
        _ => address(text).map(Pages::Apart).map_err(|problem| format!("{problem}; or data, or off")),
    }
}

fn log_kind(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("write text or json".into()),
    }
}

/// `0-3,6` as a list, in order and without repetition.
fn core_list(text: &str, allowed: &[usize]) -> Result<Vec<usize>, String> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number =
            |text: &str| text.trim().parse::<usize>().map_err(|_| "write cores such as 0-3,6".to_owned());
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{first}-{last} runs backwards"));
        }
        // Checked before it is counted through, so that an absurd range costs nothing.
        if let Some(missing) = [first, last].into_iter().find(|core| !allowed.contains(core)) {
            return Err(format!("core {missing} is none of those this process may use"));
        }
        cores.extend((first..=last).filter(|core| allowed.contains(core)));
    }
    cores.sort_unstable();
    cores.dedup();
    if cores.len() > SHARDS_MAX as usize {
        return Err(format!("a relay runs at most {SHARDS_MAX} shards"));
    }
    Ok(cores)
}

fn limits(lookup: &Lookup<'_>, keys: &LimitKeys) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    let number = |name: &str, entry: &Entry, least: u64, most: u64| {
        optional(lookup.entry(format!("limits.{name}"), entry), |text| self::number(text, least, most))
    };
    let set_u32 = |target: &mut u32, name, entry, least, most| {
        number(name, entry, least, most).map(|value| {
            if let Some(value) = value.and_then(|value| u32::try_from(value).ok()) {
                *target = value;
            }
        })
    };
    let set_usize = |target: &mut usize, name, entry, least, most| {
        number(name, entry, least, most).map(|value| {
            if let Some(value) = value.and_then(|value| usize::try_from(value).ok()) {
                *target = value;
            }
        })
    };
    let set_seconds = |target: &mut Duration, name, entry| {
        number(name, entry, 1, 86_400).map(|value| {
            if let Some(value) = value {
                *target = Duration::from_secs(value);
            }
        })
    };
    set_u32(&mut limits.connections_max, "connections", &keys.connections, 16, 1 << 20)?;
    let per_address = &keys.connections_per_address;
    set_u32(&mut limits.connections_per_address_max, "connections-per-address", per_address, 1, 1 << 20)?;
    set_usize(&mut limits.head_bytes_max, "head-bytes", &keys.head_bytes, 1024, 1 << 20)?;
    set_usize(&mut limits.peer_requests_max, "peer-requests", &keys.peer_requests, 16, 1 << 16)?;
    set_usize(&mut limits.upload_slots, "upload-slots", &keys.upload_slots, 1, 1 << 20)?;
    set_usize(&mut limits.read_buffers, "read-buffers", &keys.read_buffers, 0, 1 << 14)?;
    set_seconds(&mut limits.head_timeout, "head-timeout", &keys.head_timeout)?;
    set_seconds(&mut limits.idle_timeout, "idle-timeout", &keys.idle_timeout)?;
    set_seconds(&mut limits.stall_timeout, "stall-timeout", &keys.stall_timeout)?;
    set_seconds(&mut limits.park_timeout, "park-timeout", &keys.park_timeout)?;
    set_seconds(&mut limits.handshake_timeout, "handshake-timeout", &keys.handshake_timeout)?;
    set_seconds(&mut limits.peer_idle_timeout, "peer-idle-timeout", &keys.peer_idle_timeout)?;
    set_seconds(&mut limits.drain_timeout, "drain-timeout", &keys.drain_timeout)?;
    Ok(limits)
}

fn upgrade(lookup: &Lookup<'_>, keys: &LimitKeys) -> Result<UpgradeTimes, ConfigError> {
    let seconds = |name: &str, entry: &Entry, default: Duration, most: u64| {
        let found = optional(lookup.entry(format!("limits.{name}"), entry), |text| {
            let seconds = text.parse().ok().filter(|seconds| (1..=most).contains(seconds));
            seconds.ok_or_else(|| format!("write a number from 1 to {most}"))
        });
        Ok(found?.map_or(default, Duration::from_secs))
    };
    let UpgradeTimes { ready, drain } = UpgradeTimes::default();
    Ok(UpgradeTimes {
        ready: seconds("upgrade-timeout", &keys.upgrade_timeout, ready, 3_600)?,
        drain: seconds("upgrade-drain-timeout", &keys.upgrade_drain_timeout, drain, 30 * 86_400)?,
    })
}

fn origins(
    lookup: &Lookup<'_>,
    file: &File,
) -> Result<std::collections::BTreeMap<String, Origin>, ConfigError> {
    let mut origins = std::collections::BTreeMap::new();
    for (name, keys) in &file.origins {
        let entry = lookup.entry(format!("origins.{name}.url"), &Some(keys.url.clone()));
        let plain = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let url = optional(entry, |text| {
            if plain {
                public(text)
            } else {
                Err("an origin's name is of letters, digits, `-`, `_` and `.`".into())
            }
        })?;
        if let Some(url) = url {
            let headers = keys.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            origins.insert(name.clone(), Origin { url, headers });
        }
    }
    Ok(origins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &ServeArgs, text: &str) -> Result<Config, ConfigError> {
        let environment =
            Environment { variable: &|_| None, cores_allowed: vec![0, 1, 2, 3, 8], has_ipv6: true };
        Config::check(args, Some((Path::new("relay.toml"), text)), &environment)
    }

    #[track_caller]
    fn check_error(text: &str, parts: &[&str]) {
        let error = load(&ServeArgs::default(), text).expect_err("must be refused").to_string();
        for part in parts {
            assert!(error.contains(part), "`{error}` lacks `{part}`");
        }
        assert!(!error.contains('\n'), "one line: {error}");
    }

    #[test]
    fn errors_name_file_line_and_key() {
        check_error("\n\nspeed = 3\n", &["relay.toml:3", "`speed`"]);
        check_error("[limits]\nconections = 3\n", &["relay.toml:2", "`conections`"]);
        check_error("egress = \"fast\"\n", &["relay.toml:1: egress", "`fast`"]);
        check_error("# c\nhttp = \"8080\"\n", &["relay.toml:2: http", "127.0.0.1:8080"]);
        check_error("# c\nhttp = true\n", &["relay.toml:2: http", "string"]);
        check_error("[limits]\nconnections = 1\n", &["relay.toml:2: limits.connections", "from 16"]);
        check_error("[origins.\"a/b\"]\nurl = \"http://x/\"\n", &["relay.toml:2: origins.a/b.url"]);
        check_error("[origins.a]\nurl = \"ftp://x/\"\n", &["relay.toml:2: origins.a.url", "https"]);
        check_error("origin-ca = \"/nonexistent/ca.pem\"\n", &["relay.toml:1: origin-ca", "No such file"]);
        check_error("[origins.a]\n", &["relay.toml:1", "url"]);
        check_error("origin-connections = 0", &["relay.toml:1: origin-connections", "from 1 to 64"]);
        check_error("pages = \"8081\"", &["relay.toml:1: pages", "127.0.0.1:8080", "or data, or off"]);
        check_error("congestion = \"warp\"", &["relay.toml:1: congestion", "`warp`"]);
        check_error("cores = \"0-4\"", &["relay.toml:1: cores", "core 4"]);
        check_error("http = ", &["relay.toml:1"]);
        check_error("ingest-io = \"ring\"", &["relay.toml:1: ingest-io", "auto, uring or pwrite"]);
        check_error("log-level = \"debgu\"", &["relay.toml:1: log-level", "`debgu`", "debug"]);
        check_error("https = \"8443\"", &["relay.toml:1: https", "127.0.0.1:8080"]);
        check_error("https = \"[::]:8443\"", &["relay.toml:1: https", "tls-certificate", "tls-key"]);
        check_error("https = \"[::]:1\"\ntls-certificate = \"/c\"", &["relay.toml:1: https", "--tls-key"]);
        check_error("tls-kernel = \"on\"", &["relay.toml:1: tls-kernel", "auto or off"]);
        check_error("[limits]\ntls-handshakes = 0", &["relay.toml:2: limits.tls-handshakes", "from 1"]);
        check_error("io = \"epoll\"\ningest-io = \"uring\"", &["relay.toml:2: ingest-io", "no ring"]);
    }

    #[test]
    fn caps_are_the_document_of_the_admin_api_and_its_errors_are_found() {
        let text = "egress = \"40%\"\n[caps]\nline_rate = \"1Gbit/s\"\n[caps.origin]\nconnections = 3\n\
            [[caps.origin.volume]]\nwindow = \"day\"\nbytes = \"1GB\"\n\
            [[caps.schedule]]\ndays = \"mon-fri\"\negress = { http = 5 }\n";
        let config = load(&ServeArgs::default(), text).unwrap();
        assert_eq!(total(&config), Some(50_000_000));
        let flag = ServeArgs { egress: Some("7".into()), ..ServeArgs::default() };
        assert_eq!(total(&load(&flag, text).unwrap()), Some(7));
        assert_eq!((config.caps.origin.connections, config.caps.schedule.len()), (Some(3), 1));
        check_error("[caps.egress]\nhttp = 1\ntotl = 5\n", &["relay.toml:3: caps.egress.totl", "`total`"]);
        check_error("[caps]\nline_rate = 0\n", &["relay.toml:2: caps.line_rate", "null"]);
        let entry = "[[caps.schedule]]\ndays = \"mon\"\n[[caps.schedule]]\ndays = \"moon\"\n";
        check_error(entry, &["caps.schedule[1].days", "`moon`"]);
        check_error("egress = 5\n[caps.egress]\ntotal = 5\n", &["relay.toml:1: egress", "[caps]"]);
        check_error("[caps.egress]\ntotal = \"40%\"\n", &["relay.toml:1: caps.line_rate", "10Gbit/s"]);
        let share = ServeArgs { egress: Some("40%".into()), ..ServeArgs::default() };
        assert!(load(&share, "").unwrap_err().to_string().starts_with("--egress: "));
    }

    /// What is sent at most, in bytes a second.
    fn total(config: &Config) -> Option<u64> {
        config.caps.egress.total.and_then(|total| total.bytes_per_second(config.caps.line_rate))
    }

    #[test]
    fn the_flag_wins_over_the_file_and_the_file_over_the_default() {
        let text = "egress = \"8Mbit/s\"\nio = \"epoll\"\ncores = \"0-2,8\"\nmetrics = \"off\"\ningest-io = \"pwrite\"";
        let args = ServeArgs { egress: Some("none".into()), io: Some("auto".into()), ..ServeArgs::default() };
        let config = load(&ServeArgs::default(), text).unwrap();
        assert_eq!((total(&config), config.io, config.metrics), (Some(1_000_000), Io::Epoll, None));
        assert_eq!(config.cores, [0, 1, 2, 8]);
        let config = load(&args, text).unwrap();
        assert_eq!((total(&config), config.io, config.ingest_io), (None, Io::Auto, IngestIo::Pwrite));
        let config = load(&ServeArgs::default(), "").unwrap();
        assert_eq!(config.http.to_string(), "[::]:8080");
        assert_eq!(config.metrics, METRICS.parse().ok());
        assert_eq!(config.admin, Path::new("./millrace-store/admin.sock"));
        assert_eq!(config.cores.len(), 5);
    }

    #[test]
    fn the_environment_of_systemd_is_used() {
        let variable = |name: &str| match name {
            "STATE_DIRECTORY" => Some("/var/lib/millrace:/other".into()),
            "RUNTIME_DIRECTORY" => Some("/run/millrace".into()),
            _ => None,
        };
        let environment = Environment { variable: &variable, cores_allowed: vec![0], has_ipv6: false };
        let config = Config::check(&ServeArgs::default(), None, &environment).unwrap();
        assert_eq!(config.store, Path::new("/var/lib/millrace"));
        assert_eq!(config.admin, Path::new("/run/millrace/admin.sock"));
        assert_eq!(config.bittorrent.to_string(), "0.0.0.0:6881");
    }

    #[test]
    fn a_certificate_may_be_a_credential_and_a_file_that_is_named_wins() {
        let variable = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| "/run/c".into());
        let environment = Environment { variable: &variable, cores_allowed: vec![0], has_ipv6: false };
        let args = ServeArgs { https: Some("[::]:8443".into()), ..ServeArgs::default() };
        let text = "tls-certificate = \"/etc/own.pem\"";
        let config = Config::check(&args, Some((Path::new("relay.toml"), text)), &environment).unwrap();
        let https = config.https.unwrap();
        assert_eq!(https.address.to_string(), "[::]:8443");
        assert_eq!(https.files.certificate, Path::new("/etc/own.pem"));
        assert_eq!(https.files.key, Path::new("/run/c/tls-key"));
        let off = Config::check(&ServeArgs::default(), None, &environment).unwrap();
        assert_eq!(off.https, None);
    }

    #[test]
    fn a_socket_path_of_107_bytes_is_the_longest() {
        let path = |bytes: usize| Some(PathBuf::from(format!("/{}", "a".repeat(bytes - 1))));
        assert!(load(&ServeArgs { admin: path(107), ..ServeArgs::default() }, "").is_ok());
        let error =
            load(&ServeArgs { admin: path(108), ..ServeArgs::default() }, "").unwrap_err().to_string();
        assert!(error.contains("108 bytes") && error.contains("--admin"), "{error}");
    }

    #[test]
    fn public_urls_end_in_a_slash_so_that_they_can_be_joined() {
        let args = ServeArgs { public_url: Some("https://cdn.example/files".into()), ..ServeArgs::default() };
        let url = load(&args, "").unwrap().public_url.unwrap();
        assert_eq!(url.join("c/x").unwrap().as_str(), "https://cdn.example/files/c/x");
    }
}
