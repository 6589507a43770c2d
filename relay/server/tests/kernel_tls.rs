//! The real program where the kernel encrypts, and where it does not: the bytes are the same. `.ci/run kernel_tls` runs this on a kernel that
//! does; on others it shows what happens instead, and says so.
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
use std::process::Command;

use rustls::CipherSuite;
use rustls::version::{TLS12, TLS13};

use https::{Client, Pair, ask, get, head};
use scene::{Scene, configure, file};
use supervised::Folder;

const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// Large enough that the kernel is asked.
const LARGE: std::ops::Range<usize> = 1_000_000..1_700_001;

/// Whether the kernel here encrypts by all of them.
fn by_kernel() -> bool {
    let found = millrace_send::tls::probe();
    let all = "AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305";
    let has_all = found.as_ref().is_ok_and(|suites| suites.to_string() == all);
    if !has_all {
        assert!(std::env::var_os("MILLRACE_REQUIRE_KERNEL_TLS").is_none(), "no kernel TLS: {found:?}");
        // Not captured, so that nobody takes this for a proof.
        let said = writeln!(std::io::stderr(), "NOT by the kernel, which lacks it here: {found:?}");
        said.unwrap();
    }
    has_all
}

/// A relay that serves one file, and the file.
fn serve(name: &str, length: u64, lines: &str) -> (Pair, Scene, String, Vec<u8>) {
    let (pair, folder) = (Pair::new(), Folder::new(&format!("ktls-{name}")));
    let bytes = file(&folder, "big.bin", length);
    let sources = format!("sources = [\"{}\"]\n{lines}", folder.path("big.bin"));
    let mut scene = Scene::start_in(folder, &pair, &sources);
    let path = scene.path();
    (pair, scene, path, bytes)
}

fn kernel(scene: &Scene, result: &str) -> u64 {
    scene.metric(&format!("millrace_tls_kernel_total{{result=\"{result}\"}}"))
}

fn sent(scene: &Scene, way: &str) -> u64 {
    scene.metric(&format!("millrace_sent_bytes_total{{path=\"{way}\"}}"))
}

fn range(range: &std::ops::Range<usize>) -> String {
    format!("Range: bytes={}-{}\r\n", range.start, range.end - 1)
}

fn check_suites(io: &str) {
    let is_kernel = by_kernel();
    let (pair, scene, path, bytes) = serve(io, (8 << 20) + 12_345, &format!("io = \"{io}\""));
    for suite in SUITES {
        let client = Client::with(&pair, &[&TLS13], |known| known == suite);
        let mut connection = client.connect(scene.port).unwrap();
        assert_eq!(get(&mut connection, "/healthz", "").body, b"ok\n");
        // The first by the relay, then by whoever it may be; all asked for at once.
        let ranges =
            [0..1, 100..40_000, LARGE, 16_383..16_385, 0..65_536, 8_388_607..8_388_608, 5_000..400_000];
        ranges.iter().for_each(|of| ask(&mut connection, &path, &range(of)));
        for of in ranges {
            let (status, _, length) = head(&mut connection);
            let mut body = vec![0; usize::try_from(length).unwrap()];
            connection.read_exact(&mut body).unwrap();
            assert!(status == 206 && body == bytes[of.clone()], "{suite:?} {of:?}");
        }
        assert!(get(&mut connection, &path, "Connection: close\r\n").body == bytes, "{suite:?}, all of it");
        // Without close_notify this would be an error.
        assert_eq!(connection.read(&mut [0]).unwrap(), 0);
    }
    let old = Client::of(&pair, &[&TLS12]);
    assert!(get(&mut old.connect(scene.port).unwrap(), &path, &range(&LARGE)).body == bytes[LARGE]);
    assert_eq!(kernel(&scene, "taken"), if is_kernel { 3 } else { 0 });
    assert_eq!((kernel(&scene, "refused"), kernel(&scene, "lost"), kernel(&scene, "spent")), (0, 0, 0));
    let (by_relay, whole) = (sent(&scene, "tls"), 3 * bytes.len() as u64);
    let by_pages = sent(&scene, "reference") + sent(&scene, "zerocopy");
    if is_kernel {
        assert!(by_pages > whole && by_relay < whole, "{by_pages} and {by_relay}");
    } else {
        assert!(by_pages == 0 && by_relay > whole, "{by_pages} and {by_relay}");
    }
}

