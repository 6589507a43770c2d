//! Zero-copy sends out of read buffers: given up for a connection at the kernel's first report of a copy, with the buffer lent as long as
//! the kernel refers to it, whatever becomes of the connection.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millrace_engine::event::News;
use millrace_engine::limits::Limits;
use millrace_pagecache::disk::residency;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use millrace_send::zero_copy::ZERO_COPY_BYTES_MIN;

use crate::support::{LENGTH, Relay, bytes, check, make_cold, read_head};

/// A client whose socket holds next to nothing, so that what is sent to it stays with the relay until it reads.
fn connect_narrow(relay: &Relay) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&relay.address.into()).unwrap();
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client
}

/// Waits for what another thread brings about.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what} does not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where the bytes begin that nobody has asked for and that are not in memory: far from those that showed that the kernel tells.
const COLD: u64 = 300_000;

/// Has the kernel forget every page of the content; false where it will not.
fn forget_all(relay: &Relay) -> bool {
    let file = File::open(relay.folder.join("data")).unwrap();
    // Closed sockets hold on to pages for a moment, and so do others that look at them.
    (0..1_000).any(|_| {
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        let is_absent = |offset| residency::resident(&file, offset, 1) == Some(false);
        let is_forgotten = (0..LENGTH).step_by(4096).all(is_absent);
        if !is_forgotten {
            std::thread::sleep(Duration::from_millis(2));
        }
        is_forgotten
    })
}

/// Waits for the kernel's report on a zero-copy send. False where it refused to make one: pinned pages of all tests of a user count against
/// one limit, and it may be used up.
#[track_caller]
fn is_judged(relay: &Relay) -> bool {
    let counters = &relay.counters;
    let is_refused = || counters.zero_copy_refusals.value() > 0;
    let sent = || counters.sent_zero_copy_bytes.value() + counters.sent_zero_copy_copied_bytes.value();
    wait_until("the kernel's report", || is_refused() || sent() > 0);
    if is_refused() {
        writeln!(
            std::io::stderr(),
            "cut short: the kernel refuses zero-copy sends, as RLIMIT_MEMLOCK is used up"
        )
        .ok();
    }
    !is_refused()
}

/// Runs a scenario on a relay whose content is not in memory, where zero-copy sends are known.
fn check_cold(name: &str, scenario: impl Fn(&Relay)) {
    check(name, 16, |relay| {
        let knows = millrace_ring::probe().verdict.is_ok_and(|found| found.zero_copy);
        if knows && make_cold(relay) && forget_all(relay) {
            return scenario(relay);
        }
        writeln!(std::io::stderr(), "{name}: skipped: needs zero-copy sends and a page cache that lets go")
            .ok();
    });
}

#[test]
fn over_loopback_the_first_zero_copy_send_of_a_connection_is_the_last() {
    check_cold("over_loopback_the_first_zero_copy_send_of_a_connection_is_the_last", |relay| {
        let copied = || relay.counters.sent_zero_copy_copied_bytes.value();
        // What a client has received may not have been counted yet. One byte was asked for before.
        let wait_for_count = |bytes| {
            wait_until("the count of what was sent", || relay.counters.served_http_bytes.value() > bytes);
        };
        let mut client = relay.connect();
        relay.check(&mut client, COLD, COLD + 999_999);
        wait_for_count(1_000_000);
        if !is_judged(relay) {
            return;
        }
        let (tried, copied_before) = (copied(), relay.counters.sent_copy_bytes.value());
        assert!((ZERO_COPY_BYTES_MIN..=1_000_000).contains(&tried), "{tried}");
        relay.check(&mut client, COLD + 1_000_000, COLD + 1_999_999);
        wait_for_count(2_000_000);
        assert_eq!((copied(), relay.counters.sent_zero_copy_bytes.value()), (tried, 0));
        let copied_at_once = relay.counters.sent_copy_bytes.value() - copied_before;
        assert!((1_000_000..1_010_000).contains(&copied_at_once), "{copied_at_once}: a head and the range");
        // Another connection is judged for itself.
        relay.check(&mut relay.connect(), COLD + 2_000_000, LENGTH - 1);
        let is_refused = || relay.counters.zero_copy_refusals.value() > 0;
        wait_until("a second report", || is_refused() || copied() > tried);
    });
}

#[test]
fn a_buffer_that_the_kernel_refers_to_is_used_again_only_when_it_has_let_go() {
    check_cold("a_buffer_that_the_kernel_refers_to_is_used_again_only_when_it_has_let_go", |relay| {
        let mut slow = connect_narrow(relay);
        // So little that the socket takes it at once, and nothing but the kernel refers to the buffer any more.
        slow.write_all(relay.request("300000-399999").as_bytes()).unwrap();
        let head = read_head(&mut slow);
        assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
        // The others get by with the buffer that is left, while the reports on what waits for the slow one are out.
        for number in 0..4 {
            let first = 1_500_000 + number * 300_000;
            relay.check(&mut relay.connect(), first, first + 199_999);
        }
        let mut body = vec![0; 100_000];
        slow.read_exact(&mut body).unwrap();
        assert!(
            body == bytes(COLD..COLD + 100_000),
            "what it was sent lay in a buffer that was read into meanwhile"
        );
        is_judged(relay);
    });
}

#[test]
fn connections_that_are_reset_while_the_kernel_refers_to_a_buffer_give_it_back() {
    check_cold("connections_that_are_reset_while_the_kernel_refers_to_a_buffer_give_it_back", |relay| {
        for number in 0..8 {
            let mut client = connect_narrow(relay);
            let first = COLD + number * 300_000;
            client.write_all(relay.request(&format!("{first}-{}", first + 199_999)).as_bytes()).unwrap();
            let _ = read_head(&mut client);
            // Unread bytes make the close a reset.
            drop(client);
        }
        wait_until("the end of all connections", || relay.counters.connections_http.value() == 0);
        is_judged(relay);
        // Both buffers serve others.
        relay.check(&mut relay.connect(), COLD + 150_000, LENGTH - 2);
    });
}

#[test]
fn a_drain_does_not_wait_for_a_reader_who_keeps_a_buffer_lent() {
    check_cold("a_drain_does_not_wait_for_a_reader_who_keeps_a_buffer_lent", |relay| {
        let mut slow = connect_narrow(relay);
        slow.write_all(relay.request("300000-499999").as_bytes()).unwrap();
        let head = read_head(&mut slow);
        assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
        let limits = Limits { drain_timeout: Duration::ZERO, ..Limits::default() };
        relay.postbox.post(News::Limits(Arc::new(limits)));
        relay.postbox.post(News::Drain);
        wait_until("the drain", || relay.thread.as_ref().is_some_and(JoinHandle::is_finished));
    });
}
