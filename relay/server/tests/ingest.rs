//! Ingest against origins that behave and that do not: right bytes or a clear failed state, and each byte sent once.
//!
//! Ingest and store run in this process without shards; the origin's own access log is the judge of what was asked. Files are written
//! by `pwrite`, and through io_uring where `MILLRACE_INGEST_IO=uring` says so: the first test runs all others again in that way.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/origin.rs"]
mod origin;
#[path = "support/tls.rs"]
mod tls;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use disk::SmallDisk;
use millrace_pagecache::content::Content;
use millrace_pagecache::{Options, State, Store};
use millrace_proto::access::Access;
use millrace_proto::id::ContentId;
use millrace_relay::ingest::balance::Patience;
use millrace_relay::ingest::client::ClientConfig;
use millrace_relay::ingest::{AddError, Ingest, IngestConfig, NewPull, Way};
use millrace_relay::shards::Shards;
use origin::{Behaviour, File, Origin};

const MIB: u64 = 1 << 20;
/// Four ranges and a bit, ending inside a block.
const LENGTH: u64 = 18 * MIB + 12_345;
const SEED: u64 = 7;
/// Says how files are to be written.
const WAY: &str = "MILLRACE_INGEST_IO";
/// What nothing here comes near, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay's ingest and store in a folder of their own.
struct Relay {
    folder: PathBuf,
    store: Arc<Store>,
    ingest: Ingest,
    thread: Option<JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
    keeps_folder: bool,
}

impl Relay {
    fn new() -> Relay {
        Relay::with(config())
    }

