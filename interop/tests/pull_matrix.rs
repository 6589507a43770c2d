//! One file, one origin held to a rate, every client of the matrix: started during the pull where the hashes are known,
//! after it where they are not, with the relay as web seed and without. The size is `MILLRACE_INTEROP_BYTES`.
//!
//! That a client starts "during the pull" is not left to luck: the origin holds back the second half until it has.

use std::path::Path;

use millrace_interop::clients::{Client, Job, Leecher, aria2, curl, wget};
use millrace_interop::http::{self, End};
use millrace_interop::origin::Origin;
use millrace_interop::pattern::{Pattern, sha256_of};
use millrace_interop::relay::Relay;
use millrace_interop::scratch::Scratch;
use millrace_interop::torrent::{Tree, has_key};
use millrace_interop::{PATIENCE, matrix_bytes, matrix_rate, until};
use millrace_proto::admin::{ContentState, ContentStatus};
use millrace_proto::metainfo::choose_piece_bytes;

const NAME: &str = "build.iso";
const READERS: u64 = 50;

/// What kind of torrent is given.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Hybrid,
    V1,
}

/// A relay, its origin and the file that goes from one to the other.
struct Matrix {
    relay: Relay,
    origin: Origin,
    tree: Tree,
    length: u64,
    scratch: Scratch,
}

impl Matrix {
    fn new(rate: Option<u64>) -> Self {
        let length = matrix_bytes();
        let scratch = Scratch::new();
        let tree = Tree::file(NAME, length, choose_piece_bytes(length));
        let origin = Origin::of_file(NAME, length, tree.pattern(""), rate);
        let relay = Relay::start_for_peers(&scratch, &[]);
        Matrix { relay, origin, tree, length, scratch }
    }

    fn pattern(&self) -> Pattern {
        self.tree.pattern("")
    }

    fn add(&self, more: &[&str]) -> ContentStatus {
        let url = self.origin.url(&format!("/{NAME}"));
        self.relay.add(&[&[url.as_str()], more].concat())
    }

    /// Adds it with all its hashes, as a publisher would: a torrent that names the relay's tracker.
    fn add_with_hashes(&self, shape: Shape) -> ContentStatus {
        let mut metainfo = match shape {
            Shape::Hybrid => self.tree.hybrid(),
            Shape::V1 => self.tree.v1(),
        };
        metainfo.announce = vec![vec![self.relay.url("/announce")]];
        let file = self.scratch.file("given.torrent", &metainfo.to_bytes());
        self.add(&["--metainfo", &file.display().to_string()])
    }

    /// The relay's own torrent, in the form that the client can use.
    fn torrent(&self, client: Client, id: &str, web_seeds: bool) -> Job {
        let torrent = self.relay.torrent_for(client, id, web_seeds);
        assert_eq!(has_key(&torrent, "url-list"), web_seeds, "the relay names itself as web seed");
        Job::Torrent(self.scratch.file(&format!("{client:?}.torrent"), &torrent))
    }

    /// Every client that is installed, with the relay's own torrent.
    fn leechers(&self, id: &str, web_seeds: bool) -> Vec<Leecher> {
        let start = |client: Client| client.start(&self.torrent(client, id, web_seeds), &self.scratch);
        Client::installed().into_iter().map(start).collect()
    }

    #[track_caller]
    fn check(&self, leecher: Leecher) {
        let name = leecher.name;
        self.check_file(&leecher.finish().join(NAME), name);
    }

    #[track_caller]
    fn check_file(&self, file: &Path, whose: &str) {
        assert_eq!(sha256_of(file), self.pattern().sha256(self.length), "SHA-256 of what {whose} has");
    }

