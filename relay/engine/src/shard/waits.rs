//! Caps: what a connection may send now, and where it waits otherwise.
//!
//! A grant is the same number of bytes of every class that the connection is in: its content, its client's networks, its protocol,
//! everything; and of its own. Where one has too little, the connection waits in that class's line, and nobody else with it. A line is
//! served in order, when a timer says that its class has something again. Whoever comes later waits behind it, and who has waited in a line
//! goes before the others in it until it has sent: so connections take turns of equal size, whatever they ask for.

use std::collections::VecDeque;
use std::sync::Arc;

use super::connection::{Conn, Sending};
use super::path::{Path, SECOND_NS, bit, signed, time_ns};
use super::wheel::Wheel;
use crate::counters::Counters;
use crate::ids::{ConnId, Now};
use crate::ledger::caps::{EgressCaps, Scope};

/// When a line is looked at again: not sooner and not later than this, if its rate does not change.
const RETRY_NS: std::ops::RangeInclusive<u64> = 500_000..=20_000_000;

/// Those who wait for one class.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<ConnId>,
    /// Those who have been first in it and were held up elsewhere: they go before the others.
    again: VecDeque<ConnId>,
    /// A timer runs for it, or it is being served.
    is_timed: bool,
    /// Bytes that are this shard's, by how many of those who wait are.
    share: i64,
    looked_ns: u64,
    /// How long its first has to wait.
    retry_ns: u64,
}

impl Line {
    fn len(&self) -> usize {
        self.waiting.len() + self.again.len()
    }
}

#[derive(Debug)]
enum Due {
    Line(u32),
    Connection(ConnId),
}

/// Who waits for caps on a shard.
#[derive(Debug)]
pub(super) struct Waits {
    caps: Arc<EgressCaps>,
    version: u32,
    lines: Vec<Line>,
    timers: Wheel<Due>,
    /// Lines that are being served.
    served: VecDeque<u32>,
}

impl Waits {
    pub(super) fn new(caps: Arc<EgressCaps>) -> Self {
        let mut waits = Waits {
            caps: Arc::default(),
            version: 0,
            lines: Vec::new(),
            timers: Wheel::default(),
            served: VecDeque::new(),
        };
        waits.replace(caps);
        waits
    }

    /// Other caps. Returns all that waited, who ask again.
    pub(super) fn replace(&mut self, caps: Arc<EgressCaps>) -> Vec<ConnId> {
        let mut waited = Vec::new();
        for (line, class) in self.lines.iter_mut().zip(self.caps.classes()) {
            class.leave(line.len());
            waited.extend(line.again.drain(..).chain(line.waiting.drain(..)));
        }
        waited.extend(self.timers.drain().filter_map(|due| match due {
            Due::Connection(id) => Some(id),
            Due::Line(_) => None,
        }));
        self.served.clear();
        self.version = self.version.wrapping_add(1);
        self.lines = caps.classes().iter().map(|_| Line::default()).collect();
        self.caps = caps;
        waited
    }

    /// Whether there is any cap.
    pub(super) fn has_caps(&self) -> bool {
        !self.caps.is_empty()
    }

    pub(super) fn per_connection(&self) -> Option<u64> {
        self.caps.per_connection()
    }

