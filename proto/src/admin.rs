//! The JSON of the admin API, of `/index.json` and of `/c/{id}.json`, shared by relay, agent, controller and client.
//!
//! Requests refuse unknown keys, so that a misspelt one is an error and not a silence. Answers are read leniently, so that an
//! older reader survives a newer relay. What is not known yet is `null`.

pub mod caps;
mod content;
mod relay;
#[cfg(feature = "openapi")]
mod schema;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::access::{self, Access};

pub use content::{
    ContentFile, ContentState, ContentStatus, Index, OriginStatus, PerProtocol, PullStatus, Rates,
};
pub use relay::{
    Addresses, Choice, Counts, RelayState, RelayStatus, SentBytes, ShardLoad, StoreStatus, Totals, Upgraded,
};

/// Sources, or mirrors, that one request may name.
pub const SOURCES_MAX: usize = 64;

/// `POST /v1/contents`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AddContent {
    /// Where the content is pulled from: http(s) URLs, local paths, or a .torrent.
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::sources))]
    pub sources: Vec<String>,
    /// The content id to use; the relay draws one when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::id))]
    pub id: Option<String>,
    /// The name to serve it under; by default that of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub name: Option<String>,
    /// A .torrent file in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::metainfo))]
    pub metainfo: Option<String>,
    /// SHA-256 of the file in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::sha256))]
    pub sha256: Option<String>,
    /// Fields to send to the origin.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// URLs of equal copies, told to clients and never pulled from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::mirrors))]
    pub mirrors: Vec<String>,
    /// Whether it is kept when space is needed.
    #[serde(default)]
    pub pin: bool,
    /// Larger is pulled earlier; 0 is ordinary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 255))]
    pub priority: Option<u8>,
    /// Who may have it: `["public"]`, or the ways in, `"signed"` and networks such as `"10.0.0.0/8"`, of which any suffices; by default
    /// what the relay's configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "access::present")]
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::access))]
    pub access: Option<Access>,
}

/// `PATCH /v1/contents/{id}`: what is named is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeContent {
    /// Who may have it, as it is added.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "access::present")]
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::access))]
    pub access: Option<Access>,
}

/// `POST /v1/contents/{id}/priority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Priority {
    /// Larger is pulled earlier; 0 is ordinary.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 255))]
    pub priority: u8,
}

/// A problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// Changes were missed: the list of contents is to be read again.
    Reset,
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
