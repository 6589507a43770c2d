//! HTTPS with the clients that people have: curl in its ways of downloading, and what openssl says of both versions.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use millrace_interop::clients::{self, curl};
use millrace_interop::http;
use millrace_interop::origin::{Origin, Resource};
use millrace_interop::pattern::{Pattern, sha256_of};
use millrace_interop::process::{Process, run};
use millrace_interop::relay::{Relay, free_address};
use millrace_interop::scratch::Scratch;
use millrace_interop::{PATIENCE, until};
use millrace_proto::admin::{ContentState, ContentStatus};

const FILE: Pattern = Pattern(11);

/// A relay with a certificate that `curl` is told to trust.
struct Scene {
    relay: Relay,
    https: SocketAddr,
    certificate: PathBuf,
    origin: Origin,
    scratch: Scratch,
}

impl Scene {
    fn start(length: u64) -> Scene {
        let scratch = Scratch::new();
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let certificate = scratch.file("relay.crt", certificate.as_bytes());
        let key = scratch.file("relay.key", key.serialize_pem().as_bytes());
        let https = free_address();
        let text = |path: &PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
        let (address, files) = (https.to_string(), [text(&certificate), text(&key)]);
        let flags = ["--https", &address, "--tls-certificate", &files[0], "--tls-key", &files[1]];
        let relay = Relay::start(&scratch, &flags);
        let resource = Resource { path: "/big.bin".to_owned(), length, pattern: FILE };
        let origin = Origin::start(vec![resource], None);
        Scene { relay, https, certificate, origin, scratch }
    }

    fn url(&self, content: &ContentStatus) -> String {
        format!("https://localhost:{}{}", self.https.port(), self.relay.path_of(content))
    }

    fn complete(&self) -> ContentStatus {
        let content = self.relay.add(&[&self.origin.url("/big.bin")]);
        self.relay.wait_for(&content.id, ContentState::Complete, PATIENCE)
    }

    fn curl(&self, arguments: &[&str]) -> curl::Transfer {
        let certificate = self.certificate.to_str().expect("a path in UTF-8");
        curl::curl(self.scratch.path(), &[&["--http1.1", "--cacert", certificate][..], arguments].concat())
    }
}

#[test]
fn curl_downloads_ranges_and_goes_on_where_it_was_cut() {
    if !curl::is_installed() {
        return;
    }
    let length = 20_000_001;
    let scene = Scene::start(length);
    let content = scene.complete();
    let url = scene.url(&content);
    let range = scene.curl(&["--range", "16380-9000000", &url]);
    assert_eq!((range.exit, range.status), (0, 206), "{}", range.said);
    assert!(range.body == FILE.bytes(16_380, 8_983_621));
    let partial = scene.scratch.file("partial", &FILE.bytes(0, 7_654_321));
    let path = partial.to_str().expect("a path in UTF-8");
    let resumed = scene.curl(&["--continue-at", "-", "--output", path, &url]);
    assert_eq!((resumed.exit, resumed.status), (0, 206), "{}", resumed.said);
    assert_eq!(sha256_of(&partial), FILE.sha256(length));
    let head = scene.curl(&["--head", &url]);
    assert_eq!((head.exit, head.field("content-length")), (0, Some("20000001")));
}

#[test]
fn a_hundred_at_once_get_the_same_bytes() {
    if !curl::is_installed() {
        return;
    }
    let length = 300_001;
    let scene = Scene::start(length);
    let content = scene.complete();
    let url = format!("{}?reader=[1-100]", scene.url(&content));
    let folder = scene.scratch.folder("readers");
    let output = format!("{}/#1", folder.display());
    let arguments =
        ["--parallel", "--parallel-immediate", "--parallel-max", "100", "--output", &output, &url];
    let transfer = scene.curl(&arguments);
    assert_eq!(transfer.exit, 0, "{}", transfer.said);
    let expected = FILE.sha256(length);
    for reader in 1..=100 {
        assert_eq!(sha256_of(&folder.join(reader.to_string())), expected, "reader {reader}");
    }
}

#[test]
fn a_reader_of_a_running_pull_waits_for_the_rest() {
    if !curl::is_installed() {
        return;
    }
    let length = 8 << 20;
    let scene = Scene::start(length);
    scene.origin.hold_at(2 << 20);
    let content = scene.relay.add(&[&scene.origin.url("/big.bin")]);
    let output = scene.scratch.join("pulled");
    let mut command = Command::new("curl");
    command.args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--http1.1", "--no-buffer"]);
    command.arg("--cacert").arg(&scene.certificate).arg("--output").arg(&output).arg(scene.url(&content));
    let mut reader = Process::spawn(&mut command, scene.scratch.join("curl.log"));
    // Of which ranges the bytes are that came before the hold is chance, so it may have none of them yet.
    until("the reader to wait", PATIENCE, || {
        let metrics = http::get(scene.relay.metrics, "/metrics", &["Connection: close"]).ok()?.text();
        let parked = metrics.lines().find_map(|line| line.strip_prefix("millrace_parked_total "));
        parked.is_some_and(|count| count != "0").then_some(())
    });
    assert!(reader.ended().is_none(), "it waits: {}", reader.output());
    scene.origin.release();
    reader.succeed(PATIENCE);
    assert_eq!(sha256_of(&output), FILE.sha256(length));
    assert_eq!(scene.origin.sent(), length, "once from the origin");
}

#[test]
fn openssl_agrees_on_either_version_and_takes_up_its_session_again() {
    if !clients::is_installed("openssl", &["version"], "apt install openssl") {
        return;
    }
    let scene = Scene::start(1);
    let session = scene.scratch.join("session");
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let request = scene.scratch.file("request", request);
    for (flag, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for (session_flag, kind) in [("-sess_out", "New"), ("-sess_in", "Reused")] {
            // What it is to ask comes by its standard input.
            let mut command = Command::new("bash");
            command.args(["-c", "exec openssl \"$@\" <\"$0\""]).arg(&request);
            command.args(["s_client", "-connect", &scene.https.to_string(), "-servername", "localhost"]);
            command.args(["-alpn", "h2,http/1.1", "-verify_return_error", "-ign_eof", flag, session_flag]);
            command.arg(&session).arg("-CAfile").arg(&scene.certificate);
            let finished = run(&mut command, PATIENCE);
            let said = format!("{}{}", finished.text(), finished.stderr);
            for expected in
                [&format!("{kind}, {name}"), "ALPN protocol: http/1.1", "HTTP/1.1 200 OK", "\nok\n"]
            {
                assert!(said.contains(expected), "{flag} {session_flag}: no `{expected}` in {said}");
            }
        }
    }
}
