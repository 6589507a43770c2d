//! Who is served when (BEP 3, 6), and contents that are paused.

use millrace_engine::event::{Event, News};
use millrace_engine::ids::ConnId;
use millrace_engine::limits::Limits;
use millrace_pagecache::content::State;
use millrace_proto::peer::message::Message;

use crate::torrents::{complete, having, hybrid};
use crate::wire::{World, block, fast, plain};

fn one_slot(pieces: u32) -> World {
    World::with_limits(complete(pieces), Limits { connections_max: 8, upload_slots: 1, ..Limits::default() })
}

fn change(world: &mut World, state: State) {
    world.content.set_state(state);
    world.event(Event::News(News::Changed(world.content.id())));
}

#[test]
fn interest_is_answered_at_once_while_slots_are_free() {
    let mut world = one_slot(3);
    let (first, second) = (world.open(plain()), world.open(plain()));
    world.take(first);
    world.take(second);
    world.say(first, &[Message::Interested, Message::Interested]);
    world.say(second, &[Message::Interested]);
    world.check(first, &["Unchoke"]);
    world.check(second, &[]);
    assert_eq!(world.counters.unchoked.value(), 1);
    world.say(first, &[Message::NotInterested]);
    world.check(first, &["Choke"]);
    world.check(second, &["Unchoke"]);
}

#[test]
fn a_connection_that_closes_leaves_its_slot_to_the_next() {
    let mut world = one_slot(3);
    let (first, second) = (world.interested(plain()), world.interested(plain()));
    world.event(Event::Broken { conn: first });
    world.check(second, &["Unchoke"]);
    assert_eq!(world.counters.unchoked.value(), 1);
}

#[test]
fn slots_change_hands() {
    let mut world = one_slot(3);
    let (first, second) = (world.interested(plain()), world.interested(plain()));
    world.pass_s(25);
    world.check(first, &["Choke"]);
    world.check(second, &["Unchoke"]);
}

/// Requests of a choked peer are answered like this; pieces are too many for all to be in the allowed-fast set.
fn ask_choked(reserved: millrace_proto::peer::handshake::Reserved) -> (World, ConnId, Vec<u32>) {
    let mut world = one_slot(40);
    world.interested(plain());
    let conn = world.open(reserved);
    let read = world.read(conn);
    let allowed =
        read.iter().filter_map(|said| said.strip_prefix("AllowedFast(")?.strip_suffix(')')?.parse().ok());
    let allowed = allowed.collect();
    (world, conn, allowed)
}

#[test]
fn a_choked_peer_gets_rejects_and_what_is_allowed_fast() {
    let (mut world, conn, allowed) = ask_choked(fast());
    let other = (0..40).find(|piece| !allowed.contains(piece)).unwrap();
    world.say(conn, &[Message::Request(block(other, 0, 1)), Message::Request(block(allowed[0], 0, 1))]);
    world.check(conn, &[&format!("Reject({other}, 0, 1)"), &format!("Piece({}, 0, 1)", allowed[0])]);
    // A peer that has pieces needs no help to begin.
    (0..10).for_each(|piece| world.say(conn, &[Message::Have(piece)]));
    world.say(conn, &[Message::Request(block(allowed[0], 0, 1))]);
    world.check(conn, &[&format!("Reject({}, 0, 1)", allowed[0])]);
}

#[test]
fn without_the_fast_extension_requests_of_a_choked_peer_are_dropped() {
    let (mut world, conn, allowed) = ask_choked(plain());
    assert!(allowed.is_empty());
    world.say(conn, &[Message::Request(block(0, 0, 1))]);
    world.check(conn, &[]);
    world.check_open(conn);
}

#[test]
fn a_choke_answers_every_request_it_takes_back() {
    let mut world = one_slot(40);
    let conn = world.open(fast());
    let read = world.read(conn);
    world.say(conn, &[Message::Interested]);
    world.check(conn, &["Unchoke"]);
    let is_allowed = |piece: u32| read.contains(&format!("AllowedFast({piece})"));
    let plain_pieces: Vec<u32> = (0..40).filter(|piece| !is_allowed(*piece)).take(2).collect();
    let allowed = (0..40).find(|piece| is_allowed(*piece)).unwrap();
    world.stop_reading(conn);
    for piece in [plain_pieces[0], plain_pieces[1], allowed] {
        world.say(conn, &[Message::Request(block(piece, 0, 1))]);
    }
    world.say(conn, &[Message::NotInterested]);
    world.read_again(conn);
    let [sent, dropped] = [plain_pieces[0], plain_pieces[1]];
    let (sent, dropped) = (format!("Piece({sent}, 0, 1)"), format!("Reject({dropped}, 0, 1)"));
    world.check(conn, &[&sent, "Choke", &dropped, &format!("Piece({allowed}, 0, 1)")]);
}

#[test]
fn a_paused_content_serves_nobody_until_it_is_resumed() {
    let mut world = World::new(having(hybrid(40), 0..39));
    let conn = world.interested(fast());
    change(&mut world, State::Paused);
    world.check(conn, &["Choke"]);
    let requests: Vec<_> = (0..3).map(|piece| Message::Request(block(piece, 0, 1))).collect();
    // Not even what is allowed fast.
    (0..39).for_each(|piece| world.say(conn, &[Message::Request(block(piece, 0, 1))]));
    let read = world.read(conn);
    assert!(read.len() == 39 && read.iter().all(|said| said.starts_with("Reject")), "{read:?}");
    world.pass_s(20);
    world.check(conn, &[]);
    change(&mut world, State::Pulling);
    world.check(conn, &["Unchoke"]);
    world.say(conn, &requests);
    world.check(conn, &["Piece(0, 0, 1)", "Piece(1, 0, 1)", "Piece(2, 0, 1)"]);
}

#[test]
fn nothing_of_a_quarantined_content_is_sent() {
    let mut world = World::new(complete(3));
    let conn = world.interested(fast());
    world.stop_reading(conn);
    world.say(conn, &[Message::Request(block(0, 0, 1))]);
    world.say(conn, &[Message::Request(block(1, 0, 1))]);
    world.content.quarantine("the disk broke");
    // The news of it may come late.
    world.read_again(conn);
    world.check(conn, &["Piece(0, 0, 1)", "Reject(1, 0, 1)"]);
    world.event(Event::News(News::Changed(world.content.id())));
    world.check(conn, &["Choke"]);
}