#[test]
fn every_suite_gives_the_same_bytes_through_a_ring() {
    // Where the host forbids rings this is epoll once more.
    check_suites("auto");
}

#[test]
fn every_suite_gives_the_same_bytes_through_epoll() {
    check_suites("epoll");
}

#[test]
fn a_client_may_change_its_keys_before_and_after_the_kernel_has_them() {
    let is_kernel = by_kernel();
    let (pair, mut scene, path, bytes) = serve("keys", 8 << 20, "");
    for suite in SUITES {
        let client = Client::with(&pair, &[&TLS13], |known| known == suite);
        let mut connection = client.connect(scene.port).unwrap();
        connection.get_mut().conn.refresh_traffic_keys().unwrap();
        assert_eq!(get(&mut connection, "/healthz", "").status, 200);
        // This time with nothing that the relay answers before the kernel has the keys.
        connection.get_mut().conn.refresh_traffic_keys().unwrap();
        assert!(get(&mut connection, &path, &range(&LARGE)).body == bytes[LARGE]);
        ask(&mut connection, &path, "");
        connection.get_mut().conn.refresh_traffic_keys().unwrap();
        ask(&mut connection, &path, &range(&LARGE));
        assert_eq!(head(&mut connection).0, 200);
        let mut body = vec![0; bytes.len()];
        connection.read_exact(&mut body).unwrap();
        assert!(body == bytes, "{suite:?}");
        let (status, _, length) = head(&mut connection);
        let mut body = vec![0; usize::try_from(length).unwrap()];
        connection.read_exact(&mut body).unwrap();
        assert!(status == 206 && body == bytes[LARGE], "what was asked for is answered");
        if is_kernel {
            assert_eq!(connection.read(&mut [0]).unwrap(), 0, "and that is the end, a clean one");
        } else {
            assert_eq!(get(&mut connection, "/healthz", "").status, 200, "and it goes on");
        }
    }
    let changed = if is_kernel { 3 } else { 0 };
    scene.until_metric("tls_kernel_total{result=\"spent\"}", |count| count == changed);
    assert_eq!(kernel(&scene, "taken"), changed);
}

#[test]
fn who_reads_late_gets_the_end_too() {
    by_kernel();
    for io in ["auto", "epoll"] {
        let (pair, mut scene, path, bytes) = serve(&format!("late-{io}"), 8 << 20, &format!("io = \"{io}\""));
        let client = Client::of(&pair, &[&TLS13]);
        let ranges: Vec<_> = (0..24).map(|number| 0..70_000 + number * 8_191).collect();
        let mut readers: Vec<_> = ranges
            .iter()
            .map(|of| {
                let mut connection = client.connect(scene.port).unwrap();
                ask(&mut connection, &path, &format!("Connection: close\r\n{}", range(of)));
                connection
            })
            .collect();
        // Sockets are full, each at another place in a record.
        scene.until_metric("served_bytes_total{protocol=\"http\"}", |count| count > 24 * 60_000);
        for (reader, of) in readers.iter_mut().zip(&ranges) {
            assert_eq!(head(reader).0, 206);
            let mut body = Vec::new();
            reader.read_to_end(&mut body).unwrap();
            assert!(body == bytes[of.clone()], "{io}: {} of {} bytes", body.len(), of.len());
        }
    }
}

#[test]
fn fifty_at_once_under_a_cap_get_the_same_bytes() {
    let is_kernel = by_kernel();
    let (pair, scene, path, bytes) = serve(
        "fifty",
        400_001,
        "egress = \"20MB\"\n[limits]\nhead-timeout = 3600\ntls-handshake-timeout = 3600",
    );
    let client = Client::of(&pair, &[&TLS13]);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..50)
            .map(|_| scope.spawn(|| get(&mut client.connect(scene.port).unwrap(), &path, "").body == bytes))
            .collect();
        assert!(readers.into_iter().all(|reader| reader.join().unwrap()));
    });
    assert_eq!(kernel(&scene, "taken"), if is_kernel { 50 } else { 0 });
}

