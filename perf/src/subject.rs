//! What a plan measures: a relay that runs already, or one of our own.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;

use crate::server::relay;
use crate::server::remote::{InfohashKind, Remote};
use crate::settings::{InfohashName, Settings};

/// The congestion control that comparisons are made with.
const CONGESTION: &str = "cubic";

/// Where a relay shows its metrics unless it is told otherwise.
const METRICS_PORT: u16 = 9185;

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    /// A relay that runs already; its process, if that is here; and its address for metrics.
    Running { remote: Remote, pid: Option<u32>, metrics: SocketAddr },
    /// One to be started.
    Own { relay: Option<PathBuf>, io: Option<String>, congestion: Option<String>, infohash: InfohashKind },
}

impl Subject {
    /// What the settings name.
    ///
    /// # Errors
    /// Flags that do not go together, and a URL that leads nowhere.
    pub(crate) fn of(settings: &Settings) -> anyhow::Result<Self> {
        let infohash = match settings.infohash {
            None | Some(InfohashName::V1) => InfohashKind::V1,
            Some(InfohashName::V2) => InfohashKind::V2,
        };
        let Some(url) = &settings.target else {
            for (flag, given) in [
                ("--target-bt", settings.target_bt.is_some()),
                ("--target-metrics", settings.target_metrics.is_some()),
                ("--target-pid", settings.target_pid.is_some()),
                ("--content", settings.content.is_some()),
            ] {
                if given {
                    bail!("{flag} goes with --target");
                }
            }
            let (relay, io) = (settings.relay.clone(), settings.io.clone());
            let usual = || relay::may_choose(CONGESTION).then(|| CONGESTION.to_owned());
            let congestion = settings.congestion.clone().or_else(usual);
            return Ok(Subject::Own { relay, io, congestion, infohash });
        };
        for (flag, given) in [
            ("--relay", settings.relay.is_some()),
            ("--server-core", settings.server_core.is_some()),
            ("--io", settings.io.is_some()),
            ("--congestion", settings.congestion.is_some()),
        ] {
            if given {
                bail!("{flag} is for a relay that this program starts: leave it out with --target");
            }
        }
        let mut remote = Remote::parse(url, settings.target_bt)?;
        remote.content = settings.content.clone();
        remote.infohash = infohash;
        let metrics = SocketAddr::new(remote.address.ip(), METRICS_PORT);
        let metrics = settings.target_metrics.unwrap_or(metrics);
        Ok(Subject::Running { remote, pid: settings.target_pid, metrics })
    }
}
