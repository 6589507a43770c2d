//! The program replaced while it serves: nobody is refused or cut, no byte is wrong, the origin sends nothing twice; and a new program
//! that does not come up changes nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

mod doors;
mod failing;
mod replaceable;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use millrace_interop::http::{self, Connection, End};
use millrace_interop::origin::{Fault, Origin, Resource};
use millrace_interop::pattern::Pattern;
use millrace_interop::{PATIENCE, until};
use millrace_proto::admin::{ContentStatus, Index};

use replaceable::Replaceable;

const LENGTH: u64 = 24 << 20;
/// How far the origin goes before it is let go.
const HELD: u64 = 9 << 20;
const BYTES: Pattern = Pattern(7);

/// Sends the visitors home at its end, however that comes about.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn path_of(content: &ContentStatus) -> String {
    format!("/c/{}/{}", content.id, content.name)
}

/// Asks for bytes of a content, from `start` on, and reads the answer on a thread of its own; nothing is wrong or missing.
fn reader(address: SocketAddr, path: String, start: u64, pattern: Pattern, length: u64) -> JoinHandle<()> {
    let mut connection = Connection::open(address).unwrap();
    connection.request("GET", &path, &[&format!("Range: bytes={start}-")]).unwrap();
    std::thread::spawn(move || {
        let answer = connection.answer().unwrap();
        assert_eq!(answer.status, 206, "{}", answer.text());
        assert_eq!(
            pattern.first_wrong(start, &answer.body),
            None,
            "of {} bytes from {start}",
            answer.body.len()
        );
        assert_eq!((answer.end, answer.body.len() as u64), (End::Clean, length - start));
    })
}

/// New connections one after the other until `stop`: how many were answered, every one of them.
fn visitors<'scope>(
    scope: &'scope Scope<'scope, '_>,
    address: SocketAddr,
    path: String,
    stop: &'scope AtomicBool,
) -> ScopedJoinHandle<'scope, u64> {
    scope.spawn(move || {
        let mut answered = 0;
        while !stop.load(Ordering::Relaxed) {
            let answer = http::get(address, &path, &["Range: bytes=5-70000", "Connection: close"])
                .unwrap_or_else(|error| panic!("after {answered} answers: {error}"));
            assert_eq!((answer.status, answer.end), (206, End::Clean), "after {answered} answers");
            assert_eq!(BYTES.first_wrong(5, &answer.body), None);
            answered += 1;
        }
        answered
    })
}

fn parked(relay: &Replaceable, path: &str) -> Vec<JoinHandle<()>> {
    // In the middle of an answer, before its first byte, and right at what is there.
    [0, LENGTH - 100_000, HELD / 2]
        .map(|start| reader(relay.http, path.to_owned(), start, BYTES, LENGTH))
        .into_iter()
        .collect()
}

#[test]
fn nobody_is_dropped() {
    let resource = |name: &str| Resource { path: format!("/{name}"), length: LENGTH, pattern: BYTES };
    let origin = Origin::start(vec![resource("file"), resource("later")], None);
    let mut relay = Replaceable::start("");
    origin.hold_at(HELD);
    let content = relay.add(&origin.url("/file"));
    let path = path_of(&content);
    until("the origin to be held", PATIENCE, || (origin.sent() == HELD).then_some(()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let visitors: Vec<_> = (0..3).map(|_| visitors(scope, relay.http, path.clone(), &stop)).collect();
        let mut readers = parked(&relay, &path);
        let first = relay.first.id();
        // Twice in a row, with readers of all three.
        let followers = [(); 2].map(|()| {
            let follower = relay.upgrade().unwrap();
            readers.extend(parked(&relay, &path));
            follower
        });
        assert_ne!(followers[0], followers[1]);
        origin.release();
        let later = relay.add(&origin.url("/later"));
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        relay.complete(&content.id);
        relay.complete(&later.id);
        relay.ended(first);
        relay.ended(followers[0]);
        drop(stopping);
        for visitor in visitors {
            assert!(visitor.join().unwrap() > 0);
        }
    });
    let second = http::get(relay.http, "/index.json", &["Connection: close"]).unwrap();
    let index: Index = serde_json::from_slice(&second.body).unwrap();
    assert_eq!(index.contents.len(), 2);
    // What was under way when the origin was held had come as far as it had sent it; it goes on sending some of that to nobody.
    assert!(origin.sent() <= 2 * LENGTH + HELD, "{} bytes for 2 × {LENGTH}", origin.sent());
}

#[test]
fn ranges_under_way_come_to_their_end() {
    let origin = Origin::of_file("file", LENGTH, BYTES, Some(24 << 20));
    let relay = Replaceable::start("");
    let content = relay.add(&origin.url("/file"));
    let readers = parked(&relay, &path_of(&content));
    relay.upgrade().unwrap();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    relay.complete(&content.id);
    assert_eq!(origin.sent(), LENGTH);
}

#[test]
fn programs_share_a_cap() {
    const RATE: u64 = 8 << 20;
    let relay = Replaceable::start(&format!("egress = {RATE}"));
    let file = relay.scratch.join("local");
    std::fs::write(&file, BYTES.bytes(0, usize::try_from(LENGTH).unwrap())).unwrap();
    let content = relay.add(file.to_str().unwrap());
    let path = path_of(&content);
    let (began, length) = (Instant::now(), LENGTH / 2);
    let before = reader(relay.http, path.clone(), LENGTH - length, BYTES, LENGTH);
    relay.upgrade().unwrap();
    let after = reader(relay.http, path, LENGTH - length, BYTES, LENGTH);
    before.join().unwrap();
    after.join().unwrap();
    let least = Duration::from_secs(LENGTH / RATE).mul_f64(0.95);
    assert!(began.elapsed() > least, "{LENGTH} bytes within {:?}", began.elapsed());
}

#[test]
fn what_tells_no_length_is_read_again_and_compared() {
    let origin = Origin::of_file("file", LENGTH, BYTES, None);
    origin.misbehave(Fault::NoLength, u32::MAX);
    let relay = Replaceable::start("");
    origin.hold_at(HELD);
    let content = relay.add(&origin.url("/file"));
    until("the origin to be held", PATIENCE, || (origin.sent() == HELD).then_some(()));
    let mut connection = Connection::open(relay.http).unwrap();
    connection.request("GET", &path_of(&content), &[]).unwrap();
    let reader = std::thread::spawn(move || connection.answer().unwrap());
    relay.upgrade().unwrap();
    origin.release();
    let answer = reader.join().unwrap();
    assert_eq!(BYTES.first_wrong(0, &answer.body), None, "of {} bytes", answer.body.len());
    assert_eq!((answer.end, answer.body.len() as u64), (End::Clean, LENGTH));
    relay.complete(&content.id);
}

#[test]
fn what_is_removed_is_read_to_its_end_by_who_has_begun() {
    let origin = Origin::of_file("file", LENGTH, BYTES, None);
    let relay = Replaceable::start("");
    let content = relay.add(&origin.url("/file"));
    relay.complete(&content.id);
    let mut connection = Connection::open(relay.http).unwrap();
    connection.request("GET", &path_of(&content), &[]).unwrap();
    let head = connection.head().unwrap();
    relay.upgrade().unwrap();
    relay.order("remove", &content.id);
    let gone = http::get(relay.http, &path_of(&content), &["Connection: close"]).unwrap();
    assert_eq!((head.status, gone.status), (200, 404));
    let body = connection.body(LENGTH).unwrap();
    assert_eq!((BYTES.first_wrong(0, &body), body.len() as u64), (None, LENGTH));
}
