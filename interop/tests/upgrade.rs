//! The program replaced while it serves: nobody is refused or cut, no byte is wrong, the origin sends nothing twice; and a new program
//! that does not come up changes nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use millrace_interop::http::{self, Connection, End};
use millrace_interop::origin::{Fault, Origin, Resource};
use millrace_interop::pattern::Pattern;
use millrace_interop::process::{Process, run};
use millrace_interop::relay::{free_address, program};
use millrace_interop::scratch::Scratch;
use millrace_interop::{PATIENCE, until};
use millrace_proto::admin::{ContentState, ContentStatus, Index, Upgraded};

const LENGTH: u64 = 24 << 20;
/// How far the origin goes before it is let go.
const HELD: u64 = 9 << 20;
const BYTES: Pattern = Pattern(7);

/// A relay whose program lies in a folder of its own, so that it can be replaced there; all that came of it ends with this.
struct Replaceable {
    first: Process,
    scratch: Scratch,
    http: SocketAddr,
    /// Processes that took over.
    followers: Vec<u32>,
}

impl Replaceable {
    fn start(configuration: &str) -> Self {
        let scratch = Scratch::new();
        copy(&scratch);
        let [http, bittorrent, metrics] = [free_address(), free_address(), free_address()];
        let text = format!(
            "store = {:?}\nadmin = {:?}\nhttp = \"{http}\"\nbt = \"{bittorrent}\"\nmetrics = \"{metrics}\"\n{configuration}\n",
            scratch.join("store"),
            scratch.join("admin.sock"),
        );
        std::fs::write(scratch.join("relay.toml"), text).unwrap();
        let mut command = Command::new(scratch.join("millrace-relay"));
        command.arg("serve").arg("--config").arg(scratch.join("relay.toml"));
        let mut first = Process::spawn(&mut command, scratch.join("log"));
        until("the relay to be ready", PATIENCE, || {
            assert!(first.ended().is_none(), "{}", first.output());
            http::get(http, "/readyz", &["Connection: close"]).ok().filter(|answer| answer.status == 200)
        });
        Replaceable { first, scratch, http, followers: Vec::new() }
    }

    /// Has the program replaced; what the command says where it fails.
    fn upgrade(&mut self) -> Result<(), String> {
        let mut command = Command::new(program());
        command.args(["upgrade", "--json", "--admin"]).arg(self.scratch.join("admin.sock"));
        let finished = run(&mut command, PATIENCE);
        if !finished.status.success() {
            assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
            return Err(finished.stderr);
        }
        let Upgraded { process, .. } = serde_json::from_slice(&finished.stdout).unwrap();
        self.followers.push(process);
        Ok(())
    }

    /// Puts a script where the program is.
    fn replace(&self, script: &str) {
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >new && chmod 755 new && mv new millrace-relay";
        let mut shell = Command::new("sh");
        shell.args(["-c", write, "sh", script]).current_dir(self.scratch.path());
        let written = run(&mut shell, PATIENCE);
        assert!(written.status.success(), "{}", written.stderr);
    }

    fn add(&self, source: &str) -> ContentStatus {
        let mut command = Command::new(program());
        command.args(["add", "--json", source, "--admin"]).arg(self.scratch.join("admin.sock"));
        let finished = run(&mut command, PATIENCE);
        assert!(finished.status.success(), "{}", finished.stderr);
        serde_json::from_slice(&finished.stdout).unwrap()
    }

    fn status(&self, id: &str) -> ContentStatus {
        let answer = http::get(self.http, &format!("/c/{id}.json"), &["Connection: close"]).unwrap();
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
    }

    fn complete(&self, id: &str) {
        until("the pull to be complete", PATIENCE, || {
            let status = self.status(id);
            assert_ne!(status.state, ContentState::Failed, "{:?}", status.error);
            (status.state == ContentState::Complete).then_some(())
        });
    }

