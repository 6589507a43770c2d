//! The built-in tracker's table: counts, expiry, bounds, and who is told about whom.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use millrace_proto::tracker::swarm::{SwarmAnnounce, SwarmLimits, SwarmTable, UnknownInfohash};
use millrace_proto::tracker::{AnnounceEvent, SwarmCounts};

const INFOHASH: [u8; 20] = [7; 20];
const START: Duration = Duration::ZERO;

fn table(limits: SwarmLimits) -> SwarmTable {
    let mut table = SwarmTable::new(limits);
    table.register(INFOHASH);
    table
}

/// The peer id is the address, so that each peer of a test has one of its own.
fn peer(address: &str, left: u64, event: AnnounceEvent) -> SwarmAnnounce {
    let mut peer_id = [b'-'; 20];
    let name = address.as_bytes();
    let length = name.len().min(20);
    peer_id[..length].copy_from_slice(&name[name.len() - length..]);
    SwarmAnnounce {
        infohash: INFOHASH,
        peer_id,
        address: address.parse().unwrap(),
        left,
        event,
        numwant: None,
    }
}

/// Announces and returns the peers told, sorted.
fn check(table: &mut SwarmTable, announce: SwarmAnnounce, expected: &[&str]) {
    let mut told = table.announce(&announce, START, 1).unwrap().peers;
    told.sort();
    let expected: Vec<SocketAddr> = expected.iter().map(|peer| peer.parse().unwrap()).collect();
    assert_eq!(told, expected, "told to {}", announce.address);
}

fn counts(complete: u32, incomplete: u32, downloaded: u32) -> Option<SwarmCounts> {
    Some(SwarmCounts { complete, incomplete, downloaded })
}

use AnnounceEvent::{Completed, Periodic, Started, Stopped};

#[test]
fn peers_hear_of_others_of_their_family_and_never_of_themselves() {
    let mut table = table(SwarmLimits::default());
    check(&mut table, peer("192.0.2.1:1", 9, Started), &[]);
    check(&mut table, peer("[::ffff:192.0.2.2]:2", 9, Started), &["192.0.2.1:1"]);
    check(&mut table, peer("[2001:db8::1]:3", 9, Started), &[]);
    check(&mut table, peer("192.0.2.3:0", 9, Started), &["192.0.2.1:1", "192.0.2.2:2"]);
    check(&mut table, peer("192.0.2.1:1", 9, Periodic), &["192.0.2.2:2"]);
    check(&mut table, peer("[2001:db8::2]:4", 9, Periodic), &["[2001:db8::1]:3"]);
    let moved = SwarmAnnounce { address: "192.0.2.1:99".parse().unwrap(), ..peer("192.0.2.1:1", 9, Started) };
    check(&mut table, moved, &["192.0.2.2:2"]);
}

#[test]
fn seeds_hear_of_downloaders_only() {
    let mut table = table(SwarmLimits::default());
    check(&mut table, peer("192.0.2.1:1", 0, Started), &[]);
    check(&mut table, peer("192.0.2.2:2", 0, Started), &[]);
    check(&mut table, peer("192.0.2.3:3", 9, Started), &["192.0.2.1:1", "192.0.2.2:2"]);
    check(&mut table, peer("192.0.2.1:1", 0, Periodic), &["192.0.2.3:3"]);
}

#[test]
fn counts_follow_events_and_completed_counts_once() {
    let mut table = table(SwarmLimits::default());
    for (left, event, expected) in [
        (9, Started, counts(0, 1, 0)),
        (9, Periodic, counts(0, 1, 0)),
        (0, Completed, counts(1, 0, 1)),
        (0, Completed, counts(1, 0, 1)),
        (0, Stopped, counts(0, 0, 1)),
        (0, Stopped, counts(0, 0, 1)),
        (0, Completed, counts(1, 0, 1)),
    ] {
        table.announce(&peer("192.0.2.1:1", left, event), START, 1).unwrap();
        assert_eq!(table.scrape(&INFOHASH, START), expected, "{left} {event:?}");
    }
    let thief = SwarmAnnounce { peer_id: [0; 20], ..peer("192.0.2.1:1", 0, Stopped) };
    table.announce(&thief, START, 1).unwrap();
    assert_eq!(table.scrape(&INFOHASH, START), counts(1, 0, 1));
}

