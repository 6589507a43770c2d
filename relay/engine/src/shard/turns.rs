//! Who may send next. Connections with something to send queue for turns; in each turn one gets at most
//! [`Limits::turn_bytes`](crate::limits::Limits::turn_bytes), and no more than the egress cap grants.

use std::sync::atomic::Ordering;

use super::Shard;
use super::connection::{Sending, Session};
use super::deadlines::after;
use crate::counters::Reason;
use crate::event::Sent;
use crate::ids::{ConnId, Now};
use crate::op::{Op, Ops};

/// How soon a connection that the cap made wait asks again.
const CAP_RETRY_NS: u64 = 2_000_000;

/// Turns handed out in one loop, so that events are looked at in between.
const TURNS_MAX: usize = 64;

impl Shard {
    pub(super) fn hand_out_turns(&mut self, now: Now, ops: &mut Ops) {
        for _ in 0..self.ready.len().min(TURNS_MAX) {
            let Some(id) = self.ready.pop_front() else { return };
            let turn_bytes = self.shared.limits.turn_bytes;
            let Some(queued) = self.conn(id).map(|conn| conn.output.bytes()) else { continue };
            let granted = self.shared.ledger.egress.take(now, queued.min(turn_bytes));
            if granted == 0 {
                self.shared.counters.cap_waits.increment();
                self.ready.push_front(id);
                self.throttled_until_ns = now.monotonic_ns + CAP_RETRY_NS;
                return;
            }
            if let Some(conn) = self.conn_mut(id) {
                conn.sending = Sending::Granted(granted);
                ops.push(Op::Send { conn: id, bytes_max: granted });
            }
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
            self.shared.ledger.egress.give_back(granted);
            let (reason, reset) = match outcome {
                Sent::Unreadable => (Reason::ContentLost, true),
                _ => (Reason::Broken, false),
            };
            return self.close(id, reason, reset, ops);
        };
        self.shared.ledger.egress.give_back(granted.saturating_sub(bytes));
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
