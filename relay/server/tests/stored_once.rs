//! Equal bytes are stored once, whatever they are called and wherever they came from: seen on the disk, over HTTP, in the figures and
//! in the access log of an origin that has nothing to send.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

#[path = "support/origin.rs"]
mod origin;
#[path = "support/relay.rs"]
mod relay;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use millrace_proto::merkle::{PieceHasher, leaf_width};
use millrace_proto::metainfo::{Builder, plan_files};
use origin::{Behaviour, File, Origin};
use relay::TestRelay;
use serde_json::{Value, json};

const LENGTH: u64 = 5_000_001;
const SEED: u64 = 23;
/// What nothing here comes near, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs one test body; requests are made from outside of the relay's threads.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

/// An origin that has the same bytes under two names.
fn origin() -> Origin {
    let file = File { length: LENGTH, seed: SEED };
    Origin::start(
        [("/one.bin".to_owned(), file), ("/other.bin".to_owned(), file)].into(),
        Behaviour::default(),
    )
}

/// Adds what is to be pulled, and waits until it is complete and has a torrent. Its id.
async fn add(relay: &TestRelay, request: Value) -> String {
    let (status, added) = relay.admin("POST", "/v1/contents", Some(&request.to_string())).await;
    assert!(status < 300, "{added}");
    let id = added["id"].as_str().unwrap().to_owned();
    wait_complete(relay, &id).await;
    id
}

async fn wait_complete(relay: &TestRelay, id: &str) {
    relay.until(id, |status| status["state"] == "complete" && !status["magnet"].is_null()).await;
}

/// A request for the bytes as a torrent of this name, in pieces four times as long as a relay would choose, with a web seed.
fn torrent(name: &str, web_seed: &str) -> Value {
    const PIECE_BYTES: u32 = 64 << 10;
    let bytes = origin::bytes(SEED, 0..LENGTH);
    let pieces = bytes.chunks(64 << 10).map(|piece| {
        let mut hasher = PieceHasher::new(true, true);
        hasher.update(piece);
        hasher.finish(leaf_width(LENGTH, PIECE_BYTES))
    });
    let plan = plan_files(name, PIECE_BYTES, &[(vec![], LENGTH)]).unwrap();
    let metainfo = Builder::new(plan).build(&pieces.collect::<Vec<_>>()).unwrap();
    json!({"sources": [web_seed], "metainfo": BASE64.encode(&metainfo.to_bytes())})
}

async fn check_bytes(relay: &TestRelay, id: &str, name: &str) {
    let (status, _, body) = relay.http(&format!("/c/{id}/{name}")).await;
    assert_eq!(status, 200, "{name}");
    assert!(body == origin::bytes(SEED, 0..LENGTH), "{name} has wrong bytes");
}

/// Waits until the figures say that so many bytes need not be stored, then compares with the disk.
async fn wait_shared(relay: &TestRelay, times: u64) {
    let started = Instant::now();
    loop {
        let store = relay.admin("GET", "/v1/status", None).await.1["store"].clone();
        if store["shared"].as_u64().unwrap() / LENGTH == times {
            assert!(store["used"].as_u64().unwrap() < 2 * LENGTH, "{store}");
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{store}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut files = BTreeMap::new();
    list(&relay.relay().config.store.join("contents"), &mut files);
    let stored: u64 = files.values().sum();
    assert!((LENGTH..2 * LENGTH).contains(&stored), "{stored} bytes on disk: {files:?}");
}

/// Lengths of the files below a folder, each inode once.
fn list(folder: &Path, files: &mut BTreeMap<u64, u64>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            list(&path, files);
        } else {
            files.insert(metadata.ino(), metadata.size());
        }
    }
}

fn folder(store: &Path, id: &str) -> PathBuf {
    store.join("contents").join(id)
}

/// What a crash leaves that came before the state which vouches for the pieces.
fn forget_state(store: &Path, id: &str) {
    for name in ["state", "state.previous", "arrived"] {
        let _ = std::fs::remove_file(folder(store, id).join(name));
    }
}

#[test]
fn two_urls_and_a_torrent_are_one_file() {
    let (origin, idle) = (origin(), origin());
    let relay = TestRelay::start("");
    let (one, other) = run(async {
        let one = add(&relay, json!({"sources": [origin.url("/one.bin")]})).await;
        let other = add(&relay, json!({"sources": [origin.url("/other.bin")]})).await;
        assert_ne!(one, other);
        wait_shared(&relay, 1).await;
        (one, other)
    });
    let relay = relay.restart(|_| ());
    run(async {
        wait_shared(&relay, 1).await;
        let third = add(&relay, torrent("third.bin", &idle.url("/one.bin"))).await;
        wait_shared(&relay, 2).await;
        assert_eq!(idle.log().len(), 0, "nothing is pulled that is here");
        for (id, name) in [(&one, "one.bin"), (&other, "other.bin"), (&third, "third.bin")] {
            check_bytes(&relay, id, name).await;
        }
        let metrics = relay.admin_with("GET", "/metrics", None, &[]).await.2;
        assert!(metrics.contains("millrace_store_bytes{state=\"shared\"}"), "{metrics}");
        for gone in [&one, &other] {
            assert_eq!(relay.admin("DELETE", &format!("/v1/contents/{gone}"), None).await.0, 204);
        }
        check_bytes(&relay, &third, "third.bin").await;
        wait_shared(&relay, 0).await;
    });
}

