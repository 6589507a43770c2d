//! Tracker requests and answers against themselves and against arbitrary bytes, and the corpus.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::path::Path;

use millrace_proto::tracker::compact::Family;
use millrace_proto::tracker::http::{AnnounceRequest, ScrapeRequest, scrape_url};
use millrace_proto::tracker::response::{parse_announce, parse_scrape, write_announce, write_scrape};
use millrace_proto::tracker::udp::{self, Announce, Answer, Ask, Request};
use millrace_proto::tracker::{AnnounceAnswer, AnnounceEvent, SwarmCounts};
use proptest::collection::vec;
use proptest::prelude::*;

/// Feeds bytes to everything that reads a stranger's bytes; requests must be written as they were read.
fn exercise(bytes: &[u8]) {
    if let Some(request) = Request::parse(bytes) {
        let mut out = [0; 4096];
        let length = request.encode(&mut out).unwrap();
        assert_eq!(Request::parse(&out[..length]), Some(request));
    }
    if let Some((_, answer)) = Answer::parse(bytes) {
        let _ = answer.announce_answer(Family::V4, 50);
        let _ = answer.announce_answer(Family::V6, 50);
        assert!(answer.scrape_counts().count() <= bytes.len() / 12);
    }
    let _ = parse_announce(bytes);
    let _ = parse_scrape(bytes);
    let Ok(query) = std::str::from_utf8(bytes) else { return };
    if let Ok(announce) = AnnounceRequest::parse(query) {
        let url = announce.url("http://t/announce");
        assert_eq!(AnnounceRequest::parse(url.split_once('?').unwrap().1), Ok(announce));
    }
    if let Ok(scrape) = ScrapeRequest::parse(query) {
        assert!(scrape.infohashes().count() > 0);
    }
    let _ = scrape_url(query, &[]);
}

#[test]
fn the_corpus_is_judged_as_its_names_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/tracker");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        exercise(&bytes);
        let (kind, expected) = match name.strip_prefix("no-") {
            Some(kind) => (kind, false),
            None => (name, true),
        };
        let accepted = match kind.split('-').next().unwrap() {
            "udp" => Request::parse(&bytes).is_some(),
            "announce" => AnnounceRequest::parse(std::str::from_utf8(&bytes).unwrap()).is_ok(),
            "answer" => parse_announce(&bytes).is_ok(),
            other => panic!("no such kind: {other}"),
        };
        assert_eq!(accepted, expected, "{name}");
        files += 1;
    }
    assert!(files >= 18, "only {files} files in the corpus");
}

fn event() -> impl Strategy<Value = AnnounceEvent> {
    use AnnounceEvent::{Completed, Periodic, Started, Stopped};
    prop::sample::select(vec![Periodic, Completed, Started, Stopped])
}

