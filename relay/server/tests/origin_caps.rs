//! Caps on what is taken from origins, end to end: pulls stop at a volume and say so, serving goes on, and nothing is forgotten.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

#[path = "support/origin.rs"]
mod origin;
#[path = "support/relay.rs"]
mod relay;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_relay::ingest::NewPull;
use origin::{Behaviour, File, Origin};
use relay::TestRelay;
use serde_json::{Value, json};

const LENGTH: u64 = 3_000_000;
const VOLUME: u64 = 1_000_000;

/// A window that ends once in a year.
const YEAR: &str = "[[caps.origin.volume]]\nwindow = 31622400\nbytes = 1000000\n";

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

async fn add(relay: &TestRelay, url: &str) -> String {
    relay.relay().ingest.add(NewPull::from_operator(url).unwrap()).await.unwrap().id().to_string()
}

async fn patch(relay: &TestRelay, origin: Value) {
    let body = json!({ "origin": origin }).to_string();
    let (status, answer) = relay.admin("PATCH", "/v1/caps", Some(&body)).await;
    assert_eq!(status, 200, "{answer}");
}

/// What came in the capped window.
async fn used(relay: &TestRelay) -> u64 {
    let (_, held) = relay.admin("GET", "/v1/caps?layer=effective", None).await;
    let windows = held["origin_volume"].as_array().unwrap();
    windows.iter().find(|volume| volume["window"] == 31_622_400).unwrap()["used"].as_u64().unwrap()
}

