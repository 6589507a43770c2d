//! Who may send next. Connections with something to send queue for turns; in each turn one gets at most
//! [`Limits::turn_bytes`](crate::limits::Limits::turn_bytes), and no more than every cap grants that it is
//! under (see [`waits`](super::waits)).

use std::sync::atomic::Ordering;

use super::Shard;
use super::connection::{Sending, Session};
use super::deadlines::after;
use super::waits::Waits;
use crate::counters::Reason;
use crate::event::Sent;
use crate::ids::{ConnId, Now};
use crate::op::{Op, Ops};

/// Turns handed out in one loop, so that events are looked at in between; to those who waited for caps, and to others.
const TURNS_MAX: usize = 64;

/// Connections that ask for a turn in one loop, with or without success.
const ASKS_MAX: usize = 512;

impl Shard {
    /// Those go first whom a cap made wait; then those who have just got something to send.
    pub(super) fn hand_out_turns(&mut self, now: Now, ops: &mut Ops) {
        if self.waits.has_caps() {
            self.serve_lines(now, ops);
        }
        let (mut turns, asks) = (TURNS_MAX, ASKS_MAX.min(self.ready.len()));
        for _ in 0..asks {
            if turns == 0 {
                break;
            }
            let Some(id) = self.ready.pop_front() else { break };
            turns -= usize::from(self.grant(now, id, ops));
        }
    }

    fn serve_lines(&mut self, now: Now, ops: &mut Ops) {
        while let Some(id) = self.waits.next_due(now) {
            self.queue(id);
        }
        let (mut turns, mut asks) = (TURNS_MAX, ASKS_MAX);
        while turns > 0 && asks > 0 {
            let Some((number, id)) = self.waits.next_in_line() else { break };
            asks -= 1;
            let Some(conn) = self.conn_mut(id).filter(|conn| conn.sending == Sending::Capped) else {
                continue;
            };
            Waits::note_waited(conn, number);
            if self.grant(now, id, ops) {
                turns -= 1;
            } else {
                self.waits.end_serving(now, number, id);
            }
        }
    }

    /// Gives a connection its turn, if the caps allow it one now.
    fn grant(&mut self, now: Now, id: ConnId, ops: &mut Ops) -> bool {
        let Shard { shared, conns, waits, .. } = self;
        let Some(conn) = conns.get_mut(id.index()).and_then(Option::as_mut).filter(|conn| conn.id == id)
        else {
            return false;
        };
        let Some(granted) = waits.ask(now, conn, shared.limits.turn_bytes, &shared.counters) else {
            return false;
        };
        conn.sending = Sending::Granted(granted);
        ops.push(Op::Send { conn: id, bytes_max: granted });
        true
    }

    /// A connection that waited for a cap asks again, in its turn.
    pub(super) fn queue(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id).filter(|conn| conn.sending == Sending::Capped) {
            conn.sending = Sending::Queued;
            self.ready.push_back(id);
        }
    }

    pub(super) fn sent(&mut self, now: Now, id: ConnId, outcome: Sent, ops: &mut Ops) {
        let Some(conn) = self.conns.get_mut(id.index()).and_then(Option::as_mut).filter(|conn| conn.id == id)
        else {
            return;
        };
        let Sending::Granted(granted) = conn.sending else {
            panic!("a send of slot {} ended that was not under way", id.slot())
        };
        conn.sending = Sending::Idle;
        let Sent::Bytes { bytes, blocked } = outcome else {
            conn.path.give_back(granted, self.waits.per_connection());
            let (reason, reset) = match outcome {
                Sent::Unreadable => (Reason::ContentLost, true),
                _ => (Reason::Broken, false),
            };
            return self.close(id, reason, reset, ops);
        };
        conn.path.give_back(granted.saturating_sub(bytes), self.waits.per_connection());
        let payload = conn.output.consume(bytes);
        let counters = &self.shared.counters;
        let used = conn.output.content().map(|content| content.counters());
        match &conn.session {
            Session::Http(_) => {
                counters.served_http_bytes.add(payload);
                used.map(|used| used.served_http.fetch_add(payload, Ordering::Relaxed));
            }
            Session::BitTorrent(_) => {
                counters.served_bittorrent_bytes.add(payload);
                used.map(|used| used.served_bittorrent.fetch_add(payload, Ordering::Relaxed));
                self.shared.choker.note_sent(id, payload);
            }
        }
        let limits = &self.shared.limits;
        if blocked {
            conn.sending = Sending::Blocked;
            if bytes > 0 || conn.stall.is_none() {
                conn.stall = Some(after(now, limits.stall_timeout, Reason::Stalled));
            }
        } else {
            conn.stall = None;
        }
        self.step(now, id, ops, Session::refill);
    }

    pub(super) fn writable(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id)
            && conn.sending == Sending::Blocked
        {
            conn.sending = Sending::Idle;
            // The reader took something: from here on it may be our cap that makes it wait.
            conn.stall = None;
            if !conn.output.is_empty() {
                conn.sending = Sending::Queued;
                self.ready.push_back(id);
            }
        }
    }
}
