//! The real program on sockets that somebody else opened: served on all of them, by name, and never refused while the relay is down.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

#[path = "support/supervised.rs"]
mod supervised;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::signal::Signal;
use socket2::{Domain, SockRef, Socket, Type};

use supervised::{Folder, PATIENCE, Supervised, ask, get};

/// Sockets of one group on a port that the kernel chose, as `ReusePort=yes` makes them.
fn group(count: usize) -> (SocketAddr, Vec<Socket>) {
    let mut address = SocketAddr::new([127, 0, 0, 1].into(), 0);
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(128).unwrap();
        address = socket.local_addr().unwrap().as_socket().unwrap();
        sockets.push(socket);
    }
    (address, sockets)
}

/// Copies to hand over; the originals stay here, as a service manager keeps them.
fn copies<'a>(name: &'a str, sockets: &[Socket]) -> Vec<(&'a str, OwnedFd)> {
    sockets.iter().map(|socket| (name, socket.try_clone().unwrap().into())).collect()
}

fn patient(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn every_socket_is_served_by_its_name() {
    let folder = Folder::new("names");
    folder.configure("congestion = \"reno\"");
    let (http, http_sockets) = group(2);
    let (bittorrent, bittorrent_sockets) = group(1);
    let udp = UdpSocket::bind(bittorrent).unwrap();
    let (metrics, metrics_sockets) = group(1);
    let admin = folder.path("handed.sock");
    let admin_socket = UnixListener::bind(&admin).unwrap();
    let mut sockets = copies("http", &http_sockets);
    sockets.extend(copies("metrics", &metrics_sockets));
    sockets.push(("bt", udp.try_clone().unwrap().into()));
    sockets.extend(copies("bt", &bittorrent_sockets));
    sockets.push(("admin", admin_socket.try_clone().unwrap().into()));
    let mut relay = Supervised::start(&folder, &[], &sockets);

    // Which of the two a connection gets is by chance: sixteen in a row on one of them are one in thirty thousand, and both are served.
    for _ in 0..16 {
        assert!(get(http, "/healthz").starts_with("HTTP/1.1 200"));
    }
    assert!(get(metrics, "/metrics").contains("millrace_"));
    assert!(ask(UnixStream::connect(&admin).unwrap(), "/v1/status").starts_with("HTTP/1.1 200"));
    // A connect request of the UDP tracker (BEP 15).
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"\x00\x00\x04\x17\x27\x10\x19\x80\x00\x00\x00\x00abcd", bittorrent).unwrap();
    let mut answer = [0; 64];
    assert_eq!(client.recv(&mut answer).unwrap(), 16);
    // Whoever does not speak the protocol is closed.
    let mut peer = patient(bittorrent);
    peer.write_all(&[b'x'; 68]).unwrap();
    assert_eq!(peer.read(&mut answer).unwrap_or(0), 0);

    for socket in http_sockets.iter().chain(&bittorrent_sockets) {
        let congestion = SockRef::from(socket).tcp_congestion().unwrap();
        assert!(congestion.starts_with(b"reno\0"), "{congestion:?}");
    }
    for descriptor in 3..3 + sockets.len() {
        let info = format!("/proc/{}/fdinfo/{descriptor}", relay.child.id());
        let info = std::fs::read_to_string(info).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        assert!(flags & 0o2_000_000 != 0, "descriptor {descriptor} is closed on exec: {info}");
    }
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_status(), Some(0));
    assert!(std::path::Path::new(&admin).exists(), "the file belongs to who made the socket");
}

#[test]
fn who_connects_while_the_relay_is_down_is_served_when_it_is_back() {
    let folder = Folder::new("backlog");
    folder.configure("");
    let (http, sockets) = group(2);
    let waiting = |count: usize| {
        let ask = |_| {
            let mut stream = patient(http);
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            stream
        };
        (0..count).map(ask).collect::<Vec<_>>()
    };
    let served = |waiting: Vec<TcpStream>| {
        for mut stream in waiting {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    };
    let before = waiting(8);
    let mut first = Supervised::start(&folder, &[], &copies("http", &sockets));
    served(before);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.exit_status(), Some(0));
    let between = waiting(8);
    let _second = Supervised::start(&folder, &[], &copies("http", &sockets));
    served(between);
}

#[test]
fn nobody_is_refused_or_reset_while_relays_follow_each_other() {
    let folder = Folder::new("restarts");
    folder.configure("");
    let (http, sockets) = group(2);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let answer = get(http, "/healthz");
                        assert!(answer.starts_with("HTTP/1.1 200"), "after {answers} answers: `{answer}`");
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        for _ in 0..5 {
            let mut relay = Supervised::start(&folder, &[], &copies("http", &sockets));
            relay.until("it has answered some", |_| get(http, "/healthz").starts_with("HTTP/1.1 200"));
            relay.signal(Signal::SIGTERM);
            assert_eq!(relay.exit_status(), Some(0), "{}", relay.log());
        }
        // The last who wait are served as well.
        let _last = Supervised::start(&folder, &[], &copies("http", &sockets));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
    });
}

/// The relay ends with status 1 and these words in the last line of what it says.
#[track_caller]
fn check_refused(name: &str, sockets: &[(&str, OwnedFd)], words: &[&str]) {
    let folder = Folder::new(name);
    folder.configure("");
    let mut relay = Supervised::spawn(&folder, &[], sockets);
    assert_eq!(relay.exit_status(), Some(1), "{}", relay.log());
    relay.until("it says why", |relay| {
        let log = relay.log();
        log.contains("millrace-relay: ") && log.ends_with('\n')
    });
    let log = relay.log();
    let last = log.lines().last().unwrap();
    assert!(words.iter().all(|word| last.contains(word)), "{words:?}: {log}");
}

#[test]
fn what_cannot_be_used_is_one_line_that_says_what_to_change() {
    let stream = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let datagram = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    deaf.bind(&SocketAddr::new([127, 0, 0, 1].into(), 0).into()).unwrap();
    check_refused("name", &[("web", stream())], &["`web`", "FileDescriptorName="]);
    check_refused("type", &[("http", datagram())], &["`http`", "descriptor 3", "TCP"]);
    check_refused("deaf", &[("http", stream()), ("bt", deaf.into())], &["`bt`", "descriptor 4", "listen()"]);
    check_refused("apart", &[("http", stream()), ("http", stream())], &["named `http`", "one address"]);
    check_refused("two", &[("metrics", stream()), ("metrics", stream())], &["several metrics"]);
    check_refused("alone", &[("bt", datagram())], &["datagram", "ListenStream="]);
    check_refused("admin", &[("admin", stream())], &["`admin`", "Unix"]);
}
