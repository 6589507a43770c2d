//! How a relay and its box are, as the agent tells the controller.

use serde::{Deserialize, Serialize};

use crate::admin::{ContentState, PerProtocol, Rates, RelayStatus};
use crate::id::ContentId;

/// A report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Report {
    /// When it was made, in seconds since 1970.
    pub at: u64,
    /// Sequence of the state held; `null` is none yet.
    pub sequence: Option<u64>,
    /// Whether the relay was brought to that state.
    pub converged: bool,
    /// What stands in the way.
    pub obstacles: Vec<Obstacle>,
    /// The relay, with its caps and what they hold up: `RelayStatus` of `relay-admin.json`. `null` while it does not answer.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub relay: Option<RelayStatus>,
    /// Contents that changed since the report before on this connection; all of them in its first.
    pub contents: Vec<ContentReport>,
    /// Contents that are gone since the report before.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub removed: Vec<ContentId>,
    /// The origins of what is desired.
    pub origins: Vec<OriginReport>,
    /// The box.
    pub machine: Machine,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Obstacle {
    /// The content that it is about; `null` is the relay as a whole.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub content: Option<ContentId>,
    /// What is wrong.
    pub what: String,
}

/// A content of the relay, the operator's own included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContentReport {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: ContentId,
    /// Whether the agent added it.
    pub own: bool,
    /// Where it stands.
    pub state: ContentState,
    /// Bytes of all files.
    pub length: Option<u64>,
    /// Bytes that can be served.
    pub have_bytes: u64,
    /// Bytes served since it was added.
    pub served: PerProtocol,
    /// Bytes taken from origins since it was added.
    pub origin_bytes: u64,
    /// Rates now.
    pub rates: Rates,
    /// Whether it is kept when space is needed.
    pub pinned: bool,
    /// Its v1 infohash, once that is known.
    pub infohash_v1: Option<String>,
    /// Its v2 infohash, once that is known.
    pub infohash_v2: Option<String>,
    /// SHA-256 of a single file.
    pub sha256: Option<String>,
    /// The content whose origin changed and became this one.
    pub supersedes: Option<String>,
    /// Why it failed, or what is retried.
    pub error: Option<String>,
}

/// An origin of what is desired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OriginReport {
    /// Scheme, host and port.
    pub origin: String,
    /// Milliseconds to open a TCP connection to it; `null` where that failed.
    pub connect_ms: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The box. What this kernel does not tell is `null`, as is what needs two looks at the first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Machine {
    /// Cores.
    pub cores: u32,
    /// Part of all cores' time that was not idle since the report before, 0 to 1.
    pub cpu_busy: Option<f64>,
    /// Processes that ran or waited for a disk, averaged over a minute.
    pub load_1m: Option<f64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Bytes that programs could have without swapping.
    pub memory_available_bytes: Option<u64>,
    /// Bytes a second that came in, over all interfaces but loopback.
    pub received_rate: Option<u64>,
    /// Bytes a second that went out.
    pub sent_rate: Option<u64>,
    /// Bytes a second read from disks.
    pub disk_read_rate: Option<u64>,
    /// Bytes a second written to disks.
    pub disk_write_rate: Option<u64>,
    /// Part of the time that the busiest disk had something to do, 0 to 1.
    pub disk_busy: Option<f64>,
}
