//! The opening: handshakes (BEP 3, 52), what is announced (BEP 3, 6, 10), and who has nothing to do here.

use millrace_engine::counters::Reason;
use millrace_engine::event::{Event, News};
use millrace_pagecache::layout::PieceIndex;
use millrace_proto::peer::extension::{ExtensionHandshake, ExtensionIds};
use millrace_proto::peer::frame::{Frame, FrameLimits, next_frame};
use millrace_proto::peer::handshake::{Handshake, Progress};
use millrace_proto::peer::message::Message;

use crate::torrents::{complete, having, hybrid};
use crate::wire::{OUR_ID, World, extended, fast, plain};

#[test]
fn the_first_foreign_byte_ends_it() {
    let mut world = World::new(complete(3));
    let conn = world.accept();
    world.write(conn, b"G");
    world.check_ended(conn, Reason::NotBitTorrent);
}

#[test]
fn an_unknown_torrent_is_refused() {
    let mut world = World::new(complete(3));
    let conn = world.accept();
    let handshake = Handshake { infohash: [9; 20], ..world.handshake(fast()) };
    world.write(conn, &handshake.encode());
    assert!(world.take(conn).is_empty());
    world.check_ended(conn, Reason::UnknownTorrent);
}

#[test]
fn either_infohash_is_answered_with_itself() {
    let mut world = World::new(complete(3));
    let v2 = world.content.metainfo().unwrap().infohash_v2().unwrap().truncated().0;
    for infohash in [world.handshake(fast()).infohash, v2] {
        let conn = world.accept();
        let handshake = Handshake { infohash, ..world.handshake(fast()) };
        world.write(conn, &handshake.encode());
        let Progress::Whole(answer) = Handshake::parse(&world.take(conn)) else { panic!("no handshake") };
        assert_eq!((answer.infohash, answer.peer_id), (infohash, OUR_ID));
        assert!(answer.reserved.v2() && answer.reserved.fast() && answer.reserved.extension_protocol());
    }
}

#[test]
fn a_handshake_may_come_in_bytes_and_is_answered_at_the_infohash() {
    let mut world = World::new(complete(3));
    let conn = world.accept();
    let handshake = world.handshake(fast()).encode();
    for (at, byte) in handshake.iter().enumerate() {
        assert_eq!(world.take(conn).len(), if at == 48 { 68 } else { 0 }, "before byte {at}");
        world.write(conn, &[*byte]);
    }
    assert_eq!(world.read(conn)[0], "HaveAll");
}

#[test]
fn we_do_not_talk_to_ourselves() {
    let mut world = World::new(complete(3));
    let conn = world.accept();
    let handshake = Handshake { peer_id: OUR_ID, ..world.handshake(fast()) };
    world.write(conn, &handshake.encode());
    world.check_ended(conn, Reason::NothingToDo);
}

#[test]
fn a_slow_handshake_is_given_up() {
    let mut world = World::new(complete(3));
    let conn = world.accept();
    world.write(conn, b"\x13Bit");
    world.pass_s(17);
    world.check_ended(conn, Reason::SlowHead);
}

#[test]
fn pieces_are_announced_in_the_shortest_form() {
    for (have, fast_form, plain_form) in [
        (0..0, Some("HaveNone"), None),
        (0..10, Some("HaveAll"), Some("Bitfield([255, 192])")),
        (1..9, Some("Bitfield([127, 128])"), Some("Bitfield([127, 128])")),
    ] {
        let mut world = World::new(having(hybrid(10), have));
        let conn = world.open(plain());
        assert_eq!(world.read(conn).first().map(String::as_str), plain_form);
        let conn = world.open(fast());
        assert_eq!(world.read(conn).first().map(String::as_str), fast_form);
    }
}

#[test]
fn the_allowed_fast_set_is_of_pieces_that_are_there() {
    let mut world = World::new(having(hybrid(30), 0..15));
    let conn = world.open(fast());
    let read = world.read(conn);
    assert!(read.len() > 1 && read.len() < 11, "{read:?}");
    for piece in &read[1..] {
        let piece: u32 = piece.trim_start_matches("AllowedFast(").trim_end_matches(')').parse().unwrap();
        assert!(piece < 15);
    }
}