/// Waits until the origin's log, which is written behind each body, has so many bytes.
async fn all_sent(origin: &Origin, bytes: u64) {
    let started = Instant::now();
    while origin.sent() != bytes {
        assert!(started.elapsed() < Duration::from_secs(60), "{} of {bytes}", origin.sent());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn waits(status: &Value) -> bool {
    status["error"].as_str().is_some_and(|error| error.contains("origin.volume.31622400"))
}

#[test]
fn at_a_volume_pulls_stop_and_say_until_when_serving_goes_on_and_a_restart_forgets_nothing() {
    let origin = Origin::single(LENGTH, 21, Behaviour::default());
    let first = TestRelay::start(YEAR);
    run(async {
        let id = add(&first, &origin.url("/file.bin")).await;
        // It says so with the last range asked for, whose bytes are still to come.
        first.until(&id, waits).await;
        let started = Instant::now();
        while used(&first).await < VOLUME {
            assert!(started.elapsed() < Duration::from_secs(60), "{}", used(&first).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let status = first.until(&id, waits).await;
        assert_eq!(status["state"], "pulling", "{status}");
        let have = status["have_bytes"].as_u64().unwrap();
        assert!(have > VOLUME / 2 && have <= VOLUME, "{status}");
        assert!(origin.sent() <= VOLUME, "{} bytes were asked for", origin.sent());
        let (_, relay_status) = first.admin("GET", "/v1/status", None).await;
        let wait = &relay_status["caps"]["pulls_wait"];
        assert!(wait["until"].is_string() && wait["layer"] == "local", "{wait}");
        let index: Value = serde_json::from_str(&first.page("/index.json").await).unwrap();
        assert!(waits(&index["contents"][0]), "{index}");
        let counted = used(&first).await;
        assert!(counted >= have && counted == VOLUME, "{counted}");
        let metrics = first.admin_with("GET", "/metrics", None, &[]).await.2;
        let came = "millrace_origin_volume_bytes{state=\"used\",window=\"31622400\"} ";
        let came = metrics.lines().find_map(|line| line.strip_prefix(came)).map(str::parse::<f64>);
        assert_eq!(came.unwrap().unwrap().to_string(), counted.to_string());

        // What is here is served.
        let url = format!("http://{}/c/{id}/file.bin", first.relay().http);
        let part = reqwest::Client::new().get(&url).header("Range", "bytes=1000-99999").send().await.unwrap();
        assert_eq!(part.status(), 206);
        assert!(part.bytes().await.unwrap() == origin::bytes(21, 1_000..100_000), "wrong bytes");

        // A restart keeps what came, and the cap.
        let again = first.restart(|_| {});
        again.until(&id, waits).await;
        assert_eq!(used(&again).await, counted);
        assert!(origin.sent() <= VOLUME, "{} bytes were asked for", origin.sent());

        // Raised, it goes on; what was of no whole piece at the restart comes once more, and is counted.
        patch(&again, json!({"volume": [{"window": 31_622_400, "bytes": "1GB"}]})).await;
        let done = again.until(&id, |status| status["state"] == "complete").await;
        assert!(done["error"].is_null(), "{done}");
        let counted = used(&again).await;
        assert!((LENGTH..LENGTH + VOLUME).contains(&counted), "{counted}");
        all_sent(&origin, counted).await;
        assert!(
            again.http(&format!("/c/{id}/file.bin")).await.2 == origin::bytes(21, 0..LENGTH),
            "wrong bytes"
        );
    });
}

#[test]
fn a_cap_of_nought_pauses_pulls_and_fails_none() {
    // Long enough that not all of it is asked for at once.
    const LONG: u64 = 60_000_000;
    let slow = Behaviour { rate: Some(2_000_000), ..Behaviour::default() };
    for (paused, resumed) in [
        (json!({"bandwidth": 0}), json!({"bandwidth": null})),
        (json!({"connections": 0}), json!({"connections": 3})),
    ] {
        let origin = Origin::single(LONG, 22, slow.clone());
        let relay = TestRelay::start("");
        run(async {
            let id = add(&relay, &origin.url("/file.bin")).await;
            patch(&relay, paused.clone()).await;
            let key = paused.as_object().unwrap().keys().next().unwrap();
            let says = |status: &Value| {
                status["error"].as_str().is_some_and(|why| why.contains(&format!("origin.{key} is 0")))
            };
            relay.until(&id, says).await;
            // What is new cannot begin, and is told why.
            let body = json!({"sources": [origin.url("/file.bin?other")]}).to_string();
            let (status, problem) = relay.admin("POST", "/v1/contents", Some(&body)).await;
            assert_eq!(status, 503, "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains(&format!("origin.{key} is 0")), "{problem}");
            patch(&relay, resumed).await;
            let done = relay.until(&id, |status| status["state"] == "complete").await;
            assert!(done["error"].is_null(), "{done}");
            all_sent(&origin, LONG).await;
        });
    }
}

#[test]
fn a_content_of_higher_priority_goes_first() {
    let file = |seed| File { length: 20_000_000, seed };
    let files = BTreeMap::from([("/low.bin".to_owned(), file(31)), ("/high.bin".to_owned(), file(32))]);
    let origin = Origin::start(files, Behaviour { rate: Some(20_000_000), ..Behaviour::default() });
    let relay = TestRelay::start("[caps.origin]\nconnections = 1\n");
    run(async {
        let low = add(&relay, &origin.url("/low.bin")).await;
        let body = json!({"sources": [origin.url("/high.bin")], "priority": 5}).to_string();
        let (status, high) = relay.admin("POST", "/v1/contents", Some(&body)).await;
        assert_eq!(status, 200, "{high}");
        relay.until(high["id"].as_str().unwrap(), |status| status["state"] == "complete").await;
        relay.until(&low, |status| status["state"] == "complete").await;
        let paths: Vec<String> = origin.log().into_iter().map(|access| access.path).collect();
        let of_high = |path: &&String| path.contains("high");
        let (first, last) = (
            paths.iter().position(|path| of_high(&path)).unwrap(),
            paths.iter().rposition(|path| of_high(&path)).unwrap(),
        );
        let between = paths[first..=last].iter().filter(|path| !of_high(path)).count();
        assert!(last > first, "one range is no order: {paths:?}");
        assert_eq!(between, 0, "{paths:?}");
        assert!(
            paths.len() > last + 1 && paths[0].contains("low"),
            "low was neither first nor last: {paths:?}"
        );
    });
}

#[test]
fn an_origin_without_a_grant_is_left_out_and_not_reached_by_redirects() {
    let guarded = Origin::single(LENGTH, 23, Behaviour::default());
    let free = Origin::single(LENGTH, 23, Behaviour::default());
    let elsewhere = guarded.url("/file.bin");
    let leads_there = Behaviour { redirect: Some(elsewhere.clone()), ..Behaviour::default() };
    let sly = Origin::single(LENGTH, 23, leads_there);
    let relay = TestRelay::start("");
    run(async {
        let origin = format!("http://{}", guarded.address());
        patch(&relay, json!({"grants": [{"origin": origin, "id": "none", "bytes": 0}]})).await;
        let lack = format!("{origin} needs a grant");
        for source in [&elsewhere, &sly.url("/file.bin")] {
            let body = json!({"sources": [source]}).to_string();
            let (_, problem) = relay.admin("POST", "/v1/contents", Some(&body)).await;
            assert!(problem["detail"].as_str().unwrap().contains(&lack), "{problem}");
        }
        let body = json!({"sources": [elsewhere, free.url("/file.bin")]}).to_string();
        let (status, content) = relay.admin("POST", "/v1/contents", Some(&body)).await;
        assert_eq!(status, 200, "{content}");
        relay.until(content["id"].as_str().unwrap(), |status| status["state"] == "complete").await;
        all_sent(&free, LENGTH).await;
        assert!(guarded.log().is_empty(), "{:?}", guarded.log());
        let (_, held) = relay.admin("GET", "/v1/caps?layer=effective", None).await;
        let grant = &held["origin_grants"][0];
        assert_eq!((&grant["used"], &grant["layer"]), (&json!(0), &json!("local")), "{held}");
    });
}
