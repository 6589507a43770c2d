//! What is not for everybody, behind every door of a relay: who may not have it is shown what he would be shown if it were not there.
//!
//! The insider comes from 127.0.0.2, the outsider from 127.0.0.1.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

#[path = "support/origin.rs"]
mod origin;
#[path = "support/relay.rs"]
mod relay;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use millrace_proto::access::signature::{Grant, Key};
use millrace_proto::peer::handshake::{HANDSHAKE_BYTES, Handshake, Reserved};
use millrace_proto::tracker::udp::{Announce, Answer, Ask, Request};
use millrace_proto::tracker::{AnnounceEvent, compact::Family};
use millrace_relay::control::routes::{Aspect, Route};
use origin::{Behaviour, File, Origin};
use relay::TestRelay;
use serde_json::{Value, json};

const OUTSIDER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const INSIDER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const PATIENCE: Duration = Duration::from_secs(60);

/// Names of a content that is not here, of every form; their lengths are those of the real ones.
const NOTHING: [&str; 3] = [
    "aaaaaaaaaaaaaaaaaaaaaaaaaa",
    "0101010101010101010101010101010101010101",
    "0101010101010101010101010101010101010101010101010101010101010101",
];

fn run<F: std::future::Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// Status, fields without the date, and body.
type Shown = (u16, BTreeMap<String, String>, Vec<u8>);

async fn get(address: SocketAddr, from: IpAddr, path: &str) -> Shown {
    let redirect = reqwest::redirect::Policy::none();
    let client =
        reqwest::Client::builder().no_proxy().local_address(from).redirect(redirect).build().unwrap();
    let response = client.get(format!("http://{address}{path}")).send().await.unwrap();
    let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap().to_owned();
    let fields = response.headers().iter().map(|(name, value)| (name.to_string(), text(value)));
    let fields = fields.filter(|(name, _)| name != "date").collect();
    (response.status().as_u16(), fields, response.bytes().await.unwrap().to_vec())
}

/// A folder's or a file's names, the first of which is its id.
struct Secret {
    names: [String; 3],
    v1_half: String,
    /// The file's path below the id.
    file: &'static str,
}

impl Secret {
    /// Adds local files for the insider alone.
    async fn add(relay: &TestRelay, name: &'static str, files: &[&'static str]) -> Secret {
        let folder = relay.folder().join(name);
        let path = match files {
            [only] => {
                std::fs::write(relay.folder().join(only), [7; 40_000]).unwrap();
                relay.folder().join(only)
            }
            several => {
                std::fs::create_dir_all(&folder).unwrap();
                several.iter().for_each(|file| std::fs::write(folder.join(file), [8; 40_000]).unwrap());
                folder
            }
        };
        let request = json!({"sources": [path], "access": ["127.0.0.2", "signed"]}).to_string();
        let (status, added) = relay.admin("POST", "/v1/contents", Some(&request)).await;
        assert_eq!(status, 200, "{added}");
        let id = added["id"].as_str().unwrap();
        let shown = relay.until(id, |shown| !shown["magnet"].is_null()).await;
        assert_eq!(shown["access"], json!(["signed", "127.0.0.2/32"]));
        let text = |key: &str| shown[key].as_str().unwrap().to_owned();
        let content = relay.relay().store.get(id.parse().unwrap()).unwrap();
        let file = shown["files"][0]["path"].as_str().unwrap().to_owned().leak();
        Secret {
            names: [id.to_owned(), text("infohash_v1"), text("infohash_v2")],
            v1_half: content.v1_half().unwrap().infohash_v1().unwrap().to_string(),
            file,
        }
    }

    /// Whatever tells of it.
    fn traces(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).chain([self.v1_half.as_str(), "secret"])
    }

    fn is_in(&self, body: &[u8]) -> bool {
        let text = String::from_utf8_lossy(body);
        self.traces().any(|trace| text.contains(trace))
    }

    /// Infohashes that peers and trackers know it by, in 20 bytes.
    fn swarms(&self) -> Vec<[u8; 20]> {
        let bytes = |hex: &String| {
            let bytes = (0..20).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap());
            bytes.collect::<Vec<_>>().try_into().unwrap()
        };
        [&self.names[1], &self.names[2], &self.v1_half].map(bytes).to_vec()
    }
}

