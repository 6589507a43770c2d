//! Message stream encryption: our initiator and what real clients said against the responder, whole and in portions of every size.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use millrace_proto::peer::handshake::{Handshake, Progress as Opening, Reserved};
use millrace_proto::peer::mse::{
    Initiator, KEY_BYTES, KeyPair, PAD_BYTES_MAX, PLAINTEXT, Progress, RC4, Refusal, Responder, SkeyHash,
};
use proptest::collection::vec;
use proptest::prelude::*;

const INFOHASH: [u8; 20] = *b"an infohash of twent";

/// The responder's keys; the corpus was recorded against them.
fn keys() -> KeyPair {
    KeyPair::new(std::array::from_fn(|at| 101 + u8::try_from(at).unwrap()))
}

fn initiator() -> Initiator {
    Initiator::new([9; 20], INFOHASH)
}

fn find(hash: SkeyHash) -> Option<[u8; 20]> {
    (hash == SkeyHash::of(&INFOHASH)).then_some(INFOHASH)
}

/// What came of it, and what was answered.
type Outcome = (Result<Progress, Refusal>, Vec<u8>);

/// Everything that a peer says, in these portions. What comes behind the end of the handshake is passed through.
fn play<'a>(keys: &KeyPair, portions: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let (mut responder, mut answer) = (Responder::default(), Vec::new());
    let mut stream: Option<Vec<u8>> = None;
    for portion in portions {
        if let Some(stream) = &mut stream {
            stream.extend_from_slice(portion);
            continue;
        }
        match responder.handle(portion, keys, find, &mut answer) {
            Ok(Progress::NeedMore) => {
                assert!(responder.held_bytes() < 1 << 17, "{} bytes are held", responder.held_bytes());
            }
            Ok(Progress::Plain(plain)) => stream = Some(plain),
            Err(refusal) => return (Err(refusal), answer),
        }
    }
    (Ok(stream.map_or(Progress::NeedMore, Progress::Plain)), answer)
}

/// Plays it whole and byte by byte, which must make no difference.
#[track_caller]
fn check(said: &[u8], expected: Result<Progress, Refusal>) -> Vec<u8> {
    let whole = play(&keys(), std::iter::once(said));
    assert_eq!(whole.0, expected);
    assert_eq!(play(&keys(), said.chunks(1)), whole, "byte by byte");
    whole.1
}

/// All that an initiator says if its handshake goes well.
fn said(initiator: &Initiator, pad_a: &[u8], pad_c: &[u8], ia: &[u8], stream: &[u8]) -> Vec<u8> {
    [initiator.open(pad_a), initiator.ask(keys().public(), pad_c, ia), stream.to_vec()].concat()
}

#[test]
fn a_peer_that_offers_plaintext_gets_it_wherever_its_bytes_are_cut() {
    let said = said(&initiator(), &[1; 100], &[2; 7], b"the beginning", b" and the rest");
    let plain = Ok(Progress::Plain(b"the beginning and the rest".to_vec()));
    let answer = check(&said, plain.clone());
    assert_eq!(initiator().selected(&answer), Some((PLAINTEXT, answer.len())));
    let keys = keys();
    for at in 1..said.len() {
        let (first, second) = said.split_at(at);
        assert_eq!(play(&keys, [first, second].into_iter()), (plain.clone(), answer.clone()), "cut at {at}");
    }
}

#[test]
fn answers_come_as_early_as_they_can() {
    let (keys, said) = (keys(), said(&initiator(), &[], &[2; 7], b"ia", b""));
    let select_at = said.len() - b"ia".len();
    let (mut responder, mut answer) = (Responder::default(), Vec::new());
    for (at, byte) in said.iter().enumerate() {
        let expected = if at < KEY_BYTES {
            0
        } else if at < select_at {
            KEY_BYTES
        } else {
            KEY_BYTES + 14
        };
        assert_eq!(answer.len(), expected, "before byte {at}");
        responder.handle(&[*byte], &keys, find, &mut answer).unwrap();
    }
}

