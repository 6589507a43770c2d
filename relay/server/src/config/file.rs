//! The configuration file as it stands: keys are the flags of `serve` without their dashes, plus `caps`, `log-level`, `origin-ca`,
//! `origin-connections`, `tls-kernel`, `access`, `limits` and `origins`. Nothing is interpreted here beyond TOML itself; [`super::Config`] is what comes of it.

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
    pub(super) keep_free: Entry,
    pub(super) http: Entry,
    pub(super) https: Entry,
    pub(super) tls_certificate: Entry,
    pub(super) tls_key: Entry,
    pub(super) tls_kernel: Entry,
    pub(super) bt: Entry,
    pub(super) public_url: Entry,
    pub(super) egress: Entry,
    pub(super) caps: Option<toml::Table>,
    pub(super) admin: Entry,
    pub(super) pages: Entry,
    pub(super) metrics: Entry,
    pub(super) cores: Entry,
    pub(super) io: Entry,
    pub(super) ingest_io: Entry,
    pub(super) congestion: Entry,
    pub(super) log_format: Entry,
    pub(super) log_level: Entry,
    pub(super) origin_ca: Entry,
    pub(super) origin_connections: Entry,
    #[serde(default)]
    pub(super) access: AccessKeys,
    #[serde(default)]
    pub(super) limits: LimitKeys,
    #[serde(default)]
    pub(super) origins: BTreeMap<String, OriginKeys>,
}

/// `[access]`: who may have what.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AccessKeys {
    pub(super) default: Entry,
    pub(super) rules: Option<Spanned<Vec<String>>>,
    pub(super) keys: Entry,
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
    pub(super) tls_handshakes: Entry,
    pub(super) tls_handshake_timeout: Entry,
    pub(super) upload_slots: Entry,
    pub(super) read_buffers: Entry,
    pub(super) drain_timeout: Entry,
    pub(super) upgrade_timeout: Entry,
    pub(super) upgrade_drain_timeout: Entry,
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

#[cfg(test)]
mod tests {
    use serde::de::{Visitor, value};
    use serde::forward_to_deserialize_any;

    use super::*;

    /// What the package installs as `/etc/millrace/relay.toml`.
    const EXAMPLE: &str = include_str!("../../../../systemd/relay.toml");

    /// A deserializer that only looks at which fields it is asked for.
    struct Fields<'a>(&'a mut Vec<String>);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = value::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, value::Error> {
            self.0.extend(fields.iter().map(|field| (*field).to_owned()));
            Err(serde::de::Error::custom("only the fields were asked for"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, value::Error> {
            Err(serde::de::Error::custom("not a struct"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
            tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn keys<'de, T: Deserialize<'de>>() -> Vec<String> {
        let mut keys = Vec::new();
        assert!(T::deserialize(Fields(&mut keys)).is_err() && !keys.is_empty());
        keys
    }

    /// The example with every key in force.
    fn uncommented() -> String {
        let uncomment = |line: &str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|begin: char| begin == '[' || begin.is_ascii_lowercase()) => {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        };
        EXAMPLE.lines().map(uncomment).collect()
    }

    #[test]
    fn the_example_configuration_has_every_key_and_no_other() {
        let text = uncommented();
        parse(Path::new("relay.toml"), &text).unwrap();
        let table: toml::Table = text.parse().unwrap();
        let has = |table: &toml::Table, keys: Vec<String>| {
            let missing: Vec<_> = keys.into_iter().filter(|key| !table.contains_key(key)).collect();
            assert!(missing.is_empty(), "systemd/relay.toml lacks {missing:?}");
        };
        has(&table, keys::<File>());
        has(table["access"].as_table().unwrap(), keys::<AccessKeys>());
        has(table["limits"].as_table().unwrap(), keys::<LimitKeys>());
        has(table["origins"]["releases"].as_table().unwrap(), keys::<OriginKeys>());
    }

    #[test]
    fn the_example_configuration_is_good_and_changes_nothing_until_it_is_edited() {
        use crate::cli::ServeArgs;
        use crate::config::{Config, Environment};

        let environment = Environment {
            variable: &|name| (name == "STATE_DIRECTORY").then(|| "/var/lib/millrace".into()),
            cores_allowed: vec![0, 1],
            has_ipv6: true,
        };
        let check = |text: &str| {
            let args = ServeArgs { admin: Some("/run/millrace/admin.sock".into()), ..ServeArgs::default() };
            Config::check(&args, Some((Path::new("relay.toml"), text)), &environment).unwrap().to_string()
        };
        let default = check("");
        assert_eq!(check(EXAMPLE), default);
        // These have no default to show, and need files and modules that are not everywhere.
        let examples =
            ["sources", "public-url", "congestion", "origin-ca", "tls-certificate", "tls-key", "keys"];
        let is_example = |line: &&str| !examples.iter().any(|key| line.starts_with(&format!("{key} =")));
        let defaults: Vec<_> =
            uncommented().lines().filter(is_example).map(|line| format!("{line}\n")).collect();
        let shown = check(&defaults.concat());
        let shown = shown.split("\n[origins").next().unwrap();
        assert_eq!(shown.trim_end(), default.trim_end(), "the values are the defaults");
    }
}
