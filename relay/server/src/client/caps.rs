//! `caps show|set|unset`: the caps document, edited key by key.

use anyhow::anyhow;
use millrace_proto::admin::caps::effective::InForce;
use millrace_proto::admin::caps::status::{CapsStatus, GrantStatus, LocalFrom};
use millrace_proto::admin::caps::{Cap, Caps, Cidr, Layer, Window};
use millrace_proto::units::{Rate, Size};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Client, read};
use crate::cli::{CapsAction, CapsArgs, ClientArgs};
use crate::config::Environment;
use crate::run::Failure;
use crate::serve::println;

/// What stands in place of a value that is not limited.
pub(super) const UNLIMITED: &str = "unlimited";

/// How often a change is tried that somebody else's comes before.
const TRIES: usize = 5;

pub(super) fn run(args: &CapsArgs, environment: &Environment<'_>) -> Result<(), Failure> {
    let (client_args, layer, edits) = match &args.action {
        None => (&args.client, "effective", Vec::new()),
        Some(CapsAction::Show(show)) => (&show.client, show.layer.as_str(), Vec::new()),
        Some(CapsAction::Set(set)) => {
            let edits: Result<_, _> = set.settings.iter().map(|setting| Edit::setting(setting)).collect();
            (&set.client, set.layer.as_str(), edits?)
        }
        Some(CapsAction::Unset(unset)) => {
            let edits: Result<_, _> = unset.keys.iter().map(|key| Edit::new(key, Value::Null)).collect();
            (&unset.client, unset.layer.as_str(), edits?)
        }
    };
    let layers: &[&str] =
        if edits.is_empty() { &["effective", "local", "controller"] } else { &["local", "controller"] };
    if !layers.contains(&layer) {
        return Err(Failure::usage(format!(
            "--layer: there is no layer `{layer}`: write {}",
            layers.join(" or ")
        )));
    }
    // Flags may stand before the action, or behind.
    let client_args = ClientArgs {
        admin: client_args.admin.clone().or_else(|| args.client.admin.clone()),
        json: client_args.json || args.client.json,
    };
    // What is wrong with the values alone is found without a relay.
    edited(&Caps::default().to_value(), &edits)?;
    let client = Client::new(&client_args, environment)?;
    let body = match edits.is_empty() {
        true => client.ask(Method::GET, &format!("/v1/caps?layer={layer}"), None)?.body,
        false => change(&client, layer, &edits)?,
    };
    if client_args.json {
        println(&body.to_string());
    } else if edits.is_empty() && layer != "effective" {
        println(&format!("{body:#}"));
    } else {
        let held = client.ask(Method::GET, "/v1/caps?layer=effective", None)?.body;
        lines(&read(held)?).iter().for_each(|line| println(line));
    }
    Ok(())
}

/// Reads a layer, edits it and puts it back, unless somebody else did so meanwhile: then once more.
fn change(client: &Client, layer: &str, edits: &[Edit]) -> Result<Value, Failure> {
    let path = format!("/v1/caps?layer={layer}");
    let mut tries = 0;
    loop {
        let present = client.ask(Method::GET, &path, None)?;
        let document = edited(&present.body, edits)?;
        match client.ask_if(Method::PUT, &path, &document, present.etag.as_deref()) {
            Ok(answer) => return Ok(answer.body),
            Err(error) if tries < TRIES && error.to_string().contains("changed by somebody else") => {
                tries += 1
            }
            Err(error) => return Err(error),
        }
    }
}

/// One key and what becomes of it; null is unlimited.
struct Edit {
    key: String,
    value: Value,
}

impl Edit {
    fn setting(setting: &str) -> Result<Edit, Failure> {
        let (key, value) = setting.split_once('=').ok_or_else(|| {
            Failure::usage(format!("`{setting}`: write KEY=VALUE, such as egress.total=500Mbit/s"))
        })?;
        let value = match value {
            "none" => Value::Null,
            list if list.starts_with(['[', '{']) => serde_json::from_str(list)
                .map_err(|error| Failure::usage(format!("{key}: `{list}` is not JSON: {error}")))?,
            text => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
        };
        Edit::new(key, value)
    }

    fn new(key: &str, value: Value) -> Result<Edit, Failure> {
        Ok(Edit { key: key.to_owned(), value })
    }