#[test]
fn pads_and_first_bytes_may_be_of_any_length_that_the_standard_allows() {
    for pad_bytes in [0, 1, PAD_BYTES_MAX - 1, PAD_BYTES_MAX] {
        let pad = vec![0x55; pad_bytes];
        check(&said(&initiator(), &pad, &[], b"", b"x"), Ok(Progress::Plain(b"x".to_vec())));
        check(&said(&initiator(), &[], &pad, b"", b"x"), Ok(Progress::Plain(b"x".to_vec())));
    }
    let ia = vec![3; 65_535];
    check(&said(&initiator(), &[], &[], &ia, b""), Ok(Progress::Plain(ia.clone())));
}

#[test]
fn pads_that_are_too_long_end_it() {
    let pad = [0x55; PAD_BYTES_MAX + 1];
    check(&said(&initiator(), &pad, &[], b"", b""), Err(Refusal::NotEncryption));
    check(&said(&initiator(), &[], &pad, b"", b""), Err(Refusal::Malformed));
    let noise = [0x55; KEY_BYTES + PAD_BYTES_MAX + 20];
    check(&noise[1..], Ok(Progress::NeedMore));
    check(&noise, Err(Refusal::NotEncryption));
}

#[test]
fn plaintext_is_selected_or_nothing() {
    for (provide, expected) in [
        (PLAINTEXT, Ok(Progress::Plain(Vec::new()))),
        (PLAINTEXT | RC4 | 0x8000_0000, Ok(Progress::Plain(Vec::new()))),
        (RC4, Err(Refusal::PlaintextNotOffered)),
        (0, Err(Refusal::PlaintextNotOffered)),
    ] {
        let mut peer = initiator();
        peer.provide = provide;
        check(&said(&peer, &[], &[], b"", b""), expected);
    }
}

#[test]
fn other_torrents_other_keys_and_other_protocols_are_refused() {
    let stranger = Initiator::new([9; 20], [7; 20]);
    check(&said(&stranger, &[], &[], b"", b""), Err(Refusal::UnknownTorrent));
    let mut damaged = said(&initiator(), &[], &[], b"", b"");
    damaged[KEY_BYTES + 40] ^= 1;
    check(&damaged, Err(Refusal::Malformed));
    check(b"GET / HTTP/1.1\r\n", Err(Refusal::NotEncryption));
}

/// What clients sent to a responder of [`keys`] that answered as ours does, for a torrent of [`INFOHASH`].
#[test]
fn the_corpus_is_judged_as_its_names_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/mse");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let said = std::fs::read(&path).unwrap();
        let (outcome, _) = play(&keys(), std::iter::once(said.as_slice()));
        assert_eq!(play(&keys(), said.chunks(1)).0, outcome, "{name} byte by byte");
        let as_named = match name.split('-').next().unwrap() {
            "plain" => matches!(
                &outcome,
                Ok(Progress::Plain(plain)) if matches!(Handshake::parse(plain), Opening::Whole(ours) if ours.infohash == INFOHASH)
            ),
            "rc4" => outcome == Err(Refusal::PlaintextNotOffered),
            "more" => outcome == Ok(Progress::NeedMore),
            other => panic!("no such verdict: {other}"),
        };
        assert!(as_named, "{name}: {outcome:?}");
        files += 1;
    }
    assert!(files >= 6, "only {files} files in the corpus");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_refused_or_waited_for(said in vec(any::<u8>(), 0..1500), portion in 1..700_usize) {
        let outcome = play(&keys(), said.chunks(portion));
        prop_assert!(matches!(outcome.0, Ok(Progress::NeedMore) | Err(Refusal::NotEncryption)));
    }

    #[test]
    fn a_handshake_with_a_damaged_byte_never_yields_more_than_was_said(
        at in 0..400_usize, flip in 1..=255_u8, portion in 1..400_usize,
    ) {
        let handshake = Handshake { reserved: Reserved::default(), infohash: INFOHASH, peer_id: [1; 20] };
        let mut said = said(&initiator(), &[4; 50], &[5; 60], &handshake.encode(), b"");
        let at = at % said.len();
        said[at] ^= flip;
        if let (Ok(Progress::Plain(plain)), _) = play(&keys(), said.chunks(portion)) {
            prop_assert!(plain.len() <= said.len());
        }
    }
}
