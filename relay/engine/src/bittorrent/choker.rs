//! Who is served: the upload slots of a shard, handed out among interested peers.
//!
//! A peer that wants something is unchoked at once while a slot is free. When there are more peers than slots, every round
//! those that got most make room for those that waited longest, and every third round for one picked at random.
//! A relay gets nothing back from its peers, so it has no reason to prefer any of them (no tit for tat).

use std::collections::VecDeque;

use crate::ids::{ConnId, Now};
use crate::session::{Random, Shared};

/// Time between two rounds; BEP 3 wants 10 seconds, so that peers are not choked and unchoked in quick succession.
const ROUND_MS: u64 = 10_000;

/// The optimistic choice is made every third round (BEP 3: 30 seconds).
const OPTIMISTIC_ROUNDS: u64 = 3;

/// One slot in this many changes hands in a round.
const SLOTS_PER_CHANGE: usize = 8;

/// What was decided about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has to wait.
    Choke,
    /// It is served.
    Unchoke,
}

/// A peer that wants something.
#[derive(Debug, Clone, Copy)]
struct Seat {
    conn: ConnId,
    /// Set while it is served.
    served: Option<Served>,
}

#[derive(Debug, Clone, Copy)]
struct Served {
    /// Rounds that had been held before.
    since_round: u64,
    sent_bytes: u64,
}

/// The slots of one shard, and who waits for one.
#[derive(Debug)]
pub(crate) struct Choker {
    slots: usize,
    /// By slot of the connection.
    seats: Vec<Option<Seat>>,
    served: usize,
    /// Least recently served first.
    waiting: VecDeque<ConnId>,
    verdicts: VecDeque<(ConnId, Verdict)>,
    next_round_ms: u64,
    rounds: u64,
}

impl Choker {
    /// A choker of so many slots, at least one.
    pub(crate) fn new(slots: usize) -> Self {
        Choker {
            slots: slots.max(1),
            seats: Vec::new(),
            served: 0,
            waiting: VecDeque::new(),
            verdicts: VecDeque::new(),
            next_round_ms: 0,
            rounds: 0,
        }
    }

    /// The peer is interested in something that may be served. Saying so again changes nothing.
    pub(crate) fn want(&mut self, conn: ConnId) {
        if self.seat(conn).is_some() {
            return;
        }
        if self.seats.len() <= conn.index() {
            self.seats.resize(conn.index() + 1, None);
        }
        self.seats[conn.index()] = Some(Seat { conn, served: None });
        self.waiting.push_back(conn);
        self.fill_slots();
    }

    /// The peer is interested no longer, or may have nothing for now: it is choked, and the next one gets its slot.
    pub(crate) fn unwant(&mut self, conn: ConnId) {
        if self.take(conn) {
            self.verdicts.push_back((conn, Verdict::Choke));
            self.fill_slots();
        }
    }

    /// The connection is gone.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.verdicts.retain(|(of, _)| *of != conn);
        if self.take(conn) {
            self.fill_slots();
        }
    }

    /// So many bytes of a content went out to the peer.
    pub(crate) fn note_sent(&mut self, conn: ConnId, bytes: u64) {
        if let Some(Seat { served: Some(served), .. }) = self.seat(conn) {
            served.sent_bytes += bytes;
        }
    }

    /// Peers that are served.
    pub(crate) fn served(&self) -> usize {
        self.served
    }

    /// What was decided and not yet told, in order.
    pub(crate) fn next_verdict(&mut self) -> Option<(ConnId, Verdict)> {
        self.verdicts.pop_front()
    }

    /// Lets slots change hands when a round is due and somebody waits.
    pub(crate) fn rotate(&mut self, now: Now, random: &mut Random) {
        if now.monotonic_ms() < self.next_round_ms {
            return;
        }
        self.next_round_ms = now.monotonic_ms() + ROUND_MS;
        self.rounds += 1;
        if self.rounds.is_multiple_of(OPTIMISTIC_ROUNDS) && self.waiting.len() > 1 {
            let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
            let lucky = usize::try_from(random.next() % waiting).unwrap_or(0);
            if let Some(conn) = self.waiting.remove(lucky) {
                self.waiting.push_front(conn);
            }
        }
        let changes = (self.slots / SLOTS_PER_CHANGE).max(1).min(self.waiting.len());
        for conn in self.best_served(changes) {
            self.demote(conn);
        }
        self.fill_slots();
    }

    /// The peers that make room: those that got most while they had a slot. Who has not had it
    /// for a whole round is left in peace.
    fn best_served(&self, count: usize) -> Vec<ConnId> {
        if count == 0 {
            return Vec::new();
        }
        let mut served: Vec<(u64, u64, ConnId)> = self
            .seats
            .iter()
            .flatten()
            .filter_map(|seat| seat.served.map(|served| (seat.conn, served)))
            .filter(|(_, served)| served.since_round + 1 < self.rounds)
            .map(|(conn, served)| (served.sent_bytes, self.rounds - served.since_round, conn))
            .collect();
        served.sort_by_key(|(sent_bytes, rounds, _)| std::cmp::Reverse((*sent_bytes, *rounds)));
        served.truncate(count);
        served.into_iter().map(|(_, _, conn)| conn).collect()
    }

    fn demote(&mut self, conn: ConnId) {
        if let Some(seat) = self.seat(conn) {
            seat.served = None;
            self.served -= 1;
            self.waiting.push_back(conn);
            self.verdicts.push_back((conn, Verdict::Choke));
        }
    }

    fn fill_slots(&mut self) {
        while self.served < self.slots
            && let Some(conn) = self.waiting.pop_front()
        {
            let since_round = self.rounds;
            if let Some(seat) = self.seat(conn) {
                seat.served = Some(Served { since_round, sent_bytes: 0 });
                self.served += 1;
                self.verdicts.push_back((conn, Verdict::Unchoke));
            }
        }
    }

    /// Takes the peer's seat away. True when it was served.
    fn take(&mut self, conn: ConnId) -> bool {
        let Some(seat) = self.seat(conn).copied() else { return false };
        self.seats[conn.index()] = None;
        if seat.served.is_none() {
            self.waiting.retain(|of| *of != conn);
            return false;
        }
        self.served -= 1;
        true
    }

    fn seat(&mut self, conn: ConnId) -> Option<&mut Seat> {
        self.seats.get_mut(conn.index())?.as_mut().filter(|seat| seat.conn == conn)
    }
}

