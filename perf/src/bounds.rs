//! What a [`Plan`] may hold: every error names the flag that has to change.

use anyhow::bail;
use millrace_proto::units::Size;

use crate::made::StorePlan;
use crate::plan::Plan;
use crate::server::relay;
use crate::settings::Kind;
use crate::subject::Subject;

/// Connections that are more than anybody means.
const CONNECTIONS_MAX: usize = 1_000_000;

/// Contents that are more than anybody means.
const CONTENTS_MAX: usize = 1_000_000;

/// Longest content where there are many.
const MANY_BYTES_MAX: u64 = 1 << 20;

/// Shortest cold file, which is asked for by the MiB and has memory for a quarter.
const COLD_BYTES_MIN: u64 = 64 << 20;

impl Plan {
    /// Checks everything that is not a matter of one setting's spelling.
    ///
    /// # Errors
    /// The first flag that cannot be.
    pub(crate) fn bounds(&self) -> anyhow::Result<()> {
        let connections = self.http_connections + self.bittorrent_connections;
        if connections == 0 || connections > CONNECTIONS_MAX {
            bail!("--connections: from 1 to {CONNECTIONS_MAX}");
        }
        if self.range_bytes == 0 {
            bail!("--range-bytes: at least 1");
        }
        if self.content_bytes < 16 * 1024 {
            bail!("--content-bytes: at least 16KiB");
        }
        if self.queue == 0 || self.queue > 100_000 {
            bail!("--queue: from 1 to 100000");
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            bail!("--rate: more than 0");
        }
        if self.pull.rounds == 0 || self.pull.rounds > 100_000 {
            bail!("--rounds: from 1 to 100000");
        }
        if self.pull.origin_rate == Some(0) {
            bail!("--origin-rate: more than 0");
        }
        if self.idle > CONNECTIONS_MAX {
            bail!("--idle: at most {CONNECTIONS_MAX}");
        }
        if self.caps.is_some_and(|(first, then)| first == 0 || then == 0) {
            bail!("--cap, --cap-then: more than 0");
        }
        if self.kind == Kind::Caps && matches!(self.subject, Subject::Running { .. }) {
            bail!("caps starts its own relay: leave --target out");
        }
        if self.duration.is_zero() {
            bail!("--duration: more than 0");
        }
        if self.pull.aborting >= connections {
            bail!("--aborting: fewer than --connections");
        }
        if self.pull.aborting > 0 && self.kind != Kind::Faststart {
            bail!("--aborting is for faststart");
        }
        self.own_bounds()?;
        self.store_bounds()
    }

    fn own_bounds(&self) -> anyhow::Result<()> {
        let Subject::Own { io: kind, congestion: control, .. } = &self.subject else { return Ok(()) };
        io(kind.as_deref())?;
        congestion(control.as_deref())
    }

    fn store_bounds(&self) -> anyhow::Result<()> {
        let StorePlan { contents, asked, sparse, ranges } = self.store;
        let plain = StorePlan { contents: 1, asked: 1, sparse: false, ranges: None };
        let is_own = matches!(self.subject, Subject::Own { .. });
        if (self.store != plain || self.cold_bytes > 0) && !(self.kind == Kind::Http && is_own) {
            bail!(
                "--contents, --asked, --sparse, --ranges and --beside-cold are for http, and for a relay that this program starts"
            );
        }
        if contents == 0 || contents > CONTENTS_MAX {
            bail!("--contents: from 1 to {CONTENTS_MAX}");
        }
        if asked == 0 || asked > contents {
            bail!("--asked: from 1 to --contents");
        }
        if contents > 1 && (self.content_bytes > MANY_BYTES_MAX || self.verify || sparse) {
            bail!(
                "--contents: with a length of at most {}, without --verify and --sparse",
                Size(MANY_BYTES_MAX)
            );
        }
        if ranges == Some(0) {
            bail!("--ranges: at least 1");
        }
        if sparse && self.verify {
            bail!("--verify: a hole is not the test file");
        }
        if self.cold_bytes > 0 && (self.idle > 0 || self.cold_bytes < COLD_BYTES_MIN) {
            bail!("--beside-cold: at least {}, and without --idle", Size(COLD_BYTES_MIN));
        }
        Ok(())
    }
}

/// `--io`.
///
/// # Errors
/// None that a relay knows.
pub(crate) fn io(kind: Option<&str>) -> anyhow::Result<()> {
    match kind {
        None | Some("auto" | "uring" | "epoll") => Ok(()),
        Some(other) => bail!("--io {other}: write auto, uring or epoll"),
    }
}

/// `--congestion`.
///
/// # Errors
/// None that this kernel has.
pub(crate) fn congestion(control: Option<&str>) -> anyhow::Result<()> {
    let Some(control) = control else { return Ok(()) };
    let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    let known = known.unwrap_or_default();
    if known.split_ascii_whitespace().all(|name| name != control) && !relay::may_choose(control) {
        bail!("--congestion {control}: this kernel has {}", known.trim().replace(' ', ", "));
    }
    Ok(())
}
