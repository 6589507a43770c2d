//! What peers ask: blocks (BEP 3, 6), metadata (BEP 9), hashes (BEP 52).

use millrace_engine::counters::Reason;
use millrace_engine::limits::Limits;
use millrace_proto::merkle::{Hash, HashRange};
use millrace_proto::peer::frame::{Frame, FrameLimits, next_frame};
use millrace_proto::peer::handshake::Reserved;
use millrace_proto::peer::message::{Block, HashSpan, Message};
use millrace_proto::peer::metadata::MetadataMessage;

use crate::torrents::{BLOCK_BYTES, PIECE_BYTES, complete, having, hybrid, hybrid_in_pieces_of, v2_only};
use crate::wire::{World, block, extended, fast, plain};

#[test]
fn fifty_requests_are_one_send() {
    let mut world = World::new(complete(14));
    let conn = world.interested(fast());
    let requests: Vec<_> =
        (0..50).map(|at| Message::Request(block(at / 4, at % 4 * BLOCK_BYTES, BLOCK_BYTES))).collect();
    world.sends.clear();
    world.say(conn, &requests);
    assert_eq!(world.sends, [["head", "extent"].repeat(50)]);
    let blocks = world.read(conn);
    assert_eq!((blocks.len(), blocks[49].as_str()), (50, "Piece(12, 16384, 16384)"));
    assert_eq!(world.counters.blocks.value(), 50);
    assert_eq!(world.counters.served_bittorrent_bytes.value(), 50 * u64::from(BLOCK_BYTES));
}

#[test]
fn the_last_piece_is_short_and_blocks_may_have_any_length() {
    let mut world = World::new(complete(3));
    let conn = world.interested(plain());
    let blocks = [block(2, 0, 100), block(2, 99, 1), block(0, 1, 3), block(1, 0, PIECE_BYTES)];
    world.say(conn, &blocks.map(Message::Request));
    world.check(conn, &["Piece(2, 0, 100)", "Piece(2, 99, 1)", "Piece(0, 1, 3)", "Piece(1, 0, 65536)"]);
}

/// A request that no content of three pieces can answer closes the connection.
#[track_caller]
fn check_absurd(block: Block) {
    let mut world = World::new(complete(3));
    let conn = world.interested(fast());
    world.say(conn, &[Message::Request(block)]);
    world.check_ended(conn, Reason::BadMessage);
}

#[test]
fn absurd_requests_close() {
    check_absurd(block(0, 0, 0));
    check_absurd(block(3, 0, 1));
    check_absurd(block(u32::MAX, u32::MAX, u32::MAX));
    check_absurd(block(0, PIECE_BYTES, 1));
    check_absurd(block(0, PIECE_BYTES - 1, 2));
    check_absurd(block(2, 0, 101));
    check_absurd(block(1, u32::MAX, 2));
}

#[test]
fn more_than_128_kib_at_a_time_is_absurd() {
    let mut world = World::new(having(hybrid_in_pieces_of(256 * 1024, 2), 0..1));
    let conn = world.interested(fast());
    world.say(conn, &[Message::Request(block(0, 7, 128 * 1024))]);
    world.check(conn, &["Piece(0, 7, 131072)"]);
    world.say(conn, &[Message::Request(block(0, 7, 128 * 1024 + 1))]);
    world.check_ended(conn, Reason::BadMessage);
}

#[test]
fn without_a_v1_part_files_end_where_they_end_and_zeros_fill_the_block() {
    let mut world = World::new(having(v2_only(), 0..2));
    let conn = world.interested(fast());
    // Within the content, and where it ends.
    for piece in 0..2 {
        for (begin, length) in [(0, 100), (0, 101), (99, BLOCK_BYTES - 99), (0, BLOCK_BYTES)] {
            world.say(conn, &[Message::Request(block(piece, begin, length))]);
            world.check(conn, &[&format!("Piece({piece}, {begin}, {length})")]);
        }
    }
    for absurd in
        [(0, 0, BLOCK_BYTES + 1), (0, 1, BLOCK_BYTES), (1, 1, BLOCK_BYTES), (0, 100, 1), (1, 100, 1)]
    {
        let mut world = World::new(having(v2_only(), 0..2));
        let conn = world.interested(fast());
        world.say(conn, &[Message::Request(block(absurd.0, absurd.1, absurd.2))]);
        world.check_ended(conn, Reason::BadMessage);
    }
}

/// What `reserved` peers read after asking for pieces 0 (there) and 1 (not there); none when they are closed.
fn ask_for_missing(reserved: Reserved) -> Option<Vec<String>> {
    let mut world = World::new(having(hybrid(3), [0]));
    let conn = world.interested(reserved);
    world.say(conn, &[Message::Request(block(0, 0, 5)), Message::Request(block(1, 0, 5))]);
    let read = world.read(conn);
    if read.is_empty() {
        world.check_ended(conn, Reason::BadMessage);
    }
    (!read.is_empty()).then_some(read)
}

