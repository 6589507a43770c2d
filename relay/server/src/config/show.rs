//! The checked configuration as a configuration file: what `--check-config` prints, defaults filled in.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use millrace_proto::admin::caps::Limit;

use super::{Config, Https, IngestIo, Io, LogFormat, Pages, TlsKernel};

/// What stands for a header field's value, which may be a secret.
const NOT_SHOWN: &str = "(not shown)";

impl fmt::Display for Config {
    /// TOML that `--config` reads. Values of header fields for origins are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart without a rest, so that a key that is added is not forgotten here.
        #[rustfmt::skip]
        let Config {
            sources, store, capacity, keep_free, http, https, bittorrent, public_url, caps, admin, pages, metrics, cores, io, ingest_io, congestion,
            log_format, log_level, access: _, limits: _, tls_kernel, handshakes: _, upgrade: _, origin_ca, origin_connections, origins: _,
        } = self;
        let path = |path: &Path| text(&path.to_string_lossy());
        let sources: Vec<_> = sources.iter().map(text).collect();
        writeln!(f, "sources = [{}]", sources.join(", "))?;
        writeln!(f, "store = {}", path(store))?;
        writeln!(f, "capacity = {}", or_none(*capacity))?;
        writeln!(f, "keep-free = {keep_free}")?;
        writeln!(f, "http = {}", text(http))?;
        match https {
            Some(Https { address, files }) => {
                writeln!(f, "https = {}", text(address))?;
                writeln!(f, "tls-certificate = {}", path(&files.certificate))?;
                writeln!(f, "tls-key = {}", path(&files.key))?;
            }
            None => writeln!(f, "https = {}", text("off"))?,
        }
        writeln!(f, "tls-kernel = {}", text(tls_kernel.name()))?;
        writeln!(f, "bt = {}", text(bittorrent))?;
        match public_url {
            Some(url) => writeln!(f, "public-url = {}", text(url))?,
            None => f.write_str(
                "# public-url: the first address of this machine that is not loopback, and the HTTP port\n",
            )?,
        }
        match caps.egress.total {
            Some(Limit::Share(share)) => writeln!(f, "egress = {}", text(&share))?,
            Some(Limit::Rate(rate)) => writeln!(f, "egress = {}", rate.0)?,
            None => writeln!(f, "egress = {}", text("none"))?,
        }
        writeln!(f, "admin = {}", path(admin))?;
        match pages {
            Pages::WithData => writeln!(f, "pages = {}", text("data"))?,
            Pages::Apart(address) => writeln!(f, "pages = {}", text(address))?,
            Pages::Off => writeln!(f, "pages = {}", text("off"))?,
        }
        writeln!(f, "metrics = {}", metrics.map_or_else(|| text("off"), |address| text(&address)))?;
        let cores: Vec<_> = cores.iter().map(ToString::to_string).collect();
        writeln!(f, "cores = {}", text(&cores.join(",")))?;
        writeln!(f, "io = {}", text(io.name()))?;
        writeln!(f, "ingest-io = {}", text(ingest_io.name()))?;
        match congestion {
            Some(name) => writeln!(f, "congestion = {}", text(name))?,
            None => f.write_str("# congestion: the system's\n")?,
        }
        writeln!(f, "log-format = {}", text(log_format.name()))?;
        writeln!(f, "log-level = {}", text(log_level))?;
        if let Some(file) = origin_ca {
            writeln!(f, "origin-ca = {}", path(file))?;
        }
        writeln!(f, "origin-connections = {origin_connections}")?;
        self.write_limits(f)?;
        self.write_access(f)?;
        self.write_origins(f)?;
        match super::caps::shown(caps) {
            none if none.is_empty() => Ok(()),
            table => write!(f, "\n{table}"),
        }
    }
}

impl Config {
    /// In seconds, where it is a time.
    fn write_limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = &self.limits;
        writeln!(f, "\n[limits]")?;
        writeln!(f, "connections = {}", limits.connections_max)?;
        writeln!(f, "connections-per-address = {}", limits.connections_per_address_max)?;
        writeln!(f, "head-bytes = {}", limits.head_bytes_max)?;
        writeln!(f, "peer-requests = {}", limits.peer_requests_max)?;
        writeln!(f, "tls-handshakes = {}", self.handshakes.in_progress_max)?;
        writeln!(f, "upload-slots = {}", limits.upload_slots)?;
        writeln!(f, "read-buffers = {}", limits.read_buffers)?;
        let times: [(&str, Duration); 10] = [
            ("head-timeout", limits.head_timeout),
            ("idle-timeout", limits.idle_timeout),
            ("stall-timeout", limits.stall_timeout),
            ("park-timeout", limits.park_timeout),
            ("handshake-timeout", limits.handshake_timeout),
            ("tls-handshake-timeout", self.handshakes.timeout),
            ("peer-idle-timeout", limits.peer_idle_timeout),
            ("drain-timeout", limits.drain_timeout),
            ("upgrade-timeout", self.upgrade.ready),
            ("upgrade-drain-timeout", self.upgrade.drain),
        ];
        times.iter().try_for_each(|(key, time)| writeln!(f, "{key} = {}", time.as_secs()))
    }

    fn write_access(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<_> = self.access.rules.lines().map(|rule| text(&rule)).collect();
        writeln!(f, "\n[access]")?;
        writeln!(f, "default = {}", text(&self.access.default))?;
        writeln!(f, "rules = [{}]", rules.join(", "))?;
        match &self.access.keys {
            Some(file) => writeln!(f, "keys = {}", text(&file.to_string_lossy())),
            None => Ok(()),
        }
    }

    fn write_origins(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, origin) in &self.origins {
            writeln!(f, "\n[origins.{}]\nurl = {}", text(name), text(&origin.url))?;
            let headers: Vec<_> = origin
                .headers
                .iter()
                .map(|(name, _)| format!("{} = {}", text(name), text(NOT_SHOWN)))
                .collect();
            if !headers.is_empty() {
                writeln!(f, "headers = {{ {} }}", headers.join(", "))?;
            }
        }
        Ok(())
    }
}

