//! The control thread through its front doors: the admin API over a real socket, the pages and documents over real HTTP, the tracker
//! over both of its protocols, and the metrics.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

#[path = "support/origin.rs"]
mod origin;
#[path = "support/relay.rs"]
mod relay;

use std::collections::{BTreeMap, BTreeSet};

use millrace_proto::id::ContentId;
use millrace_proto::metainfo::Metainfo;
use millrace_proto::tracker::response::parse_announce;
use millrace_proto::tracker::udp::{Announce, Answer, Ask, Request};
use millrace_proto::tracker::{AnnounceEvent, compact::Family};
use origin::{Behaviour, Origin};
use relay::TestRelay;
use serde_json::json;

/// Runs one test body; requests are made from outside of the relay's threads.
fn run<F: std::future::Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn contents_are_added_shown_paused_pinned_and_removed() {
    let relay = TestRelay::start("");
    run(async {
        let id = relay.add_file("a.bin", &[5; 50_000]).await;
        let contents = format!("/v1/contents/{id}");
        let (status, shown) = relay.admin("GET", &contents, None).await;
        assert_eq!((status, &shown["name"], &shown["length"]), (200, &json!("a.bin"), &json!(50_000)));
        assert_eq!(shown["files"][0]["path"], "a.bin");
        // The same under its infohash.
        let infohash = shown["infohash_v1"].as_str().unwrap();
        assert_eq!(relay.admin("GET", &format!("/v1/contents/{infohash}"), None).await.1["id"], id);
        assert_eq!(relay.admin("GET", "/v1/contents", None).await.1["contents"][0]["id"], id);

        for (action, key, value) in [
            ("pin", "pinned", json!(true)),
            ("unpin", "pinned", json!(false)),
            ("pause", "state", json!("paused")),
        ] {
            let (status, shown) = relay.admin("POST", &format!("{contents}/{action}"), None).await;
            assert_eq!((status, &shown[key]), (200, &value), "{action}");
        }
        assert_eq!(relay.http(&format!("/c/{id}/a.bin")).await.0, 503);
        assert_eq!(relay.admin("POST", &format!("{contents}/resume"), None).await.0, 200);
        assert_eq!(relay.http(&format!("/c/{id}/a.bin")).await.2, [5; 50_000]);
        assert_eq!(relay.admin("POST", &format!("{contents}/verify"), None).await.1["damaged"], 0);

        assert_eq!(relay.admin("DELETE", &contents, None).await.0, 204);
        assert_eq!(relay.http(&format!("/c/{id}/a.bin")).await.0, 404);
    });
}