    fn with(config: IngestConfig) -> Relay {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("millrace-ingest-{}-{number}", std::process::id()));
        Relay::at(&folder, config)
    }

    fn with_capacity(capacity: u64) -> Relay {
        let mut relay = Relay::new();
        relay.ingest.stop();
        relay.thread.take().unwrap().join().unwrap();
        let folder = relay.folder.join("small");
        let options = Options { capacity: Some(capacity), ..Options::default() };
        relay.store = Arc::new(Store::open(&folder, options).unwrap());
        let config = IngestConfig { store: folder, ..config() };
        let (ingest, thread) = Ingest::start(config, Arc::clone(&relay.store), Shards::default()).unwrap();
        (relay.ingest, relay.thread) = (ingest, Some(thread));
        relay
    }

    fn at(folder: &Path, config: IngestConfig) -> Relay {
        std::fs::create_dir_all(folder).unwrap();
        let store = Arc::new(Store::open(folder, Options::default()).unwrap());
        let (ingest, thread) = Ingest::start(config, Arc::clone(&store), Shards::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = folder.to_owned();
        Relay { folder, store, ingest, thread: Some(thread), runtime, keeps_folder: false }
    }

    fn try_add(&self, request: NewPull) -> Result<Arc<Content>, AddError> {
        self.runtime.block_on(self.ingest.add(request))
    }

    fn add(&self, request: NewPull) -> Arc<Content> {
        self.try_add(request).unwrap()
    }

    /// As for a reader of `/pull/`.
    fn pull(&self, request: NewPull) -> Arc<Content> {
        let (sender, pulled) = std::sync::mpsc::channel();
        self.ingest.pull(request, move |outcome| sender.send(outcome).unwrap());
        pulled.recv().unwrap().unwrap()
    }

    fn get(&self, id: ContentId) -> Arc<Content> {
        self.store.get(id).unwrap()
    }

    /// Waits until something holds of the content, which a settled content of the same id may have replaced.
    fn wait_for(&self, id: ContentId, what: &str, holds: impl Fn(&Arc<Content>) -> bool) -> Arc<Content> {
        let start = Instant::now();
        loop {
            let content = self.get(id);
            if holds(&content) {
                return content;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "not {what}: {content:?}, {:?}, {:?}",
                content.error(),
                self.ingest.pulls()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until something holds.
    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < PATIENCE, "not {what}: {:?}", self.store.contents());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_complete(&self, id: ContentId) -> Arc<Content> {
        let content = self.wait_for(id, "over", |content| {
            content.state() == State::Failed
                || (content.state() == State::Complete && content.metainfo().is_some())
        });
        assert_eq!(content.state(), State::Complete, "{:?}", content.error());
        content
    }

    fn wait_failed(&self, id: ContentId) -> String {
        let content =
            self.wait_for(id, "over", |content| matches!(content.state(), State::Failed | State::Complete));
        assert_eq!(content.state(), State::Failed);
        content.error().unwrap()
    }

    /// Stops and starts again on the same store.
    fn restart(mut self) -> Relay {
        self.keeps_folder = true;
        let folder = self.folder.clone();
        drop(self);
        Relay::at(&folder, config())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ingest.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if !self.keeps_folder {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn config() -> IngestConfig {
    let patience = Patience { rest_ms: 10, rest_ms_max: 50, failures_max: 4 };
    let client = ClientConfig { head_timeout: PATIENCE, idle_timeout: PATIENCE, ..ClientConfig::default() };
    let way = way();
    IngestConfig { client, way, patience, add_patience: patience, hash_threads: 2, ..IngestConfig::default() }
}

fn way() -> Way {
    match std::env::var_os(WAY).is_some_and(|way| way == "uring") {
        true => Way::Uring,
        false => Way::Pwrite,
    }
}

/// Says why a test was not made, past the test harness, which keeps what a passing test prints to itself.
fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

#[test]
fn all_of_this_through_io_uring() {
    if way() == Way::Uring {
        return;
    }
    if let Err(refusal) = millrace_ring::probe().verdict {
        assert!(std::env::var_os("MILLRACE_REQUIRE_URING").is_none_or(|value| value != "1"), "{refusal}");
        return skip(&format!("ingest through io_uring: {refusal}"));
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    let output = again.arg("--quiet").env(WAY, "uring").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

fn from(url: &str) -> NewPull {
    NewPull::from_operator(url).unwrap()
}

fn check_bytes(content: &Content, seed: u64, length: u64) {
    assert_eq!(content.length(), Some(length));
    assert_eq!(content.visible_until(0, length), length);
    let mut at = 0;
    let mut buffer = vec![0; 1 << 20];
    while at < length {
        let bytes = usize::try_from(length - at).unwrap().min(buffer.len());
        content.read(at, &mut buffer[..bytes]).unwrap();
        let end = at + u64::try_from(bytes).unwrap();
        assert!(buffer[..bytes] == origin::bytes(seed, at..end)[..], "bytes {at}..{end} are wrong");
        at = end;
    }
}

/// A file whose origin behaves like this arrives right, and the origin sends it `extra` bytes too much at most.
fn check_arrives(behaviour: Behaviour, length: u64, extra: u64) -> (Relay, Origin, Arc<Content>) {
    check_arrives_at(Relay::new(), behaviour, length, extra)
}

fn check_arrives_at(
    relay: Relay,
    behaviour: Behaviour,
    length: u64,
    extra: u64,
) -> (Relay, Origin, Arc<Content>) {
    let origin = Origin::single(length, SEED, behaviour);
    let content = relay.add(from(&origin.file_url()));
    let content = relay.wait_complete(content.id());
    check_bytes(&content, SEED, length);
    let sent = origin.sent();
    assert!((length..=length + extra).contains(&sent), "{sent} bytes were sent of {length}");
    (relay, origin, content)
}

/// A file whose origin behaves like this fails with these words.
fn check_fails(behaviour: Behaviour, words: &str) {
    check_fails_at(&Relay::new(), behaviour, words);
}

fn check_fails_at(relay: &Relay, behaviour: Behaviour, words: &str) {
    let origin = Origin::single(LENGTH, SEED, behaviour);
    let error = match relay.try_add(from(&origin.file_url())) {
        Ok(content) => relay.wait_failed(content.id()),
        Err(error) => error.to_string(),
    };
    assert!(error.contains(words), "{error}");
}

#[test]
fn a_file_arrives_once_and_becomes_a_torrent() {
    let (relay, origin, content) = check_arrives(Behaviour::default(), LENGTH, 0);
    let metainfo = content.metainfo().unwrap();
    assert!(metainfo.infohash_v1().is_some() && metainfo.infohash_v2().is_some());
    for piece in 0..content.layout().piece_count() {
        let piece = millrace_pagecache::PieceIndex(piece);
        assert_eq!(content.verify_piece(piece).unwrap(), millrace_pagecache::Verdict::Good);
    }
    let log = origin.log();
    assert!(
        log.iter()
            .all(|access| access.range.as_ref().is_some_and(|range| range.end - range.start <= 4 * MIB))
    );
    assert!(log[1..].iter().all(|access| access.headers["if-range"] == "\"a\""));
    assert!(log.iter().all(|access| access.headers["accept-encoding"] == "identity"));
    let digest = ring::digest::digest(&ring::digest::SHA256, &origin::bytes(SEED, 0..LENGTH));
    let content = relay.wait_for(content.id(), "digested", |content| content.sha256().is_some());
    assert_eq!(&content.sha256().unwrap()[..], digest.as_ref());
    // The same request again is the same content, and asks the origin for nothing.
    assert_eq!(relay.add(from(&origin.file_url())).id(), content.id());
    assert_eq!(origin.log().len(), log.len());
}

#[test]
fn small_and_empty_files_arrive() {
    for length in [0, 1, 16 * 1024, 4 * MIB, 4 * MIB + 1] {
        let (relay, origin) = (Relay::new(), Origin::single(length, SEED, Behaviour::default()));
        let id = relay.add(from(&origin.file_url())).id();
        let content = relay.wait_for(id, "complete", |content| content.state() == State::Complete);
        check_bytes(&content, SEED, length);
        assert_eq!(origin.sent(), length);
    }
}

#[test]
fn many_who_ask_at_once_share_one_pull() {
    let (relay, origin) = (Relay::new(), Origin::single(LENGTH, SEED, Behaviour::default()));
    let ids: Vec<_> = relay.runtime.block_on(async {
        let all = (0..20).map(|_| relay.ingest.add(from(&origin.file_url())));
        futures_util::future::join_all(all).await.into_iter().map(|content| content.unwrap().id()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    relay.wait_complete(ids[0]);
    assert_eq!(origin.sent(), LENGTH);
}

#[test]
fn what_is_demanded_comes_first() {
    let length = 64 * MIB;
    let behaviour = Behaviour { rate: Some(MIB), ..Behaviour::default() };
    let (relay, origin) = (Relay::new(), Origin::single(length, SEED, behaviour));
    let content = relay.add(from(&origin.file_url()));
    relay.wait_for(content.id(), "begun", |_| origin.log().len() >= 6);
    let asked = origin.log().len();
    relay.ingest.demand(content.id(), 60 * MIB + 5, 1000);
    relay.wait_for(content.id(), "demanded bytes", |content| {
        content.visible_until(60 * MIB + 5, length) > 60 * MIB + 5
    });
    let log = origin.log();
    let position =
        log.iter().position(|access| access.range.as_ref().unwrap().contains(&(60 * MIB + 5))).unwrap();
    assert!(position <= asked + 2, "it was request {position} after {asked}");
    origin.behave(Behaviour::default());
    let content = relay.wait_complete(content.id());
    check_bytes(&content, SEED, length);
    assert_eq!(origin.sent(), length);
}

#[test]
fn an_origin_that_allows_one_connection_gets_one() {
    let outer = Relay::new();
    let relay = Relay::at(&outer.folder.join("one"), IngestConfig { origin_connections_max: 1, ..config() });
    let files = ["/a", "/b"].map(|path| (path.to_owned(), File { length: LENGTH, seed: SEED }));
    let origin = Origin::start(files.into(), Behaviour::default());
    // Each needs the connection for its first answer, while the other one pulls.
    let ids = ["/a", "/b"].map(|path| relay.add(from(&origin.url(path))).id());
    for id in ids {
        check_bytes(&relay.wait_complete(id), SEED, LENGTH);
    }
    assert_eq!((origin.connections_most(), origin.sent()), (1, 2 * LENGTH));
}

#[test]
fn a_far_origin_is_asked_for_more_at_a_time_within_the_limit() {
    let length = 64 * MIB;
    // Far enough for more requests than the limit allows; two connections are kept for what somebody waits for.
    let behaviour = Behaviour { slow_head: Some(Duration::from_millis(300)), ..Behaviour::default() };
    let origin = Origin::single(length, SEED, behaviour.clone());
    let outer = Relay::new();
    let relay =
        Relay::at(&outer.folder.join("twelve"), IngestConfig { origin_connections_max: 12, ..config() });
    let id = relay.add(from(&origin.file_url())).id();
    check_bytes(&relay.wait_complete(id), SEED, length);
    assert_eq!((origin.connections_most(), origin.sent()), (10, length));
    // What is waited for goes first all the same.
    let origin = Origin::single(length, SEED, Behaviour { rate: Some(MIB), ..behaviour });
    let content = relay.add(from(&origin.file_url()));
    relay.wait_for(content.id(), "begun", |_| origin.log().len() >= 10);
    let asked = origin.log().len();
    relay.ingest.demand(content.id(), 60 * MIB + 5, 1000);
    let holds = |range: &std::ops::Range<u64>| range.contains(&(60 * MIB + 5));
    let position = || origin.log().iter().position(|access| access.range.as_ref().is_some_and(holds));
    relay.wait_for(content.id(), "asked for", |_| position().is_some());
    assert!(
        position().unwrap() <= asked + 2,
        "it was request {position:?} after {asked}",
        position = position()
    );
    origin.behave(Behaviour::default());
    check_bytes(&relay.wait_complete(content.id()), SEED, length);
    assert_eq!(origin.sent(), length);
}

#[test]
fn an_origin_without_ranges_is_read_once_in_order() {
    let (_relay, origin, _) =
        check_arrives(Behaviour { ignores_range: true, ..Behaviour::default() }, LENGTH, 0);
    assert_eq!(origin.log().len(), 1);
}

#[test]
fn an_origin_without_a_length_is_read_to_its_end() {
    let (_relay, origin, content) =
        check_arrives(Behaviour { chunked: true, ..Behaviour::default() }, LENGTH, 0);
    assert_eq!(origin.log().len(), 1);
    assert!(!content.is_growing());
}

#[test]
fn a_reset_costs_only_what_was_in_flight() {
    for fault in [
        Behaviour { reset: Some((2, 3 * MIB)), ..Behaviour::default() },
        Behaviour { short: Some((2, 3 * MIB)), ..Behaviour::default() },
    ] {
        // What was in the socket when it was reset is lost.
        let (relay, ..) = check_arrives(fault, LENGTH, 8 * MIB);
        assert!(relay.ingest.metrics().retries.value() >= 1);
    }
}

/// Looks at a content again and again until it is complete: whatever is visible has its right bytes at that moment already.
fn watch(relay: &Relay, id: ContentId, length: u64) {
    let (start, mut buffer) = (Instant::now(), vec![0; 64 << 10]);
    while relay.get(id).state() != State::Complete {
        assert!(start.elapsed() < PATIENCE);
        let content = relay.get(id);
        let mut at = 0;
        while at < length {
            let end = content.visible_until(at, length);
            // The latest bytes are those that could be missing.
            let from = end.saturating_sub(64 << 10).max(at);
            let bytes = usize::try_from(end - from).unwrap();
            content.read(from, &mut buffer[..bytes]).unwrap();
            assert!(
                buffer[..bytes] == origin::bytes(SEED, from..end)[..],
                "bytes in {from}..{end} are wrong"
            );
            at = (end / MIB + 1) * MIB;
        }
    }
}

#[test]
fn what_is_visible_is_there_also_when_bodies_are_reset() {
    let whole = Behaviour { ignores_range: true, short: Some((1, 9 * MIB)), ..Behaviour::default() };
    for behaviour in [
        Behaviour { reset: Some((6, MIB + 5)), ..Behaviour::default() },
        Behaviour { chunked: true, ..whole.clone() },
        whole,
    ] {
        let (relay, origin) = (Relay::new(), Origin::single(LENGTH, SEED, behaviour));
        let content = relay.add(from(&origin.file_url()));
        watch(&relay, content.id(), LENGTH);
        check_bytes(&relay.wait_complete(content.id()), SEED, LENGTH);
    }
}

#[test]
fn a_pull_that_is_stopped_in_the_middle_of_a_write_goes_on_after_it() {
    if way() == Way::Pwrite {
        return; // There nothing can be stopped in the middle of a write.
    }
    let outer = Relay::new();
    let Some(disk) = SmallDisk::with_ext4(&outer.folder) else {
        return skip("a write that takes long (freezing a file system needs root)");
    };
    let relay = Relay::at(&disk.0, config());
    // A pull without a length cannot wait: pausing stops it wherever it is, and resuming reads again from the start.
    let behaviour = Behaviour { chunked: true, rate: Some(4 * MIB), ..Behaviour::default() };
    let origin = Origin::single(LENGTH, SEED, behaviour);
    let content = relay.add(from(&origin.file_url()));
    relay.wait_for(content.id(), "begun", |content| content.visible_bytes() > 0);
    let frozen = disk.freeze();
    let before = origin.sent();
    relay.wait_for(content.id(), "writing", |_| origin.sent() > before + MIB / 4);
    relay.runtime.block_on(relay.ingest.pause(content.id())).unwrap();
    origin.behave(Behaviour { chunked: true, ..Behaviour::default() });
    relay.runtime.block_on(relay.ingest.resume(content.id())).unwrap();
    // A pull that did not wait would have had its answer before these have theirs, and written.
    for _ in 0..10 {
        assert!(relay.try_add(from(&origin.url("/none"))).is_err());
    }
    assert_eq!(origin.log().iter().filter(|access| access.status == 200).count(), 1, "it did not wait");
    drop(frozen);
    check_bytes(&relay.wait_complete(content.id()), SEED, LENGTH);
}

#[test]
fn an_origin_without_ranges_that_breaks_off_is_read_again() {
    let whole = Behaviour { ignores_range: true, ..Behaviour::default() };
    check_arrives(Behaviour { short: Some((1, 9 * MIB)), ..whole }, LENGTH, 9 * MIB);
    // A chunked body that ends without its last chunk is no end.
    let chunked = Behaviour { chunked: true, ..Behaviour::default() };
    check_arrives(Behaviour { short: Some((1, 9 * MIB)), ..chunked }, LENGTH, 9 * MIB);
}

#[test]
fn what_is_behind_the_promised_end_is_not_taken() {
    // Each answer has ten bytes too many.
    let (_relay, origin, _) =
        check_arrives(Behaviour { long: Some(10), ..Behaviour::default() }, LENGTH, 10_000);
    assert_eq!(origin.sent() % 10, LENGTH % 10);
}

#[test]
fn a_body_that_stops_coming_is_asked_for_again() {
    // So short that other bodies seem to stop as well while the machine is busy: no reason to give up.
    let client = ClientConfig { idle_timeout: Duration::from_millis(1_500), ..config().client };
    let patience = Patience { failures_max: 1_000, ..config().patience };
    let relay = Relay::with(IngestConfig { client, patience, ..config() });
    check_arrives_at(relay, Behaviour { stalls: Some((1, MIB)), ..Behaviour::default() }, LENGTH, LENGTH);
}

#[test]
fn errors_that_pass_are_waited_for() {
    let (relay, origin, _) =
        check_arrives(Behaviour { fails: Some((2, 500, None)), ..Behaviour::default() }, LENGTH, 0);
    assert!(origin.log()[..2].iter().all(|access| access.status == 500));
    assert_eq!(relay.ingest.metrics().requests[5].value(), 2);
    let start = Instant::now();
    check_arrives(Behaviour { fails: Some((1, 429, Some(1))), ..Behaviour::default() }, LENGTH, 0);
    assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After was not obeyed");
}

#[test]
fn wrong_answers_are_refused() {
    check_fails(
        Behaviour { wrong_range: true, ..Behaviour::default() },
        "asked for bytes 0-4194303, got bytes 1-4194304",
    );
    check_fails(Behaviour { gzip: true, ..Behaviour::default() }, "Content-Encoding");
    check_fails(Behaviour { status: Some(404), ..Behaviour::default() }, "404");
    check_fails(Behaviour { status: Some(503), ..Behaviour::default() }, "503");
    let client = ClientConfig { head_timeout: Duration::from_millis(500), ..config().client };
    check_fails_at(
        &Relay::with(IngestConfig { client, ..config() }),
        Behaviour { slow_head: Some(PATIENCE), ..Behaviour::default() },
        "no byte for",
    );
    check_fails(
        Behaviour { redirect: Some("/file.bin".into()), ..Behaviour::default() },
        "redirected more than 10 times",
    );
    check_fails(
        Behaviour { redirect: Some("http://127.0.0.1:1/x".into()), ..Behaviour::default() },
        "not a public address",
    );
    check_fails(
        Behaviour { redirect: Some("http://localhost:1/x".into()), ..Behaviour::default() },
        "not a public address",
    );
    check_fails(Behaviour { reset: Some((usize::MAX, 0)), ..Behaviour::default() }, "file.bin:");
}

#[test]
fn users_do_not_reach_inside() {
    let origin = Origin::single(LENGTH, SEED, Behaviour::default());
    let relay = Relay::new();
    for url in [origin.file_url(), origin.file_url().replace("127.0.0.1", "localhost")] {
        let error = relay.try_add(NewPull { operator_named: false, ..from(&url) }).unwrap_err();
        assert!(error.to_string().contains("not a public address"), "{error}");
    }
    assert!(origin.log().is_empty());
    assert_eq!(relay.ingest.metrics().guard_refusals.value(), 2);
}

#[test]
fn an_origin_that_changed_starts_a_new_version() {
    for ignores_if_range in [false, true] {
        let behaviour = Behaviour { changes_after: Some(3), ignores_if_range, ..Behaviour::default() };
        let (relay, origin) = (Relay::new(), Origin::single(LENGTH, SEED, behaviour));
        let access: Access = "signed".parse().unwrap();
        let old = relay.add(NewPull { access: Some(access.clone()), ..from(&origin.file_url()) });
        let error = relay.wait_failed(old.id());
        assert!(error.contains("origin changed while pulling: ETag \"a\" became \"b\""), "{error}");
        let start = Instant::now();
        let new = loop {
            let found =
                relay.store.contents().into_iter().find(|content| content.supersedes() == Some(old.id()));
            if let Some(new) = found {
                break new;
            }
            assert!(start.elapsed() < PATIENCE, "no new version");
            std::thread::sleep(Duration::from_millis(5));
        };
        let new = relay.wait_complete(new.id());
        check_bytes(&new, SEED ^ 1 << 40, LENGTH);
        assert_eq!(*new.access(), access, "nobody else may have the new version");
        // The same request now means the new version.
        assert_eq!(relay.add(from(&origin.file_url())).id(), new.id());
    }
}

#[test]
fn credentials_go_to_their_origin_only() {
    let wanted = Some("Basic bWU6c2VjcmV0".to_owned());
    let origin = Origin::single(LENGTH, SEED, Behaviour { authorization: wanted, ..Behaviour::default() });
    let relay = Relay::new();
    assert!(relay.try_add(from(&origin.file_url())).is_err());
    let url = origin.file_url().replace("http://", "http://me:secret@");
    let content = relay.add(from(&url));
    check_bytes(&relay.wait_complete(content.id()), SEED, LENGTH);
}

#[test]
fn a_private_ca_is_trusted_only_when_named() {
    let (relay, origin) = (Relay::new(), Origin::single(LENGTH, SEED, Behaviour::default()));
    let front = tls::front(origin.address());
    let url = format!("https://localhost:{}/file.bin", front.port);
    let error = relay.try_add(from(&url)).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(origin.log().is_empty());
    let ca_file = relay.folder.join("ca.pem");
    std::fs::write(&ca_file, &front.ca_pem).unwrap();
    let client = ClientConfig { ca_file: Some(ca_file.clone()), ..ClientConfig::default() };
    let trusting = Relay::at(&relay.folder.join("trusting"), IngestConfig { client, ..config() });
    let content = trusting.add(from(&url));
    check_bytes(&trusting.wait_complete(content.id()), SEED, LENGTH);
    assert_eq!(origin.sent(), LENGTH);
    std::fs::write(&ca_file, "no certificate").unwrap();
    let client = ClientConfig { ca_file: Some(ca_file), ..ClientConfig::default() };
    let refused =
        Ingest::start(IngestConfig { client, ..config() }, Arc::clone(&relay.store), Shards::default());
    assert!(refused.unwrap_err().to_string().contains("ca.pem"));
}

#[test]
fn a_digest_that_does_not_match_fails() {
    let (relay, origin) = (Relay::new(), Origin::single(LENGTH, SEED, Behaviour::default()));
    let wrong = relay.add(NewPull { sha256: Some([9; 32]), ..from(&origin.file_url()) });
    let check = |relay: &Relay| {
        let error = relay.wait_failed(wrong.id());
        assert!(error.contains("SHA-256"), "{error}");
        assert_eq!(relay.get(wrong.id()).visible_until(0, LENGTH), 0, "wrong bytes are still served");
    };
    check(&relay);
    let relay = relay.restart();
    check(&relay);
}

#[test]
fn another_digest_of_what_is_here_is_refused() {
    let (relay, origin) = (Relay::new(), Origin::single(LENGTH, SEED, Behaviour::default()));
    let content = relay.add(from(&origin.file_url()));
    let content = relay.wait_for(content.id(), "digested", |content| content.sha256().is_some());
    let again = |sha256| relay.try_add(NewPull { sha256, ..from(&origin.file_url()) });
    assert_eq!(again(content.sha256().copied()).unwrap().id(), content.id());
    let error = again(Some([9; 32])).unwrap_err();
    assert!(error.to_string().contains(&content.id().to_string()), "{error}");
}

#[test]
fn a_pull_goes_on_after_a_restart() {
    let behaviour = Behaviour { rate: Some(4 * MIB), ..Behaviour::default() };
    let (relay, origin) = (Relay::new(), Origin::single(LENGTH, SEED, behaviour));
    let content = relay.add(from(&origin.file_url()));
    relay.wait_for(content.id(), "half way", |content| content.pieces_have() > 100);
    let relay = relay.restart();
    let have = relay.get(content.id()).pieces_have();
    assert!(have > 100, "only {have} pieces were kept");
    origin.behave(Behaviour::default());
    let content = relay.wait_complete(content.id());
    check_bytes(&content, SEED, LENGTH);
    let most = LENGTH + 8 * 4 * MIB;
    assert!(origin.sent() <= most);
}

#[test]
fn pause_resume_remove() {
    let behaviour = Behaviour { rate: Some(2 * MIB), ..Behaviour::default() };
    let (relay, origin) = (Relay::new(), Origin::single(LENGTH * 3, SEED, behaviour));
    let content = relay.add(from(&origin.file_url()));
    relay.runtime.block_on(relay.ingest.pause(content.id())).unwrap();
    assert_eq!(content.state(), State::Paused);
    origin.behave(Behaviour::default());
    relay.runtime.block_on(relay.ingest.resume(content.id())).unwrap();
    check_bytes(&relay.wait_complete(content.id()), SEED, LENGTH * 3);
    assert_eq!(origin.sent(), LENGTH * 3);
    relay.runtime.block_on(relay.ingest.remove(content.id())).unwrap();
    assert!(relay.store.get(content.id()).is_none());
    assert!(matches!(relay.runtime.block_on(relay.ingest.remove(content.id())), Err(AddError::Absent)));
}

#[test]
fn a_pull_that_is_removed_is_under_way_no_longer() {
    let behaviour = Behaviour { rate: Some(MIB), ..Behaviour::default() };
    let (relay, origin) = (Relay::new(), Origin::single(LENGTH, SEED, behaviour));
    let content = relay.add(from(&origin.file_url()));
    relay.wait_for(content.id(), "begun", |content| content.visible_bytes() > 0);
    assert_eq!(relay.ingest.metrics().pulls_active.value(), 1);
    relay.runtime.block_on(relay.ingest.remove(content.id())).unwrap();
    assert_eq!(relay.ingest.metrics().pulls_active.value(), 0);
}

#[test]
fn a_failed_pull_is_resumed_where_it_stopped() {
    let behaviour = Behaviour { rate: Some(8 * MIB), ..Behaviour::default() };
    let (relay, origin) = (Relay::new(), Origin::single(3 * LENGTH, SEED, behaviour));
    let content = relay.add(from(&origin.file_url()));
    origin.behave(Behaviour { status: Some(503), ..Behaviour::default() });
    let error = relay.wait_failed(content.id());
    assert!(error.contains("503"), "{error}");
    origin.behave(Behaviour::default());
    relay.runtime.block_on(relay.ingest.resume(content.id())).unwrap();
    check_bytes(&relay.wait_complete(content.id()), SEED, 3 * LENGTH);
    assert_eq!(origin.sent(), 3 * LENGTH);
}

#[test]
fn what_does_not_fit_the_store_fails_with_what_to_do() {
    let origin = Origin::single(LENGTH, SEED, Behaviour::default());
    let relay = Relay::new();
    let other = relay.folder.join("small");
    let store = Arc::new(Store::open(&other, Options { capacity: Some(MIB), ..Options::default() }).unwrap());
    let config = IngestConfig { store: other, ..config() };
    let (ingest, thread) = Ingest::start(config, Arc::clone(&store), Shards::default()).unwrap();
    let content = relay.runtime.block_on(ingest.add(from(&origin.file_url()))).unwrap();
    let start = Instant::now();
    while content.state() != State::Failed {
        assert!(start.elapsed() < PATIENCE, "{content:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let error = content.error().unwrap();
    let said = ["--capacity is 1.0 MiB: 0 B are stored", "18.0 MiB more are to come; raise it"];
    assert!(said.iter().all(|said| error.contains(said)), "{error}");
    ingest.stop();
    thread.join().unwrap();
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_write_fails_the_pull() {
    let outer = Relay::new();
    let Some(disk) = SmallDisk::with_tmpfs(&outer.folder, "9m") else {
        let test = "a_disk_that_is_full_in_the_middle_of_a_write_fails_the_pull";
        return if !disk::again_where_mounting_is_allowed(test) {
            skip("a full disk (mounting one needs root, or user namespaces)");
        };
    };
    let relay = Relay::at(&disk.0, config());
    // Without a length nobody can know that it does not fit.
    let origin = Origin::single(LENGTH, SEED, Behaviour { chunked: true, ..Behaviour::default() });
    let content = relay.add(from(&origin.file_url()));
    let error = relay.wait_failed(content.id());
    assert!(error.contains("disk full: free space under"), "{error}");
    let end = content.visible_until(0, LENGTH);
    let mut buffer = vec![0; usize::try_from(end).unwrap()];
    content.read(0, &mut buffer).unwrap();
    assert!(end > MIB && buffer == origin::bytes(SEED, 0..end), "{end} bytes are visible");
}

#[test]
fn a_disk_that_does_not_keep_an_addition_undoes_it() {
    type Ask = fn(&Relay, NewPull);
    let asks: [Ask; 2] = [
        |relay, request| {
            let error = relay.try_add(request).unwrap_err();
            assert!(matches!(&error, AddError::NoRoom(why) if why.contains("disk full")), "{error}");
        },
        |relay, request| {
            let content = relay.pull(request);
            relay.until("removed", || content.state() == State::Removed);
            assert_eq!(content.visible_until(0, MIB), 0, "nothing of it is served any more");
        },
    ];
    let origin = Origin::single(MIB, SEED, Behaviour { rate: Some(2 * MIB), ..Behaviour::default() });
    for ask in asks {
        let outer = Relay::new();
        let Some(disk) = SmallDisk::with_tmpfs(&outer.folder, "9m,nr_inodes=64") else {
            return if !disk::again_where_mounting_is_allowed(
                "a_disk_that_does_not_keep_an_addition_undoes_it",
            ) {
                skip("a disk without inodes (mounting one needs root, or user namespaces)");
            };
        };
        let relay = Relay::at(&disk.0, config());
        let folders = |spare: bool| {
            let entries = std::fs::read_dir(disk.0.join("contents")).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.starts_with(".new-") == spare).count()
        };
        // Folders were made in advance. There is no inode for what is to be said of the content that takes one.
        relay.until("prepared", || folders(true) == 4);
        let fillers = (0..).map(|number| disk.0.join(format!("filler-{number}")));
        let fillers: Vec<_> = fillers.take_while(|path| std::fs::File::create(path).is_ok()).collect();
        ask(&relay, from(&origin.file_url()));
        relay.until("undone", || folders(false) == 0 && relay.store.contents().is_empty());
        fillers.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let content = relay.add(from(&origin.file_url()));
        check_bytes(&relay.wait_complete(content.id()), SEED, MIB);
    }
}

#[test]
fn no_two_pulls_are_promised_the_same_room() {
    let file = |seed| File { length: LENGTH, seed };
    let slow = Behaviour { rate: Some(2 * MIB), ..Behaviour::default() };
    let origin = Origin::start([("/a".to_owned(), file(1)), ("/b".to_owned(), file(2))].into(), slow);
    let relay = Relay::with_capacity(LENGTH + LENGTH / 2);
    let first = relay.add(from(&origin.url("/a")));
    let second = relay.add(from(&origin.url("/b")));
    let error = relay.wait_failed(second.id());
    assert!(error.contains("--capacity"), "{error}");
    assert_ne!(first.state(), State::Complete, "the first must still be on its way");
    origin.behave(Behaviour::default());
    check_bytes(&relay.wait_complete(first.id()), 1, LENGTH);
}

#[test]
fn an_origin_that_promises_terabytes_holds_nobody_up() {
    let huge = Origin::single(8 << 40, SEED, Behaviour { rate: Some(MIB), ..Behaviour::default() });
    let origin = Origin::single(LENGTH, SEED, Behaviour::default());
    let relay = Relay::with_capacity(2 * LENGTH);
    let terabytes = relay.add(from(&huge.file_url()));
    let content = relay.add(from(&origin.file_url()));
    check_bytes(&relay.wait_complete(content.id()), SEED, LENGTH);
    let error = relay.wait_failed(terabytes.id());
    assert!(error.contains("--capacity"), "{error}");
}

/// A torrent of what `url` has, made by a relay.
fn torrent_of(url: &str) -> Vec<u8> {
    let relay = Relay::new();
    let content = relay.add(from(url));
    relay.wait_complete(content.id()).metainfo().unwrap().to_bytes()
}

#[test]
fn a_torrent_with_a_url_is_verified_piece_by_piece() {
    let origin = Origin::single(LENGTH, SEED, Behaviour::default());
    let torrent = torrent_of(&origin.file_url());
    let sent = origin.sent();
    let relay = Relay::new();
    origin.behave(Behaviour { corrupt: Some((1, 5 * MIB)), ..Behaviour::default() });
    let content = relay.add(NewPull { metainfo: Some(torrent), ..from(&origin.file_url()) });
    assert!(content.hashes_known());
    let content = relay.wait_complete(content.id());
    check_bytes(&content, SEED, LENGTH);
    assert_eq!(relay.ingest.metrics().hash_failures.value(), 1);
    // The wrong piece was pulled again, and nothing else.
    assert_eq!(origin.sent() - sent, LENGTH + u64::from(content.layout().piece_bytes()));
}

#[test]
fn a_piece_that_somebody_waits_for_is_verified_before_it_is_shown() {
    let origin = Origin::single(LENGTH, SEED, Behaviour::default());
    let torrent = torrent_of(&origin.file_url());
    let sent = origin.sent();
    // Late enough that the reader waits before the piece is here.
    let slow_head = Some(Duration::from_millis(500));
    origin.behave(Behaviour { corrupt: Some((1, 5 * MIB)), slow_head, ..Behaviour::default() });
    let relay = Relay::new();
    let content = relay.add(NewPull { metainfo: Some(torrent), ..from(&origin.file_url()) });
    relay.ingest.demand(content.id(), 5 * MIB, 1000);
    let content = relay.wait_complete(content.id());
    check_bytes(&content, SEED, LENGTH);
    assert_eq!(relay.ingest.metrics().hash_failures.value(), 1);
    assert_eq!(origin.sent() - sent, LENGTH + u64::from(content.layout().piece_bytes()));
}

#[test]
fn wrong_bytes_against_known_hashes_are_never_shown() {
    let origin = Origin::single(LENGTH, SEED, Behaviour::default());
    let torrent = torrent_of(&origin.file_url());
    origin.behave(Behaviour { corrupt: Some((99, 5 * MIB)), ..Behaviour::default() });
    let relay = Relay::new();
    let content = relay.add(NewPull { metainfo: Some(torrent.clone()), ..from(&origin.file_url()) });
    let error = relay.wait_failed(content.id());
    assert!(error.contains("does not match its hash, pulled 3 times"), "{error}");
    assert_eq!(content.visible_until(5 * MIB, LENGTH), 5 * MIB);
    // With a second origin the wrong one is dropped.
    let good = Origin::single(LENGTH, SEED, Behaviour::default());
    let relay = Relay::new();
    let sources = vec![origin.file_url(), good.file_url()];
    let content = relay.add(NewPull { metainfo: Some(torrent), sources, ..from("x") });
    check_bytes(&relay.wait_complete(content.id()), SEED, LENGTH);
}

#[test]
fn two_of_three_origins_down() {
    let dead = Origin::single(LENGTH, SEED, Behaviour { status: Some(500), ..Behaviour::default() });
    let flaky = Origin::single(LENGTH, SEED, Behaviour { reset: Some((99, 10_000)), ..Behaviour::default() });
    let good = Origin::single(LENGTH, SEED, Behaviour::default());
    let relay = Relay::new();
    let sources = vec![good.file_url(), flaky.file_url(), dead.file_url()];
    let content = relay.add(NewPull { sources, ..from("x") });
    check_bytes(&relay.wait_complete(content.id()), SEED, LENGTH);
    let relay = Relay::new();
    let sources = vec![dead.file_url(), good.file_url()];
    let content = relay.add(NewPull { sources, ..from("x") });
    check_bytes(&relay.wait_complete(content.id()), SEED, LENGTH);
}

#[test]
fn a_folder_is_served_and_pulled_from_web_seeds() {
    let relay = Relay::new();
    let folder = relay.folder.join("文件");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    let files = [("a.bin", 300_000, 1), ("empty", 0, 2), ("sub/b 1.bin", 5 * MIB + 3, 3)];
    for (path, length, seed) in files {
        std::fs::write(folder.join(path), origin::bytes(seed, 0..length)).unwrap();
    }
    let content = relay.add(from(folder.to_str().unwrap()));
    assert_eq!(content.visible_until(0, 1), 1, "visible at once");
    let content = relay.wait_complete(content.id());
    let torrent = content.metainfo().unwrap().to_bytes();
    let served = files.map(|(path, length, seed)| {
        let path = format!("/seed/%E6%96%87%E4%BB%B6/{}", path.replace(' ', "%20"));
        (path, File { length, seed })
    });
    let origin = Origin::start(served.into(), Behaviour::default());
    let other = Relay::new();
    let pulled = other.add(NewPull { metainfo: Some(torrent), ..from(&origin.url("/seed/")) });
    let pulled = other.wait_complete(pulled.id());
    for (file, (_, length, seed)) in pulled.layout().files().iter().filter(|file| !file.padding).zip(files) {
        let mut buffer = vec![0; usize::try_from(file.length).unwrap()];
        pulled.read(file.offset, &mut buffer).unwrap();
        assert!(buffer == origin::bytes(seed, 0..length), "{:?}", file.path);
    }
    assert_eq!(
        origin.sent(),
        files.iter().map(|(_, length, _)| length).sum::<u64>(),
        "padding is never fetched"
    );
}

#[test]
fn requests_that_cannot_be_met_say_why() {
    let relay = Relay::new();
    let error =
        relay.try_add(from("magnet:?xt=urn:btih:0123456789012345678901234567890123456789")).unwrap_err();
    assert!(error.to_string().contains("swarms"), "{error}");
    let error = relay.try_add(from("/nonexistent/file")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/file"), "{error}");
    let error =
        relay.try_add(NewPull { metainfo: Some(b"junk".to_vec()), ..NewPull::default() }).unwrap_err();
    assert!(error.to_string().contains("torrent"), "{error}");
    assert!(relay.store.contents().is_empty());
}
