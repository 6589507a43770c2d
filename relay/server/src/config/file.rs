//! The configuration file as it stands: keys are the flags of `serve` without their dashes, plus `origin-ca`, `origin-connections`,
//! `limits` and `origins`. Nothing is interpreted here beyond TOML itself; [`super::Config`] is what comes of it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use toml::Spanned;

/// A scalar as text, so that `egress = 1000` and `egress = "2Gbit/s"` go through the same check as the flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Text;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a whole number")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A key's value and where it stands.
pub(super) type Entry = Option<Spanned<Text>>;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) sources: Option<Vec<String>>,
    pub(super) store: Entry,
    pub(super) capacity: Entry,
    pub(super) http: Entry,
    pub(super) bt: Entry,
    pub(super) public_url: Entry,
    pub(super) egress: Entry,
    pub(super) admin: Entry,
    pub(super) metrics: Entry,
    pub(super) cores: Entry,
    pub(super) io: Entry,
    pub(super) ingest_io: Entry,
    pub(super) congestion: Entry,
    pub(super) log_format: Entry,
    pub(super) origin_ca: Entry,
    pub(super) origin_connections: Entry,
    #[serde(default)]
    pub(super) limits: LimitKeys,
    #[serde(default)]
    pub(super) origins: BTreeMap<String, OriginKeys>,
}

/// `[limits]`: bounds of one shard. Times are in seconds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LimitKeys {
    pub(super) connections: Entry,
    pub(super) connections_per_address: Entry,
    pub(super) head_bytes: Entry,
    pub(super) head_timeout: Entry,
    pub(super) idle_timeout: Entry,
    pub(super) stall_timeout: Entry,
    pub(super) park_timeout: Entry,
    pub(super) handshake_timeout: Entry,
    pub(super) peer_idle_timeout: Entry,
    pub(super) peer_requests: Entry,
    pub(super) upload_slots: Entry,
    pub(super) read_buffers: Entry,
    pub(super) drain_timeout: Entry,
}

/// `[origins.NAME]`: what `/pull/NAME/` stands for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct OriginKeys {
    pub(super) url: Spanned<Text>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
}

/// Line of a byte offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Reads TOML into keys.
///
/// # Errors
/// One line that names file, line and key.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|error| {
        let place = match error.span() {
            Some(span) => {
                let line = line_of(text, span.start);
                let key = text
                    .lines()
                    .nth(line - 1)
                    .and_then(|line| line.split_once('='))
                    .map(|(key, _)| key.trim());
                match key {
                    Some(key) if !error.message().contains(&format!("`{key}`")) => {
                        format!("{}:{line}: {key}", path.display())
                    }
                    _ => format!("{}:{line}", path.display()),
                }
            }
            None => path.display().to_string(),
        };
        format!("{place}: {}", error.message().replace('\n', " "))
    })
}