#[test]
fn a_piece_that_is_not_there_is_rejected_or_closes() {
    assert_eq!(ask_for_missing(fast()), Some(vec!["Reject(1, 0, 5)".into(), "Piece(0, 0, 5)".into()]));
    assert_eq!(ask_for_missing(plain()), None);
}

fn world_of_few_requests() -> World {
    let limits = Limits { connections_max: 8, peer_requests_max: 4, ..Limits::default() };
    World::with_limits(complete(3), limits)
}

#[test]
fn requests_beyond_the_queue_are_rejected_or_close() {
    let requests: Vec<_> = (0..6).map(|begin| Message::Request(block(0, begin, 1))).collect();
    let mut world = world_of_few_requests();
    let conn = world.interested(fast());
    world.say(conn, &requests);
    let rejects = ["Reject(0, 4, 1)", "Reject(0, 5, 1)"];
    world.check(
        conn,
        &[&rejects[..], &["Piece(0, 0, 1)", "Piece(0, 1, 1)", "Piece(0, 2, 1)", "Piece(0, 3, 1)"]].concat(),
    );
    let conn = world.interested(plain());
    world.say(conn, &requests);
    world.check_ended(conn, Reason::BadMessage);
}

#[test]
fn what_is_cancelled_in_time_is_not_sent() {
    let mut world = World::new(complete(3));
    let conn = world.interested(fast());
    world.stop_reading(conn);
    world.say(conn, &[Message::Request(block(0, 0, 1))]);
    world.say(conn, &[Message::Request(block(0, 1, 1)), Message::Request(block(0, 2, 1))]);
    // The first is on its way and cannot be taken back: it is sent, and nothing else answers it.
    world.say(conn, &[Message::Cancel(block(0, 0, 1)), Message::Cancel(block(0, 1, 1))]);
    world.say(conn, &[Message::Cancel(block(2, 0, 1))]);
    world.read_again(conn);
    world.check(conn, &["Piece(0, 0, 1)", "Reject(0, 1, 1)", "Piece(0, 2, 1)"]);
}

#[test]
fn metadata_comes_in_pieces_of_16_kib() {
    let mut world = World::new(hybrid(1_700));
    let info = world.content.metainfo().unwrap().info_bytes.clone();
    assert!(info.len() > 2 * 16_384);
    let conn = world.open(extended());
    world.take(conn);
    world.say(conn, &[Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai9eee" }]);
    let mut received = Vec::new();
    for piece in 0..4_u32 {
        let request = format!("d8:msg_typei0e5:piecei{piece}ee");
        world.say(conn, &[Message::Extended { id: 1, payload: request.as_bytes() }]);
        let bytes = world.take(conn);
        let Frame::Whole { message: Message::Extended { id: 9, payload }, consumed } =
            next_frame(&bytes, &FrameLimits::exchange(1))
        else {
            panic!("no metadata message")
        };
        assert_eq!(consumed, bytes.len());
        match MetadataMessage::parse(payload) {
            Some(MetadataMessage::Data { data, .. }) => received.extend_from_slice(data),
            Some(MetadataMessage::Reject { piece: 3 }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, info);
}

/// The answer to a hash request for a content of 12 pieces: the hash it proves, or that it was rejected.
fn ask_hashes(base_layer: u32, index: u32, length: u32, proof_layers: u32) -> Option<(Hash, Hash)> {
    let mut world = World::new(complete(12));
    let conn = world.open(plain());
    world.take(conn);
    let pieces_root = world.content.metainfo().unwrap().info.files[0].pieces_root.unwrap();
    let span = HashSpan { pieces_root, base_layer, index, length, proof_layers };
    world.say(conn, &[Message::HashRequest(span)]);
    let bytes = world.take(conn);
    match next_frame(&bytes, &FrameLimits::exchange(2)) {
        Frame::Whole { message: Message::Hashes { span: of, hashes }, .. } => {
            assert_eq!(of, span);
            let range = HashRange { base_layer, index, length, proof_layers };
            Some((range.ancestor(hashes.as_chunks().0).unwrap(), pieces_root))
        }
        Frame::Whole { message: Message::HashReject(of), .. } if of == span => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn hashes_from_the_piece_layer_up_are_proven() {
    // 64 KiB pieces: layer 2. Twelve pieces make a tree of sixteen, six layers high.
    for (index, length) in [(0, 16), (0, 4), (12, 4), (8, 2)] {
        let (proven, root) = ask_hashes(2, index, length, 3).unwrap();
        assert_eq!(proven, root, "{length} from {index}");
    }
}

#[test]
fn hashes_that_are_not_kept_or_do_not_exist_are_rejected() {
    assert_eq!(ask_hashes(0, 0, 4, 3), None);
    assert_eq!(ask_hashes(2, 16, 4, 3), None);
    assert_eq!(ask_hashes(2, 0, 3, 3), None);
    assert_eq!(ask_hashes(u32::MAX, 0, 2, u32::MAX), None);
}
