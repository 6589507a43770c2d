//! The clients without the relay, against the origin alone as web seed: where this fails, the harness is at fault and not
//! the relay.

use millrace_interop::clients::{Client, Job, curl, wget};
use millrace_interop::origin::Origin;
use millrace_interop::scratch::Scratch;
use millrace_interop::torrent::Tree;

fn check(client: Client) {
    if !client.is_installed() {
        return;
    }
    let scratch = Scratch::new();
    let tree = Tree::folder("资料", &[("a.bin", 1_000_001), ("子/b.bin", 70_000), ("none", 0)], 32 << 10);
    let origin = Origin::start(tree.resources("/"), None);
    // Without padding, which aria2 would ask the origin for by name.
    let mut metainfo = tree.v1();
    metainfo.web_seeds = vec![origin.url("/")];
    let job = Job::Torrent(scratch.file("t.torrent", &metainfo.to_bytes()));
    tree.check(&client.start(&job, &scratch).finish());
}

#[test]
fn libtorrent_from_a_web_seed() {
    check(Client::Libtorrent);
}

#[test]
fn transmission_from_a_web_seed() {
    check(Client::Transmission);
}

#[test]
fn qbittorrent_from_a_web_seed() {
    check(Client::Qbittorrent);
}

#[test]
fn aria2_from_a_web_seed() {
    check(Client::Aria2);
}

#[test]
fn wget_and_curl_from_the_origin() {
    if !wget::is_installed() || !curl::is_installed() {
        return;
    }
    let scratch = Scratch::new();
    let tree = Tree::file("a.bin", 1_000_001, 16 << 10);
    let origin = Origin::start(tree.resources("/"), None);
    tree.check(&wget::start(&origin.url("/a.bin"), &scratch.folder("wget")).finish());
    let transfer = curl::curl(scratch.path(), &["--range", "5-9", &origin.url("/a.bin")]);
    assert_eq!((transfer.status, transfer.body), (206, tree.pattern("").bytes(5, 5)));
}
