//! What a relay counts itself while a load runs, looked at often. Each look takes a while; the count was taken at some time within it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::paths::Metrics;

/// How often the relay is asked.
const EVERY: Duration = Duration::from_millis(20);

/// Seconds over which it is judged whether a cap is in force.
const JUDGED_S: f64 = 0.1;

/// Which bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// All that was handed to sockets.
    All,
    /// Of contents, over HTTP.
    Http,
}

/// One look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Counted {
    /// Seconds since the window began, before and after the look.
    pub(crate) from_s: f64,
    pub(crate) to_s: f64,
    pub(crate) all: u64,
    pub(crate) http: u64,
}

impl Counted {
    fn bytes(&self, of: Of) -> u64 {
        match of {
            Of::All => self.all,
            Of::Http => self.http,
        }
    }
}

/// Looks that are being taken.
#[derive(Debug)]
pub(crate) struct Counting {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Counted>>,
}

impl Counting {
    /// Looks at `metrics` until told to end; a look that fails is left out.
    pub(crate) fn start(metrics: Metrics, begun: Instant) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let look = move || {
            let from_s = begun.elapsed().as_secs_f64();
            let text = metrics.text().ok()?;
            let to_s = begun.elapsed().as_secs_f64();
            let all = sum(&text, "millrace_sent_bytes_total{")?;
            Some(Counted {
                from_s,
                to_s,
                all,
                http: sum(&text, "millrace_served_bytes_total{protocol=\"http\"")?,
            })
        };
        let thread = std::thread::spawn(move || {
            let mut counted = Vec::new();
            while !told.load(Ordering::Relaxed) {
                counted.extend(look());
                std::thread::sleep(EVERY);
            }
            counted
        });
        Counting { ends, thread }
    }

    /// All looks, in order.
    pub(crate) fn finish(self) -> Vec<Counted> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// The sum of the samples whose lines begin so; `None` where there are none.
fn sum(text: &str, prefix: &str) -> Option<u64> {
    let values = text.lines().filter(|line| line.starts_with(prefix));
    values.map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).reduce(|a, b| Some(a? + b?))?
}

/// The most bytes that surely went within one second, and the mean rate, in looks from `from` to `to` seconds.
#[expect(clippy::cast_precision_loss, reason = "bytes of a run are far below 2^53")]
pub(crate) fn worst_and_mean(counted: &[Counted], of: Of, from: f64, to: f64) -> Option<(u64, f64)> {
    let looks: Vec<&Counted> = counted.iter().filter(|look| look.from_s >= from && look.to_s <= to).collect();
    let (first, last) = (looks.first()?, looks.last()?);
    let seconds = last.to_s - first.to_s;
    let mut start = 0;
    let mut worst = 0;
    for look in &looks {
        while look.to_s - looks[start].from_s > 1.0 {
            start += 1;
        }
        worst = worst.max(look.bytes(of) - looks[start].bytes(of));
    }
    (seconds > 0.0).then(|| (worst, (last.bytes(of) - first.bytes(of)) as f64 / seconds))
}

/// The first time after `at` from which on a tenth of a second keeps to the cap, neither more nor much less.
#[expect(clippy::cast_precision_loss, reason = "a cap is far below 2^53")]
pub(crate) fn in_force_ms(counted: &[Counted], of: Of, at: f64, cap: u64) -> Option<f64> {
    let cap = cap as f64;
    let slack = (cap / 100.0).max(65_536.0);
    let keeps = |(number, first): &(usize, &Counted)| {
        let last = counted[*number..].iter().find(|look| look.from_s - first.to_s >= JUDGED_S);
        last.is_some_and(|last| {
            let bytes = (last.bytes(of) - first.bytes(of)) as f64;
            let (least_s, most_s) = (last.from_s - first.to_s, last.to_s - first.from_s);
            bytes <= cap * most_s + slack && bytes >= cap * least_s * 0.9 - slack
        })
    };
    let mut later = counted.iter().enumerate().filter(|(_, look)| look.from_s >= at);
    later.find(keeps).map(|(_, look)| (look.from_s - at) * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_sums_over_labels() {
        let text = "millrace_sent_bytes_total{path=\"reference\"} 10\nmillrace_sent_bytes_total{path=\"copy\"} 3\n\
                    millrace_served_bytes_total{protocol=\"http\"} 7\n";
        assert_eq!(sum(text, "millrace_sent_bytes_total{"), Some(13));
        assert_eq!(sum(text, "millrace_served_bytes_total{protocol=\"http\""), Some(7));
        assert_eq!(sum(text, "millrace_other"), None);
    }
}