#[test]
fn refusals_are_problem_documents() {
    let relay = TestRelay::start("");
    run(async {
        let cases = [
            ("GET", "/v1/nothing", "", 404),
            ("GET", "/v1/contents/nonsense", "", 400),
            ("GET", "/v1/contents/aaaaaaaaaaaaaaaaaaaaaaaaaa", "", 404),
            ("GET", "/v1/contents?limit=x", "", 400),
            ("DELETE", "/v1/status", "", 405),
            ("POST", "/v1/contents", r#"{"source": "http://x/"}"#, 400),
            ("POST", "/v1/contents", r#"{"sources": []}"#, 422),
            ("POST", "/v1/contents", "{", 400),
            ("PATCH", "/v1/caps", r#"{"egress": {"tottal": 1}}"#, 400),
            ("PATCH", "/v1/caps", "[]", 400),
            ("PUT", "/v1/caps", r#"{"egress": {"http": "40%"}}"#, 400),
            ("PUT", "/v1/caps", "{", 400),
            ("PUT", "/v1/caps?layer=mine", "{}", 400),
            ("PUT", "/v1/caps?layer=effective", "{}", 400),
        ];
        for (method, path, body, expected) in cases {
            let (status, headers, text) = relay.admin_with(method, path, Some(body), &[]).await;
            assert_eq!(status, expected, "{method} {path} {body}: {text}");
            assert_eq!(headers["content-type"], "application/problem+json", "{method} {path}");
            let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(problem["status"], expected);
            assert!(problem["detail"].is_string(), "{text}");
        }
        // The key that is wrong is named.
        let (_, problem) = relay.admin("POST", "/v1/contents", Some(r#"{"source": "x"}"#)).await;
        assert!(problem["detail"].as_str().unwrap().contains("`source`"));
    });
}

#[test]
fn names_of_strangers_stay_text_on_every_page() {
    let relay = TestRelay::start("");
    run(async {
        let name = "<img src=x onerror=alert(1)>\"'&.bin";
        let id = relay.add_file(name, b"harmless").await;
        for path in ["/".to_owned(), "/?q=%3Cimg+src%3Dx%22%3E".to_owned(), format!("/c/{id}.meta4")] {
            let page = relay.page(&path).await;
            assert!(!page.contains("<img"), "{path}: {page}");
        }
        let page = relay.page("/").await;
        assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;.bin"));
        let (_, headers, _) = relay.http("/").await;
        assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
        let (status, headers, _) = relay.http(&format!("/c/{id}.torrent")).await;
        assert_eq!(status, 200);
        assert!(headers["content-disposition"].to_str().unwrap().contains("filename*=UTF-8''%3Cimg"));
    });
}

#[test]
fn every_address_answers_as_documented() {
    let relay = TestRelay::start("");
    run(async {
        let id = relay.add_file("a.bin", &[5; 50_000]).await;
        let cases = [
            ("/", 200, "text/html; charset=utf-8"),
            ("/index.json", 200, "application/json"),
            ("/index.json?state=lost", 400, "application/problem+json"),
            ("/healthz", 200, "text/plain; charset=utf-8"),
            ("/readyz", 200, "text/plain; charset=utf-8"),
            ("/robots.txt", 200, "text/plain; charset=utf-8"),
            ("/favicon.ico", 200, "image/svg+xml"),
            ("/nothing", 404, "text/html; charset=utf-8"),
            ("/c/aaaaaaaaaaaaaaaaaaaaaaaaaa.torrent", 404, "text/html; charset=utf-8"),
            ("/pull/nobody/file", 404, "application/problem+json"),
        ];
        for (path, status, content_type) in cases {
            let (found, headers, _) = relay.http(path).await;
            assert_eq!((found, headers["content-type"].to_str().unwrap()), (status, content_type), "{path}");
        }
        for (extension, content_type) in [
            ("torrent", "application/x-bittorrent"),
            ("meta4", "application/metalink4+xml"),
            ("json", "application/json"),
        ] {
            let (status, headers, _) = relay.http(&format!("/c/{id}.{extension}")).await;
            assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, content_type));
        }
        // Links name the public URL, never what a Host header says.
        let index = relay.page("/index.json").await;
        assert!(index.contains(&format!("http://{}/c/{id}/a.bin", relay.relay().http)), "{index}");
    });
}

#[test]
fn torrents_name_this_relay_and_keep_their_info() {
    let relay = TestRelay::start("public-url = \"https://cdn.example/files\"");
    run(async {
        let id = relay.add_file("a.bin", &[5; 50_000]).await;
        let torrent = Metainfo::parse(&relay.http(&format!("/c/{id}.torrent")).await.2).unwrap();
        assert_eq!(torrent.web_seeds, [format!("https://cdn.example/files/c/{id}/a.bin")]);
        let port = relay.relay().bittorrent.port();
        let own =
            ["https://cdn.example/files/announce".to_owned(), format!("udp://cdn.example:{port}/announce")];
        assert_eq!(torrent.announce, [own]);
        let (_, shown) = relay.admin("GET", &format!("/v1/contents/{id}"), None).await;
        assert_eq!(shown["infohash_v1"], torrent.infohash_v1().unwrap().to_string());
        assert_eq!(shown["infohash_v2"], torrent.infohash_v2().unwrap().to_string());
    });
}

#[test]
fn pages_of_the_index_lead_from_one_to_the_next() {
    let relay = TestRelay::start("");
    run(async {
        let mut added = BTreeSet::new();
        for number in 0..5 {
            let id = relay.add_file(&format!("{number}.bin"), &[number; 100]).await;
            added.insert(id.parse::<ContentId>().unwrap());
        }
        let (mut path, mut found) = ("/v1/contents?limit=2".to_owned(), Vec::<ContentId>::new());
        loop {
            let (_, headers, text) = relay.admin_with("GET", &path, None, &[]).await;
            let page: serde_json::Value = serde_json::from_str(&text).unwrap();
            found.extend(
                page["contents"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|c| c["id"].as_str().unwrap().parse::<ContentId>().unwrap()),
            );
            let Some(link) = headers.get("link") else { break };
            let after =
                link.to_str().unwrap().split("after=").nth(1).unwrap().split('>').next().unwrap().to_owned();
            path = format!("/v1/contents?limit=2&after={after}");
        }
        assert_eq!(found, added.into_iter().collect::<Vec<_>>());
        let searched = relay.page("/index.json?q=3.BIN").await;
        assert!(searched.contains("3.bin") && !searched.contains("2.bin"));
    });
}

#[test]
fn the_tracker_answers_over_http_and_udp() {
    let relay = TestRelay::start("");
    run(async {
        let id = relay.add_file("a.bin", &[5; 50_000]).await;
        let (_, shown) = relay.admin("GET", &format!("/v1/contents/{id}"), None).await;
        let infohash: millrace_proto::id::InfoHashV1 =
            shown["infohash_v1"].as_str().unwrap().parse().unwrap();
        let escaped: String = infohash.0.iter().map(|byte| format!("%{byte:02x}")).collect();
        let own = relay.relay().bittorrent;

        let announce = format!("/announce?info_hash={escaped}&peer_id=-XX0000-aaaaaaaaaaaa&port=5000&left=7");
        let answer = parse_announce(&relay.http(&announce).await.2).unwrap().answer;
        assert_eq!((answer.complete, answer.incomplete, &answer.peers[..]), (1, 1, &[own][..]));
        let unknown = announce.replace(&escaped, &"%01".repeat(20));
        assert!(parse_announce(&relay.http(&unknown).await.2).is_err());

        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(own).await.unwrap();
        let (mut out, mut buffer) = ([0; 2048], [0; 2048]);
        let mut ask = async |transaction_id, ask: Ask<'_>| {
            let length = Request { transaction_id, ask }.encode(&mut out).unwrap();
            socket.send(&out[..length]).await.unwrap();
            let length = socket.recv(&mut buffer).await.unwrap();
            buffer[..length].to_vec()
        };
        let connected = ask(1, Ask::Connect).await;
        let Some((1, Answer::Connect { connection_id })) = Answer::parse(&connected) else {
            panic!("{connected:?}")
        };
        let announce = Announce {
            infohash: infohash.0,
            peer_id: [9; 20],
            downloaded: 0,
            left: 7,
            uploaded: 0,
            event: AnnounceEvent::Started,
            key: 1,
            numwant: None,
            port: 5001,
        };
        let forged =
            ask(2, Ask::Announce { connection_id: connection_id ^ 1, announce, url_data: &[] }).await;
        assert!(matches!(Answer::parse(&forged), Some((2, Answer::Error { .. }))));
        let told = ask(3, Ask::Announce { connection_id, announce, url_data: &[] }).await;
        let answer = Answer::parse(&told).unwrap().1.announce_answer(Family::V4, 10).unwrap();
        assert_eq!((answer.complete, answer.incomplete), (1, 2));
        assert_eq!(answer.peers, [own, "127.0.0.1:5000".parse().unwrap()]);
    });
}

/// Every name once, with HELP and TYPE before its samples, and the names that operators build on.
#[test]
fn metrics_are_named_once_and_explained() {
    let relay = TestRelay::start("");
    run(async {
        let accept = [("Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")];
        let (status, headers, text) = relay.admin_with("GET", "/metrics", None, &accept).await;
        assert_eq!(status, 200);
        assert!(headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
        let mut kinds = BTreeMap::new();
        let mut explained = BTreeSet::new();
        let mut samples = BTreeSet::new();
        for line in text.lines() {
            // A label's value may have spaces in it; a sample's number comes last.
            let mut words = match line.starts_with('#') {
                true => line.splitn(4, ' ').collect::<Vec<_>>(),
                false => line.rsplitn(2, ' ').collect::<Vec<_>>().into_iter().rev().collect(),
            }
            .into_iter();
            match (words.next(), words.next(), words.next()) {
                (Some("#"), Some("HELP"), Some(name)) => {
                    assert!(explained.insert(name.to_owned()), "{name} is explained twice");
                }
                (Some("#"), Some("TYPE"), Some(name)) => {
                    let kind = words.next().unwrap().to_owned();
                    assert!(kinds.insert(name.to_owned(), kind).is_none(), "{name} has two types");
                }
                (Some("#"), Some("EOF"), None) => {}
                (Some(sample), Some(value), None) => {
                    let name = sample.split('{').next().unwrap();
                    let stem = ["_total", "_info", "_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|suffix| name.strip_suffix(suffix).filter(|stem| kinds.contains_key(*stem)))
                        .unwrap_or(name);
                    assert!(kinds.contains_key(stem) && explained.contains(stem), "{line}");
                    assert!(name.starts_with("millrace_") && value.parse::<f64>().is_ok(), "{line}");
                    assert!(samples.insert(sample.to_owned()), "{sample} is there twice");
                }
                other => panic!("{other:?} in `{line}`"),
            }
        }
        for needed in [
            "millrace_origin_bytes_total",
            "millrace_served_bytes_total{protocol=\"http\"}",
            "millrace_sent_bytes_total{path=\"reference\"}",
            "millrace_sent_bytes_total{path=\"zerocopy\"}",
            "millrace_sent_bytes_total{path=\"copy\"}",
            "millrace_sent_bytes_total{path=\"send_zc\"}",
            "millrace_sent_bytes_total{path=\"send_zc_copied\"}",
            "millrace_fill_to_first_byte_seconds_count",
            "millrace_request_seconds_count",
            "millrace_shard_loop_seconds_count",
            "millrace_connections{protocol=\"http\",state=\"open\"}",
            "millrace_hash_failures_total",
            "millrace_cap_bytes_per_second{scope=\"total\"}",
            "millrace_caps{scope=\"network\"}",
            "millrace_cap_waiting{scope=\"content\"}",
            "millrace_cap_waits_total{scope=\"connection\"}",
            "millrace_store_bytes{state=\"used\"}",
            "millrace_store_bytes{state=\"shared\"}",
            "millrace_evictions_total",
            "millrace_ring_overflow_total",
        ] {
            assert!(samples.contains(needed), "{needed} is missing");
        }
        assert_eq!(kinds["millrace_backend"], "info");
        let backend = samples.iter().find(|sample| sample.starts_with("millrace_backend_info{")).unwrap();
        assert!(
            backend.contains("ingest_io=\"pwrite\"") && backend.contains("io_reason=\"io_uring is "),
            "{backend}"
        );
        // The same over TCP.
        let url = format!("http://{}/metrics", relay.relay().metrics.unwrap());
        let plain = reqwest::get(url).await.unwrap();
        assert_eq!(plain.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let plain = plain.text().await.unwrap();
        assert!(
            plain.contains("\n# TYPE millrace_requests_total counter\nmillrace_requests_total "),
            "{plain}"
        );
        assert!(
            plain.contains("# TYPE millrace_backend_info gauge\n") && !plain.contains("# EOF"),
            "{plain}"
        );
    });
}

#[test]
fn the_first_request_below_an_origin_starts_the_pull_that_all_share() {
    const LENGTH: u64 = 3_000_000;
    let origin = Origin::single(LENGTH, 11, Behaviour::default());
    let relay = TestRelay::start(&format!("[origins.main]\nurl = \"{}\"\n", origin.url("")));
    run(async {
        let readers = (0..8).map(|_| relay.http("/pull/main/file.bin"));
        for (status, headers, body) in futures_util::future::join_all(readers).await {
            assert_eq!(status, 200);
            assert!(headers.contains_key("etag") && headers["accept-ranges"] == "bytes");
            assert!(body == origin::bytes(11, 0..LENGTH), "wrong bytes");
        }
        assert_eq!(origin.sent(), LENGTH, "each byte is taken once, whatever the readers do");
        let (_, contents) = relay.admin("GET", "/v1/contents", None).await;
        assert_eq!(contents["contents"].as_array().unwrap().len(), 1);
        for (path, expected) in [
            ("/pull/main/none.bin", 404),
            ("/pull/main/", 404),
            ("/pull/other/file.bin", 404),
            ("/pull/main/..%2ffile.bin", 400),
        ] {
            assert_eq!(relay.http(path).await.0, expected, "{path}");
        }
    });
}

#[test]
fn pages_may_be_apart_from_the_data_or_nowhere() {
    run(async {
        let relay = TestRelay::start("pages = \"127.0.0.1:0\"");
        let id = relay.add_file("file.bin", b"bytes").await;
        let apart = relay.relay().pages.unwrap();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.build().unwrap();
        let get = async |path: &str| client.get(format!("http://{apart}{path}")).send().await.unwrap();
        for path in ["/", "/index.json"] {
            assert_eq!(relay.http(path).await.0, 404, "{path} is not with the data");
            let answer = get(path).await;
            assert_eq!(answer.status(), 200);
            assert!(answer.text().await.unwrap().contains(&id));
        }
        // What belongs to one content is for who knows its name; its bytes are where links say.
        assert_eq!(relay.http(&format!("/c/{id}.json")).await.0, 200);
        assert_eq!(get(&format!("/c/{id}.json")).await.status(), 200);
        let bytes = get(&format!("/c/{id}/file.bin?x=y")).await;
        assert_eq!(bytes.status(), 307);
        assert_eq!(bytes.headers()["location"], format!("{}c/{id}/file.bin?x=y", relay.relay().public_url));
        assert_eq!(client.post(format!("http://{apart}/")).send().await.unwrap().status(), 405);

        let nowhere = TestRelay::start("pages = \"off\"");
        assert_eq!(nowhere.relay().pages, None);
        assert_eq!(nowhere.http("/").await.0, 404);
        assert_eq!(nowhere.http("/healthz").await.0, 200);
    });
}
