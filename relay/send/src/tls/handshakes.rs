//! Which handshakes are in progress, whose turn it is, and which have taken too long.

use std::collections::VecDeque;

use millrace_engine::ids::ConnId;

/// Time that a loop gives to handshakes: it is over with the one that reaches it.
const HANDSHAKES_NS_MAX: u64 = 1_000_000;

/// Those of a shard.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    count: u32,
    /// When each began, in order, until it is looked at.
    began: VecDeque<(u64, ConnId)>,
    /// Those that have something to look at.
    waiting: VecDeque<ConnId>,
    /// Time given to handshakes in this loop.
    spent_ns: u64,
}

impl Handshakes {
    /// In progress now.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn begin(&mut self, conn: ConnId, now_ns: u64) {
        self.count += 1;
        self.began.push_back((now_ns, conn));
    }

    /// One is over, however it ended.
    pub(super) fn leave(&mut self) {
        self.count -= 1;
    }

    /// There is something to look at for this one.
    pub(super) fn wait(&mut self, conn: ConnId) {
        self.waiting.push_back(conn);
    }

    /// Whose turn it is in this loop.
    pub(super) fn next_waiting(&mut self) -> Option<ConnId> {
        if self.spent_ns >= HANDSHAKES_NS_MAX { None } else { self.waiting.pop_front() }
    }

    pub(super) fn spent(&mut self, ns: u64) {
        self.spent_ns += ns;
    }

    /// The next of those that began at `until_ns` or before. Those that `is_over` are forgotten.
    pub(super) fn next_overdue(&mut self, until_ns: u64, is_over: impl Fn(ConnId) -> bool) -> Option<ConnId> {
        loop {
            let (began_ns, conn) = *self.began.front()?;
            let over = is_over(conn);
            if !over && began_ns > until_ns {
                return None;
            }
            self.began.pop_front();
            if !over {
                return Some(conn);
            }
        }
    }

    /// A loop begins.
    pub(super) fn begin_turn(&mut self) {
        self.spent_ns = 0;
    }

    /// A loop is due at once as long as somebody waits.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(slot: u32) -> ConnId {
        ConnId::new(slot, 0)
    }

    #[test]
    fn a_loop_gives_no_more_than_its_time_and_at_least_one_turn() {
        let mut handshakes = Handshakes::default();
        (0..3).for_each(|slot| handshakes.wait(conn(slot)));
        assert_eq!(handshakes.next_waiting(), Some(conn(0)));
        handshakes.spent(HANDSHAKES_NS_MAX - 1);
        assert_eq!(handshakes.next_waiting(), Some(conn(1)));
        handshakes.spent(1);
        assert_eq!((handshakes.next_waiting(), handshakes.deadline_ns()), (None, Some(0)));
        handshakes.begin_turn();
        assert_eq!(handshakes.next_waiting(), Some(conn(2)));
        assert_eq!(handshakes.deadline_ns(), None);
    }

    #[test]
    fn those_that_took_too_long_are_found_behind_those_that_are_over() {
        let mut handshakes = Handshakes::default();
        for (slot, began_ns) in [(0, 10), (1, 10), (2, 20)] {
            handshakes.begin(conn(slot), began_ns);
        }
        let is_over = |id: ConnId| id == conn(0);
        assert_eq!(handshakes.next_overdue(9, is_over), None);
        assert_eq!(handshakes.next_overdue(10, is_over), Some(conn(1)));
        assert_eq!(handshakes.next_overdue(10, is_over), None);
        assert_eq!(handshakes.began.len(), 1, "who is over does not pile up");
    }
}
