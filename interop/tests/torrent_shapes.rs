//! Torrents of every shape that `interop.md` names, pulled by the relay from web seeds or imported, and then verified by
//! real clients that get them from the relay alone.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use millrace_interop::clients::{Client, Job, curl, libtorrent};
use millrace_interop::origin::Origin;
use millrace_interop::pattern::Pattern;
use millrace_interop::relay::Relay;
use millrace_interop::scratch::Scratch;
use millrace_interop::torrent::Tree;
use millrace_interop::{PATIENCE, until};
use millrace_proto::admin::{ContentState, ContentStatus};
use millrace_proto::metainfo::Metainfo;

/// Unaligned files, empty ones, names in Chinese, folders in folders.
fn awkward_tree(piece_bytes: u32) -> Tree {
    let files = [
        ("readme.txt", 1),
        ("数据/第一部分.bin", 3_000_017),
        ("数据/空文件", 0),
        ("数据/deep/er/still/第二部分 (终).bin", 16_384),
        ("empty", 0),
        ("z/one less", 16_383),
        ("z/one more", 16_385),
        ("z/last.bin", 5_242_881),
    ];
    Tree::folder("发布 1.0", &files, piece_bytes)
}

/// Pulls a torrent from an origin that is laid out as web seeds are (BEP 19), and waits until everything is there.
///
/// The origin is named in the command: a torrent's own web seed on loopback is refused, as it should be.
fn pulled(relay: &Relay, scratch: &Scratch, tree: &Tree, mut metainfo: Metainfo) -> (Origin, ContentStatus) {
    let origin = Origin::start(tree.resources("/files/"), None);
    let single = tree.files.iter().all(|file| file.path.is_empty());
    let path = if single { format!("/files/{}", tree.name) } else { "/files/".to_owned() };
    metainfo.announce = vec![vec![relay.url("/announce")]];
    let file = scratch.file("published.torrent", &metainfo.to_bytes());
    let content = relay.add(&[&origin.url(&path), "--metainfo", &file.display().to_string()]);
    let content = relay.wait_for(&content.id, ContentState::Complete, PATIENCE);
    assert_eq!(content.infohash_v1, metainfo.infohash_v1().map(|hash| hash.to_string()));
    assert_eq!(content.infohash_v2, metainfo.infohash_v2().map(|hash| hash.to_string()));
    let length: u64 = tree.files.iter().map(|file| file.length).sum();
    assert_eq!(origin.sent(), length, "the origin sent each byte once");
    (origin, content)
}

/// Each client gets the tree from the relay by BitTorrent alone.
#[track_caller]
fn check(relay: &Relay, scratch: &Scratch, tree: &Tree, content: &ContentStatus, clients: &[Client]) {
    let before = relay.served(&content.id).http;
    for client in clients.iter().filter(|client| client.is_installed()) {
        let torrent = relay.torrent_for(*client, &content.id, false);
        let job = Job::Torrent(scratch.file(&format!("{client:?}.torrent"), &torrent));
        tree.check(&client.download(&job, scratch));
    }
    assert_eq!(relay.served(&content.id).http, before, "BitTorrent carried every byte");
}

#[test]
fn a_hybrid_of_many_unaligned_files() {
    let scratch = Scratch::new();
    let relay = Relay::start_for_peers(&scratch, &[]);
    let tree = awkward_tree(16 << 10);
    let (_origin, content) = pulled(&relay, &scratch, &tree, tree.hybrid());
    check(&relay, &scratch, &tree, &content, &Client::ALL);
}

#[test]
fn a_v1_torrent_whose_pieces_span_files() {
    let scratch = Scratch::new();
    let relay = Relay::start_for_peers(&scratch, &[]);
    let tree = awkward_tree(32 << 10);
    let (_origin, content) = pulled(&relay, &scratch, &tree, tree.v1());
    assert_eq!(content.infohash_v2, None);
    check(&relay, &scratch, &tree, &content, &Client::ALL);
}

