//! Requests at a given rate: when each is due, and what one costs that is never answered.

use std::time::{Duration, Instant};

use super::Worker;

/// When requests of a connection are due, so that all connections together ask at a rate.
pub(super) struct Pace {
    next: Instant,
    pub(super) every: Duration,
}

impl Pace {
    pub(super) fn new(rate: f64, number: usize, connections: usize) -> Self {
        let share = |count: usize| {
            Duration::from_secs_f64(f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / rate)
        };
        Pace { next: Instant::now() + share(number), every: share(connections) }
    }

    /// Requests that could not be sent in time keep the time when they were due.
    pub(super) fn next(&mut self) -> Instant {
        let next = self.next + self.every;
        std::mem::replace(&mut self.next, next)
    }
}

/// A request at a given rate that is not answered yet. If it never is, because the load ends first, then it and those that were due behind
/// it count with the time they have waited: a server that stalls at the end must not look better than one that stalls in the middle.
pub(super) struct Outstanding<'a> {
    pub(super) worker: &'a Worker,
    pub(super) due: Instant,
    /// Time between requests; `None` for one that does not count.
    pub(super) every: Option<Duration>,
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        if let Some(every) = self.every.filter(|_| self.worker.is_over()) {
            let latencies = &mut self.worker.recorded.borrow_mut().http;
            overdue(self.due.elapsed(), every).for_each(|waited| latencies.record(waited, waited));
        }
    }
}

/// How long requests have waited of which the first was due this long ago, and the others at intervals after it.
fn overdue(first: Duration, every: Duration) -> impl Iterator<Item = Duration> {
    let step = every.max(Duration::from_micros(1));
    std::iter::successors(Some(first), move |waited| waited.checked_sub(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_at_the_end_is_charged_to_all_that_were_due() {
        let milliseconds = |count| Duration::from_millis(count);
        let waited: Vec<_> = overdue(milliseconds(35), milliseconds(10)).collect();
        assert_eq!(waited, [35, 25, 15, 5].map(milliseconds));
        assert_eq!(overdue(milliseconds(3), milliseconds(10)).count(), 1);
    }

    #[test]
    fn what_is_late_keeps_its_due_time() {
        let mut pace = Pace::new(1000.0, 3, 10);
        let (first, second) = (pace.next(), pace.next());
        assert_eq!(second - first, Duration::from_millis(10));
        assert!(first <= Instant::now() + Duration::from_millis(3));
    }
}
