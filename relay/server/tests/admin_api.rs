//! The admin API as strangers use it: what is wrong is refused in words that help, and changes nothing; events can be taken up again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

#[path = "support/relay.rs"]
mod relay;

use std::collections::BTreeMap;
use std::time::Duration;

use relay::TestRelay;
use serde_json::{Value, json};

/// Time that anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Runs one test body; requests are made from outside of the relay's threads.
fn run<F: std::future::Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("it takes too long") });
}

/// Sends what is to be refused; the problem document says all of `said`.
#[track_caller]
fn checked(
    (status, headers, text): (u16, reqwest::header::HeaderMap, String),
    expected: u16,
    said: &str,
) -> reqwest::header::HeaderMap {
    assert_eq!(status, expected, "{text}");
    assert_eq!(headers["content-type"], "application/problem+json", "{text}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["status"], expected);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(said), "`{detail}` lacks `{said}`");
    headers
}

/// Everything that a request may change.
async fn state(relay: &TestRelay) -> Vec<Value> {
    let (_, contents) = relay.admin("GET", "/v1/contents", None).await;
    let contents = contents["contents"].as_array().unwrap().iter();
    let keys = ["id", "name", "state", "pinned", "priority"];
    let mut state: Vec<_> = contents.flat_map(|content| keys.map(|key| content[key].clone())).collect();
    state.push(relay.admin("GET", "/v1/caps", None).await.1);
    state
}

#[test]
fn what_is_wrong_is_named_and_changes_nothing() {
    let relay = TestRelay::start("egress = 1000000000");
    run(async {
        let id = relay.add_file("a.bin", &[5; 50_000]).await;
        let before = state(&relay).await;
        let (content, priority) = (format!("/v1/contents/{id}"), format!("/v1/contents/{id}/priority"));
        let nowhere = "/v1/contents/aaaaaaaaaaaaaaaaaaaaaaaaaa";
        let cases = [
            // Bodies.
            ("POST", "/v1/contents", "", 400, "EOF"),
            ("POST", "/v1/contents", "{\"sources\": [\"http://x/\"]", 400, "EOF"),
            ("POST", "/v1/contents", "[]", 400, "not understood"),
            ("POST", "/v1/contents", r#"{"sources": "http://x/"}"#, 400, "`sources`"),
            ("POST", "/v1/contents", r#"{"sources": ["http://x/", 1]}"#, 400, "`sources[1]`"),
            ("POST", "/v1/contents", r#"{"sources": ["http://x/"], "pinned": true}"#, 400, "`pinned`"),
            ("POST", "/v1/contents", r#"{"sources": ["http://x/"], "priority": 300}"#, 400, "`priority`"),
            ("POST", "/v1/contents", r#"{"sources": ["x.iso"]}"#, 422, "`x.iso`"),
            ("POST", "/v1/contents", r#"{"sources": ["/x"], "sha256": "12"}"#, 422, "`sha256`"),
            ("POST", "/v1/contents", r#"{"sources": ["/x"], "id": "12"}"#, 422, "`id`"),
            ("POST", "/v1/contents", r#"{"sources": [], "metainfo": "%"}"#, 422, "`metainfo`"),
            ("POST", "/v1/contents", r#"{"sources": [], "metainfo": "ZGU="}"#, 422, "torrent"),
            ("POST", "/v1/contents", r#"{"sources": ["/nowhere/x"]}"#, 422, "/nowhere/x"),
            ("POST", &priority, "{}", 400, "`priority`"),
            ("POST", &priority, "[5]", 400, "a list"),
            ("POST", &priority, r#"{"priority": -1}"#, 400, "`priority`"),
            ("POST", &priority, "\u{0}", 400, "not understood"),
            ("PATCH", "/v1/caps", "{\"egress\":", 400, "EOF"),
            ("PATCH", &content, r#"{"access": ["everybody"]}"#, 400, "`everybody`"),
            ("PATCH", &content, r#"{"access": "public"}"#, 400, "`access`"),
            ("PATCH", &content, r#"{"acces": []}"#, 400, "`acces`"),
            ("PATCH", nowhere, r#"{"access": []}"#, 404, "aaaa"),
            ("POST", "/v1/drain", r#"{"at": "once"}"#, 400, "no body"),
            ("DELETE", &content, "{}", 400, "no body"),
            // Parameters and names.
            ("GET", "/v1/contents?limit=0", "", 400, "`limit`"),
            ("GET", "/v1/contents?limit=1001", "", 400, "`limit`"),
            ("GET", "/v1/contents?stat=failed", "", 400, "`stat`"),
            ("GET", "/v1/contents?state=lost", "", 400, "`lost`"),
            ("GET", "/v1/contents?after=x", "", 400, "`after`"),
            ("GET", "/v1/contents?limit=1&limit=2", "", 400, "`limit`"),
            ("GET", "/v1/contents/%ff", "", 400, "UTF-8"),
            ("PUT", "/v1/caps?layer=mine", "{}", 400, "layer: unknown variant `mine`"),
            ("GET", nowhere, "", 404, "aaaa"),
            ("POST", &format!("{nowhere}/pause"), "", 404, "aaaa"),
            ("POST", &format!("{content}/frobnicate"), "", 404, "nothing"),
        ];
        for (method, path, body, status, said) in cases {
            checked(relay.admin_with(method, path, Some(body), &[JSON]).await, status, said);
        }
        for form in ["application/x-www-form-urlencoded", "text/plain", "json"] {
            let body = Some(r#"{"priority": 1}"#);
            let answer = relay.admin_with("POST", &priority, body, &[("Content-Type", form)]).await;
            checked(answer, 415, "application/json");
        }
        for (method, path, allowed) in [
            ("DELETE", "/v1/status", "GET,HEAD"),
            ("PUT", &content, "DELETE,GET,HEAD,PATCH"),
            ("PUT", "/v1/contents", "GET,HEAD,POST"),
            ("POST", "/metrics", "GET,HEAD"),
        ] {
            let headers = checked(relay.admin_with(method, path, None, &[]).await, 405, "not used that way");
            let mut allow: Vec<_> = headers["allow"].to_str().unwrap().split(',').map(str::trim).collect();
            allow.sort_unstable();
            assert_eq!(allow.join(","), allowed, "{method} {path}");
        }
        assert_eq!(state(&relay).await, before);
        assert_eq!(relay.admin("GET", "/readyz", None).await.0, 200);
    });
}

#[test]
fn what_is_too_large_is_refused_and_changes_nothing() {
    let relay = TestRelay::start("");
    run(async {
        let id = relay.add_file("a.bin", &[5; 50_000]).await;
        let before = state(&relay).await;
        let priority = format!("/v1/contents/{id}/priority");
        let padded = |bytes: usize| format!("{}{{\"priority\": 7}}", " ".repeat(bytes));
        checked(relay.admin_with("POST", &priority, Some(&padded(1 << 20)), &[JSON]).await, 413, "1048576");
        checked(
            relay.admin_with("POST", "/v1/contents", Some(&padded(97 << 20)), &[JSON]).await,
            413,
            "100663296",
        );
        let deep = r#"{"a":"#.repeat(100_000);
        checked(relay.admin_with("PATCH", "/v1/caps", Some(&deep), &[JSON]).await, 413, "recursion limit");
        // Of no length that was told beforehand.
        let client =
            reqwest::Client::builder().unix_socket(relay.relay().config.admin.clone()).build().unwrap();
        let chunks = futures_util::stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 65_536])));
        let request = client.post(format!("http://relay{priority}")).body(reqwest::Body::wrap_stream(chunks));
        assert_eq!(request.send().await.unwrap().status(), 413);
        assert_eq!(state(&relay).await, before);
        // What just fits is taken.
        let (status, shown) = relay.admin("POST", &priority, Some(&padded((1 << 20) - 15))).await;
        assert_eq!((status, &shown["priority"]), (200, &json!(7)));
    });
}

#[test]
fn the_list_keeps_what_was_asked_for_from_page_to_page() {
    let relay = TestRelay::start("");
    run(async {
        for number in 0..3 {
            relay.add_file(&format!("some {number}.bin"), &[number; 100]).await;
        }
        relay.add_file("other.bin", b"x").await;
        let (mut path, mut names) = ("/v1/contents?q=SOME+&limit=1&state=complete".to_owned(), Vec::new());
        loop {
            let (_, headers, text) = relay.admin_with("GET", &path, None, &[]).await;
            let page: Value = serde_json::from_str(&text).unwrap();
            names.extend(page["contents"].as_array().unwrap().iter().map(|content| content["name"].clone()));
            let Some(link) = headers.get("link") else { break };
            path = link.to_str().unwrap()[1..].split('>').next().unwrap().to_owned();
        }
        names.sort_by_key(ToString::to_string);
        assert_eq!(names, ["some 0.bin", "some 1.bin", "some 2.bin"]);
        assert_eq!(relay.admin("GET", "/v1/contents?state=failed", None).await.1, json!({"contents": []}));
    });
}

#[test]
fn what_was_removed_is_gone_when_the_answer_comes() {
    let relay = TestRelay::start("");
    run(async {
        for number in 0..20 {
            let id = relay.add_file(&format!("{number}.bin"), &[number; 100]).await;
            assert_eq!(relay.admin("DELETE", &format!("/v1/contents/{id}"), None).await.0, 204);
            assert_eq!(relay.admin("GET", &format!("/v1/contents/{id}"), None).await.0, 404);
            assert_eq!(relay.admin("DELETE", &format!("/v1/contents/{id}"), None).await.0, 404);
        }
    });
}

/// Somebody who listens to events.
struct Listener {
    answer: reqwest::Response,
    text: String,
}

impl Listener {
    async fn new(relay: &TestRelay, heard: Option<&str>) -> Listener {
        let client =
            reqwest::Client::builder().unix_socket(relay.relay().config.admin.clone()).build().unwrap();
        let mut request = client.get("http://relay/v1/events");
        if let Some(heard) = heard {
            request = request.header("Last-Event-ID", heard);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        Listener { answer, text: String::new() }
    }

    /// The next event that is not the relay's own: its fields.
    async fn next(&mut self) -> BTreeMap<String, String> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let fields = event.lines().filter_map(|line| line.split_once(": "));
                let fields: BTreeMap<_, _> =
                    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                self.text = rest.to_owned();
                if fields.get("event").is_some_and(|event| event != "relay") {
                    return fields;
                }
            }
            let chunk = self.answer.chunk().await.unwrap().expect("the events end");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Waits for an event of this kind that speaks of a content.
    async fn until(&mut self, kind: &str, id: &str) -> BTreeMap<String, String> {
        loop {
            let event = self.next().await;
            if event["event"] == kind && event["data"].contains(id) {
                let data: Value = serde_json::from_str(&event["data"]).unwrap();
                assert_eq!(data["event"], kind);
                return event;
            }
        }
    }
}

#[test]
fn events_tell_of_contents_as_they_change() {
    let relay = TestRelay::start("");
    run(async {
        let mut listener = Listener::new(&relay, None).await;
        let id = relay.add_file("a.bin", b"something").await;
        listener.until("content", &id).await;
        relay.admin("DELETE", &format!("/v1/contents/{id}"), None).await;
        listener.until("removed", &id).await;
    });
}

#[test]
fn events_are_taken_up_where_somebody_left_off() {
    let relay = TestRelay::start("");
    run(async {
        let mut listener = Listener::new(&relay, None).await;
        let first = relay.add_file("first.bin", b"first").await;
        let heard = listener.until("content", &first).await["id"].clone();
        drop(listener);
        // Meanwhile much happens.
        let second = relay.add_file("second.bin", b"second").await;
        assert_eq!(relay.admin("DELETE", &format!("/v1/contents/{first}"), None).await.0, 204);
        let mut again = Listener::new(&relay, Some(&heard)).await;
        // In the order of their last changes, of which the second content may have more: its digest comes when it is computed.
        let (mut is_added, mut is_removed) = (false, false);
        while !is_added || !is_removed {
            let event = again.next().await;
            is_added |= event["event"] == "content" && event["data"].contains(&second);
            is_removed |= event["event"] == "removed" && event["data"].contains(&first);
        }
        // A name of another run, or of none.
        for unknown in ["1-1", "nonsense", ""] {
            let reset = Listener::new(&relay, Some(unknown)).await.next().await;
            assert_eq!(
                (&reset["event"][..], &reset["data"][..]),
                ("reset", r#"{"event":"reset"}"#),
                "{unknown}"
            );
        }
    });
}

#[test]
fn not_everybody_may_listen_at_once() {
    let relay = TestRelay::start("");
    run(async {
        let mut listeners = Vec::new();
        for _ in 0..32 {
            listeners.push(Listener::new(&relay, None).await);
        }
        checked(relay.admin_with("GET", "/v1/events", None, &[]).await, 503, "try again");
        listeners.pop();
        // That one has left is noticed when the next event is written.
        while relay.admin_with("HEAD", "/v1/events", None, &[]).await.0 == 503 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn the_document_is_served_as_it_is_checked_in() {
    let relay = TestRelay::start("");
    run(async {
        let (status, document) = relay.admin("GET", "/v1/openapi.json", None).await;
        assert_eq!(status, 200);
        let now = serde_json::to_value(millrace_relay::control::admin::document()).unwrap();
        assert_eq!(document, now);
    });
}

#[test]
fn status_says_what_each_shard_does() {
    let relay = TestRelay::start("");
    run(async {
        let id = relay.add_file("a.bin", &[5; 50_000]).await;
        assert_eq!(relay.http(&format!("/c/{id}/a.bin")).await.0, 200);
        assert_eq!(relay.http("/c/aaaaaaaaaaaaaaaaaaaaaaaaaa/x").await.0, 404);
        let (_, status) = relay.admin("GET", "/v1/status", None).await;
        assert_eq!(status["contents"], 1);
        assert_eq!(status["shard_loads"].as_array().unwrap().len(), 1);
        let load = &status["shard_loads"][0];
        assert!(load["loops"].as_u64() > Some(0) && load["busy_us"].as_u64() > Some(0), "{load}");
        assert_eq!(load["stuck"], false);
        assert!(status["counts"]["requests"].as_u64() >= Some(2), "{status}");
        assert!(status["counts"]["refusals"].as_u64() >= Some(1), "{status}");
    });
}