/// Transmission and qBittorrent, which can do without, are in every other test.
#[test]
fn a_peer_that_insists_on_encryption_gets_a_plain_stream_behind_it() {
    if !libtorrent::is_installed() {
        return;
    }
    let scratch = Scratch::new();
    let relay = Relay::start_for_peers(&scratch, &[]);
    let tree = awkward_tree(16 << 10);
    let (_origin, content) = pulled(&relay, &scratch, &tree, tree.hybrid());
    let torrent = scratch.file("torrent", &relay.torrent_for(Client::Libtorrent, &content.id, false));
    let leecher = libtorrent::start(&Job::Torrent(torrent), &scratch.folder("encrypted"), &["--encrypted"]);
    tree.check(&leecher.finish());
    assert_eq!(relay.served(&content.id).http, 0, "BitTorrent carried every byte");
}

#[test]
fn an_imported_folder_becomes_a_torrent() {
    let scratch = Scratch::new();
    let relay = Relay::start_for_peers(&scratch, &[]);
    let tree = awkward_tree(16 << 10);
    let import = scratch.folder("import");
    tree.write(&import);
    let content = relay.add(&[&import.join(&tree.name).display().to_string()]);
    relay.wait_for(&content.id, ContentState::Complete, PATIENCE);
    let hashed = |status: &ContentStatus| status.infohash_v1.is_some() && status.infohash_v2.is_some();
    let content = until("both infohashes", PATIENCE, || Some(relay.status(&content.id)).filter(hashed));
    check(&relay, &scratch, &tree, &content, &[Client::Libtorrent, Client::Transmission]);
    // Nothing was taken away from where it was imported.
    tree.check(&import);
}

#[test]
fn piece_lengths_from_16_kib_to_16_mib() {
    let scratch = Scratch::new();
    let relay = Relay::start_for_peers(&scratch, &[]);
    for piece_bytes in [16 << 10, 128 << 10, 1 << 20, 16 << 20] {
        let tree = Tree::file(&format!("pieces-{piece_bytes}.bin"), 40_000_001, piece_bytes);
        let (_origin, content) = pulled(&relay, &scratch, &tree, tree.hybrid());
        check(&relay, &scratch, &tree, &content, &[Client::Libtorrent]);
        // A client of v1 alone for the smallest and the largest: it takes its time to start.
        if matches!(piece_bytes, 0x4000 | 0x100_0000) {
            // Another name, for the relay knows the v1 half of the hybrid already.
            let tree = Tree::file(&format!("pieces-{piece_bytes}-v1.bin"), 40_000_001, piece_bytes);
            let (_origin, content) = pulled(&relay, &scratch, &tree, tree.v1());
            check(&relay, &scratch, &tree, &content, &[Client::Transmission]);
        }
    }
}

#[test]
fn a_magnet_link_with_metadata_from_the_relay() {
    let scratch = Scratch::new();
    let relay = Relay::start_for_peers(&scratch, &[]);
    let tree = awkward_tree(16 << 10);
    for (metainfo, clients) in [(tree.hybrid(), Client::of_hybrids()), (tree.v1(), Client::installed())] {
        let (_origin, content) = pulled(&relay, &scratch, &tree, metainfo);
        let magnet = until("a magnet link", PATIENCE, || relay.status(&content.id).magnet);
        for client in clients {
            tree.check(&client.download(&Job::Magnet(magnet.clone()), &scratch));
        }
    }
}

#[test]
fn v2_alone_and_the_v2_swarm_of_a_hybrid() {
    if !libtorrent::is_installed() {
        return;
    }
    let scratch = Scratch::new();
    let relay = Relay::start_for_peers(&scratch, &[]);
    let peer = relay.bittorrent.to_string();
    let only = Tree::folder("only-v2", &[("a", 3_000_001), ("b/c", 16_384), ("d", 0), ("e", 7)], 64 << 10);
    let (_origin, content) = pulled(&relay, &scratch, &only, only.v2());
    assert_eq!(content.infohash_v1, None);
    let job = Job::Torrent(scratch.file("v2.torrent", &relay.torrent(&content.id, false)));
    only.check(&libtorrent::start(&job, &scratch.folder("v2"), &["--peer", &peer]).finish());

    let both = awkward_tree(16 << 10);
    let (_origin, content) = pulled(&relay, &scratch, &both, both.hybrid());
    // A link with the v2 infohash alone: the handshake must be v2's, and hashes come from the relay (BEP 52).
    let magnet = format!("magnet:?xt=urn:btmh:1220{}", content.infohash_v2.expect("a hybrid"));
    let folder = scratch.folder("v2-magnet");
    both.check(&libtorrent::start(&Job::Magnet(magnet), &folder, &["--peer", &peer]).finish());
}

