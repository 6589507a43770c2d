//! Which caps a connection is under, and how much they let it send at once.

use std::sync::Arc;

use millrace_proto::id::ContentId;

use super::connection::{Conn, Session};
use crate::ids::{Now, Protocol};
use crate::ledger::caps::{Class, EgressCaps};

/// A block with its head, or an answer of 16 KiB with its own, leaves at once.
const TURN_BYTES_MIN: u64 = 17 * 1024;

/// A segment of TCP on Ethernet.
const SEGMENT_BYTES: u64 = 1_460;

/// Three quarters of what a second may carry above a low rate: for a turn, and for what a connection may be late.
const LATE_BYTES: u64 = 48 * 1024;

pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// What a connection has to ask, and where it stands.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// Which caps it is of.
    pub(super) version: u32,
    pub(super) content: Option<ContentId>,
    /// What is scarcest comes first. With their numbers.
    pub(super) classes: Box<[(u32, Arc<Class>)]>,
    /// A bit for each of them in whose line it has waited since it sent.
    pub(super) waited: u64,
    /// The cap on each connection lets it send from here on.
    pub(super) free_from_ns: u64,
}

impl Path {
    pub(super) fn new(conn: &Conn, caps: &EgressCaps, version: u32, now: Now) -> Self {
        let protocol = match conn.session {
            Session::Http(_) => Protocol::Http,
            Session::BitTorrent(_) => Protocol::BitTorrent,
        };
        let content = conn.output.content().map(|content| content.id());
        let numbers = caps.of_client(protocol, conn.peer.ip()).into_iter().rev();
        let numbers = content.and_then(|id| caps.of_content(id)).into_iter().chain(numbers);
        let classes =
            numbers.filter_map(|number| Some((number, Arc::clone(caps.classes().get(number as usize)?))));
        // What it had to wait for may have been another rate.
        let latest_ns = if conn.path.version == version { u64::MAX } else { now.monotonic_ns };
        let free_from_ns = conn.path.free_from_ns.min(latest_ns);
        Path { version, content, classes: classes.collect(), waited: 0, free_from_ns }
    }

    /// Bytes of a turn, at most `most`: what its connections' shares of a class are worth in 4 ms, or its own cap in 5 ms.
    pub(super) fn turn_bytes(&self, most: u64, per_connection: Option<u64>) -> u64 {
        let of_class = |(_, class): &(u32, Arc<Class>)| {
            let rate = class.bucket.rate();
            turn(rate, rate / 250 / class.waiting().max(1))
        };
        let own = per_connection.map_or(most, |rate| own_turn(rate).min(most));
        self.classes.iter().map(of_class).fold(own, u64::min)
    }

    /// The next turn comes when these bytes are paid for at the rate of a connection. What a late timer cost may be made up for, within
    /// what a second may carry too much.
    pub(super) fn note_granted(&mut self, now: Now, bytes: u64, rate: u64) {
        let late_bytes = LATE_BYTES.saturating_sub(own_turn(rate));
        let late_ns = time_ns(late_bytes, rate).clamp(4_000_000, 20_000_000);
        let from_ns = self.free_from_ns.max(now.monotonic_ns.saturating_sub(late_ns));
        self.free_from_ns = from_ns.saturating_add(time_ns(bytes, rate));
    }

    /// Returns bytes that were granted and not sent.
    pub(super) fn give_back(&mut self, bytes: u64, per_connection: Option<u64>) {
        if bytes > 0 {
            self.classes.iter().for_each(|(_, class)| class.bucket.give_back(bytes));
            if let Some(rate) = per_connection {
                self.free_from_ns = self.free_from_ns.saturating_sub(time_ns(bytes, rate));
            }
        }
    }
}

fn own_turn(rate: u64) -> u64 {
    turn(rate, rate / 200)
}

/// Bytes of a turn: `smooth`, but no less than what makes sense to send at once, which is less where a rate is very low.
fn turn(rate: u64, smooth: u64) -> u64 {
    smooth.max(TURN_BYTES_MIN.min(rate / 4).max(SEGMENT_BYTES))
}

/// What bytes are worth at a rate.
pub(super) fn time_ns(bytes: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(SECOND_NS) / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

/// Lines beyond the 64th are waited in without a claim to be first.
pub(super) fn bit(place: usize) -> u64 {
    1_u64.checked_shl(u32::try_from(place).unwrap_or(u32::MAX)).unwrap_or(0)
}

pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
