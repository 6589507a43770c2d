//! The peer wire against itself and against arbitrary bytes; the corpus is what once was, or might be, troublesome.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use millrace_proto::peer::extension::{self, ExtensionHandshake};
use millrace_proto::peer::frame::{Frame, FrameLimits, next_frame};
use millrace_proto::peer::handshake::{HANDSHAKE_BYTES, Handshake, Opening, Progress};
use millrace_proto::peer::message::{BLOCK_HEAD_BYTES, Block, HashSpan, Message, block_head};
use millrace_proto::peer::metadata::MetadataMessage;
use millrace_proto::peer::{allowed_fast::AllowedFast, bitfield};
use proptest::collection::vec;
use proptest::prelude::*;

const LIMITS: fn() -> FrameLimits = || FrameLimits::exchange(1000);

/// Feeds bytes to everything that reads a peer's bytes; what is read must be written as it stood.
fn exercise(received: &[u8]) {
    let _ = Handshake::parse(received);
    let _ = Opening::parse(received);
    match next_frame(received, &LIMITS()) {
        Frame::NeedMore(more) => assert!(more > 0),
        Frame::Invalid(_) => {}
        Frame::Whole { consumed, message } => {
            assert!((4..=received.len()).contains(&consumed));
            if let Message::Extended { payload, .. } = message {
                exercise_extension(payload);
            }
            if let Message::Unknown(_) = message {
                return;
            }
            let mut out = vec![0; message.encoded_bytes()];
            assert_eq!(message.encode(&mut out), Ok(consumed));
            assert_eq!(out, received[..consumed]);
        }
    }
}

fn exercise_extension(payload: &[u8]) {
    let _ = extension::parse_upload_only(payload);
    let _ = extension::parse_lt_donthave(payload);
    if let Ok(handshake) = ExtensionHandshake::parse(payload) {
        let mut out = [0; 512];
        let length = handshake.encode(&mut out).unwrap();
        // A mapped address is written as the IPv4 address it stands for.
        let your_ip = handshake.your_ip.map(|ip| ip.to_canonical());
        assert_eq!(
            ExtensionHandshake::parse(&out[..length]),
            Ok(ExtensionHandshake { your_ip, ..handshake })
        );
    }
    if let Some(message) = MetadataMessage::parse(payload) {
        let mut out = vec![0; payload.len() + 64];
        let length = message.encode(&mut out).unwrap();
        assert_eq!(MetadataMessage::parse(&out[..length]), Some(message));
    }
}

#[test]
fn the_corpus_is_judged_as_its_names_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/peer");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        exercise(&bytes);
        let frame = next_frame(&bytes, &LIMITS());
        let as_named = match name.split('-').next().unwrap() {
            "whole" => matches!(frame, Frame::Whole { consumed, .. } if consumed == bytes.len()),
            "more" => matches!(frame, Frame::NeedMore(_)),
            "invalid" => matches!(frame, Frame::Invalid(_)),
            "handshake" => matches!(Handshake::parse(&bytes), Progress::Whole(_)),
            other => panic!("no such verdict: {other}"),
        };
        assert!(as_named, "{name}: {frame:?}");
        files += 1;
    }
    assert!(files >= 27, "only {files} files in the corpus");
}

fn block() -> impl Strategy<Value = Block> {
    any::<[u32; 3]>().prop_map(|[index, begin, length]| Block { index, begin, length })
}

fn span() -> impl Strategy<Value = HashSpan> {
    any::<([u8; 32], [u32; 4])>().prop_map(|(pieces_root, [base_layer, index, length, proof_layers])| {
        HashSpan { pieces_root, base_layer, index, length, proof_layers }
    })
}

