//! `agent.toml`: keys as they stand, then checked, so that past this point everything has a value that can be used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_proto::units::Size;
use serde::Deserialize;
use tracing_subscriber::filter::{LevelFilter, Targets};
use url::Url;

/// A configuration that is wrong: one line that names file, place and key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(String);

/// The file as it stands.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    state: Option<PathBuf>,
    admin: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
    proxy: Option<String>,
    report_interval: Option<u64>,
    converge_interval: Option<u64>,
    retry_interval: Option<u64>,
    reconnect_min: Option<u64>,
    reconnect_max: Option<u64>,
    silence_max: Option<u64>,
    message_bytes_max: Option<String>,
    origins_measured_max: Option<usize>,
    log_level: Option<String>,
}

/// What is configured.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Folder of key, identity and last good state.
    pub(crate) state: PathBuf,
    /// The relay's admin socket.
    pub(crate) admin: PathBuf,
    /// Certificates trusted besides those of the system.
    pub(crate) ca_file: Option<PathBuf>,
    /// What is shown to a controller that asks for a certificate: chain and key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
    /// The HTTP proxy; `None` is that of the environment, if there is one.
    pub(crate) proxy: Option<Url>,
    pub(crate) report_interval: Duration,
    pub(crate) converge_interval: Duration,
    pub(crate) retry_interval: Duration,
    pub(crate) reconnect: Reconnect,
    /// A connection on which nothing was heard for so long is given up.
    pub(crate) silence_max: Duration,
    pub(crate) message_bytes_max: usize,
    pub(crate) origins_measured_max: usize,
    pub(crate) log_level: Targets,
}

/// How long to wait before connecting again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reconnect {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl Config {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("{} cannot be read: {error}", path.display())))?;
        Config::check(path, &text)
    }

    /// Checks the text of a file.
    pub(crate) fn check(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let place = |key: &str, why: &str| ConfigError(format!("{}: {key}: {why}", path.display()));
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            ConfigError(format!("{}:{line}: {}", path.display(), error.message().replace('\n', " ")))
        })?;
        let seconds = |key, value: Option<u64>, default| match value.unwrap_or(default) {
            seconds @ 1..=86_400 => Ok(Duration::from_secs(seconds)),
            _ => Err(place(key, "write seconds, from 1 to 86400")),
        };
        let reconnect = Reconnect {
            min: seconds("reconnect-min", file.reconnect_min, 1)?,
            max: seconds("reconnect-max", file.reconnect_max, 300)?,
        };
        if reconnect.max < reconnect.min {
            return Err(place("reconnect-max", "is less than reconnect-min"));
        }
        let client = match (file.client_certificate, file.client_key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(place("client-key", "is missing beside client-certificate")),
            (None, Some(_)) => return Err(place("client-certificate", "is missing beside client-key")),
        };
        let message_bytes_max = file.message_bytes_max.as_deref().unwrap_or("16MiB").parse::<Size>();
        let message_bytes_max = message_bytes_max.ok().and_then(|size| usize::try_from(size.0).ok());
        let log_level = file.log_level.as_deref().unwrap_or("info");
        Ok(Config {
            state: file.state.or_else(|| from_environment("STATE_DIRECTORY")).unwrap_or_else(|| STATE.into()),
            admin: file.admin.or_else(|| from_environment("MILLRACE_ADMIN")).unwrap_or_else(|| ADMIN.into()),
            ca_file: file.ca_file,
            client,
            proxy: file
                .proxy
                .as_deref()
                .map(|text| proxy(text).map_err(|why| place("proxy", &why)))
                .transpose()?,
            report_interval: seconds("report-interval", file.report_interval, 30)?,
            converge_interval: seconds("converge-interval", file.converge_interval, 60)?,
            retry_interval: seconds("retry-interval", file.retry_interval, 600)?,
            reconnect,
            silence_max: seconds("silence-max", file.silence_max, 90)?,
            message_bytes_max: message_bytes_max
                .filter(|bytes| *bytes >= MESSAGE_BYTES_MIN)
                .ok_or_else(|| place("message-bytes-max", "write a size of at least 64KiB, such as 16MiB"))?,
            origins_measured_max: file.origins_measured_max.unwrap_or(16),
            log_level: levels(log_level)
                .ok_or_else(|| place("log-level", "write off, error, warn, info, debug or trace"))?,
        })
    }
}

/// Where the package has it.
const STATE: &str = "/var/lib/millrace-agent";
/// Where the relay's package has it.
const ADMIN: &str = "/run/millrace/admin.sock";
/// A document of a few contents must fit.
const MESSAGE_BYTES_MIN: usize = 64 << 10;

fn from_environment(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn proxy(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.has_host());
    url.ok_or_else(|| format!("`{text}`: write http://HOST:PORT, with USER:PASSWORD@ where it wants them"))
}

fn levels(text: &str) -> Option<Targets> {
    // A word that is no level would be taken for a module of which everything is logged.
    let is_level =
        |part: &str| part.rsplit('=').next().is_some_and(|level| level.parse::<LevelFilter>().is_ok());
    text.split(',').all(is_level).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = Config::check(Path::new("agent.toml"), text).expect_err("refused").to_string();
        assert!(
            error.starts_with("agent.toml") && error.contains(expected) && !error.contains('\n'),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        check_error("\nspeed = 1\n", "agent.toml:2");
        check_error("speed = 1\n", "`speed`");
        check_error("report-interval = 0\n", "report-interval");
        check_error("report-interval = \"1\"\n", "agent.toml:1");
        check_error("reconnect-min = 10\nreconnect-max = 5\n", "reconnect-max");
        check_error("proxy = \"proxy:3128\"\n", "http://HOST:PORT");
        check_error("proxy = \"https://proxy\"\n", "http://HOST:PORT");
        check_error("client-key = \"k\"\n", "client-certificate");
        check_error("message-bytes-max = \"1KiB\"\n", "message-bytes-max");
        check_error("log-level = \"loud\"\n", "log-level");
    }

    /// What the package installs as `/etc/millrace/agent.toml`.
    const EXAMPLE: &str = include_str!("../../systemd/agent.toml");

    #[test]
    fn the_example_has_every_key_with_its_default() {
        let path = Path::new("agent.toml");
        let shown = |text: &str| format!("{:?}", Config::check(path, text).expect("a configuration"));
        let taken = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
        let keys: Vec<&str> = EXAMPLE.lines().filter(taken).map(|line| &line[1..]).collect();
        // Every key with its mark taken away is understood, and those that have a default name it.
        let has_default =
            |line: &&&str| !["ca-file", "client-", "proxy"].iter().any(|key| line.starts_with(key));
        let defaults: Vec<&str> = keys.iter().filter(has_default).copied().collect();
        assert_eq!(shown(&defaults.join("\n")), shown(EXAMPLE));
        Config::check(path, &keys.join("\n")).expect("every key is understood");
        // And none is missing: an unknown key makes serde list those that there are.
        let error = Config::check(path, "x = 1").expect_err("unknown").to_string();
        let listed: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(listed.len() > 10, "{error}");
        for key in listed {
            assert!(keys.iter().any(|line| line.starts_with(&format!("{key} ="))), "agent.toml lacks {key}");
        }
    }
}
