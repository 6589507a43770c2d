//! Contents as the admin API, `/index.json` and `/c/{id}.json` show them.

use serde::{Deserialize, Serialize};

use crate::access::Access;

/// Where a content stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ContentState {
    /// Waits for its turn.
    Queued,
    /// Is being pulled, and served at the same time.
    Pulling,
    /// Every byte is here.
    Complete,
    /// Stopped by the operator.
    Paused,
    /// Given up; `error` says why.
    Failed,
}

/// Bytes per second, averaged over the last seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rates {
    /// From the origin.
    pub pull: u64,
    /// To HTTP clients.
    pub http: u64,
    /// To BitTorrent peers.
    pub bittorrent: u64,
}

/// A number for each protocol: bytes served, or connections open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PerProtocol {
    /// HTTP.
    pub http: u64,
    /// BitTorrent.
    pub bittorrent: u64,
}

/// One file of a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContentFile {
    /// Its path below the content, segments joined by `/`.
    pub path: String,
    /// Its length in bytes.
    pub length: Option<u64>,
}

/// A content: an element of `/index.json`, and the whole of `/c/{id}.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContentStatus {
    /// 26 lower-case base32 characters.
    pub id: String,
    /// Name it is served under.
    pub name: String,
    /// Bytes of all files.
    pub length: Option<u64>,
    /// Bytes that can be served.
    pub have_bytes: u64,
    /// Where it stands.
    pub state: ContentState,
    /// Where the bytes are.
    pub http_url: String,
    /// Where the .torrent is, once there is one.
    pub torrent_url: Option<String>,
    /// Where the metalink is, once there is one.
    pub metalink_url: Option<String>,
    /// Magnet link.
    pub magnet: Option<String>,
    /// 40 hexadecimal digits.
    pub infohash_v1: Option<String>,
    /// 64 hexadecimal digits.
    pub infohash_v2: Option<String>,
    /// SHA-256 of a single file.
    pub sha256: Option<String>,
    /// Rates now.
    #[serde(default)]
    pub rates: Rates,
    /// Bytes served since it was added.
    #[serde(default)]
    pub served: PerProtocol,
    /// Bytes taken from the origin since it was added.
    #[serde(default)]
    pub origin_bytes: u64,
    /// Whether it is kept when space is needed.
    #[serde(default)]
    pub pinned: bool,
    /// Larger is pulled earlier; 0 is ordinary.
    #[serde(default)]
    pub priority: u8,
    /// Why it failed, or what is retried.
    pub error: Option<String>,
    /// The content whose origin changed and became this one.
    #[serde(default)]
    pub supersedes: Option<String>,
    /// Its files, in the torrent's order.
    #[serde(default)]
    pub files: Vec<ContentFile>,
    /// Who may have it; told to the operator alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = super::schema::access))]
    pub access: Option<Access>,
    /// How its pull goes, while one is under way; told to the operator alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullStatus>,
}

/// A pull under way, as of a quarter of a second ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PullStatus {
    /// Bytes a second.
    pub rate: u64,
    /// Its origins, best first.
    pub origins: Vec<OriginStatus>,
    /// What a person should know.
    pub note: Option<String>,
}

/// An origin of a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OriginStatus {
    /// Without user and password.
    pub url: String,
    /// Bytes a second of one request.
    pub speed: u64,
    /// Requests under way.
    pub requests: u64,
    /// What went wrong last.
    pub error: Option<String>,
    /// Not asked any more.
    pub given_up: bool,
}

/// `/index.json` and `GET /v1/contents`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Index {
    /// The contents asked for, by id.
    pub contents: Vec<ContentStatus>,
}