#[test]
fn a_reader_of_the_file_that_gives_way_notices_nothing() {
    let origin = origin();
    let relay = TestRelay::start("");
    run(async {
        add(&relay, json!({"sources": [origin.url("/one.bin")]})).await;
        origin.behave(Behaviour { rate: Some(4 << 20), ..Behaviour::default() });
        let request = json!({"sources": [origin.url("/other.bin")]}).to_string();
        let id = relay.admin("POST", "/v1/contents", Some(&request)).await.1["id"].clone();
        let url = format!("http://{}/c/{}/other.bin", relay.relay().http, id.as_str().unwrap());
        let mut response = reqwest::get(url).await.unwrap();
        let mut body = response.chunk().await.unwrap().unwrap().to_vec();
        // What the socket does not take by now is sent when the file that the reader began with has no name any more.
        wait_shared(&relay, 1).await;
        while let Some(chunk) = response.chunk().await.unwrap() {
            body.extend(chunk);
        }
        assert!(body == origin::bytes(SEED, 0..LENGTH), "wrong bytes");
    });
}

#[test]
fn one_of_two_of_the_same_torrent_keeps_its_names() {
    let (origin, elsewhere) = (origin(), origin());
    let relay = TestRelay::start("");
    run(async {
        let one = add(&relay, json!({"sources": [origin.url("/one.bin")]})).await;
        let other = add(&relay, json!({"sources": [elsewhere.url("/one.bin")]})).await;
        let status = relay.admin("GET", &format!("/v1/contents/{one}"), None).await.1;
        let infohash = status["infohash_v1"].as_str().unwrap();
        assert_eq!(relay.admin("DELETE", &format!("/v1/contents/{other}"), None).await.0, 204);
        assert_eq!(relay.admin("GET", &format!("/v1/contents/{infohash}"), None).await.1["id"], one);
        check_bytes(&relay, infohash, "one.bin").await;
    });
}

#[test]
fn two_that_are_one_fit_where_one_does() {
    let (origin, idle) = (origin(), origin());
    let relay = TestRelay::start(&format!("capacity = {}", LENGTH * 5 / 3));
    run(async {
        let one = add(&relay, json!({"sources": [origin.url("/one.bin")]})).await;
        let other = add(&relay, torrent("other.bin", &idle.url("/other.bin"))).await;
        wait_shared(&relay, 1).await;
        assert_eq!((idle.log().len(), origin.sent()), (0, LENGTH));
        check_bytes(&relay, &one, "one.bin").await;
        check_bytes(&relay, &other, "other.bin").await;
        assert_eq!(origin.sent(), LENGTH, "nothing was evicted");
    });
}

#[test]
fn a_crash_before_either_state_costs_nothing() {
    let (origin, idle) = (origin(), origin());
    let mut relay = TestRelay::start("");
    let (one, other) = run(async {
        let one = add(&relay, json!({"sources": [origin.url("/one.bin")]})).await;
        let other = add(&relay, torrent("other.bin", &idle.url("/other.bin"))).await;
        (one, other)
    });
    for forgetful in [&other, &one] {
        relay = relay.restart(|store| forget_state(store, forgetful));
        run(async {
            wait_complete(&relay, forgetful).await;
            wait_shared(&relay, 1).await;
            check_bytes(&relay, &one, "one.bin").await;
            check_bytes(&relay, &other, "other.bin").await;
        });
        assert_eq!((idle.log().len(), origin.sent()), (0, LENGTH));
    }
}

#[test]
fn damage_stops_whoever_has_the_file() {
    let (origin, idle) = (origin(), origin());
    let relay = TestRelay::start("");
    run(async {
        let one = add(&relay, json!({"sources": [origin.url("/one.bin")]})).await;
        let other = add(&relay, torrent("other.bin", &idle.url("/other.bin"))).await;
        let data = folder(&relay.relay().config.store, &other).join("data/other.bin");
        let data = std::fs::OpenOptions::new().write(true).open(data).unwrap();
        data.write_all_at(&[!origin::bytes(SEED, 1_000_000..1_000_001)[0]], 1_000_000).unwrap();
        let (status, report) = relay.admin("POST", &format!("/v1/contents/{one}/verify"), None).await;
        assert_eq!((status, &report["damaged"]), (200, &json!(1)));
        for (id, name) in [(&one, "one.bin"), (&other, "other.bin")] {
            assert!(relay.http(&format!("/c/{id}/{name}")).await.0 >= 500, "{name}");
        }
    });
}

#[test]
fn a_twin_that_made_room_comes_back_without_a_pull() {
    let origin = origin();
    let relay = TestRelay::start(&format!("capacity = {}", LENGTH * 4 / 3));
    run(async {
        let one = add(&relay, json!({"sources": [origin.url("/one.bin")]})).await;
        // That it has the same bytes is known at its end, and there is room for one only.
        let other = add(&relay, json!({"sources": [origin.url("/other.bin")]})).await;
        let status = relay.admin("GET", &format!("/v1/contents/{one}"), None).await.1;
        assert_eq!(status["have_bytes"], 0, "{status}");
        check_bytes(&relay, &one, "one.bin").await;
        check_bytes(&relay, &other, "other.bin").await;
        wait_shared(&relay, 1).await;
        assert_eq!(origin.sent(), 2 * LENGTH, "the second time it is another name");
    });
}