    fn apply(&self, document: &mut Value) -> Result<(), Failure> {
        let (key, value) = (self.key.as_str(), &self.value);
        let wrong = |problem: String| Failure::usage(format!("{key}: {problem}"));
        if let Some(window) = key.strip_prefix("origin.volume.") {
            let window: Window = window.parse().map_err(wrong)?;
            let wanted = json!({"window": window, "bytes": value});
            return replace_in(&mut document["origin"]["volume"], value, wanted, |volume| {
                volume["window"] == json!(window)
            });
        }
        if let Some(networks) = key.strip_prefix("egress.networks.") {
            let networks: Result<Vec<Cidr>, _> = networks.split(',').map(str::parse).collect();
            let networks = networks.map_err(wrong)?;
            let wanted = json!({"cidr": networks, "total": value});
            return replace_in(&mut document["egress"]["networks"], value, wanted, |group| {
                group["cidr"] == json!(networks)
            });
        }
        let mut at = document;
        let (above, last) = key.rsplit_once('.').unwrap_or(("", key));
        for part in above.split('.').filter(|part| !part.is_empty()) {
            if !at[part].is_object() {
                at[part] = Value::Object(Map::new());
            }
            at = &mut at[part];
        }
        at[last] = value.clone();
        Ok(())
    }
}

/// Puts `wanted` in place of what `is_same`, or at the end; or removes that, where the value is null.
fn replace_in(
    list: &mut Value,
    value: &Value,
    wanted: Value,
    is_same: impl Fn(&Value) -> bool,
) -> Result<(), Failure> {
    let Value::Array(items) = list else {
        return Err(anyhow!("the relay's answer is not understood: is it of another version?").into());
    };
    match items.iter().position(is_same) {
        Some(index) if value.is_null() => drop(items.remove(index)),
        Some(index) => items[index] = wanted,
        None if value.is_null() => {}
        None => items.push(wanted),
    }
    Ok(())
}

/// The document with all edits, checked. Percentages need a line, which another layer may know: that is left to the relay.
fn edited(document: &Value, edits: &[Edit]) -> Result<Value, Failure> {
    let mut document = document.clone();
    for edit in edits {
        edit.apply(&mut document)?;
    }
    let caps = Caps::from_value(document).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(caps.to_value())
}

/// What holds, a line each.
pub(super) fn lines(status: &CapsStatus) -> Vec<String> {
    let held = &status.effective;
    let rate = |value: u64| Rate(value).to_string();
    let mut lines = vec![
        line(status, "egress.total", held.egress.total, rate),
        line(status, "egress.http", held.egress.http, rate),
        line(status, "egress.bittorrent", held.egress.bittorrent, rate),
        line(status, "egress.per_connection", held.egress.per_connection, rate),
    ];
    for group in &held.egress.networks {
        let networks: Vec<_> = group.cidr.iter().map(Cidr::to_string).collect();
        lines.push(line(status, &format!("egress.networks.{}", networks.join(",")), group.total, rate));
    }
    lines.push(line(status, "origin.bandwidth", held.origin.bandwidth, rate));
    lines.push(line(status, "origin.connections", held.origin.connections, |count| count.to_string()));
    for volume in status.origin_volume.iter().filter(|volume| volume.bytes.value.is_some()) {
        let key = format!("origin.volume.{}", volume.window);
        let shown = line(status, &key, volume.bytes, |bytes| Size(bytes).to_string());
        let (used, left) = (Size(volume.used), Size(volume.left.unwrap_or(0)));
        lines.push(format!("{shown}; {used} came, {left} left until {}", volume.ends_at));
    }
    for GrantStatus { grant, used, left } in &status.origin_grants {
        let (bytes, used, left) = (Size(grant.bytes), Size(*used), Size(*left));
        lines.push(format!(
            "origin.grants {} ({})  {bytes}; {used} came, {left} left",
            grant.origin, grant.id
        ));
    }
    for (id, content) in &held.contents {
        lines.push(line(status, &format!("contents.{id}.egress"), content.egress, rate));
        if let Some(priority) = content.priority {
            lines.push(format!("contents.{id}.priority  {priority}"));
        }
    }
    if let Some(wait) = &status.pulls_wait {
        lines.push(format!("pulls wait: {}", wait.why));
    }
    if status.local_from == LocalFrom::Admin {
        lines.push(
            "local caps were set while the relay ran, and hold instead of the configured ones".to_owned(),
        );
    }
    if let Some(at) = &status.changes_at {
        lines.push(format!("the schedule changes at {at}"));
    }
    lines
}

