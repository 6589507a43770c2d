//! By which way bytes took to the socket, as a relay counts them itself: `millrace_sent_bytes_total` of its metrics. What a card makes of
//! zero-copy sends can be seen there alone.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use crate::server::fetch;

/// The counter, and its label.
const COUNTER: &str = "millrace_sent_bytes_total{path=\"";

/// Where a relay shows its metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Metrics {
    /// The address of `--metrics`.
    Address(SocketAddr),
    /// The admin socket.
    Socket(PathBuf),
}

/// Bytes by one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Path {
    /// As the relay calls it: `reference`, `zerocopy` (by sendfile) and `send_zc` are not copied, `copy` is by the relay, `send_zc_copied` by the
    /// kernel, as over loopback.
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

impl Metrics {
    /// What was sent so far by each way; an error where nobody answers.
    ///
    /// # Errors
    /// Nobody answers, or not with metrics.
    pub(crate) fn paths(&self) -> anyhow::Result<Vec<Path>> {
        let paths = parse(&self.text()?);
        if paths.is_empty() {
            bail!("no metrics of a relay");
        }
        Ok(paths)
    }

    /// The metrics as they are shown.
    ///
    /// # Errors
    /// Nobody answers.
    pub(crate) fn text(&self) -> anyhow::Result<String> {
        let text = match self {
            Metrics::Address(address) => fetch::get_ok(*address, &address.to_string(), "/metrics")?,
            Metrics::Socket(path) => {
                let mut socket = UnixStream::connect(path)?;
                socket.set_read_timeout(Some(Duration::from_secs(10)))?;
                socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")?;
                let mut answer = Vec::new();
                socket.read_to_end(&mut answer)?;
                answer
            }
        };
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn parse(text: &str) -> Vec<Path> {
    let one = |line: &str| {
        let (name, value) = line.strip_prefix(COUNTER)?.split_once("\"} ")?;
        Some(Path { name: name.to_owned(), bytes: value.trim().parse().ok()? })
    };
    text.lines().filter_map(one).collect()
}

/// What was added to `before`; ways that nothing took are left out.
pub(crate) fn since(before: &[Path], after: Vec<Path>) -> Vec<Path> {
    let earlier = |name: &str| before.iter().find(|path| path.name == name).map_or(0, |path| path.bytes);
    let grown = after.into_iter().map(|path| {
        let bytes = path.bytes.saturating_sub(earlier(&path.name));
        Path { bytes, ..path }
    });
    grown.filter(|path| path.bytes > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_read_whatever_they_are_called_and_windows_are_differences() {
        let text = "# TYPE millrace_sent_bytes counter\n\
                    millrace_sent_bytes_total{path=\"reference\"} 10\n\
                    millrace_sent_bytes_total{path=\"send_zc\"} 7\n\
                    millrace_sent_bytes_total{path=\"copy\"} 3\n\
                    millrace_served_bytes_total{protocol=\"http\"} 20\n";
        let path = |name: &str, bytes| Path { name: name.into(), bytes };
        let after = parse(text);
        assert_eq!(after, [path("reference", 10), path("send_zc", 7), path("copy", 3)]);
        assert_eq!(
            since(&[path("reference", 4), path("copy", 3)], after),
            [path("reference", 6), path("send_zc", 7)]
        );
    }
}