#[test]
fn silent_peers_are_forgotten() {
    let mut table = table(SwarmLimits { silence_max: Duration::from_secs(100), ..SwarmLimits::default() });
    let at = Duration::from_secs;
    table.announce(&peer("192.0.2.1:1", 9, Started), at(0), 1).unwrap();
    table.announce(&peer("192.0.2.2:2", 0, Started), at(60), 1).unwrap();
    table.announce(&peer("192.0.2.3:3", 9, Started), at(60), 1).unwrap();
    table.announce(&peer("192.0.2.3:3", 9, Periodic), at(90), 1).unwrap();
    assert_eq!(table.scrape(&INFOHASH, at(100)), counts(1, 2, 0));
    assert_eq!(table.scrape(&INFOHASH, at(101)), counts(1, 1, 0));
    assert_eq!(table.scrape(&INFOHASH, at(161)), counts(0, 1, 0));
    assert_eq!(table.peer_count(), 1);
    table.expire(at(1000));
    assert_eq!(table.peer_count(), 0);
    // A clock that runs backwards must not panic.
    assert_eq!(table.scrape(&INFOHASH, START), counts(0, 0, 0));
}

#[test]
fn bounds_hold_and_the_refused_still_get_answers() {
    let limits =
        SwarmLimits { peers_max: 5, swarm_peers_max: 4, address_peers_max: 2, ..SwarmLimits::default() };
    let mut table = table(limits);
    for address in ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3", "[2001:db8::1]:1", "[2001:db8::2]:1"] {
        table.announce(&peer(address, 9, Started), START, 1).unwrap();
    }
    check(&mut table, peer("[2001:db8::3]:1", 9, Started), &["[2001:db8::1]:1", "[2001:db8::2]:1"]);
    assert_eq!(table.peer_count(), 4, "two of each address or /64");
    check(&mut table, peer("192.0.2.9:1", 9, Started), &["192.0.2.1:1", "192.0.2.1:2"]);
    assert_eq!(table.peer_count(), 4, "four in the swarm");
    table.register([8; 20]);
    for address in ["192.0.2.1:1", "192.0.2.2:2"] {
        let other = SwarmAnnounce { infohash: [8; 20], ..peer(address, 9, Started) };
        table.announce(&other, START, 1).unwrap();
    }
    assert_eq!(table.peer_count(), 5, "five in all");
    table.unregister(&INFOHASH);
    assert_eq!(table.peer_count(), 1);
}

#[test]
fn unknown_infohashes_are_refused() {
    let mut table = SwarmTable::new(SwarmLimits::default());
    assert_eq!(table.announce(&peer("192.0.2.1:1", 9, Started), START, 1), Err(UnknownInfohash));
    assert_eq!(table.scrape(&INFOHASH, START), None);
}

#[test]
fn the_choice_is_bounded_distinct_and_decided_by_the_seed() {
    let mut table =
        table(SwarmLimits { answer_peers_max: 20, answer_peers_default: 15, ..SwarmLimits::default() });
    for last in 1..=100 {
        table.announce(&peer(&format!("192.0.2.{last}:1"), 9, Started), START, 1).unwrap();
    }
    let mut ask = |numwant, seed| {
        let asker = SwarmAnnounce { numwant, ..peer("198.51.100.1:1", 9, Periodic) };
        let mut told = table.announce(&asker, START, seed).unwrap().peers;
        told.sort();
        told.dedup();
        told
    };
    assert_eq!(ask(Some(0), 1).len(), 0);
    assert_eq!(ask(Some(7), 1).len(), 7);
    assert_eq!(ask(Some(u32::MAX), 1).len(), 20);
    assert_eq!(ask(None, 1).len(), 15);
    assert_eq!(ask(Some(7), 1), ask(Some(7), 1));
    assert_ne!(ask(Some(7), 1), ask(Some(7), 2));
    // Every peer is told to somebody: a choice that favours the first few would starve the rest.
    let mut met: Vec<_> = (0..200).flat_map(|seed| ask(Some(20), seed)).collect();
    met.sort();
    met.dedup();
    assert_eq!(met.len(), 100);
}
