//! Caps through the admin socket of a relay: layers, tags, what is refused, and what is kept.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

#[path = "support/relay.rs"]
mod relay;

use millrace_engine::ledger::caps::Scope;
use relay::TestRelay;
use serde_json::{Value, json};

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// Everything that is limited, in the spelling of the answers.
fn unlimited() -> Value {
    json!({
        "egress": {"total": null, "http": null, "bittorrent": null, "per_connection": null, "networks": []},
        "origin": {"bandwidth": null, "connections": null, "volume": []},
        "contents": {}, "schedule": [], "line_rate": null})
}

#[test]
fn caps_change_under_way_and_only_from_what_was_read() {
    let relay = TestRelay::start("egress = 1000");
    run(async {
        let (_, headers, text) = relay.admin_with("GET", "/v1/caps", None, &[]).await;
        let mut expected = unlimited();
        expected["egress"]["total"] = json!(1000);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
        let read = headers["etag"].to_str().unwrap().to_owned();
        let change = Some(r#"{"egress": {"total": "8Mbit/s"}}"#);
        let (status, headers, _) =
            relay.admin_with("PATCH", "/v1/caps", change, &[("If-Match", &read)]).await;
        assert_eq!((status, relay.relay().ledger.caps().rate(Scope::Total)), (200, Some(1_000_000)));
        let now = headers["etag"].to_str().unwrap().to_owned();
        let other = Some(r#"{"egress": {"total": 5}}"#);
        for (method, tag, expected) in [
            ("PATCH", read.as_str(), 412),
            ("PUT", read.as_str(), 412),
            ("PATCH", "W/\"x\"", 412),
            ("PATCH", now.trim_matches('"'), 412),
        ] {
            assert_eq!(relay.admin_with(method, "/v1/caps", other, &[("If-Match", tag)]).await.0, expected);
            assert_eq!(relay.relay().ledger.caps().rate(Scope::Total), Some(1_000_000), "{method} {tag}");
        }
        let either = format!("\"other\", {now}");
        assert_eq!(relay.admin_with("PUT", "/v1/caps", other, &[("If-Match", &either)]).await.0, 200);
        assert_eq!(relay.admin_with("PATCH", "/v1/caps", Some("{}"), &[("If-Match", "*")]).await.0, 200);
        assert_eq!(relay.relay().ledger.caps().rate(Scope::Total), Some(5));
        assert_eq!(relay.admin("PUT", "/v1/caps", Some("{}")).await.1, unlimited());
        assert_eq!(relay.relay().ledger.caps().rate(Scope::Total), None);
    });
}

#[test]
fn the_lower_of_both_layers_holds_and_status_says_whose_it_is() {
    let relay = TestRelay::start("");
    run(async {
        let put = async |layer: &str, document: Value| {
            let path = format!("/v1/caps?layer={layer}");
            let (status, answer) = relay.admin("PUT", &path, Some(&document.to_string())).await;
            assert_eq!(status, 200, "{answer}");
        };
        put("local", json!({"egress": {"total": 500, "http": 100}, "line_rate": 1000})).await;
        put("controller", json!({"egress": {"total": "40%", "http": 200}})).await;
        assert_eq!(relay.relay().ledger.caps().rate(Scope::Total), Some(400));
        let (_, status) = relay.admin("GET", "/v1/status", None).await;
        assert_eq!(status["egress_cap"], 400);
        assert_eq!(status["caps"]["egress"]["total"], json!({"value": 400, "layer": "controller"}));
        assert_eq!(status["caps"]["egress"]["http"], json!({"value": 100, "layer": "local"}));
        assert_eq!(
            (&status["caps"]["local_from"], &status["caps"]["changes_at"]),
            (&json!("admin"), &Value::Null)
        );
        // What the controller takes back leaves the operator's.
        put("controller", json!({})).await;
        assert_eq!(relay.relay().ledger.caps().rate(Scope::Total), Some(500));
        let (_, local) = relay.admin("GET", "/v1/caps?layer=local", None).await;
        assert_eq!(local["egress"]["total"], 500);
        let all_day = json!({"egress": {"total": 500}, "schedule": [{"egress": {"total": 0}}]});
        put("local", all_day).await;
        assert_eq!(relay.relay().ledger.caps().rate(Scope::Total), Some(0));
        let (_, held) = relay.admin("GET", "/v1/caps?layer=effective", None).await;
        assert_eq!(held["egress"]["total"], json!({"value": 0, "layer": "local", "schedule": 0}));
    });
}

#[test]
fn what_is_refused_changes_nothing_and_names_the_key() {
    let relay = TestRelay::start("egress = 1000");
    run(async {
        let before = relay.admin_with("GET", "/v1/caps", None, &[]).await.1["etag"].clone();
        for (method, body, part) in [
            ("PATCH", r#"{"egress": {"http": 1, "tottal": 1}}"#, "`egress.tottal`"),
            ("PATCH", r#"{"egress": {"http": "5%"}}"#, "`line_rate`"),
            ("PATCH", r#"{"schedule": [{"days": "never"}]}"#, "`schedule[0].days`"),
            ("PATCH", "null", "RFC 7396"),
            (
                "PUT",
                r#"{"origin": {"volume": [{"window": "day", "bytes": -1}]}}"#,
                "`origin.volume[0].bytes`",
            ),
            ("PUT", r#"{"egress": {"total": 1}"#, "EOF"),
            ("PUT", "", "EOF"),
        ] {
            let (status, headers, text) = relay.admin_with(method, "/v1/caps", Some(body), &[]).await;
            assert_eq!(
                (status, &headers["content-type"]),
                (400, &"application/problem+json".parse().unwrap()),
                "{text}"
            );
            let problem: Value = serde_json::from_str(&text).unwrap();
            assert!(problem["detail"].as_str().unwrap().contains(part), "{body}: {text}");
        }
        let long = format!("{{\"contents\": {{}} {}}}", " ".repeat(9 << 20));
        assert_eq!(relay.admin("PUT", "/v1/caps", Some(&long)).await.0, 413);
        assert_eq!(relay.admin_with("GET", "/v1/caps", None, &[]).await.1["etag"], before);
        assert_eq!(relay.relay().ledger.caps().rate(Scope::Total), Some(1000));
    });
}

#[test]
fn caps_are_kept_over_restarts() {
    let relay = TestRelay::start("egress = 1000\n[caps]\nline_rate = 2000");
    run(async {
        let (_, local) =
            relay.admin("PATCH", "/v1/caps", Some(r#"{"egress": {"total": "50%", "http": 1}}"#)).await;
        assert_eq!((&local["egress"]["total"], &local["line_rate"]), (&json!("50%"), &json!(2000)));
        let controller = Some(r#"{"egress": {"bittorrent": 3}}"#);
        assert_eq!(relay.admin("PUT", "/v1/caps?layer=controller", controller).await.0, 200);
        let relay = relay.restart(|_| {});
        assert_eq!(relay.admin("GET", "/v1/caps", None).await.1, local);
        let (_, held) = relay.admin("GET", "/v1/caps?layer=effective", None).await;
        assert_eq!(held["egress"]["bittorrent"], json!({"value": 3, "layer": "controller"}));
        assert_eq!(relay.relay().ledger.caps().rate(Scope::Total), Some(1000));
    });
}

/// The manual's document is one, and its metrics are there.
#[test]
fn the_manual_is_true() {
    let manual = include_str!("../../../docs/operators/caps.md");
    let (_, rest) = manual.split_once("## The whole document").unwrap();
    let (document, metrics) = rest.split_once("## Metrics").unwrap();
    let relay = TestRelay::start("");
    run(async {
        let (status, answer) = relay.admin("PUT", "/v1/caps", Some(document)).await;
        assert_eq!(status, 200, "{answer}");
        let shown = relay.admin_with("GET", "/metrics", None, &[]).await.2;
        let names: Vec<_> = metrics.split('`').filter(|word| word.starts_with("millrace_")).collect();
        assert!(names.len() >= 5, "{names:?}");
        for name in names.iter().map(|name| name.split('{').next().unwrap()) {
            assert!(shown.lines().any(|line| line.starts_with(name)), "{name} is no metric");
        }
        let keys = [
            "egress.total",
            "egress.networks",
            "origin.volume",
            "contents.ID.priority",
            "schedule",
            "line_rate",
        ];
        assert!(keys.iter().all(|key| manual.contains(&format!("`{key}`"))));
    });
}
