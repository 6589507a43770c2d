//! Bounds of a caps document that its shape alone does not keep.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    CIDRS_MAX, CONNECTIONS_MAX, CONTENTS_MAX, Caps, CapsError, ContentCaps, Egress, NETWORKS_MAX, Origin,
    PRIORITY_MAX, SCHEDULE_MAX, ScheduleEntry, VOLUMES_MAX,
};
use crate::id::ContentId;

pub(super) fn check(caps: &Caps) -> Result<(), CapsError> {
    if caps.line_rate.is_some_and(|rate| rate.0 == 0) {
        return Err(error("line_rate", "must not be 0: write what the line carries, or null"));
    }
    values("", &caps.egress, &caps.origin, &caps.contents)?;
    at_most("schedule", caps.schedule.len(), SCHEDULE_MAX, "entries")?;
    for (index, entry) in caps.schedule.iter().enumerate() {
        let path = format!("schedule[{index}]");
        times(&path, entry)?;
        values(&format!("{path}."), &entry.egress, &entry.origin, &entry.contents)?;
    }
    Ok(())
}

/// Refuses a list where an object belongs, which serde would take for its fields in order.
pub(super) fn lists(path: &str, value: &Value) -> Result<(), CapsError> {
    match value {
        Value::Object(object) => object.iter().try_for_each(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value {
                Value::Array(items) if LISTS.contains(&key.as_str()) => items
                    .iter()
                    .enumerate()
                    .try_for_each(|(index, item)| lists(&format!("{path}[{index}]"), item)),
                value => lists(&path, value),
            }
        }),
        Value::Array(_) => Err(error(path, "a list does not belong here")),
        _ => Ok(()),
    }
}

/// The keys whose values are lists.
const LISTS: [&str; 5] = ["networks", "cidr", "volume", "grants", "schedule"];

fn error(path: &str, reason: impl Into<String>) -> CapsError {
    CapsError { path: path.to_owned(), reason: reason.into() }
}

fn at_most(path: &str, count: usize, most: usize, what: &str) -> Result<(), CapsError> {
    if count <= most {
        return Ok(());
    }
    Err(error(path, format!("{count} {what} are too many: at most {most}")))
}

fn times(path: &str, entry: &ScheduleEntry) -> Result<(), CapsError> {
    if entry.from.is_end_of_day() {
        return Err(error(&format!("{path}.from"), "24:00 is the beginning of no day: write 00:00"));
    }
    if entry.from == entry.to {
        let reason = format!("is {} as well as `from`: for a whole day leave both out", entry.to);
        return Err(error(&format!("{path}.to"), reason));
    }
    Ok(())
}

fn values(
    above: &str,
    egress: &Egress,
    origin: &Origin,
    contents: &BTreeMap<ContentId, ContentCaps>,
) -> Result<(), CapsError> {
    networks(above, egress)?;
    if let Some(connections) = origin.connections.filter(|connections| *connections > CONNECTIONS_MAX) {
        let reason = format!("{connections} are too many: at most {CONNECTIONS_MAX}, or null");
        return Err(error(&format!("{above}origin.connections"), reason));
    }
    volumes(above, origin)?;
    super::grant::check(above, &origin.grants)?;
    at_most(&format!("{above}contents"), contents.len(), CONTENTS_MAX, "contents")?;
    for (id, content) in contents {
        if let Some(priority) =
            content.priority.filter(|priority| priority.unsigned_abs() > PRIORITY_MAX.unsigned_abs())
        {
            let reason = format!("{priority} is out of range: write -{PRIORITY_MAX} to {PRIORITY_MAX}");
            return Err(error(&format!("{above}contents.{id}.priority"), reason));
        }
    }
    Ok(())
}

fn networks(above: &str, egress: &Egress) -> Result<(), CapsError> {
    let path = format!("{above}egress.networks");
    at_most(&path, egress.networks.len(), NETWORKS_MAX, "groups")?;
    for (index, network) in egress.networks.iter().enumerate() {
        let path = format!("{path}[{index}].cidr");
        if network.cidr.is_empty() {
            return Err(error(&path, "names no network: write at least one, such as \"10.1.0.0/16\""));
        }
        at_most(&path, network.cidr.len(), CIDRS_MAX, "networks")?;
    }
    Ok(())
}

fn volumes(above: &str, origin: &Origin) -> Result<(), CapsError> {
    let path = format!("{above}origin.volume");
    at_most(&path, origin.volume.len(), VOLUMES_MAX, "windows")?;
    for (index, volume) in origin.volume.iter().enumerate() {
        if origin.volume[..index].iter().any(|before| before.window == volume.window) {
            let reason = format!("`{}` is there already: each window is named once", volume.window);
            return Err(error(&format!("{path}[{index}].window"), reason));
        }
    }
    Ok(())
}
