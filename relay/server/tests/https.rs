//! The real program over TLS: both versions, both back ends, what is cut and what is whole, certificates that change, and peers that do not
//! do what they should.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

#[path = "support/https.rs"]
mod https;
#[path = "support/origin.rs"]
mod origin;
#[path = "support/https_scene.rs"]
mod scene;
#[path = "support/supervised.rs"]
mod supervised;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustls::version::{TLS12, TLS13};

use https::{Client, Pair, ask, get, head};
use origin::{Behaviour, Origin};
use scene::{Scene, configure, file, write};
use supervised::Folder;

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS12, &TLS13];

fn check_downloads(io: &str) {
    let (pair, folder) = (Pair::new(), Folder::new(&format!("https-downloads-{io}")));
    let bytes = file(&folder, "big.bin", (8 << 20) + 12_345);
    let sources = format!("io = \"{io}\"\nsources = [\"{}\"]", folder.path("big.bin"));
    let mut scene = Scene::start_in(folder, &pair, &sources);
    let path = scene.path();
    for version in [&TLS12, &TLS13] {
        let client = Client::of(&pair, &[version]);
        let mut connection = client.connect(scene.port).unwrap();
        assert_eq!(connection.get_ref().conn.protocol_version(), Some(version.version));
        assert_eq!(connection.get_ref().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(get(&mut connection, "/healthz", "").body, b"ok\n");
        for range in [0..1, 16_383..16_385, 1_000_000..3_000_000] {
            let answer =
                get(&mut connection, &path, &format!("Range: bytes={}-{}\r\n", range.start, range.end - 1));
            assert_eq!(answer.status, 206, "{}", answer.head);
            assert!(answer.body == bytes[range.clone()], "{range:?}");
        }
        let answer = get(&mut connection, &path, "Connection: close\r\n");
        assert!(answer.body == bytes, "the whole file");
        // Without close_notify this would be an error.
        assert_eq!(connection.read(&mut [0]).unwrap(), 0);
    }
    // Payload is what counts, not records: 2 MB and a few bytes, and the file, twice.
    let served = 2 * (1 + 2 + 2_000_000 + bytes.len() as u64);
    scene.until_metric("served_bytes_total{protocol=\"http\"}", |count| count == served);
    let ways = ["tls", "reference", "zerocopy", "copy"];
    let sent = ways.map(|way| scene.metric(&format!("millrace_sent_bytes_total{{path=\"{way}\"}}")));
    assert!(sent.iter().sum::<u64>() >= served, "{sent:?}");
    assert_eq!(scene.metric("millrace_tls_handshakes_total{result=\"full\"}"), 2);
    assert_eq!(scene.metric("millrace_tls_handshakes_in_progress"), 0);
}

#[test]
fn files_and_ranges_over_either_version_through_a_ring() {
    // Where the host forbids rings this is epoll once more.
    check_downloads("auto");
}

#[test]
fn files_and_ranges_over_either_version_through_epoll() {
    check_downloads("epoll");
}

#[test]
fn a_reader_who_takes_nothing_holds_up_nobody_and_gets_everything_in_the_end() {
    let (pair, folder) = (Pair::new(), Folder::new("https-slow"));
    let bytes = file(&folder, "big.bin", 16 << 20);
    let sources = format!("sources = [\"{}\"]", folder.path("big.bin"));
    let mut scene = Scene::start_in(folder, &pair, &sources);
    let (path, client) = (scene.path(), Client::of(&pair, BOTH));
    let mut slow = client.connect(scene.port).unwrap();
    ask(&mut slow, &path, "");
    scene.until_metric("served_bytes_total{protocol=\"http\"}", |count| count > 0);
    let mut quick = client.connect(scene.port).unwrap();
    assert!(get(&mut quick, &path, "").body == bytes);
    assert!(scene.metric("millrace_served_bytes_total{protocol=\"http\"}") < 2 * bytes.len() as u64);
    let (status, _, length) = head(&mut slow);
    let mut body = vec![0; usize::try_from(length).unwrap()];
    slow.read_exact(&mut body).unwrap();
    assert_eq!(status, 200);
    assert!(body == bytes);
}

#[test]
fn readers_of_a_pull_get_bytes_as_they_come_and_of_one_that_is_removed_no_clean_end() {
    let pair = Pair::new();
    let length = 4 << 20;
    let stalled = Behaviour { stalls: Some((usize::MAX, 700_000)), ..Behaviour::default() };
    let origin = Origin::single(length, 3, stalled);
    let mut scene = Scene::start("pull", &pair, &format!("sources = [\"{}\"]", origin.file_url()));
    let path = scene.path();
    let client = Client::of(&pair, BOTH);
    let mut readers: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = client.connect(scene.port).unwrap();
            ask(&mut connection, &path, "");
            connection
        })
        .collect();
    for reader in &mut readers {
        assert_eq!((head(reader).0, head_bytes(reader, 100_000)), (200, origin::bytes(3, 0..100_000)));
    }
    let id = path.split('/').nth(2).unwrap();
    let mut admin = UnixStream::connect(scene.folder.path("admin.sock")).unwrap();
    let request = format!("DELETE /v1/contents/{id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    admin.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    admin.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
    for reader in &mut readers {
        let mut rest = Vec::new();
        let end = reader.read_to_end(&mut rest);
        assert!(end.is_err(), "a clean end after {} of {length} bytes", rest.len() + 100_000);
    }
}

