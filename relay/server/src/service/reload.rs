//! A new configuration for a relay that runs: what can change is changed, and nobody is disconnected; what cannot is named in the log. One
//! that is wrong changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millrace_engine::event::News;

use crate::access;
use crate::cli::ServeArgs;
use crate::config::{Config, Environment};
use crate::logging::Levels;
use crate::relay::Relay;

/// Keys that are in force at once, besides the tables of access, caps and origins, and the files of a certificate. Every other key decides what is made at start: threads, sockets, buffers.
const LIVE: [&str; 12] = [
    "egress",
    "log-level",
    "limits.connections-per-address",
    "limits.head-timeout",
    "limits.idle-timeout",
    "limits.stall-timeout",
    "limits.park-timeout",
    "limits.handshake-timeout",
    "limits.tls-handshakes",
    "limits.tls-handshake-timeout",
    "limits.peer-idle-timeout",
    "limits.drain-timeout",
];

/// What a reload needs to know.
pub(crate) struct Reload<'a> {
    args: &'a ServeArgs,
    environment: &'a Environment<'a>,
    levels: Levels,
    /// What the relay was started with.
    started: Config,
    /// What was read last and found good.
    read: Config,
}

impl<'a> Reload<'a> {
    /// Reads the same file and flags as the start did, which led to `config`.
    pub(crate) fn new(
        args: &'a ServeArgs,
        environment: &'a Environment<'a>,
        levels: Levels,
        config: &Config,
    ) -> Self {
        Reload { args, environment, levels, started: config.clone(), read: config.clone() }
    }

    /// Reads the configuration again and puts it in force. Returns why it was refused, for the manager's status line.
    pub(crate) fn run(&mut self, relay: &Relay) -> Result<(), String> {
        let new = match Config::load(self.args, self.environment) {
            Ok(new) => new,
            Err(error) => {
                return Err(refused(&error));
            }
        };
        // Read again whatever the configuration says: the files may be others under the same names.
        let certificate =
            match new.https.as_ref().filter(|_| relay.tls.is_some()).map(|https| https.files.load()) {
                Some(Err(error)) => return Err(refused(&error)),
                Some(Ok(certificate)) => Some(certificate),
                None => None,
            };
        // As the certificate.
        let gate = access::gate(&new.access).map_err(|error| refused(&error))?;
        let changed: Vec<_> = differing(&self.read, &new).into_iter().filter(|key| is_live(key)).collect();
        let pending: Vec<_> =
            differing(&self.started, &new).into_iter().filter(|key| !is_live(key)).collect();
        self.apply(relay, &new);
        if let (Some(tls), Some(certificate)) = (&relay.tls, certificate) {
            tls.replace(certificate, new.handshakes, new.tls_kernel);
        }
        access::replace(relay, gate);
        self.read = new;
        tracing::info!(changed = %list(&changed), "reloaded");
        if !pending.is_empty() {
            tracing::warn!(keys = %list(&pending), "changed in the configuration, and needs a restart to be in force");
        }
        Ok(())
    }

    fn apply(&self, relay: &Relay, new: &Config) {
        // Caps that were set over the admin socket since are not for a reload to forget, unless these are a newer word.
        if let Err(error) = relay.caps.configure(&new.caps) {
            tracing::error!(%error, "the caps of the configuration are not in force");
        }
        self.levels.set(&new.log_level);
        relay.origins.replace(new.origins.clone());
        let limits = Arc::new(relay.config.limits.with_times_of(&new.limits));
        relay.shards.broadcast(|| News::Limits(Arc::clone(&limits)));
    }
}

fn refused(error: &impl std::fmt::Display) -> String {
    tracing::error!(%error, "reload refused: what was in force stays in force");
    format!("Reload refused: {error}")
}

fn is_live(key: &str) -> bool {
    let tables = ["access.", "caps.", "origins."];
    LIVE.contains(&key) || key.starts_with("tls-") || tables.iter().any(|table| key.starts_with(table))
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
}

/// The keys whose values differ, as `--check-config` prints them, so that no key can be forgotten here; and the origins, whose secrets it
/// does not print.
fn differing(old: &Config, new: &Config) -> BTreeSet<String> {
    let (shown_old, shown_new) = (shown(old), shown(new));
    let names: BTreeSet<_> = shown_old.keys().chain(shown_new.keys()).collect();
    let differs = |name: &&String| {
        let origin = name.strip_prefix("origins.");
        shown_old.get(*name) != shown_new.get(*name)
            || origin.is_some_and(|origin| old.origins.get(origin) != new.origins.get(origin))
    };
    names.into_iter().filter(differs).cloned().collect()
}

/// Keys and values; those of a table behind its name.
fn shown(config: &Config) -> BTreeMap<String, toml::Value> {
    let table: toml::Table = toml::from_str(&config.to_string())
        .unwrap_or_else(|_| unreachable!("a configuration is shown as TOML, which a test sees to"));
    let mut values = BTreeMap::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => {
                values.extend(inner.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            value => {
                values.insert(key, value);
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        let environment = Environment { variable: &|_| None, cores_allowed: vec![0, 1], has_ipv6: true };
        Config::check(&ServeArgs::default(), Some((Path::new("relay.toml"), text)), &environment).unwrap()
    }

    #[track_caller]
    fn check(old: &str, new: &str, keys: &[&str]) {
        assert_eq!(differing(&config(old), &config(new)).into_iter().collect::<Vec<_>>(), keys);
    }

    #[test]
    fn the_keys_that_differ_are_named() {
        check("", "", &[]);
        check("", "egress = 5\nhttp = \"[::]:80\"", &["egress", "http"]);
        check("", "[caps.origin]\nconnections = 5", &["caps.origin"]);
        check("public-url = \"http://x/\"", "", &["public-url"]);
        check("[limits]\nhead-timeout = 5", "[limits]\nhead-timeout = 6", &["limits.head-timeout"]);
        check("", "[origins.a]\nurl = \"http://x/\"", &["origins.a"]);
        let secret = |secret| format!("[origins.a]\nurl = \"http://x/\"\nheaders = {{ K = \"{secret}\" }}");
        check(&secret("one"), &secret("two"), &["origins.a"]);
    }

    #[test]
    fn what_is_live_is_a_key() {
        let shown = shown(&config(""));
        for key in LIVE {
            assert!(shown.contains_key(key), "{key}");
        }
        assert!(
            is_live("origins.x")
                && is_live("caps.origin")
                && !is_live("http")
                && !is_live("limits.connections")
        );
    }
}
