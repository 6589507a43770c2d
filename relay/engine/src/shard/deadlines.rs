//! Who has waited too long, and the end of a drain.

use super::Shard;
use super::connection::{Sending, Session};
use crate::counters::Reason;
use crate::ids::Now;
use crate::op::Ops;

/// How often deadlines are looked at. Time-outs are late by at most this much.
const SWEEP_MS: u64 = 1_000;

/// A time at which a connection has waited too long, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) at_ms: u64,
    pub(crate) reason: Reason,
}

impl Shard {
    pub(super) fn drain(&mut self, now: Now, ops: &mut Ops) {
        self.shared.draining = true;
        self.drain_by_ms = Some(after(now, self.shared.limits.drain_timeout, Reason::Draining).at_ms);
        self.next_sweep_ms = now.monotonic_ms();
        for id in self.open_ids() {
            self.step(now, id, ops, |session, cx| match session {
                Session::Http(http) => http.handle_drain(cx),
                Session::BitTorrent(peer) => peer.handle_drain(cx),
            });
        }
    }

    /// Looks at the deadlines when it is time.
    pub(super) fn look_at_deadlines(&mut self, now: Now, ops: &mut Ops) {
        if now.monotonic_ms() >= self.next_sweep_ms {
            self.next_sweep_ms = now.monotonic_ms() + SWEEP_MS;
            self.sweep(now, ops);
        }
    }

    /// Closes what waited too long, and lets sessions that wait say so again.
    fn sweep(&mut self, now: Now, ops: &mut Ops) {
        let at_ms = now.monotonic_ms();
        let drain_is_over = self.drain_by_ms.is_some_and(|by_ms| at_ms >= by_ms);
        self.shared.rotate_chokes(now);
        let Shard { waits, conns, .. } = self;
        waits.retain(|id| {
            let conn = conns.get(id.index()).and_then(Option::as_deref);
            conn.is_some_and(|conn| conn.id == id && conn.sending == Sending::Capped)
        });
        for id in self.open_ids() {
            let Shard { shared, conns, .. } = self;
            let Some(conn) = conns.get_mut(id.index()).and_then(Option::as_deref_mut) else { continue };
            if conn.sending == Sending::Capped {
                match &mut conn.session {
                    Session::Http(http) => http.excuse(now, &shared.limits),
                    Session::BitTorrent(peer) => peer.excuse(now, &shared.limits),
                }
            }
            let session = match &conn.session {
                Session::Http(http) => http.deadline(),
                Session::BitTorrent(peer) => peer.deadline(),
            };
            if drain_is_over {
                self.close(id, Reason::Draining, true, ops);
            } else if let Some(late) =
                [conn.stall, session].into_iter().flatten().find(|deadline| deadline.at_ms <= at_ms)
            {
                let mid_answer = !conn.output.is_empty() || late.reason == Reason::ParkedTooLong;
                self.close(id, late.reason, mid_answer, ops);
            } else {
                self.step(now, id, ops, |session, cx| match session {
                    Session::Http(http) => http.handle_tick(cx),
                    Session::BitTorrent(peer) => peer.handle_tick(cx),
                });
                // Thousands of connections that were busy once and are idle now must not hold what they needed then.
                if let Some(conn) = self.conn_mut(id) {
                    conn.output.shrink();
                }
            }
        }
    }
}

/// The deadline that lies `wait` ahead.
pub(crate) fn after(now: Now, wait: std::time::Duration, reason: Reason) -> Deadline {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    Deadline { at_ms: now.monotonic_ms().saturating_add(wait_ms), reason }
}
