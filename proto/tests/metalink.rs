//! Metalink documents, written and read back, and a corpus of good, broken and hostile ones.

use millrace_proto::metalink::{
    File, Metalink, MetalinkError, PieceHashes, Pieces, Url, is_safe_name, link_fields, parse,
};
use proptest::prelude::*;

fn url(url: &str, priority: Option<u32>) -> Url {
    Url { url: url.to_owned(), priority }
}

#[test]
fn a_document_reads_back_as_it_was_written() {
    let first = File {
        name: "a & b/<ä>.iso".to_owned(),
        size: Some(u64::MAX),
        sha256: Some([7; 32]),
        pieces: Some(Pieces { length: 1 << 20, hashes: PieceHashes::Sha256(vec![[1; 32], [2; 32]]) }),
        urls: vec![url("http://relay/c/x?a=1&b='2'", Some(1)), url("http://mirror/x", None)],
        torrents: vec![url("http://relay/c/x.torrent", Some(2))],
    };
    let second = File {
        name: "second".to_owned(),
        pieces: Some(Pieces { length: 1, hashes: PieceHashes::Sha1(vec![[3; 20]]) }),
        ..File::default()
    };
    let origin = Some("http://relay/c/x.meta4".to_owned());
    let metalink = Metalink { origin, dynamic: true, files: vec![first, second] };
    assert_eq!(parse(&metalink.to_string()), Ok(metalink));
}

#[test]
fn names_stay_in_their_folder() {
    for name in ["", "/a", "a//b", "a/", ".", "a/../b", "..", "a\\b", "a\0", "C:x", "a\n"] {
        assert!(!is_safe_name(name), "{name:?}");
    }
    assert!(is_safe_name("a/b..c/...") && is_safe_name("ä b"));
}

#[test]
fn links_are_what_rfc_6249_shows() {
    let mirrors = [url("http://m/x", Some(3)), url("http://m/x>\r\nEvil: y", None), url("http://n/x", None)];
    let expected = "Link: <http://r/x.torrent>; rel=describedby; type=\"application/x-bittorrent\"\r\n\
                    Link: <http://r/x.meta4>; rel=describedby; type=\"application/metalink4+xml\"\r\n\
                    Link: <http://m/x>; rel=duplicate; pri=3\r\nLink: <http://n/x>; rel=duplicate\r\n";
    assert_eq!(link_fields(Some("http://r/x.torrent"), Some("http://r/x.meta4"), &mirrors), expected);
}

/// Files named `ok-*` are read, `hostile-*` are refused for a name, `bad-*` for anything else.
#[test]
fn the_corpus_is_answered_as_named() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/metalink");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let expected = match std::str::from_utf8(&std::fs::read(&path).expect("a file")).map(parse) {
            Ok(Ok(_)) => "/ok-",
            Ok(Err(MetalinkError::HostileName)) => "/hostile-",
            Ok(Err(_)) | Err(_) => "/bad-",
        };
        assert!(path.display().to_string().contains(expected), "{} is {expected}", path.display());
        count += 1;
    }
    assert!(count > 5);
}

proptest! {
    #[test]
    fn any_safe_name_and_url_round_trip(name in "\\PC{1,20}", address in "[!-~]{1,20}", size: u64) {
        prop_assume!(is_safe_name(&name));
        let file = File { name, size: Some(size), urls: vec![url(&address, Some(1))], ..File::default() };
        let metalink = Metalink { files: vec![file], ..Metalink::default() };
        prop_assert_eq!(parse(&metalink.to_string()), Ok(metalink));
    }

    #[test]
    fn arbitrary_text_does_not_panic(
        tail in "(<|>|/|&|;|\"|=| |file|hash|pieces|url|name|origin|type|#x0|\\PC){0,40}",
    ) {
        let _ = parse(&tail);
        let _ = parse(&format!("<metalink xmlns=\"urn:ietf:params:xml:ns:metalink\"><file name=\"a\">{tail}"));
    }
}