fn peers() -> impl Strategy<Value = Vec<SocketAddr>> {
    let v4 = (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(SocketAddr::from);
    // A global prefix, so that none is an IPv4 address in disguise.
    let v6 = (any::<[u8; 14]>(), 1..=u16::MAX).prop_map(|(rest, port)| {
        let mut address = [0x20; 16];
        address[2..].copy_from_slice(&rest);
        SocketAddr::from((address, port))
    });
    (vec(v4, 0..8), vec(v6, 0..8)).prop_map(|(v4, v6)| [v4, v6].concat())
}

fn answer() -> impl Strategy<Value = AnnounceAnswer> {
    (any::<[u32; 3]>(), any::<Option<u32>>(), peers()).prop_map(
        |([interval_s, complete, incomplete], min_interval_s, peers)| AnnounceAnswer {
            interval_s,
            min_interval_s,
            complete,
            incomplete,
            peers,
        },
    )
}

fn counts() -> impl Strategy<Value = SwarmCounts> {
    any::<[u32; 3]>().prop_map(|[complete, incomplete, downloaded]| SwarmCounts {
        complete,
        incomplete,
        downloaded,
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
    }

    #[test]
    fn arbitrary_datagrams_never_panic(action in 0..4_u32, rest in vec(any::<u8>(), 0..200)) {
        exercise(&[&[0; 8][..], &action.to_be_bytes(), &rest].concat());
        exercise(&[&action.to_be_bytes()[..], &rest].concat());
    }

    #[test]
    fn arbitrary_queries_never_panic(query in "((info_hash|peer_id|port|left|event|numwant|key|x)=?[a-z0-9%+\\PC]{0,24}&){0,6}") {
        exercise(query.as_bytes());
    }

    #[test]
    fn http_announces_read_back(
        ids: ([u8; 20], [u8; 20]), port: u16, numbers: [u64; 3], event in event(), numwant: Option<u32>,
        compact_refused: bool, key in "[a-zA-Z0-9]{0,8}",
    ) {
        let [uploaded, downloaded, left] = numbers;
        let announce = AnnounceRequest {
            infohash: ids.0, peer_id: ids.1, port, uploaded, downloaded, left, event, numwant, compact_refused,
            key: &key, trackerid: "",
        };
        let url = announce.url("http://tracker.example/announce?passkey=1");
        prop_assert_eq!(AnnounceRequest::parse(url.split_once('?').unwrap().1), Ok(announce));
    }

    #[test]
    fn http_scrapes_read_back(infohashes in vec(any::<[u8; 20]>(), 1..74)) {
        let url = scrape_url("http://tracker.example/announce", &infohashes).unwrap();
        let scrape = ScrapeRequest::parse(url.split_once('?').unwrap().1).unwrap();
        prop_assert!(scrape.infohashes().eq(infohashes));
    }

    #[test]
    fn http_answers_read_back(answer in answer(), counts in counts(), infohash: [u8; 20]) {
        let mut out = Vec::new();
        write_announce(&answer, &mut out);
        prop_assert_eq!(parse_announce(&out).unwrap().answer, answer);
        let mut out = Vec::new();
        write_scrape([(infohash, counts)], &mut out);
        prop_assert_eq!(parse_scrape(&out), Ok(vec![(infohash, counts)]));
    }

    #[test]
    fn udp_requests_read_back(
        ids: ([u8; 20], [u8; 20]), port: u16, numbers: [u64; 4], event in event(), key: u32,
        numwant in prop::option::of(0..=i32::MAX.unsigned_abs()), url_data in vec(any::<u8>(), 0..=255),
    ) {
        let [connection_id, uploaded, downloaded, left] = numbers;
        let announce = Announce {
            infohash: ids.0, peer_id: ids.1, downloaded, left, uploaded, event, key, numwant, port,
        };
        let ask = Ask::Announce { connection_id, announce, url_data: &url_data };
        let request = Request { transaction_id: key, ask };
        let mut out = [0; 512];
        let length = request.encode(&mut out).unwrap();
        prop_assert_eq!(Request::parse(&out[..length]), Some(request));
    }

    #[test]
    fn udp_answers_read_back(answer in answer(), transaction_id: u32, counts in vec(counts(), 0..74)) {
        let mut out = [0; 1024];
        for family in [Family::V4, Family::V6] {
            let length = udp::encode_announce(&mut out, transaction_id, family, &answer).unwrap();
            let (repeated, back) = Answer::parse(&out[..length]).unwrap();
            prop_assert_eq!(repeated, transaction_id);
            let of_family = answer.peers.iter().copied().filter(|peer| Family::of(peer.ip()) == family);
            let expected = AnnounceAnswer { min_interval_s: None, peers: of_family.collect(), ..answer.clone() };
            prop_assert_eq!(back.announce_answer(family, 50), Some(expected));
        }
        let length = udp::encode_scrape(&mut out, transaction_id, counts.iter().copied()).unwrap();
        let (_, back) = Answer::parse(&out[..length]).unwrap();
        prop_assert!(back.scrape_counts().eq(counts));
    }
}