    /// The first MiB by curl, which must be there although the pull cannot be over.
    fn first_mebibyte(&self, content: &ContentStatus) {
        if !curl::is_installed() {
            return;
        }
        let url = self.relay.url(&self.relay.path_of(content));
        let transfer = curl::curl(self.scratch.path(), &["--range", "0-1048575", &url]);
        assert_eq!((transfer.exit, transfer.status), (0, 206), "{}", transfer.said);
        assert_eq!(transfer.body.len(), 1 << 20);
        assert_eq!(self.pattern().first_wrong(0, &transfer.body), None);
        self.still_pulling(&content.id);
    }

    #[track_caller]
    fn still_pulling(&self, id: &str) {
        let status = self.relay.status(id);
        assert!(status.have_bytes < self.length && status.state == ContentState::Pulling, "{status:?}");
    }

    /// Readers of ranges all over the file, at once.
    fn scattered_readers(&self, content: &ContentStatus) {
        let path = self.relay.path_of(content);
        std::thread::scope(|scope| {
            for reader in 0..READERS {
                let path = &path;
                scope.spawn(move || {
                    for turn in 0..4 {
                        // A golden-ratio walk: scattered, and the same in every run.
                        let at =
                            (reader * 4 + turn).wrapping_mul(0x9e37_79b9_7f4a_7c15) % (self.length - 300_001);
                        let count = 1 + at % 300_000;
                        let answer = http::range(self.relay.http, path, at, count).expect("an answer");
                        assert_eq!((answer.status, answer.end), (206, End::Clean), "{count} bytes at {at}");
                        assert_eq!(answer.body.len() as u64, count);
                        assert_eq!(self.pattern().first_wrong(at, &answer.body), None);
                    }
                });
            }
        });
    }

    /// Invariant 3: the origin sends each byte once.
    #[track_caller]
    fn origin_sent_each_byte_once(&self) {
        assert_eq!(self.origin.sent(), self.length, "bytes of the origin's access log");
        assert_eq!(self.origin.log().iter().map(|entry| entry.sent).sum::<u64>(), self.length);
    }
}

fn known_hashes_during_the_pull(shape: Shape, web_seeds: bool) {
    let matrix = Matrix::new(Some(matrix_rate()));
    matrix.origin.hold_at(matrix.length / 2);
    let content = matrix.add_with_hashes(shape);
    matrix.first_mebibyte(&content);
    let before = matrix.relay.served(&content.id);
    let leechers = matrix.leechers(&content.id, web_seeds);
    matrix.still_pulling(&content.id);
    matrix.origin.release();
    if web_seeds {
        matrix.scattered_readers(&content);
    }
    let some = !leechers.is_empty();
    leechers.into_iter().for_each(|leecher| matrix.check(leecher));
    matrix.relay.wait_for(&content.id, ContentState::Complete, PATIENCE);
    matrix.origin_sent_each_byte_once();
    let served = matrix.relay.served(&content.id);
    if !web_seeds && some {
        assert_eq!(served.http, before.http, "no leecher used HTTP");
        assert!(served.bittorrent >= matrix.length, "{served:?}");
    }
}

#[test]
fn with_a_hybrid_every_client_starts_during_the_pull() {
    known_hashes_during_the_pull(Shape::Hybrid, true);
}

#[test]
fn with_a_hybrid_and_no_web_seed_every_client_starts_during_the_pull() {
    known_hashes_during_the_pull(Shape::Hybrid, false);
}

#[test]
fn with_a_v1_torrent_every_client_starts_during_the_pull() {
    known_hashes_during_the_pull(Shape::V1, true);
}

#[test]
fn with_a_v1_torrent_and_no_web_seed_every_client_starts_during_the_pull() {
    known_hashes_during_the_pull(Shape::V1, false);
}