#[test]
fn the_extension_handshake_says_what_we_do() {
    let mut world = World::new(complete(3));
    let conn = world.open(extended());
    let bytes = world.take(conn);
    let Frame::Whole { message: Message::Extended { id: 0, payload }, .. } =
        next_frame(&bytes[68..], &FrameLimits::exchange(1))
    else {
        panic!("no extension handshake")
    };
    let said = ExtensionHandshake::parse(payload).unwrap();
    assert_eq!(said.ids, ExtensionIds { ut_pex: None, ..ExtensionIds::OURS });
    let info_bytes = world.content.metainfo().unwrap().info_bytes.len();
    assert_eq!(said.metadata_size, u32::try_from(info_bytes).ok());
    assert_eq!((said.client, said.reqq, said.upload_only), (&b"Millrace test"[..], Some(2_000), Some(true)));
    assert_eq!((said.port, said.your_ip), (Some(6881), Some("192.0.2.77".parse().unwrap())));
}

#[test]
fn each_new_piece_is_announced_once() {
    let mut world = World::new(having(hybrid(10), [2]));
    let conn = world.open(plain());
    world.check(conn, &["Bitfield([32, 0])"]);
    // Verified before the peer came; its news is late.
    world.verify(2);
    world.verify(5);
    world.verify(5);
    world.check(conn, &["Have(5)"]);
    let second = world.open(plain());
    world.check(second, &["Bitfield([36, 0])"]);
}

#[test]
fn a_piece_that_has_news_under_way_is_announced_by_the_news() {
    let mut world = World::new(hybrid(10));
    let first = world.open(plain());
    // Verified, and the news is not here yet: a peer that comes now hears it with all others.
    world.content.mark_verified(PieceIndex(4));
    let second = world.open(plain());
    world.check(second, &[]);
    world.verify(4);
    world.check(first, &["Have(4)"]);
    world.check(second, &["Have(4)"]);
}

#[test]
fn the_shard_listens_while_it_has_peers() {
    let mut world = World::new(hybrid(3));
    assert_eq!(world.content.listeners(), 0);
    let (one, two) = (world.open(fast()), world.open(fast()));
    assert_eq!(world.content.listeners(), 1 << 3);
    world.event(Event::Broken { conn: one });
    assert_eq!(world.content.listeners(), 1 << 3);
    world.event(Event::Broken { conn: two });
    assert_eq!(world.content.listeners(), 0);
}

#[test]
fn two_seeds_part() {
    let partial_seed = Message::Extended { id: 0, payload: b"d11:upload_onlyi1ee" };
    for said in [Message::HaveAll, Message::Bitfield(&[0xe0]), partial_seed] {
        let mut world = World::new(complete(3));
        let conn = world.open(extended());
        world.say(conn, &[said]);
        world.check_ended(conn, Reason::NothingToDo);
    }
    let mut world = World::new(having(hybrid(3), [0]));
    let conn = world.open(extended());
    world.say(conn, &[Message::HaveAll]);
    world.check_open(conn);
}

#[test]
fn a_removed_content_lets_its_peers_go() {
    let mut world = World::new(complete(3));
    let conn = world.interested(fast());
    world.event(Event::News(News::Gone(world.content.id())));
    world.check(conn, &["Choke"]);
    world.check_ended(conn, Reason::ContentLost);
}

#[test]
fn peers_of_a_body_that_was_replaced_come_back_to_the_new_one() {
    let mut world = World::new(complete(3));
    let conn = world.interested(fast());
    world.event(Event::News(News::Put(complete(3))));
    world.pass_s(1);
    world.check(conn, &["Choke"]);
    world.check_ended(conn, Reason::ContentLost);
}

#[test]
fn a_drain_ends_connections_in_order() {
    let mut world = World::new(complete(3));
    let (early, peer) = (world.accept(), world.interested(fast()));
    world.event(Event::News(News::Drain));
    world.check(peer, &["Choke"]);
    world.check(early, &[]);
    world.event(Event::Received { conn: peer, data: &[] });
    assert!(world.shard.is_drained());
    assert_eq!(world.counters.unchoked.value(), 0);
}

#[test]
fn silence_is_broken_by_us_and_ended_when_it_is_theirs() {
    let mut world = World::new(complete(3));
    let conn = world.interested(fast());
    world.pass_s(115);
    world.check(conn, &["KeepAlive"]);
    world.say(conn, &[Message::KeepAlive]);
    world.pass_s(100);
    world.check_open(conn);
    world.pass_s(60);
    world.check_ended(conn, Reason::Idle);
}
