//! The relay as the admin API shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::caps::status::CapsStatus;
use super::content::{PerProtocol, Rates};

/// Something chosen at start, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Choice {
    /// What is used.
    pub name: String,
    /// Why this one.
    pub reason: String,
}

/// The store, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StoreStatus {
    /// Its folder.
    pub path: String,
    /// What it may hold.
    pub capacity: u64,
    /// What it holds.
    pub used: u64,
    /// What it would hold besides, were equal files of several contents not stored once.
    #[serde(default)]
    pub shared: u64,
    /// What the file system has left.
    pub free: u64,
}

/// Bytes since the relay started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Totals {
    /// Taken from origins.
    pub origin_bytes: u64,
    /// Served.
    pub served: PerProtocol,
    /// Sent, heads and headers included, by the way it went.
    #[serde(default)]
    pub sent: SentBytes,
}

/// Bytes by the way they were sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SentBytes {
    /// By page reference, through the pipe.
    pub reference: u64,
    /// By sendfile, which refers to pages as well.
    pub sendfile: u64,
    /// By copying, by the relay or by the kernel.
    pub copy: u64,
    /// Out of a buffer, without a copy, as the kernel reports (`SEND_ZC`).
    #[serde(default)]
    pub zero_copy: u64,
}

/// Whether a relay takes new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum RelayState {
    /// It does.
    Serving,
    /// It finishes what runs, and then exits.
    Draining,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RelayStatus {
    /// Version of the program.
    pub version: String,
    /// Serving or draining.
    pub state: RelayState,
    /// io_uring or epoll.
    pub backend: Choice,
    /// By reference, zero-copy or copy.
    pub send_path: Choice,
    /// How pulls write files: pwrite or io_uring.
    pub ingest_io: Choice,
    /// Where it listens.
    pub addresses: Addresses,
    /// The piece store.
    pub store: StoreStatus,
    /// Threads of the data plane.
    pub shards: u32,
    /// Open connections.
    pub connections: PerProtocol,
    /// Bytes since start.
    pub totals: Totals,
    /// Rates now.
    pub rates: Rates,
    /// Bytes per second that may leave; `null` is unlimited, 0 is paused.
    pub egress_cap: Option<u64>,
    /// Every cap that holds; those of single contents only where it is asked for caps.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub caps: Option<CapsStatus>,
    /// Seconds since the relay started.
    #[serde(default)]
    pub uptime_s: u64,
    /// Contents here.
    #[serde(default)]
    pub contents: u64,
    /// What was counted since the relay started.
    #[serde(default)]
    pub counts: Counts,
    /// Each thread of the data plane.
    #[serde(default)]
    pub shard_loads: Vec<ShardLoad>,
}

/// Where a relay listens, with the ports that it was given where it asked for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Addresses {
    /// HTTP.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub http: SocketAddr,
    /// HTTPS, where there is a certificate.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub https: Option<SocketAddr>,
    /// BitTorrent over TCP; the UDP tracker has the same.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub bittorrent: SocketAddr,
    /// The pages for people, where they are apart from the data.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub pages: Option<SocketAddr>,
    /// Metrics, besides the admin socket.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub metrics: Option<SocketAddr>,
}

/// Things that happened since the relay started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Counts {
    /// Connections accepted.
    pub accepted: PerProtocol,
    /// Connections that this relay closed, and requests that it refused, by reason.
    pub closed: BTreeMap<String, u64>,
    /// HTTP requests.
    pub requests: u64,
    /// HTTP answers of the classes 4xx and 5xx.
    pub refusals: u64,
    /// Times that a cap made a connection wait.
    pub cap_waits: u64,
    /// Readers that waited for bytes on their way.
    pub parked: u64,
    /// Requests to origins made again.
    pub origin_retries: u64,
    /// Pieces that did not match their hash.
    pub hash_failures: u64,
    /// Contents dropped to make room.
    pub evictions: u64,
}

/// What a thread of the data plane does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ShardLoad {
    /// Loops turned since the relay started.
    pub loops: u64,
    /// Time spent in them, in microseconds; the rest the thread was idle.
    pub busy_us: u64,
    /// Open connections.
    pub connections: PerProtocol,
    /// BitTorrent peers that may request.
    pub unchoked: u64,
    /// Whether its loop stands still.
    pub stuck: bool,
}

/// The program that took a relay over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Upgraded {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub process: u32,
}
