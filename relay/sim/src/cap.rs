//! Watches a cap: at the send call, no window of one second may carry more than it, but for 1 % or 64 KiB.

use std::collections::VecDeque;

use millrace_engine::ids::Now;

const WINDOW_NS: u64 = 1_000_000_000;
const SLACK_BYTES_MIN: u64 = 64 * 1024;

/// What was sent in the last second, and what was allowed.
#[derive(Debug)]
pub(crate) struct CapWatch {
    /// When, and how many bytes.
    sent: VecDeque<(u64, u64)>,
    /// Their sum.
    sent_bytes: u64,
    /// From when on, and at which rate; the last one is in force.
    rates: VecDeque<(u64, Option<u64>)>,
}

impl Default for CapWatch {
    fn default() -> Self {
        CapWatch { sent: VecDeque::new(), sent_bytes: 0, rates: VecDeque::from([(0, None)]) }
    }
}

impl CapWatch {
    pub(crate) fn set_rate(&mut self, now: Now, rate: Option<u64>) {
        self.rates.push_back((now.monotonic_ns, rate));
    }

    /// # Panics
    /// When the second that ends now carried more than the cap.
    pub(crate) fn note_sent(&mut self, now: Now, bytes: u64) {
        let now_ns = now.monotonic_ns;
        let start_ns = now_ns.saturating_sub(WINDOW_NS);
        self.sent.push_back((now_ns, bytes));
        self.sent_bytes += bytes;
        while let Some((_, bytes)) = self.sent.front().filter(|(at, _)| *at <= start_ns) {
            self.sent_bytes -= bytes;
            self.sent.pop_front();
        }
        while self.rates.get(1).is_some_and(|(from, _)| *from <= start_ns) {
            self.rates.pop_front();
        }
        let Some(allowed) = self.allowed(start_ns, now_ns) else { return };
        let sent = self.sent_bytes;
        assert!(sent <= allowed, "{sent} bytes in a second in which the cap allows {allowed}");
    }

    /// `None` when some of the window is not capped.
    fn allowed(&self, start_ns: u64, end_ns: u64) -> Option<u64> {
        let mut bytes = 0;
        let mut slack = SLACK_BYTES_MIN;
        for (at, (from, rate)) in self.rates.iter().enumerate() {
            let to = self.rates.get(at + 1).map_or(end_ns, |(next, _)| *next);
            let span_ns = to.saturating_sub((*from).max(start_ns));
            let rate = (*rate)?;
            bytes += u128::from(rate) * u128::from(span_ns) / u128::from(WINDOW_NS);
            slack = slack.max(rate / 100);
        }
        // Rounding: a byte a rate.
        u64::try_from(bytes).ok().map(|bytes| bytes + slack + self.rates.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { monotonic_ns: ms * 1_000_000, unix_s: 0 }
    }

    #[test]
    fn the_slack_is_for_the_window_and_not_for_each_send() {
        let mut cap = CapWatch::default();
        cap.set_rate(at(0), Some(100_000));
        cap.note_sent(at(2_000), 100_000 + 65_000);
        cap.note_sent(at(3_000), 100_000);
        let over = std::panic::catch_unwind(move || cap.note_sent(at(3_500), 100_000));
        assert!(over.is_err());
    }

    #[test]
    fn a_pause_pauses() {
        let mut cap = CapWatch::default();
        cap.set_rate(at(0), Some(0));
        cap.note_sent(at(2_000), 60_000);
        assert!(std::panic::catch_unwind(move || cap.note_sent(at(2_500), 6_000)).is_err());
    }
}
