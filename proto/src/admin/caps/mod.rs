//! The caps document of `/v1/caps`: what an operator, or a controller, allows a relay to send and to take from origins.
//!
//! `null`, like a key that is absent, is unlimited; `0` is paused; rates are bytes a second. Unknown keys are refused, and every error
//! names the key by its path. What two documents and the time make of each other is [`effective`].

mod check;
pub mod effective;
mod grant;
mod limit;
mod network;
pub mod schedule;
#[cfg(feature = "openapi")]
mod schema;
pub mod status;
mod window;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::id::ContentId;
use crate::units::{Rate, Size};

pub use effective::{Cap, EffectiveCaps, Layer, Layers, Source};
pub use grant::{GRANTS_MAX, OriginGrant};
pub use limit::{Limit, Share};
pub use network::Cidr;
pub use schedule::{CivilTime, ScheduleEntry};
pub use window::Window;

/// Groups of networks in one `egress`.
pub const NETWORKS_MAX: usize = 256;
/// Networks in one group.
pub const CIDRS_MAX: usize = 256;
/// Contents in one document, and in one entry of its schedule.
pub const CONTENTS_MAX: usize = 10_000;
/// Entries of a schedule.
pub const SCHEDULE_MAX: usize = 64;
/// Windows of `origin.volume`.
pub const VOLUMES_MAX: usize = 8;
/// Most connections that `origin.connections` can name.
pub const CONNECTIONS_MAX: u32 = 65_535;
/// Priorities go from `-PRIORITY_MAX` to this.
pub const PRIORITY_MAX: i32 = 100;
/// Longest window of `origin.volume` in seconds: a leap year.
pub const WINDOW_SECONDS_MAX: u32 = 366 * 86_400;

/// One layer of caps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Caps {
    /// What may be sent.
    #[serde(deserialize_with = "null_is_default")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Egress>))]
    pub egress: Egress,
    /// What may be taken from origins.
    #[serde(deserialize_with = "null_is_default")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Origin>))]
    pub origin: Origin,
    /// What holds for single contents.
    #[serde(deserialize_with = "null_is_default")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, ContentCaps>>))]
    pub contents: BTreeMap<ContentId, ContentCaps>,
    /// What holds besides at certain hours of certain days.
    #[serde(deserialize_with = "null_is_default")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<ScheduleEntry>>))]
    pub schedule: Vec<ScheduleEntry>,
    /// Bytes a second that percentages are of.
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::rate))]
    pub line_rate: Option<Rate>,
}

/// Caps on what is sent, as accepted by sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// Everything.
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::limit))]
    pub total: Option<Limit>,
    /// Over HTTP.
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::limit))]
    pub http: Option<Limit>,
    /// Over BitTorrent.
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::limit))]
    pub bittorrent: Option<Limit>,
    /// On each connection.
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::limit))]
    pub per_connection: Option<Limit>,
    /// To groups of clients. A client that several groups contain is held by each of them.
    #[serde(deserialize_with = "null_is_default")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Network>>))]
    pub networks: Vec<Network>,
}

/// Clients that share a cap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Their networks, at least one.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub cidr: Vec<Cidr>,
    /// What is sent to all of them together.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::limit))]
    pub total: Option<Limit>,
}

/// Caps on what is taken from all origins together: bytes of bodies as they arrive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Origin {
    /// Bytes a second.
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::limit))]
    pub bandwidth: Option<Limit>,
    /// Connections at a time.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 65535))]
    pub connections: Option<u32>,
    /// Bytes in each of these windows; a window is named once at most.
    #[serde(deserialize_with = "null_is_default")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Volume>>))]
    pub volume: Vec<Volume>,
    /// What may be taken of single origins; an origin is named once at most.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<OriginGrant>>))]
    pub grants: Vec<OriginGrant>,
}

/// Bytes that may be taken from origins in a window of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Which window.
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::window))]
    pub window: Window,
    /// Bytes; `null` is unlimited.
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::size))]
    pub bytes: Option<Size>,
}

/// Caps and rank of one content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ContentCaps {
    /// What is sent of it, over both protocols.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::limit))]
    pub egress: Option<Limit>,
    /// Larger goes first; 0 is ordinary.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = -100, maximum = 100))]
    pub priority: Option<i32>,
}

/// A document that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", prefix(path))]
pub struct CapsError {
    /// Path of the key, such as `egress.networks[2].total`; empty is the document itself.
    pub path: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

fn prefix(path: &str) -> String {
    if path.is_empty() { "caps: ".to_owned() } else { format!("`{path}`: ") }
}

impl Caps {
    /// Reads a document.
    ///
    /// # Errors
    /// The first key that is unknown, or whose value is not one of those it may have.
    pub fn from_json(text: &[u8]) -> Result<Caps, CapsError> {
        let value = serde_json::from_slice(text);
        let value = value.map_err(|error| CapsError { path: String::new(), reason: error.to_string() })?;
        check::lists("", &value)?;
        // Of the text itself, as a key that stands there twice is one in the value.
        read(&mut serde_json::Deserializer::from_slice(text))
    }

    /// As [`Caps::from_json`], of a document that was read already.
    ///
    /// # Errors
    /// The same.
    pub fn from_value(value: Value) -> Result<Caps, CapsError> {
        check::lists("", &value)?;
        read(value)
    }

    /// The document with `patch` merged in (RFC 7396).
    ///
    /// # Errors
    /// As [`Caps::from_json`], of what comes of it.
    pub fn patched(&self, patch: &Value) -> Result<Caps, CapsError> {
        if !patch.is_object() {
            return Err(CapsError {
                path: String::new(),
                reason: "a patch is an object (RFC 7396)".to_owned(),
            });
        }
        let mut value = self.to_value();
        merge(&mut value, patch);
        Self::from_value(value)
    }

    /// The document with every key of `egress` and `origin`, what is not limited as `null`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        // Only maps with keys that are no strings could fail.
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    /// The one text that all equal documents have.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.to_value().to_string()
    }

    /// Whether it limits nothing, now or later.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Caps { line_rate: self.line_rate, ..Caps::default() }
    }
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Caps, CapsError> {
    let caps: Caps = serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        // The path of the document itself is written as a dot.
        CapsError { path: path.trim_matches('.').to_owned(), reason: error.into_inner().to_string() }
    })?;
    check::check(&caps)?;
    Ok(caps)
}

/// RFC 7396 §2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.remove(key)),
            value => merge(target.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