    /// When somebody may go on, in monotonic nanoseconds.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        if self.served.is_empty() { self.timers.next_ns() } else { Some(0) }
    }

    /// Bytes that a connection may send now, at most `turn_bytes`. Otherwise it waits from here on.
    pub(super) fn ask(
        &mut self,
        now: Now,
        conn: &mut Conn,
        turn_bytes: u64,
        counters: &Counters,
    ) -> Option<u64> {
        let queued = conn.output.bytes();
        if !self.has_caps() {
            if !conn.path.classes.is_empty() {
                conn.path = Path::default();
            }
            return Some(queued.min(turn_bytes));
        }
        let content = conn.output.content().map(|content| content.id());
        if conn.path.version != self.version || conn.path.content != content {
            conn.path = Path::new(conn, &self.caps, self.version, now);
        }
        let own = self.caps.per_connection();
        let bytes = queued.min(conn.path.turn_bytes(turn_bytes, own));
        if own == Some(0) || own.is_some() && conn.path.free_from_ns > now.monotonic_ns {
            self.wait_alone(conn, own == Some(0), counters);
            return None;
        }
        if let Some((place, short)) = self.shortage(now, &conn.path, bytes) {
            self.wait(now, conn, place, short, counters);
            return None;
        }
        for place in 0..conn.path.classes.len() {
            if !conn.path.classes[place].1.bucket.take(now, bytes) {
                // Another shard was quicker.
                conn.path.classes[..place].iter().for_each(|(_, class)| class.bucket.give_back(bytes));
                self.wait(now, conn, place, bytes, counters);
                return None;
            }
        }
        for (number, _) in &conn.path.classes {
            let line = &mut self.lines[*number as usize];
            line.share = line.share.saturating_sub(signed(bytes)).max(0);
        }
        conn.path.waited = 0;
        if let Some(rate) = own {
            conn.path.note_granted(now, bytes, rate);
        }
        Some(bytes)
    }

    /// The first class that has somebody waiting who came earlier, or too little, and how much it is short of.
    fn shortage(&self, now: Now, path: &Path, bytes: u64) -> Option<(usize, u64)> {
        path.classes.iter().enumerate().find_map(|(place, (number, class))| {
            let line = &self.lines[*number as usize];
            let comes_later = bit(place) != 0 && line.len() > 0 && path.waited & bit(place) == 0;
            let available = class.bucket.available(now);
            let free = if class.waiting() > line.len() as u64 {
                // Others wait on other shards: half of a burst is left for those who come within their share.
                (available - signed(class.bucket.burst_bytes() / 2)).max(available.min(line.share))
            } else {
                available
            };
            let short = u64::try_from(signed(bytes) - free).unwrap_or(0);
            (comes_later || short > 0).then_some((place, short))
        })
    }

    fn wait(&mut self, now: Now, conn: &mut Conn, place: usize, short: u64, counters: &Counters) {
        let (number, class) = &conn.path.classes[place];
        let line = &mut self.lines[*number as usize];
        if conn.path.waited & bit(place) == 0 {
            counters.cap_waits[class.scope as usize].increment();
            line.waiting.push_back(conn.id);
        } else if self.served.front() == Some(number) {
            line.again.push_front(conn.id);
        } else {
            line.again.push_back(conn.id);
        }
        class.enter();
        conn.sending = Sending::Capped;
        let rate = class.bucket.rate();
        // Who is paused is asked again when the caps change.
        line.retry_ns = time_ns(short, rate).clamp(*RETRY_NS.start(), *RETRY_NS.end());
        if rate > 0 && !line.is_timed {
            line.is_timed = true;
            self.timers.insert(now.monotonic_ns + line.retry_ns, Due::Line(*number));
        }
    }

    fn wait_alone(&mut self, conn: &mut Conn, is_paused: bool, counters: &Counters) {
        counters.cap_waits[Scope::Connection as usize].increment();
        conn.sending = Sending::Capped;
        let from_ns = if is_paused { u64::MAX } else { conn.path.free_from_ns };
        self.timers.insert(from_ns, Due::Connection(conn.id));
    }

    /// Looks at the timers. Returns a connection whose own wait is over; lines are [served](Self::next_in_line).
    pub(super) fn next_due(&mut self, now: Now) -> Option<ConnId> {
        loop {
            match self.timers.next_due(now.monotonic_ns)? {
                Due::Connection(id) => return Some(id),
                Due::Line(number) => {
                    self.earn_share(now, number);
                    self.served.push_back(number);
                }
            }
        }
    }

    /// What the time since the last look is worth, divided among those who wait on all shards.
    fn earn_share(&mut self, now: Now, number: u32) {
        let (line, class) = (&mut self.lines[number as usize], &self.caps.classes()[number as usize]);
        let elapsed_ns = now.monotonic_ns.saturating_sub(line.looked_ns).min(*RETRY_NS.end());
        line.looked_ns = now.monotonic_ns;
        let here = line.len() as u128;
        let earned = u128::from(class.bucket.rate()) * u128::from(elapsed_ns) * here
            / u128::from(class.waiting().max(1))
            / u128::from(SECOND_NS);
        let most = signed(class.bucket.burst_bytes() / 2);
        line.share = line.share.saturating_add(i64::try_from(earned).unwrap_or(most)).min(most);
    }

    /// The next connection of a line that is being served, with the number of the line's class.
    pub(super) fn next_in_line(&mut self) -> Option<(u32, ConnId)> {
        while let Some(number) = self.served.front().copied() {
            let line = &mut self.lines[number as usize];
            if let Some(id) = line.again.pop_front().or_else(|| line.waiting.pop_front()) {
                self.caps.classes()[number as usize].leave(1);
                return Some((number, id));
            }
            line.is_timed = false;
            self.served.pop_front();
        }
        None
    }

    /// A connection of the line is about to ask again: it has waited in it.
    pub(super) fn note_waited(conn: &mut Conn, number: u32) {
        if let Some(place) = conn.path.classes.iter().position(|(class, _)| *class == number) {
            conn.path.waited |= bit(place);
        }
    }

    /// A connection that was first in the line had to go back into one: if it is this one, no more is to be had.
    pub(super) fn end_serving(&mut self, now: Now, number: u32, conn: ConnId) {
        let line = &mut self.lines[number as usize];
        if line.again.front() == Some(&conn) {
            self.served.pop_front();
            let rate = self.caps.classes()[number as usize].bucket.rate();
            line.is_timed = rate > 0;
            if line.is_timed {
                self.timers.insert(now.monotonic_ns + line.retry_ns, Due::Line(number));
            }
        }
    }

    /// Forgets connections that are gone.
    pub(super) fn retain(&mut self, mut is_waiting: impl FnMut(ConnId) -> bool) {
        for (line, class) in self.lines.iter_mut().zip(self.caps.classes()) {
            let before = line.len();
            line.waiting.retain(|id| is_waiting(*id));
            line.again.retain(|id| is_waiting(*id));
            class.leave(before - line.len());
        }
    }
}