#[test]
fn what_nobody_encrypted_ends_a_connection_and_no_other() {
    by_kernel();
    let (pair, scene, path, bytes) = serve("garbage", 4 << 20, "");
    let client = Client::of(&pair, &[&TLS13]);
    let (mut spoilt, mut other) = (client.connect(scene.port).unwrap(), client.connect(scene.port).unwrap());
    for connection in [&mut spoilt, &mut other] {
        assert!(get(connection, &path, &range(&LARGE)).body == bytes[LARGE]);
    }
    spoilt.get_mut().sock.write_all(b"\x17\x03\x03\x00\x15there is no such record").unwrap();
    let error = spoilt.read(&mut [0]).unwrap_err().to_string();
    assert!(error.contains("BadRecordMac"), "{error}");
    assert!(get(&mut other, &path, "").body == bytes);
}

#[test]
fn who_goes_away_in_the_middle_holds_up_nobody() {
    by_kernel();
    let (pair, mut scene, path, bytes) = serve("gone", 16 << 20, "");
    let client = Client::of(&pair, &[&TLS13]);
    for _ in 0..8 {
        let mut connection = client.connect(scene.port).unwrap();
        ask(&mut connection, &path, "");
        assert_eq!(head(&mut connection).0, 200);
        connection.read_exact(&mut [0; 100_000]).unwrap();
    }
    assert!(get(&mut client.connect(scene.port).unwrap(), &path, "").body == bytes);
    scene.until_metric("connections{protocol=\"http\",state=\"open\"}", |count| count == 0);
}

#[test]
fn who_has_nothing_more_to_ask_still_gets_the_answer() {
    let is_kernel = by_kernel();
    let (pair, scene, path, bytes) = serve("half", 4 << 20, "");
    let mut connection = Client::of(&pair, &[&TLS13]).connect(scene.port).unwrap();
    ask(&mut connection, &path, "");
    connection.get_mut().conn.send_close_notify();
    connection.get_mut().flush().unwrap();
    connection.get_mut().sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(head(&mut connection).0, 200);
    let mut body = Vec::new();
    connection.read_to_end(&mut body).unwrap();
    assert!(body == bytes, "{} of {} bytes", body.len(), bytes.len());
    // The kernel takes no connection that is half closed, and the end may come before the answer.
    assert_eq!(kernel(&scene, "taken") + kernel(&scene, "refused"), u64::from(is_kernel));
}

#[test]
fn what_is_not_in_memory_is_the_same() {
    by_kernel();
    let (pair, scene, path, bytes) = serve("cold", 8 << 20, "");
    let stored = std::fs::File::open(scene.folder.path("big.bin")).unwrap();
    stored.sync_all().unwrap();
    let mut connection = Client::of(&pair, &[&TLS13]).connect(scene.port).unwrap();
    for round in 0..3 {
        // Where the file system keeps nothing but memory, nothing goes.
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        nix::fcntl::posix_fadvise(&stored, 0, 0, advice).unwrap();
        assert!(get(&mut connection, &path, &range(&LARGE)).body == bytes[LARGE], "round {round}");
        assert!(get(&mut connection, &path, "").body == bytes, "round {round}");
    }
}

#[test]
fn the_kernel_is_asked_only_where_it_may_be_and_doctor_and_log_say_who_encrypts() {
    let is_kernel = by_kernel();
    let (pair, scene, path, bytes) = serve("off", 4 << 20, "tls-kernel = \"off\"");
    let client = Client::of(&pair, &[&TLS13]);
    assert!(get(&mut client.connect(scene.port).unwrap(), &path, "").body == bytes);
    assert_eq!((kernel(&scene, "taken"), sent(&scene, "reference") + sent(&scene, "zerocopy")), (0, 0));
    assert!(scene.relay.log().contains("tls-kernel = off"), "{}", scene.relay.log());

    let sources = format!("sources = [\"{}\"]", scene.folder.path("big.bin"));
    configure(&scene.folder, &sources);
    scene.reload();
    assert!(get(&mut client.connect(scene.port).unwrap(), &path, "").body == bytes);
    assert_eq!(kernel(&scene, "taken"), u64::from(is_kernel));

    let doctor = Command::new(env!("CARGO_BIN_EXE_millrace-relay")).arg("doctor").output().unwrap();
    let said = String::from_utf8(doctor.stdout).unwrap();
    let line = said.lines().find(|line| line.starts_with("ok    tls ")).unwrap_or_else(|| panic!("{said}"));
    let wanted = if is_kernel { "1.3 encrypted by the kernel (AES-128-GCM" } else { "modprobe tls" };
    assert!(line.contains(wanted), "{line}");
}