const GIB: u64 = 1 << 30;

/// A file of zeros, past 4 GiB, with bytes at its ends and around the offsets where 31 and 32 bits run out.
fn sparse_file(path: &Path, length: u64, marks: &[(u64, u64)]) {
    let file = File::create(path).expect("a file");
    file.set_len(length).expect("a sparse file");
    for (at, count) in marks {
        let bytes = Pattern(5).bytes(*at, usize::try_from(*count).expect("small"));
        file.write_all_at(&bytes, *at).expect("room on the disk");
    }
}

#[test]
fn offsets_past_32_bits() {
    let scratch = Scratch::new();
    let relay = Relay::start_for_peers(&scratch, &[]);
    let last = 4 * GIB + (256 << 20) + 12_345;
    let marks = [(0, 9000), (2 * GIB - 5000, 10_000), (4 * GIB - 70_000, 140_000), (last - 20_000, 20_000)];
    let path = scratch.join("sparse.img");
    sparse_file(&path, last, &marks);
    let content = relay.add(&[&path.display().to_string()]);
    let content = relay.wait_for(&content.id, ContentState::Complete, PATIENCE);
    assert_eq!(content.length, Some(last));
    if curl::is_installed() {
        let url = relay.url(&relay.path_of(&content));
        for (at, count) in marks {
            let range = format!("{at}-{}", at + count - 1);
            let transfer = curl::curl(scratch.path(), &["--range", &range, &url]);
            assert_eq!((transfer.exit, transfer.status), (0, 206), "{range}: {}", transfer.said);
            assert_eq!(transfer.body.len() as u64, count);
            assert_eq!(Pattern(5).first_wrong(at, &transfer.body), None, "{range}");
        }
    }
    if libtorrent::is_installed() {
        // Served at once; hashing takes its time.
        let hashed = Duration::from_secs(300);
        until("the torrent", hashed, || relay.status(&content.id).torrent_url);
        let torrent = relay.torrent(&content.id, false);
        let piece_bytes = u64::from(Metainfo::parse(&torrent).expect("a torrent").info.piece_bytes);
        let around = [0, 4 * GIB - 1, 4 * GIB, last - 20_000, last - 1];
        let pieces: Vec<String> = around.iter().map(|at| (at / piece_bytes).to_string()).collect();
        let job = Job::Torrent(scratch.file("sparse.torrent", &torrent));
        let folder = scratch.folder("sparse");
        let leecher = libtorrent::start(
            &job,
            &folder,
            &["--pieces", &pieces.join(","), "--peer", &relay.bittorrent.to_string()],
        );
        let got = File::open(leecher.finish().join("sparse.img")).expect("a download");
        for (at, count) in [marks[0], marks[2], marks[3]] {
            let mut bytes = vec![0; usize::try_from(count).expect("small")];
            got.read_exact_at(&mut bytes, at).expect("a whole download");
            assert_eq!(Pattern(5).first_wrong(at, &bytes), None, "at {at}");
        }
    }
}

#[test]
fn a_web_seed_that_the_configuration_allows() {
    let scratch = Scratch::new();
    let tree = awkward_tree(16 << 10);
    let origin = Origin::start(tree.resources("/files/"), None);
    let config = scratch
        .file("relay.toml", format!("[origins.files]\nurl = \"{}\"\n", origin.url("/files/")).as_bytes());
    let relay = Relay::start_for_peers(&scratch, &["--config", &config.display().to_string()]);
    let mut metainfo = tree.hybrid();
    metainfo.web_seeds = vec![origin.url("/files/")];
    let file = scratch.file("published.torrent", &metainfo.to_bytes());
    let content = relay.add(&[&file.display().to_string()]);
    relay.wait_for(&content.id, ContentState::Complete, PATIENCE);
    check(&relay, &scratch, &tree, &content, &[Client::Qbittorrent]);
}