fn escaped(hash: &[u8; 20]) -> String {
    hash.iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// What a route is asked with about a swarm.
fn query(route: Route, swarm: &[u8; 20]) -> String {
    match route {
        Route::Home | Route::Index => "?q=ecre&limit=5".to_owned(),
        Route::Announce => {
            format!("?info_hash={}&peer_id=-XX0000-aaaaaaaaaaaa&port=5000&left=7", escaped(swarm))
        }
        Route::Scrape => format!("?info_hash={}", escaped(swarm)),
        Route::Health | Route::Ready | Route::Robots | Route::Icon | Route::OldIcon => String::new(),
    }
}

/// Whether who may have a content sees it there.
fn shows_contents(route: Route) -> bool {
    matches!(route, Route::Home | Route::Index | Route::Announce | Route::Scrape)
}

#[test]
fn an_outsider_sees_nothing_at_any_door() {
    let relay = TestRelay::start("");
    run(async {
        let http = relay.relay().http;
        let swarm = [1; 20];
        let mut empty = Vec::new();
        for route in Route::ALL {
            let path = format!("{}{}", route.path(), query(route, &swarm));
            empty.push(get(http, OUTSIDER, &path).await);
        }
        let file = Secret::add(&relay, "secret", &["secret.bin"]).await;
        let folder = Secret::add(&relay, "secret-folder", &["one.bin", "two.bin"]).await;
        for secret in [&file, &folder] {
            for (route, before) in Route::ALL.into_iter().zip(&empty) {
                for swarm in secret.swarms() {
                    let path = format!("{}{}", route.path(), query(route, &swarm));
                    // The page of an empty relay, less how many bytes it has moved.
                    let outside = get(http, OUTSIDER, &path).await;
                    assert!(!secret.is_in(&outside.2), "{path}");
                    assert!(
                        &outside == before || route == Route::Home,
                        "{path}: {outside:?}, not {before:?}"
                    );
                    let inside = get(http, INSIDER, &path).await;
                    assert_eq!(inside.2 != before.2, shows_contents(route), "{path} from inside: {inside:?}");
                }
            }
            for (name, nothing) in secret.names.iter().zip(NOTHING) {
                for suffix in
                    Aspect::ALL.map(Aspect::suffix).into_iter().chain(["/", "/other", "/secret/one.bin"])
                {
                    let path = format!("/c/{name}{suffix}");
                    let expected = get(http, OUTSIDER, &format!("/c/{nothing}{suffix}")).await;
                    assert_eq!(get(http, OUTSIDER, &path).await, expected, "{path}");
                    assert_eq!(expected.0, 404);
                }
                for suffix in Aspect::ALL.map(Aspect::suffix) {
                    let path = format!("/c/{name}{suffix}");
                    let (status, ..) = get(http, INSIDER, &path).await;
                    assert!(status == 200 || status == 302, "{path} from inside: {status}");
                }
                let path = format!("/c/{name}/{}", secret.file);
                let nothing = format!("/c/{nothing}/{}", secret.file);
                assert_eq!(get(http, OUTSIDER, &path).await, get(http, OUTSIDER, &nothing).await, "{path}");
                assert_eq!(get(http, INSIDER, &path).await.0, 200, "{path}");
            }
        }
        let (_, metrics, text) = relay.admin_with("GET", "/metrics", None, &[]).await;
        assert!(text.contains("millrace_access_refusals_total{reason=\"private\"}"), "{metrics:?}{text}");
    });
}

#[test]
fn no_peer_and_no_tracker_tells_an_outsider() {
    let relay = TestRelay::start("");
    run(async {
        let secret = Secret::add(&relay, "secret", &["secret.bin"]).await;
        let own = relay.relay().bittorrent;
        for swarm in secret.swarms() {
            let answers = |from| tokio::task::spawn_blocking(move || handshake(own, from, swarm));
            assert_eq!(answers(OUTSIDER).await.unwrap(), 0, "a handshake is answered");
            assert_eq!(answers(INSIDER).await.unwrap(), HANDSHAKE_BYTES);
            let asked = |from| tokio::task::spawn_blocking(move || udp(own, from, swarm));
            let (announced, scraped) = asked(OUTSIDER).await.unwrap();
            assert_eq!(announced, None);
            assert_eq!(scraped, 0);
            let (announced, scraped) = asked(INSIDER).await.unwrap();
            assert!(announced.is_some_and(|peers| peers > 0));
            assert_eq!(scraped, 1);
        }
    });
}

/// Bytes that the relay answers a handshake with, at most those of its own.
fn handshake(relay: SocketAddr, from: IpAddr, infohash: [u8; 20]) -> usize {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&relay.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let ours = Handshake { reserved: Reserved::default(), infohash, peer_id: *b"-XX0001-another-peer" };
    stream.write_all(&ours.encode()).unwrap();
    let (mut answer, mut count) = ([0; HANDSHAKE_BYTES], 0);
    while count < HANDSHAKE_BYTES {
        match stream.read(&mut answer[count..]) {
            Ok(0) | Err(_) => break,
            Ok(more) => count += more,
        }
    }
    count
}

/// How many peers an announce is answered with, if it is, and how many seeds a scrape.
fn udp(relay: SocketAddr, from: IpAddr, infohash: [u8; 20]) -> (Option<usize>, u32) {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.connect(relay).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = |ask: Ask<'_>| {
        let (mut out, mut answer) = ([0; 2048], [0; 2048]);
        let length = Request { transaction_id: 5, ask }.encode(&mut out).unwrap();
        socket.send(&out[..length]).unwrap();
        let length = socket.recv(&mut answer).unwrap();
        answer[..length].to_vec()
    };
    let connected = ask(Ask::Connect);
    let Some((_, Answer::Connect { connection_id })) = Answer::parse(&connected) else {
        panic!("{connected:?}")
    };
    let announce = Announce {
        infohash,
        peer_id: *b"-XX0000-bbbbbbbbbbbb",
        downloaded: 0,
        left: 7,
        uploaded: 0,
        event: AnnounceEvent::Started,
        key: 1,
        numwant: None,
        port: 5001,
    };
    let announced = ask(Ask::Announce { connection_id, announce, url_data: &[] });
    let peers = Answer::parse(&announced).unwrap().1.announce_answer(Family::V4, 10);
    let scraped = ask(Ask::Scrape { connection_id, infohashes: &[infohash] });
    // BEP 15: action and transaction, then seeders, completed, leechers.
    (peers.map(|answer| answer.peers.len()), u32::from_be_bytes(scraped[8..12].try_into().unwrap()))
}