fn head_bytes(reader: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    reader.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_certificate_changes_while_a_download_goes_on() {
    let (old, new, folder) = (Pair::new(), Pair::new(), Folder::new("https-reload"));
    let bytes = file(&folder, "big.bin", 8 << 20);
    let sources = format!("sources = [\"{}\"]", folder.path("big.bin"));
    let mut scene = Scene::start_in(folder, &old, &sources);
    let path = scene.path();
    let (trusts_old, trusts_new) = (Client::of(&old, BOTH), Client::of(&new, BOTH));
    let mut running: Vec<_> = (0..4)
        .map(|_| {
            let mut connection = trusts_old.connect(scene.port).unwrap();
            ask(&mut connection, &path, "");
            assert_eq!(head(&mut connection).0, 200);
            connection
        })
        .collect();
    assert!(trusts_new.connect(scene.port).is_err(), "it is another certificate");

    // A pair that does not fit changes nothing, and says so.
    std::fs::write(scene.folder.path("relay.key"), &new.key).unwrap();
    let refused = scene.reload();
    assert!(refused.contains("Reload refused: tls-key") && refused.contains("not the key"), "{refused}");
    assert!(trusts_old.connect(scene.port).is_ok());

    write(&scene.folder, &new);
    assert!(scene.reload().contains("Serving"), "the configuration is the same, and the files are not");
    assert_eq!(get(&mut trusts_new.connect(scene.port).unwrap(), "/healthz", "").status, 200);
    // Nor does a ticket of the old one help.
    assert!(trusts_old.connect(scene.port).is_err());
    for connection in &mut running {
        assert!(head_bytes(connection, bytes.len()) == bytes);
        assert_eq!(get(connection, "/healthz", "").status, 200, "it goes on");
    }
}

#[test]
fn who_comes_back_resumes() {
    let pair = Pair::new();
    let scene = Scene::start("resume", &pair, "");
    for (version, resumed) in [(&TLS12, 1), (&TLS13, 2)] {
        let client = Client::of(&pair, &[version]);
        for _ in 0..2 {
            // Of 1.3, tickets come behind the handshake.
            assert_eq!(get(&mut client.connect(scene.port).unwrap(), "/healthz", "").status, 200);
        }
        assert_eq!(scene.metric("millrace_tls_handshakes_total{result=\"resumed\"}"), resumed);
    }
}

#[test]
fn what_is_no_handshake_is_refused_and_harms_nobody() {
    let pair = Pair::new();
    let mut scene = Scene::start("garbage", &pair, "");
    let mut answer = String::new();
    let mut plain = scene.plain();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
    drop(plain);
    let refused: [&[u8]; 5] = [
        b"\x13BitTorrent protocol",
        &[0; 70_000],
        // A record of a length that no record has; one of an alert; one of application data before any handshake.
        b"\x16\x03\x01\xff\xff and more",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x05hello",
    ];
    for bytes in refused {
        let mut peer = scene.plain();
        // The relay may be done with it before all is written.
        let _ = peer.write_all(bytes);
        let mut said = Vec::new();
        // An alert or nothing, and the end.
        let _ = peer.read_to_end(&mut said);
        assert!(said.len() < 100 && said.first().is_none_or(|kind| *kind == 21), "{said:?}");
    }
    scene.until_metric("tls_handshakes_total{result=\"failed\"}", |count| count == 5);
    assert_eq!(scene.metric("millrace_tls_handshakes_total{result=\"plain_http\"}"), 1);
    // In an open connection, bytes that nobody encrypted end it, in the middle of whatever it does.
    let mut open = Client::of(&pair, BOTH).connect(scene.port).unwrap();
    assert_eq!(get(&mut open, "/healthz", "").status, 200);
    open.get_mut().sock.write_all(b"\x17\x03\x03\x00\x15there is no such record").unwrap();
    assert!(open.read(&mut [0]).is_err(), "an alert is no clean end");
    assert_eq!(get(&mut Client::of(&pair, BOTH).connect(scene.port).unwrap(), "/healthz", "").status, 200);
    scene.until_metric("tls_handshakes_in_progress", |count| count == 0);
}

#[test]
fn handshakes_are_bounded_in_number_and_in_time() {
    let pair = Pair::new();
    let mut scene =
        Scene::start("bounds", &pair, "[limits]\ntls-handshakes = 2\ntls-handshake-timeout = 3600");
    let mut idle = [scene.plain(), scene.plain()];
    scene.until_metric("tls_handshakes_in_progress", |count| count == 2);
    assert_eq!(scene.plain().read(&mut [0]).unwrap_or(0), 0, "one too many is closed");
    assert_eq!(scene.metric("millrace_tls_handshakes_total{result=\"refused\"}"), 1);

    configure(&scene.folder, "[limits]\ntls-handshakes = 3\ntls-handshake-timeout = 1");
    scene.reload();
    let mut half = scene.plain();
    half.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    for stream in idle.iter_mut().chain([&mut half]) {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "it took too long");
    }
    assert_eq!(scene.metric("millrace_tls_handshakes_total{result=\"timed_out\"}"), 3);
    assert_eq!(get(&mut Client::of(&pair, BOTH).connect(scene.port).unwrap(), "/healthz", "").status, 200);
    let gone = scene.plain();
    gone.shutdown(std::net::Shutdown::Write).unwrap();
    scene.until_metric("tls_handshakes_total{result=\"failed\"}", |count| count == 1);
    scene.until_metric("tls_handshakes_in_progress", |count| count == 0);
}
