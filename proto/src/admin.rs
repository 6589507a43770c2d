//! The JSON of the admin API, of `/index.json` and of `/c/{id}.json`, shared by relay, agent, controller and client.
//!
//! Requests refuse unknown keys, so that a misspelt one is an error and not a silence. Answers are read leniently, so that an
//! older reader survives a newer relay. What is not known yet is `null`.

pub mod caps;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `POST /v1/contents`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddContent {
    /// Where the content is pulled from: http(s) URLs, local paths, or a .torrent.
    pub sources: Vec<String>,
    /// The content id to use; the relay draws one when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The name to serve it under; by default that of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A .torrent file in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metainfo: Option<String>,
    /// SHA-256 of the file in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Fields to send to the origin.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// URLs of equal copies, told to clients and never pulled from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// Whether it is kept when space is needed.
    #[serde(default)]
    pub pin: bool,
    /// Larger is served first; 0 is ordinary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
}

/// Where a content stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
pub struct PerProtocol {
    /// HTTP.
    pub http: u64,
    /// BitTorrent.
    pub bittorrent: u64,
}

/// One file of a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentFile {
    /// Its path below the content, segments joined by `/`.
    pub path: String,
    /// Its length in bytes.
    pub length: Option<u64>,
}

/// A content: an element of `/index.json`, and the whole of `/c/{id}.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Why it failed, or what is retried.
    pub error: Option<String>,
    /// The content whose origin changed and became this one.
    #[serde(default)]
    pub supersedes: Option<String>,
    /// Its files, in the torrent's order.
    #[serde(default)]
    pub files: Vec<ContentFile>,
}

/// `/index.json` and `GET /v1/contents`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The contents asked for, by id.
    pub contents: Vec<ContentStatus>,
}

/// Something chosen at start, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What is used.
    pub name: String,
    /// Why this one.
    pub reason: String,
}

/// The store, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct SentBytes {
    /// By page reference, through the pipe.
    pub reference: u64,
    /// By sendfile, which refers to pages as well.
    pub sendfile: u64,
    /// By copying.
    pub copy: u64,
}

/// Whether a relay takes new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayState {
    /// It does.
    Serving,
    /// It finishes what runs, and then exits.
    Draining,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    pub caps: Option<caps::status::CapsStatus>,
}

/// Where a relay listens, with the ports that it was given where it asked for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// HTTP.
    pub http: SocketAddr,
    /// BitTorrent over TCP; the UDP tracker has the same.
    pub bittorrent: SocketAddr,
    /// Metrics, besides the admin socket.
    pub metrics: Option<SocketAddr>,
}

/// A problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem, as a URI.
    #[serde(rename = "type", default = "Problem::blank")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The status code of the answer.
    pub status: u16,
    /// What happened this time, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Problem {
    /// A problem that its status code says enough about (RFC 9457 §4.2.1).
    #[must_use]
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        let title = crate::http::response::reason_phrase(status).to_owned();
        Self { kind: Self::blank(), title, status, detail: Some(detail.into()) }
    }

    fn blank() -> String {
        "about:blank".to_owned()
    }
}

/// One event of `GET /v1/events`; `event` names its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A content was added, or its state, hashes or error changed.
    Content {
        /// The content as it is now.
        content: Box<ContentStatus>,
    },
    /// A content was removed.
    Removed {
        /// Its id.
        id: String,
    },
    /// The relay's own state or rates, once a second while somebody listens.
    Relay {
        /// The relay as it is now.
        status: Box<RelayStatus>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_refuse_unknown_keys() {
        let least: AddContent = serde_json::from_str(r#"{"sources":["http://o/f"]}"#).expect("a request");
        assert!(!least.pin && least.id.is_none());
        assert_eq!(
            serde_json::to_string(&least).ok().as_deref(),
            Some(r#"{"sources":["http://o/f"],"pin":false}"#)
        );
        assert!(serde_json::from_str::<AddContent>(r#"{"sources":[],"sha_256":""}"#).is_err());
        assert!(serde_json::from_str::<AddContent>(r#"{"name":"x"}"#).is_err());
    }

    #[test]
    fn answers_say_null_for_what_is_not_known() {
        let text = r#"{"id":"i","name":"n","length":null,"have_bytes":0,"state":"pulling","http_url":"/c/i/n",
            "torrent_url":null,"metalink_url":null,"magnet":null,"infohash_v1":null,"infohash_v2":null,"sha256":null,
            "error":null,"added_by_a_newer_relay":1}"#;
        let status: ContentStatus = serde_json::from_str(text).expect("lenient");
        assert_eq!((status.state, status.length), (ContentState::Pulling, None));
        let event = Event::Content { content: Box::new(status) };
        let value = serde_json::to_value(&event).expect("JSON");
        assert_eq!(value["event"], "content");
        assert!(value["content"]["length"].is_null() && value["content"]["rates"]["pull"] == 0);
        assert_eq!(serde_json::from_value::<Event>(value).ok(), Some(event));
    }

    #[test]
    fn problems_are_named_by_their_status() {
        let problem = serde_json::to_value(Problem::new(404, "no such content")).expect("JSON");
        let expected = serde_json::json!(
            {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "no such content"});
        assert_eq!(problem, expected);
    }
}
