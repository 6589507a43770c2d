//! Peers that break the rules, and peers that say anything at all.

use millrace_engine::counters::Reason;
use millrace_proto::peer::handshake::Reserved;
use millrace_proto::peer::message::{Block, HashSpan, Message};
use proptest::prelude::*;

use crate::torrents::{complete, having, hybrid};
use crate::wire::{World, block, extended, fast, plain};

/// The messages close the connection of such a peer.
#[track_caller]
fn check_bad(reserved: Reserved, messages: &[Message<'_>]) {
    let mut world = World::new(having(hybrid(10), [0]));
    let conn = world.interested(reserved);
    world.say(conn, messages);
    world.check_ended(conn, Reason::BadMessage);
}

#[test]
fn what_breaks_the_rules_closes() {
    let span = HashSpan { pieces_root: [0; 32], base_layer: 0, index: 0, length: 2, proof_layers: 0 };
    check_bad(fast(), &[Message::Piece { index: 0, begin: 0, block: b"" }]);
    check_bad(fast(), &[Message::Piece { index: 0, begin: 0, block: b"gift" }]);
    check_bad(fast(), &[Message::Hashes { span, hashes: &[] }]);
    check_bad(fast(), &[Message::Have(10)]);
    check_bad(fast(), &[Message::Bitfield(&[0xff])]);
    check_bad(fast(), &[Message::Bitfield(&[0xff, 0xff])]);
    check_bad(fast(), &[Message::Bitfield(&[0; 3])]);
    check_bad(plain(), &[Message::HaveAll]);
    check_bad(plain(), &[Message::AllowedFast(0)]);
    check_bad(extended(), &[Message::Extended { id: 0, payload: b"d1:m" }]);
    check_bad(extended(), &[Message::Extended { id: 3, payload: b"12" }]);
    check_bad(extended(), &[Message::Extended { id: 0, payload: &[b'x'; 20_000] }]);
    check_bad(fast(), &vec![Message::Have(1); 200]);
}

#[test]
fn what_we_do_not_know_is_passed_over() {
    let mut world = World::new(complete(3));
    let conn = world.interested(extended());
    let unknown = [
        Message::Unknown(99),
        Message::KeepAlive,
        Message::Port(1),
        Message::Extended { id: 77, payload: b"?" },
        Message::Extended { id: 1, payload: b"?" },
        Message::Suggest(9),
        Message::Choke,
    ];
    world.say(conn, &unknown);
    world.check(conn, &[]);
    world.check_open(conn);
}

#[test]
fn who_asks_and_does_not_read_is_not_read_from() {
    let mut world = World::new(having(hybrid(10), [0]));
    let conn = world.interested(fast());
    world.stop_reading(conn);
    let missing = vec![Message::Request(block(1, 0, 1)); 1_000];
    let mut packets = 0;
    while !world.is_paused(conn) {
        world.say(conn, &missing);
        packets += 1;
    }
    assert!(packets < 6, "{packets}");
    assert!(world.shard.output(conn).unwrap().bytes() < 128 * 1024);
    world.read_again(conn);
    assert!(!world.is_paused(conn));
    assert_eq!(world.read(conn).len(), packets * 1_000);
}

#[test]
fn answers_longer_than_their_questions_do_not_pile_up() {
    let mut world = World::new(hybrid(1_000));
    let conn = world.open(extended());
    world.take(conn);
    world.say(conn, &[Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai1eee" }]);
    world.stop_reading(conn);
    let request = Message::Extended { id: 1, payload: b"d8:msg_typei0e5:piecei0ee" };
    world.say(conn, &vec![request; 1_000]);
    assert!(world.shard.output(conn).unwrap().bytes() < 64 * 1024);
    // Some wait for their turn; most were rejected.
    world.read_again(conn);
    assert!(world.take(conn).len() < 80 * 17_000);
}

fn any_block() -> impl Strategy<Value = Block> {
    (0..5_u32, 0..70_000_u32, 0..20_000_u32).prop_map(|(index, begin, length)| block(index, begin, length))
}

/// Messages as a peer of ours may send them, most of them well-formed.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let encode = |message: Message<'_>| {
        let mut out = vec![0; message.encoded_bytes()];
        message.encode(&mut out).unwrap();
        out
    };
    let span =
        (0..4_u32, 0..20_u32, 0..20_u32, 0..6_u32).prop_map(|(base_layer, index, length, proof_layers)| {
            HashSpan { pieces_root: [0; 32], base_layer, index, length, proof_layers }
        });
    prop_oneof![
        6 => any_block().prop_map(move |block| encode(Message::Request(block))),
        2 => any_block().prop_map(move |block| encode(Message::Cancel(block))),
        2 => Just(encode(Message::Interested)),
        1 => Just(encode(Message::NotInterested)),
        1 => (0..6_u32).prop_map(move |piece| encode(Message::Have(piece))),
        1 => any::<[u8; 1]>().prop_map(move |bits| encode(Message::Bitfield(&bits))),
        1 => span.prop_map(move |span| encode(Message::HashRequest(span))),
        1 => (0..4_u32).prop_map(move |piece| {
            let payload = format!("d8:msg_typei0e5:piecei{piece}ee");
            encode(Message::Extended { id: 1, payload: payload.as_bytes() })
        }),
        1 => Just(encode(Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai3eee" })),
        1 => (0..30_u8, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(id, body)| {
            let frame_bytes = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
            [&frame_bytes[..], &[id], &body].concat()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_sequence_of_messages_panics_or_makes_the_output_grow(
        messages in prop::collection::vec(any_message(), 1..120),
        slices in prop::collection::vec(1..400_usize, 1..40),
        flags in any::<[bool; 4]>(),
    ) {
        let [fast_bit, extension_bit, reads, whole] = flags;
        let reserved = if fast_bit { fast() } else { plain() };
        let reserved = if extension_bit { reserved.with_extension_protocol() } else { reserved };
        let mut world = World::new(having(hybrid(5), if whole { 0..5 } else { 1..4 }));
        let conn = world.open(reserved);
        if !reads {
            world.stop_reading(conn);
        }
        let stream = messages.concat();
        let mut rest = &stream[..];
        for (at, slice_bytes) in slices.iter().cycle().enumerate() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*slice_bytes).min(rest.len()));
            world.write(conn, now);
            rest = later;
            if at % 7 == 3 {
                world.verify(u32::try_from(at % 5).unwrap());
                world.pass_s(1);
            }
            let queued = world.shard.output(conn).map_or(0, |output| output.bytes());
            prop_assert!(queued < 2 << 20, "{queued} bytes");
        }
        // What was sent is well-formed, and every block right.
        world.read(conn);
    }

    #[test]
    fn no_bytes_panic(opened in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        let mut world = World::new(complete(3));
        let conn = if opened { world.open(fast()) } else { world.accept() };
        for slice in bytes.chunks(7) {
            world.write(conn, slice);
        }
        world.read(conn);
    }
}