#[test]
fn with_unknown_hashes_http_starts_during_the_pull_and_bittorrent_after_it() {
    let matrix = Matrix::new(Some(matrix_rate()));
    matrix.origin.hold_at(matrix.length / 2);
    let content = matrix.add(&[]);
    matrix.first_mebibyte(&content);
    assert_eq!(content.infohash_v1, None, "an infohash needs every piece");
    let url = matrix.relay.url(&matrix.relay.path_of(&content));
    let readers = [
        wget::is_installed().then(|| wget::start(&url, &matrix.scratch.folder("wget"))),
        aria2::is_installed().then(|| aria2::start(&url, &matrix.scratch.folder("http"), &["--split=8"])),
    ];
    matrix.still_pulling(&content.id);
    matrix.origin.release();
    matrix.scattered_readers(&content);
    readers.into_iter().flatten().for_each(|reader| matrix.check(reader));
    let complete = matrix.relay.wait_for(&content.id, ContentState::Complete, PATIENCE);
    assert_eq!(complete.have_bytes, matrix.length);
    let sha256 = until("the digest of the whole", PATIENCE, || matrix.relay.status(&content.id).sha256);
    assert_eq!(sha256, matrix.pattern().sha256(matrix.length));
    matrix.leechers(&content.id, true).into_iter().for_each(|leecher| matrix.check(leecher));
    matrix.origin_sent_each_byte_once();
}

/// One client alone and no web seed: the relay's own counter shows that BitTorrent carried every byte.
fn bittorrent_carries_every_byte(client: Client) {
    if !client.is_installed() {
        return;
    }
    let matrix = Matrix::new(None);
    let content = matrix.add(&[]);
    matrix.relay.wait_for(&content.id, ContentState::Complete, PATIENCE);
    let job = matrix.torrent(client, &content.id, false);
    let before = matrix.relay.served(&content.id);
    matrix.check(client.start(&job, &matrix.scratch));
    let after = matrix.relay.served(&content.id);
    assert_eq!(after.http, before.http, "{client:?} had no web seed");
    assert!(after.bittorrent - before.bittorrent >= matrix.length, "{before:?}, then {after:?}");
    matrix.origin_sent_each_byte_once();
}

#[test]
fn libtorrent_without_web_seed() {
    bittorrent_carries_every_byte(Client::Libtorrent);
}

#[test]
fn transmission_without_web_seed() {
    bittorrent_carries_every_byte(Client::Transmission);
}

#[test]
fn qbittorrent_without_web_seed() {
    bittorrent_carries_every_byte(Client::Qbittorrent);
}

#[test]
fn aria2_without_web_seed() {
    bittorrent_carries_every_byte(Client::Aria2);
}

#[test]
fn aria2_uses_both_protocols_of_a_metalink_at_once() {
    if !aria2::is_installed() {
        return;
    }
    let matrix = Matrix::new(None);
    let content = matrix.add_with_hashes(Shape::Hybrid);
    matrix.relay.wait_for(&content.id, ContentState::Complete, PATIENCE);
    let path = format!("/c/{}.meta4", content.id);
    let metalink =
        until(&path, PATIENCE, || Some(matrix.relay.get(&path)).filter(|answer| answer.status == 200));
    let file = matrix.scratch.file("build.meta4", &metalink.body);
    // Over HTTP it crawls until BitTorrent has begun, so that one is not done before the other.
    let caps = |arguments: &[&str]| {
        let finished = matrix.relay.command(arguments);
        assert!(finished.status.success(), "{arguments:?}: {}", finished.stderr);
    };
    caps(&["caps", "set", "egress.http=64KiB"]);
    let folder = matrix.scratch.folder("metalink");
    let before = matrix.relay.served(&content.id);
    let running = aria2::start(&file.display().to_string(), &folder, &["--split=2"]);
    until("both protocols to carry some", PATIENCE, || {
        let now = matrix.relay.served(&content.id);
        (now.http > before.http && now.bittorrent > before.bittorrent).then_some(())
    });
    caps(&["caps", "unset", "egress.http"]);
    matrix.check(running);
    let after = matrix.relay.served(&content.id);
    assert!(after.http > before.http, "HTTP carried some: {after:?}");
    assert!(after.bittorrent > before.bittorrent, "BitTorrent carried some: {after:?}");
    matrix.origin_sent_each_byte_once();
}