fn line(status: &CapsStatus, key: &str, cap: Cap, shown: impl Fn(u64) -> String) -> String {
    let value = match cap.value {
        None => return format!("{key:24}  {UNLIMITED}"),
        Some(0) => "0 (paused)".to_owned(),
        Some(value) => shown(value),
    };
    let Some(source) = cap.source else { return format!("{key:24}  {value}") };
    let layer = match source.layer {
        Layer::Local => "local",
        Layer::Controller => "controller",
    };
    let entries = &status.effective.schedule;
    let entry = entries.iter().find(|InForce { source: entry, .. }| *entry == source);
    let whose = match (source.schedule, entry.and_then(|entry| entry.ends_in_s)) {
        (Some(index), Some(seconds)) => {
            format!("{layer} schedule[{index}], for {} min more", seconds.div_ceil(60))
        }
        (Some(index), None) => format!("{layer} schedule[{index}]"),
        (None, _) => layer.to_owned(),
    };
    format!("{key:24}  {value:14}  {whose}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(settings: &[&str]) -> Result<Value, String> {
        let edits: Result<Vec<_>, _> = settings.iter().map(|setting| Edit::setting(setting)).collect();
        let start = edits.map_err(|error| error.to_string())?;
        edited(&Caps::default().to_value(), &start).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_edit_the_document() {
        let edited = settings(&[
            "egress.total=8Mbit/s",
            "egress.http=40%",
            "origin.connections=8",
            "origin.volume.day=1GB",
            "origin.volume.day=2GB",
            "origin.volume.60=5",
            "egress.networks.10.1.0.0/16,2001:db8::/32=50MB/s",
            "contents.gayddnrzgi2tmnzyhfqwey3emy.priority=-5",
            "line_rate=1Gbit/s",
            r#"schedule=[{"days": "mon-fri", "egress": {"total": 1}}]"#,
        ])
        .unwrap();
        assert_eq!(edited["egress"]["total"], 1_000_000);
        assert_eq!(edited["egress"]["http"], "40%");
        assert_eq!(
            edited["origin"]["volume"],
            json!([{"window": "day", "bytes": 2_000_000_000}, {"window": 60, "bytes": 5}])
        );
        assert_eq!(edited["egress"]["networks"][0]["cidr"][1], "2001:db8::/32");
        assert_eq!(edited["contents"]["gayddnrzgi2tmnzyhfqwey3emy"], json!({"priority": -5}));
        assert_eq!(edited["schedule"][0]["days"], "mon-fri");
        let unset: Vec<_> = [
            "origin.volume.day",
            "egress.networks.10.1.0.0/16,2001:db8::/32",
            "schedule",
            "origin.connections",
        ]
        .into_iter()
        .map(|key| Edit::new(key, Value::Null).unwrap())
        .collect();
        let edited = super::edited(&edited, &unset).unwrap();
        assert_eq!(
            edited["origin"],
            json!({"bandwidth": null, "connections": null, "volume": [{"window": 60, "bytes": 5}]})
        );
        assert_eq!((&edited["egress"]["networks"], &edited["schedule"]), (&json!([]), &json!([])));
        assert_eq!(settings(&["egress.total=none"]).unwrap()["egress"]["total"], Value::Null);
    }

    #[test]
    fn wrong_settings_say_what_would_be_right() {
        for (setting, part) in [
            ("egress.total", "KEY=VALUE"),
            ("egress.totl=5", "`total`"),
            ("egress.total=fast", "2Gbit/s"),
            ("origin.volume.week=5", "month"),
            ("egress.networks.10.1/16=5", "10.1.0.0/16"),
            ("schedule=[", "JSON"),
            ("bandwidth=5", "`egress`"),
        ] {
            let error = settings(&[setting]).unwrap_err();
            assert!(error.contains(part), "{setting}: {error}");
        }
    }
}