#[test]
fn what_is_pulled_through_is_for_those_who_may_have_it() {
    let files = || {
        [("/secret.bin", 1), ("/open.bin", 2)]
            .map(|(path, seed)| (path.to_owned(), File { length: 40_000, seed }))
    };
    let origin = Origin::start(files().into(), Behaviour::default());
    let named = |origin: &Origin| format!("[origins.o]\nurl = \"{}\"\n", origin.url("/"));
    let relay = TestRelay::start(&named(&origin));
    run(async {
        let http = relay.relay().http;
        let request = json!({"sources": [origin.url("/secret.bin")], "access": ["127.0.0.2"]}).to_string();
        let (status, added) = relay.admin("POST", "/v1/contents", Some(&request)).await;
        assert_eq!(status, 200, "{added}");
        let absent = get(http, OUTSIDER, "/pull/o/absent.bin").await;
        assert_eq!(get(http, OUTSIDER, "/pull/o/secret.bin").await, absent);
        assert_eq!(absent.0, 404);
        assert_eq!(get(http, INSIDER, "/pull/o/secret.bin").await.0, 200);
        assert_eq!(get(http, OUTSIDER, "/pull/o/open.bin").await.0, 200);
    });
    // And where all that is pulled is for some alone, nobody else has anything pulled.
    let origin = Origin::start(files().into(), Behaviour::default());
    let closed = TestRelay::start(&format!("[access]\ndefault = \"127.0.0.2\"\n{}", named(&origin)));
    run(async {
        let http = closed.relay().http;
        let nothing = get(http, OUTSIDER, "/pull/other/x").await;
        assert_eq!(get(http, OUTSIDER, "/pull/o/open.bin").await, nothing);
        assert_eq!(origin.connections_most(), 0);
        assert_eq!(get(http, INSIDER, "/pull/o/open.bin").await.0, 200);
        let contents = closed.admin("GET", "/v1/contents", None).await.1;
        assert_eq!(contents["contents"][0]["access"], json!(["127.0.0.2/32"]));
    });
}

