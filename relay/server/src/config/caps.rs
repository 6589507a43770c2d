//! The caps that a relay begins with: the table `[caps]`, which is the document of the admin API, and the shorthand `egress`.

use millrace_proto::admin::caps::{Caps, CapsError, Layers, Limit};

use super::ConfigError;
use super::check::Lookup;
use super::file::File;
use crate::cli::ServeArgs;

/// Reads what is sent at most from flag, key or table. The flag wins over either; key and table may not both name it.
pub(super) fn caps(lookup: &Lookup<'_>, args: &ServeArgs, file: &File) -> Result<Caps, ConfigError> {
    let mut caps = match &file.caps {
        Some(table) => table_caps(lookup, table)?,
        None => Caps::default(),
    };
    let key = lookup.entry("egress", &file.egress);
    if let Some(key) = key.as_ref().filter(|_| caps.egress.total.is_some()) {
        return Err(ConfigError(format!(
            "{}: stands in [caps] as well, as egress.total: leave one out",
            key.place
        )));
    }
    if let Some(found) = Lookup::flag("egress", args.egress.as_deref()).or(key) {
        caps.egress.total = found.read(limit)?;
    }
    // The controller's layer is not known yet.
    Layers::new(caps.clone(), Caps::default()).map_err(|error| table_error(lookup, &error))?;
    Ok(caps)
}

fn table_caps(lookup: &Lookup<'_>, table: &toml::Table) -> Result<Caps, ConfigError> {
    let value = serde_json::to_value(table).map_err(|error| ConfigError(format!("[caps]: {error}")))?;
    Caps::from_value(value).map_err(|error| table_error(lookup, &error))
}

/// Names the line of the key where it is found below the table's beginning, or else that.
fn table_error(lookup: &Lookup<'_>, error: &CapsError) -> ConfigError {
    let mut path = error.path.split('.').next_back().unwrap_or_default();
    path = path.split('[').next().unwrap_or_default();
    let is_key = |line: &str| {
        let rest = line.trim_start().strip_prefix(path).filter(|_| !path.is_empty());
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let lines = || lookup.text.lines().enumerate();
    let table = lines().find(|(_, line)| line.trim_start().trim_start_matches('[').starts_with("caps"));
    let first = table.map_or(0, |(index, _)| index);
    let line = lines().skip(first).find(|(_, line)| is_key(line)).map_or(first, |(index, _)| index) + 1;
    let path = lookup.path.display();
    match lookup.text.is_empty() {
        true => ConfigError(format!("--egress: {}", error.reason)),
        false => {
            ConfigError(format!("{path}:{line}: caps.{}: {}", error.path, error.reason.replace('\n', " ")))
        }
    }
}

/// A rate, a percentage of the line, or `none`.
fn limit(text: &str) -> Result<Option<Limit>, String> {
    if text == "none" { Ok(None) } else { text.parse().map(Some) }
}

/// The document as a TOML table below `caps`, without what it does not limit, and without what `egress` says; empty where nothing is left.
pub(super) fn shown(caps: &Caps) -> String {
    let mut value = caps.to_value();
    value["egress"]["total"] = serde_json::Value::Null;
    prune(&mut value);
    match value.as_object() {
        Some(object) if !object.is_empty() => {
            toml::to_string(&serde_json::json!({ "caps": value })).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// TOML has no null, and no number above 63 bits.
fn prune(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(prune);
            object.retain(|_, value| {
                let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty);
                !value.is_null() && !is_empty
            });
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Number(number) if number.as_i64().is_none() => *value = Value::String(number.to_string()),
        _ => {}
    }
}