    /// Waits until a process that was replaced has ended.
    fn ended(&mut self, process: u32) {
        until("a replaced program to end", PATIENCE, || {
            let _ = self.first.ended();
            let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            // One whose parent waits no more for it is nobody's.
            (state.is_empty() || state.contains(") Z ")).then_some(())
        });
    }
}

impl Drop for Replaceable {
    fn drop(&mut self) {
        for process in self.followers.drain(..) {
            let _ = run(Command::new("kill").args(["-KILL", &process.to_string()]), PATIENCE);
        }
    }
}

/// Puts the program into a folder. Another process writes it: what this one has open to write when it starts a child, the child has as well,
/// and such a file cannot be executed.
fn copy(scratch: &Scratch) {
    let copied = run(Command::new("cp").arg(program()).arg(scratch.join("millrace-relay")), PATIENCE);
    assert!(copied.status.success(), "{}", copied.stderr);
}

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
        for _ in 0..2 {
            relay.upgrade().unwrap();
            readers.extend(parked(&relay, &path));
        }
        assert_ne!(relay.followers[0], relay.followers[1]);
        origin.release();
        let later = relay.add(&origin.url("/later"));
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        relay.complete(&content.id);
        relay.complete(&later.id);
        relay.ended(first);
        relay.ended(relay.followers[0]);
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
    let mut relay = Replaceable::start("");
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
    let mut relay = Replaceable::start(&format!("egress = {RATE}"));
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
    let mut relay = Replaceable::start("");
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
fn a_new_program_that_hangs_is_not_waited_for() {
    let mut relay = Replaceable::start("[limits]\nupgrade-timeout = 1");
    relay.replace("exec sleep 600");
    let said = relay.upgrade().expect_err("it says nothing");
    assert!(said.contains("not ready within 1 s"), "{said}");
    assert_eq!(http::get(relay.http, "/readyz", &["Connection: close"]).unwrap().status, 200);
}

/// Takes everything, and has nothing of it.
const TAKES_AND_FAILS: &str = r#"exec python3 -c '
import socket
line = socket.socket(fileno=0)
line.recv(65536)
line.send(b"""{"say": "hello", "protocol": 1, "version": "2"}""")
while b"all" not in line.recv(262144): pass
line.send(b"""{"say": "failed", "why": "the moon is not full"}""")
'"#;

#[test]
fn a_new_program_that_does_not_come_up_changes_nothing() {
    let origin = Origin::of_file("file", LENGTH, BYTES, None);
    let mut relay = Replaceable::start("");
    origin.hold_at(HELD);
    let content = relay.add(&origin.url("/file"));
    until("the origin to be held", PATIENCE, || (origin.sent() == HELD).then_some(()));
    let readers = parked(&relay, &path_of(&content));
    let refused = |relay: &mut Replaceable, words: &str| {
        let said = relay.upgrade().expect_err("there is no program that could take over");
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
        assert_eq!(relay.status(&content.id).state, ContentState::Pulling);
    };
    relay.replace("exit 3");
    refused(&mut relay, "exit status: 3");
    relay.replace(TAKES_AND_FAILS);
    refused(&mut relay, "the moon is not full");
    std::fs::remove_file(relay.scratch.join("millrace-relay")).unwrap();
    refused(&mut relay, "does not start");
    copy(&relay.scratch);
    let configuration = std::fs::read_to_string(relay.scratch.join("relay.toml")).unwrap();
    std::fs::write(relay.scratch.join("relay.toml"), format!("nonsense = 1\n{configuration}")).unwrap();
    refused(&mut relay, "relay.toml:1");
    std::fs::write(relay.scratch.join("relay.toml"), configuration).unwrap();
    assert!(relay.first.ended().is_none());
    origin.release();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    relay.complete(&content.id);
    assert!(origin.sent() <= LENGTH + HELD, "{} bytes for {LENGTH}", origin.sent());
    // It can be upgraded after all.
    relay.upgrade().unwrap();
    relay.complete(&content.id);
}