/// Every kind of message, of its parts.
fn messages<'a>(number: u32, block: Block, span: HashSpan, bytes: &'a [u8]) -> [Message<'a>; 21] {
    let hashes = &bytes[..bytes.len() / 32 * 32];
    let [id, _, high, low] = number.to_be_bytes();
    [
        Message::KeepAlive,
        Message::Choke,
        Message::Unchoke,
        Message::Interested,
        Message::NotInterested,
        Message::Have(number),
        Message::Bitfield(bytes),
        Message::Request(block),
        Message::Piece { index: block.index, begin: block.begin, block: bytes },
        Message::Cancel(block),
        Message::Port(u16::from_be_bytes([high, low])),
        Message::Suggest(number),
        Message::HaveAll,
        Message::HaveNone,
        Message::Reject(block),
        Message::AllowedFast(number),
        Message::Extended { id, payload: bytes },
        Message::HashRequest(span),
        Message::Hashes { span, hashes },
        Message::HashReject(span),
        Message::Unknown(id.max(24)),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(received in vec(any::<u8>(), 0..200)) {
        exercise(&received);
        exercise_extension(&received);
    }

    /// Random lengths are mostly absurd; here they are right, so that the bodies are reached.
    #[test]
    fn arbitrary_bodies_never_panic(id in 0..26_u8, body in vec(any::<u8>(), 0..150)) {
        let frame_bytes = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
        exercise(&[&frame_bytes[..], &[id], &body].concat());
    }

    /// Bytes that look like bencoding.
    #[test]
    fn arbitrary_dictionaries_never_panic(payload in "d(1:m(de|d11:ut_metadatai[0-9]{1,4}ee)|4:reqqi-?[0-9]{1,12}e|6:yourip(4:abcd|16:[a-z]{16})|8:msg_typei[0-3]e|5:piecei[0-9]{1,6}e|10:total_sizei[0-9]{1,11}e){0,5}e[a-z]{0,40}") {
        exercise_extension(payload.as_bytes());
    }

    #[test]
    fn messages_survive_any_cut_of_the_stream(
        number: u32, block in block(), span in span(), bytes in vec(any::<u8>(), 0..100), cut: prop::sample::Index,
    ) {
        for message in messages(number, block, span, &bytes) {
            let mut out = vec![0; message.encoded_bytes()];
            let length = message.encode(&mut out).unwrap();
            prop_assert_eq!(length, out.len());
            prop_assert_eq!(next_frame(&out, &LIMITS()), Frame::Whole { consumed: length, message });
            let cut = cut.index(length);
            let Frame::NeedMore(more) = next_frame(&out[..cut], &LIMITS()) else {
                panic!("{message:?} cut at {cut}");
            };
            prop_assert!(more > 0 && cut + more <= length);
            prop_assert!(message.encode(&mut out[..cut]).is_err());
        }
    }

    #[test]
    fn the_block_head_begins_a_piece_frame(index: u32, begin: u32, bytes in vec(any::<u8>(), 0..100)) {
        let mut out = [0; BLOCK_HEAD_BYTES + 100];
        Message::Piece { index, begin, block: &bytes }.encode(&mut out).unwrap();
        prop_assert_eq!(&out[..BLOCK_HEAD_BYTES], block_head(index, begin, u32::try_from(bytes.len()).unwrap()));
    }

    #[test]
    fn handshakes_survive_any_cut(fields: ([u8; 8], [u8; 20], [u8; 20]), cut in 0..HANDSHAKE_BYTES) {
        let (reserved, infohash, peer_id) = fields;
        let reserved = millrace_proto::peer::handshake::Reserved(reserved);
        let handshake = Handshake { reserved, infohash, peer_id };
        let wire = handshake.encode();
        prop_assert_eq!(Handshake::parse(&wire), Progress::Whole(handshake));
        prop_assert_eq!(Handshake::parse(&wire[..cut]), Progress::NeedMore(HANDSHAKE_BYTES - cut));
    }

    #[test]
    fn bitfields_hold_what_was_put_in(piece_count in 1..500_u32, pieces in vec(0..500_u32, 0..50)) {
        let mut bits = vec![0; usize::try_from(bitfield::bytes(piece_count)).unwrap()];
        let pieces: Vec<u32> = pieces.into_iter().filter(|piece| *piece < piece_count).collect();
        for piece in &pieces {
            prop_assert!(bitfield::insert(&mut bits, *piece));
        }
        prop_assert_eq!(bitfield::check(&bits, piece_count), Ok(()));
        for piece in 0..600 {
            prop_assert_eq!(bitfield::contains(&bits, piece), pieces.contains(&piece));
        }
    }

    #[test]
    fn allowed_fast_sets_are_distinct_and_in_range(address: [u8; 16], infohash: [u8; 20], piece_count in 0..40_u32) {
        let set = AllowedFast::generate(address.into(), &infohash, piece_count, 10);
        prop_assert_eq!(set.pieces().len(), usize::try_from(piece_count.min(10)).unwrap());
        let mut pieces = set.pieces().to_vec();
        pieces.sort_unstable();
        pieces.dedup();
        prop_assert_eq!(pieces.len(), set.pieces().len());
        prop_assert!(pieces.iter().all(|piece| *piece < piece_count));
    }
}