impl Shared {
    /// The next decision that a peer has to be told of.
    pub(crate) fn next_verdict(&mut self) -> Option<(ConnId, Verdict)> {
        let verdict = self.choker.next_verdict()?;
        self.count_unchoked();
        Some(verdict)
    }

    /// Called about once a second; acts when a round is due.
    pub(crate) fn rotate_chokes(&mut self, now: Now) {
        self.choker.rotate(now, &mut self.random);
    }

    pub(super) fn count_unchoked(&self) {
        self.counters.unchoked.set(u64::try_from(self.choker.served()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { monotonic_ns: seconds * 1_000_000_000, unix_s: 0 }
    }

    fn conn(slot: u32) -> ConnId {
        ConnId::new(slot, 0)
    }

    /// Verdicts since the last look, as slot and whether unchoked.
    fn verdicts(choker: &mut Choker) -> Vec<(u32, bool)> {
        std::iter::from_fn(|| choker.next_verdict())
            .map(|(conn, verdict)| (conn.slot(), verdict == Verdict::Unchoke))
            .collect()
    }

    fn choker(slots: usize, peers: u32) -> Choker {
        let mut choker = Choker::new(slots);
        (0..peers).for_each(|slot| choker.want(conn(slot)));
        choker
    }

    #[test]
    fn free_slots_are_given_at_once_and_no_more_than_there_are() {
        let mut choker = choker(2, 3);
        assert_eq!(verdicts(&mut choker), [(0, true), (1, true)]);
        choker.want(conn(0));
        assert_eq!(verdicts(&mut choker), []);
    }

    #[test]
    fn a_slot_that_is_left_goes_to_who_waited_longest() {
        let mut choker = choker(1, 3);
        choker.unwant(conn(0));
        assert_eq!(verdicts(&mut choker), [(0, true), (0, false), (1, true)]);
        choker.forget(conn(1));
        assert_eq!(verdicts(&mut choker), [(2, true)]);
        choker.forget(conn(2));
        assert_eq!((verdicts(&mut choker), choker.served()), (vec![], 0));
    }

    #[test]
    fn what_was_decided_about_a_peer_that_is_gone_is_not_told() {
        let mut choker = choker(1, 2);
        choker.forget(conn(0));
        assert_eq!(verdicts(&mut choker), [(1, true)]);
    }

    #[test]
    fn a_late_word_of_an_earlier_connection_changes_nothing() {
        let mut choker = choker(1, 1);
        verdicts(&mut choker);
        choker.forget(ConnId::new(0, 7));
        choker.note_sent(ConnId::new(0, 7), 1);
        assert_eq!(choker.served(), 1);
    }

    #[test]
    fn who_got_most_makes_room() {
        let mut choker = choker(2, 3);
        choker.note_sent(conn(1), 100);
        verdicts(&mut choker);
        choker.rotate(at(0), &mut Random::new(1));
        assert_eq!(verdicts(&mut choker), []);
        choker.rotate(at(10), &mut Random::new(1));
        assert_eq!(verdicts(&mut choker), [(1, false), (2, true)]);
        // The second round comes after ten seconds, and leaves the newcomer in peace.
        choker.note_sent(conn(2), 1_000);
        choker.rotate(at(19), &mut Random::new(1));
        assert_eq!(verdicts(&mut choker), []);
        choker.rotate(at(20), &mut Random::new(1));
        assert_eq!(verdicts(&mut choker), [(0, false), (1, true)]);
    }

    #[test]
    fn nobody_is_choked_while_nobody_waits() {
        let mut choker = choker(2, 2);
        verdicts(&mut choker);
        (1..10).for_each(|round| choker.rotate(at(round * 10), &mut Random::new(1)));
        assert_eq!(verdicts(&mut choker), []);
    }

    #[test]
    fn everybody_is_served_within_a_few_rounds() {
        let mut choker = choker(3, 20);
        let mut random = Random::new(5);
        let mut turns = [0u32; 20];
        for round in 1..=200 {
            choker.rotate(at(round * 10), &mut random);
            for (slot, unchoked) in verdicts(&mut choker) {
                turns[slot as usize] += u32::from(unchoked);
            }
            assert_eq!(choker.served(), 3);
        }
        assert!(turns.iter().all(|turns| *turns >= 5), "{turns:?}");
    }
}
