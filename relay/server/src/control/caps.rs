//! `/v1/caps`: limits that change while transfers run. This version knows the cap on everything sent; other keys of the document
//! are refused by name, so that nobody believes in a limit that does not hold.

use axum::http::StatusCode;
use millrace_engine::ledger::Bucket;
use millrace_proto::units::Rate;
use serde_json::{Map, Value, json};

use super::problem::Refusal;

/// The document as it is now.
pub(super) fn document(egress: &Bucket) -> Value {
    json!({ "egress": { "total": egress.rate() } })
}

/// `ETag` of the document: it names the state itself, so equal documents have equal tags.
pub(super) fn etag(egress: &Bucket) -> String {
    egress.rate().map_or_else(|| "\"unlimited\"".to_owned(), |rate| format!("\"{rate}\""))
}

/// What a `PUT` sets: what the document does not name is unlimited.
pub(super) fn replaced(document: &Value) -> Result<Option<u64>, Refusal> {
    Ok(total(document)?.flatten())
}

/// What a `PATCH` (RFC 7396) sets; `None` where it names nothing.
pub(super) fn patched(document: &Value) -> Result<Option<Option<u64>>, Refusal> {
    total(document)
}

fn total(document: &Value) -> Result<Option<Option<u64>>, Refusal> {
    let top = object(document, "the document")?;
    let Some(egress) = only(top, "", "egress")? else { return Ok(None) };
    if egress.is_null() {
        return Ok(Some(None));
    }
    let Some(total) = only(object(egress, "`egress`")?, "egress.", "total")? else { return Ok(None) };
    rate(total).map(Some)
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, Refusal> {
    value.as_object().ok_or_else(|| Refusal::bad_request(format!("{what} must be an object.")))
}

/// The value of the one key that is known; any other key is refused.
fn only<'a>(object: &'a Map<String, Value>, above: &str, known: &str) -> Result<Option<&'a Value>, Refusal> {
    const LATER_TOP: [&str; 4] = ["origin", "contents", "schedule", "line_rate"];
    const LATER_EGRESS: [&str; 4] = ["http", "bittorrent", "per_connection", "networks"];
    for (key, value) in object.iter().filter(|(key, _)| *key != known) {
        let later = if above.is_empty() { LATER_TOP } else { LATER_EGRESS };
        if !later.contains(&key.as_str()) {
            return Err(Refusal::bad_request(format!("`{above}{key}` is no cap.")));
        }
        // A document that was read, changed and sent back may say that these are unlimited, which they are.
        if !value.is_null() {
            let detail = format!("`{above}{key}` is not in this version; `egress.total` is.");
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, detail));
        }
    }
    Ok(object.get(known))
}

fn rate(value: &Value) -> Result<Option<u64>, Refusal> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.ends_with('%') => Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "Shares of `line_rate` are not in this version; name a rate.",
        )),
        Value::Number(_) | Value::String(_) => serde_json::from_value(value.clone())
            .map(|Rate(rate)| Some(rate))
            .map_err(|error| Refusal::bad_request(format!("`egress.total`: {error}"))),
        _ => Err(Refusal::bad_request("`egress.total` is a number, a string such as \"2Gbit/s\", or null.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(document: Value, expected: Option<Option<Option<u64>>>) {
        assert_eq!(patched(&document).ok(), expected, "{document}");
    }

    #[test]
    fn patches_change_what_they_name() {
        check(json!({}), Some(None));
        check(json!({"egress": {}}), Some(None));
        check(json!({"egress": {"total": 5}}), Some(Some(Some(5))));
        check(json!({"egress": {"total": "8Mbit/s"}}), Some(Some(Some(1_000_000))));
        check(json!({"egress": {"total": null, "http": null}}), Some(Some(None)));
        check(json!({"egress": {"total": 0}}), Some(Some(Some(0))));
        check(json!({"egress": null}), Some(Some(None)));
    }

    #[test]
    fn what_does_not_hold_is_refused() {
        check(json!({"egress": {"http": 5}}), None);
        check(json!({"egress": {"totl": 5}}), None);
        check(json!({"origin": {"bandwidth": 1}}), None);
        check(json!({"egress": {"total": -1}}), None);
        check(json!({"egress": {"total": true}}), None);
        check(json!({"egress": {"total": "40%"}}), None);
        check(json!([]), None);
    }

    #[test]
    fn a_put_resets_what_it_does_not_name() {
        assert_eq!(replaced(&json!({})).ok(), Some(None));
        assert_eq!(replaced(&json!({"egress": {"total": 7}})).ok(), Some(Some(7)));
    }
}