/// A TOML string, quoted and escaped; as a key it is one as well.
fn text(value: &(impl ToString + ?Sized)) -> String {
    toml::Value::String(value.to_string()).to_string()
}

/// A number, or what stands for no limit.
fn or_none(limit: Option<u64>) -> String {
    limit.map_or_else(|| text("none"), |limit| limit.to_string())
}

impl Io {
    fn name(self) -> &'static str {
        match self {
            Io::Auto => "auto",
            Io::Uring => "uring",
            Io::Epoll => "epoll",
        }
    }
}

impl IngestIo {
    fn name(self) -> &'static str {
        match self {
            IngestIo::Auto => "auto",
            IngestIo::Uring => "uring",
            IngestIo::Pwrite => "pwrite",
        }
    }
}

impl TlsKernel {
    fn name(self) -> &'static str {
        match self {
            TlsKernel::Auto => "auto",
            TlsKernel::Off => "off",
        }
    }
}

impl LogFormat {
    fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ServeArgs;
    use crate::config::Environment;

    fn load(text: &str) -> Config {
        let environment =
            Environment { variable: &|_| None, cores_allowed: vec![0, 1, 2, 3], has_ipv6: true };
        Config::check(&ServeArgs::default(), Some((Path::new("relay.toml"), text)), &environment).unwrap()
    }

    /// What is printed says the same as what was read.
    #[track_caller]
    fn check(text: &str) {
        let config = load(text);
        let again = load(&config.to_string());
        assert_eq!(format!("{config:?}"), format!("{again:?}"), "{config}");
    }

    #[test]
    fn what_is_printed_is_a_configuration_file_that_says_the_same() {
        check("");
        check(
            "sources = [\"/a b/\\\"c\\\"\", \"http://x/\"]\nstore = \"/s\\tt\"\ncapacity = \"5GB\"\nkeep-free = \"1GB\"\nhttp = \"127.0.0.1:1\"\nhttps = \"[::1]:3\"\ntls-certificate = \"/c\"\ntls-key = \"/k\"\ntls-kernel = \"off\"
             bt = \"[::1]:2\"\npublic-url = \"https://x.example/y\"\negress = \"8Mbit/s\"\nadmin = \"/a.sock\"\nmetrics = \"off\"\npages = \"[::1]:4\"
             cores = \"1-2\"\nio = \"epoll\"\ningest-io = \"pwrite\"\nlog-format = \"json\"\nlog-level = \"warn,a::b=debug\"\norigin-ca = \"/proc/self/status\"\norigin-connections = 3
             [limits]\nconnections = 99\nconnections-per-address = 9\nhead-bytes = 2000\npeer-requests = 17
             upload-slots = 3\nread-buffers = 4\nhead-timeout = 1\nidle-timeout = 2\nstall-timeout = 3\npark-timeout = 4
             handshake-timeout = 5\ntls-handshakes = 6\ntls-handshake-timeout = 7\npeer-idle-timeout = 6\ndrain-timeout = 7
             upgrade-timeout = 8\nupgrade-drain-timeout = 9
             [origins.\"a.b\"]\nurl = \"http://x/y\"\n
             [caps]\nline_rate = \"18446744073709551615\"\ncontents.gayddnrzgi2tmnzyhfqwey3emy.priority = -3
             [caps.egress]\nhttp = \"40%\"\nnetworks = [{ cidr = [\"10.0.0.0/8\", \"::1\"], total = 0 }]
             [caps.origin]\nbandwidth = 9\nvolume = [{ window = 60, bytes = \"1GB\" }, { window = \"month\", bytes = 5 }]
             [[caps.schedule]]\nfrom = \"08:00\"\negress.total = 3\n",
        );
    }

    #[test]
    fn secrets_for_origins_are_not_printed() {
        let text =
            load("[origins.a]\nurl = \"http://x/\"\nheaders = { Authorization = \"hunter2\" }\n").to_string();
        assert!(text.contains("\"Authorization\" = \"(not shown)\"") && !text.contains("hunter2"), "{text}");
    }
}