#[test]
fn access_is_changed_while_it_runs_and_kept() {
    let relay = TestRelay::start("");
    let id = std::cell::OnceCell::new();
    let path = || format!("/v1/contents/{}", id.get().unwrap());
    let file = || format!("/c/{}/a.bin", id.get().unwrap());
    run(async {
        id.set(relay.add_file("a.bin", &[5; 50_000]).await).unwrap();
        let http = relay.relay().http;
        assert_eq!(relay.admin("GET", &path(), None).await.1["access"], json!(["public"]));
        assert_eq!(get(http, OUTSIDER, &file()).await.0, 200);
        // It is here already, and saying otherwise changes nothing unasked.
        let source = relay.folder().join("a.bin");
        let again = json!({"sources": [source], "access": []}).to_string();
        let (status, problem) = relay.admin("POST", "/v1/contents", Some(&again)).await;
        assert_eq!((status, get(http, OUTSIDER, &file()).await.0), (409, 200), "{problem}");
        for bad in [r#"{"access":["x"]}"#, r#"{"access":"public"}"#, r#"{"acces":[]}"#, "[]"] {
            assert_eq!(relay.admin("PATCH", &path(), Some(bad)).await.0, 400, "{bad}");
        }
        let (status, shown) = relay.admin("PATCH", &path(), Some(r#"{"access":["127.0.0.2"]}"#)).await;
        assert_eq!((status, &shown["access"]), (200, &json!(["127.0.0.2/32"])));
        assert_eq!(get(http, OUTSIDER, &file()).await.0, 404);
        assert_eq!(get(http, INSIDER, &file()).await.0, 200);
    });
    let relay = relay.restart(|_| {});
    run(async {
        let http = relay.relay().http;
        assert_eq!(get(http, OUTSIDER, &file()).await.0, 404, "after a restart");
        assert_eq!(get(http, INSIDER, &file()).await.0, 200);
        assert_eq!(relay.admin("PATCH", &path(), Some(r#"{"access":["public"]}"#)).await.0, 200);
        assert_eq!(get(http, OUTSIDER, &file()).await.0, 200);
        let shown: Value = serde_json::from_slice(&get(http, OUTSIDER, "/index.json").await.2).unwrap();
        assert!(shown["contents"][0].get("access").is_none(), "{shown}");
    });
}

#[test]
fn rules_hold_at_every_address_but_the_probes() {
    let relay =
        TestRelay::start("pages = \"127.0.0.1:0\"\n[access]\nrules = [\"allow 127.0.0.2\", \"deny all\"]\n");
    run(async {
        let (http, pages) = (relay.relay().http, relay.relay().pages.unwrap());
        let id = relay.add_file("a.bin", &[5; 50_000]).await;
        for path in Route::ALL.map(Route::path).into_iter().chain(["/c/x", "/pull/o/x"]) {
            let expected = if ["/healthz", "/readyz"].contains(&path) { 200 } else { 403 };
            assert_eq!(get(http, OUTSIDER, path).await.0, expected, "{path}");
            assert_ne!(get(http, INSIDER, path).await.0, 403, "{path}");
        }
        for path in ["/", "/index.json", &format!("/c/{id}.json")] {
            assert_eq!(get(pages, OUTSIDER, path).await.0, 403, "{path} of the pages");
            assert_eq!(get(pages, INSIDER, path).await.0, 200, "{path} of the pages");
        }
    });
}

#[test]
fn pages_apart_show_each_client_what_is_for_him() {
    let relay = TestRelay::start("pages = \"127.0.0.1:0\"\n");
    run(async {
        let pages = relay.relay().pages.unwrap();
        let secret = Secret::add(&relay, "secret", &["secret.bin"]).await;
        for path in ["/", "/index.json", &format!("/c/{}.json", secret.names[0])] {
            assert!(!secret.is_in(&get(pages, OUTSIDER, path).await.2), "{path}");
            assert!(secret.is_in(&get(pages, INSIDER, path).await.2), "{path}");
        }
    });
}

#[test]
fn a_signed_url_opens_what_it_names_and_keys_are_read_again() {
    let keys: Vec<Key> =
        (1..3).map(|number| Key::new(&format!("k{number}"), [number; 32]).unwrap()).collect();
    let path = std::env::temp_dir().join(format!("mr-{}-keys", std::process::id()));
    std::fs::write(&path, keys[0].to_line()).unwrap();
    let relay = TestRelay::start(&format!("[access]\nkeys = \"{}\"\n", path.display()));
    run(async {
        let http = relay.relay().http;
        let secret = Secret::add(&relay, "secret", &["secret.bin"]).await;
        let file = format!("/c/{}/{}", secret.names[0], secret.file);
        let sign = |key: &Key, path: &str| {
            format!(
                "{path}?{}",
                key.query(&Grant { path: path.as_bytes(), expires: u64::MAX, network: None })
            )
        };
        let (old, new) = (sign(&keys[0], &file), sign(&keys[1], &file));
        assert_eq!(get(http, OUTSIDER, &old).await.2, [7; 40_000]);
        let refused = get(http, OUTSIDER, &new).await;
        assert_eq!(refused.0, 403);
        assert!(String::from_utf8(refused.2).unwrap().contains("key that does not hold here"));
        for suffix in Aspect::ALL.map(Aspect::suffix).into_iter().skip(1) {
            let document = format!("/c/{}{suffix}", secret.names[0]);
            let nothing = get(http, OUTSIDER, &document).await;
            assert_eq!(get(http, OUTSIDER, &sign(&keys[0], &document)).await, nothing, "{document}");
        }
    });
    std::fs::remove_file(&path).unwrap();
}
