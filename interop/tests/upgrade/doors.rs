//! Every socket that others see, through one upgrade after the other.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use millrace_interop::http::{Answer, Connection, End};
use millrace_interop::origin::{Origin, Resource};
use millrace_interop::relay::free_address;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::replaceable::Replaceable;
use crate::{BYTES, LENGTH, Stop, path_of};

/// Files of the origin, one for each pull: more than can be pulled within the test.
const NAMES: u32 = 5_000;

/// Asks over a connection of its own.
fn get<S: Read + Write>(stream: S, path: &str) -> io::Result<Answer> {
    let mut connection = Connection::on(stream);
    connection.request("GET", path, &["Range: bytes=5-70000", "Connection: close"])?;
    connection.answer()
}

/// As a downloader that follows a redirection.
fn pull(relay: SocketAddr, path: &str) -> io::Result<Answer> {
    loop {
        let answer = get(TcpStream::connect(relay)?, path)?;
        if answer.status != 307 {
            return Ok(answer);
        }
        assert_eq!(answer.field("location"), Some(path));
    }
}

/// A client that trusts this certificate alone.
fn tls(certificate: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// How many answers there were until `stop`: every request has one, and `check` finds it right.
fn ask_on(
    name: &str,
    stop: &AtomicBool,
    get: impl Fn() -> io::Result<Answer>,
    check: impl Fn(&Answer),
) -> u64 {
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = get().unwrap_or_else(|error| panic!("{name}, after {answered} answers: {error}"));
        assert_eq!(answer.end, End::Clean, "{name}, after {answered} answers");
        check(&answer);
        answered += 1;
    }
    answered
}

#[test]
fn every_door_stays_open_through_upgrades_in_a_row() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key);
    let certificate = certificate.unwrap().pem();
    let files = millrace_interop::scratch::Scratch::new();
    let (pages, https) = (free_address(), free_address());
    let resource = |name| Resource { path: format!("/{name}"), length: 70_001, pattern: BYTES };
    let origin = Origin::start((0..NAMES).map(resource).collect(), None);
    let configuration = format!(
        "pages = \"{pages}\"\nhttps = \"{https}\"\ntls-certificate = {:?}\ntls-key = {:?}\n[origins.o]\nurl = {:?}",
        files.file("relay.crt", certificate.as_bytes()),
        files.file("relay.key", key.serialize_pem().as_bytes()),
        origin.url("/"),
    );
    let relay = Replaceable::start(&configuration);
    let file = relay.scratch.file("local", &BYTES.bytes(0, usize::try_from(LENGTH).unwrap()));
    let path = path_of(&relay.add(file.to_str().unwrap()));
    let (admin, metrics, http) = (relay.scratch.join("admin.sock"), relay.metrics, relay.http);
    let tls = tls(&certificate);
    let handshake = || {
        let name = "localhost".try_into().unwrap();
        let session = ClientConnection::new(Arc::clone(&tls), name).map_err(io::Error::other)?;
        Ok::<_, io::Error>(StreamOwned::new(session, TcpStream::connect(https)?))
    };
    let is_range = |answer: &Answer| {
        assert_eq!((answer.status, BYTES.first_wrong(5, &answer.body)), (206, None));
    };
    let is_whole = |answer: &Answer| assert_eq!(answer.status, 200, "{}", answer.text());
    // Such a one had an answer long ago, and asks once more.
    let mut idle = Connection::open(http).unwrap();
    let mut ask_idle = |fields: &[&str]| {
        idle.request("GET", "/readyz", fields).unwrap();
        idle.answer().unwrap()
    };
    assert_eq!(ask_idle(&[]).status, 200);
    let (stop, asked) = (AtomicBool::new(false), AtomicU32::new(1));
    let next_pull = || {
        let name = asked.fetch_add(1, Ordering::Relaxed) % NAMES;
        pull(http, &format!("/pull/o/{name}"))
    };
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let visitors = [
            scope.spawn(|| ask_on("http", &stop, || get(TcpStream::connect(http)?, &path), is_range)),
            scope.spawn(|| ask_on("https", &stop, || get(handshake()?, &path), is_range)),
            scope.spawn(|| ask_on("a pull that was made", &stop, || pull(http, "/pull/o/0"), is_range)),
            scope.spawn(|| ask_on("pulls", &stop, next_pull, is_range)),
            scope.spawn(|| ask_on("pages", &stop, || get(TcpStream::connect(pages)?, "/"), is_whole)),
            scope.spawn(|| {
                ask_on("metrics", &stop, || get(TcpStream::connect(metrics)?, "/metrics"), is_whole)
            }),
            scope.spawn(|| {
                ask_on("admin", &stop, || get(UnixStream::connect(&admin)?, "/v1/status"), is_whole)
            }),
        ];
        // From whatever it begins with to epoll, and back.
        relay.configure(&format!("io = \"epoll\"\n{configuration}"));
        relay.upgrade().unwrap();
        assert_eq!(ask_idle(&[]).field("connection"), Some("close"), "by the program that had it");
        relay.configure(&configuration);
        relay.upgrade().unwrap();
        // Two at a time: each is made, one by the other's new program.
        let both = [(); 2].map(|()| scope.spawn(|| relay.upgrade()));
        let both = both.map(|asked| asked.join().unwrap().unwrap());
        assert_ne!(both[0], both[1]);
        drop(stopping);
        for visitor in visitors {
            assert!(visitor.join().unwrap() > 0);
        }
    });
}
