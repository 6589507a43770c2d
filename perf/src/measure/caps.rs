//! Whether a cap holds: no second above it, little below it under demand, and in force soon after it was changed. It is looked at from the
//! receiving side, where the queues of sockets blur what the relay counts at its send calls by some milliseconds.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::samples::{Sample, mean_rate, worst_window};

/// After a change, the time that what is queued in sockets already may take before it counts, in seconds.
const SETTLED_S: f64 = 1.0;

/// Seconds over which it is judged whether a new cap is in force.
const JUDGED_S: f64 = 0.5;

/// A new cap on everything sent, set while the load runs.
#[derive(Debug, Clone)]
pub(crate) struct CapChange {
    /// Time into the window.
    pub(crate) after: Duration,
    /// The relay's admin socket.
    pub(crate) admin: PathBuf,
    /// Bytes per second.
    pub(crate) total: u64,
}

impl CapChange {
    /// Sets it; once this returns, the relay has taken it over.
    ///
    /// # Errors
    /// The relay does not answer, or refuses.
    pub(crate) fn apply(&self) -> anyhow::Result<()> {
        let body = format!("{{\"egress\":{{\"total\":{}}}}}", self.total);
        let mut socket = UnixStream::connect(&self.admin).context("the relay's admin socket")?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            socket,
            "PATCH /v1/caps HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("the relay did not take the new cap: {}", answer.lines().next().unwrap_or("no answer"));
        }
        Ok(())
    }
}

/// How a cap held, and the one that came after it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct CapsHeld {
    pub(crate) before: CapHeld,
    pub(crate) after: Option<CapHeld>,
    /// From the change until what arrived kept to the new cap, in milliseconds; `None` if it never did.
    pub(crate) in_force_ms: Option<f64>,
}

/// One cap.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct CapHeld {
    /// Bytes per second.
    pub(crate) cap: u64,
    /// The most that arrived within any one second, for each byte of the cap.
    pub(crate) worst_second: f64,
    /// What arrived on average, for each byte of the cap.
    pub(crate) mean: f64,
}

impl CapsHeld {
    /// Judges a run whose cap was `first`, and from `changed_at_s` on the other.
    pub(crate) fn of(samples: &[Sample], first: u64, change: Option<(f64, u64)>) -> Option<Self> {
        let end = samples.last()?.at_s;
        let until = change.map_or(end, |(at, _)| at);
        let after = change.and_then(|(at, cap)| CapHeld::of(samples, cap, at + SETTLED_S, end));
        let in_force_ms = change.and_then(|(at, cap)| in_force_ms(samples, at, cap));
        Some(CapsHeld { before: CapHeld::of(samples, first, 0.0, until)?, after, in_force_ms })
    }
}

impl CapsHeld {
    /// The first cap, and the one after the change where it was judged.
    pub(crate) fn both(&self) -> impl Iterator<Item = CapHeld> {
        std::iter::once(self.before).chain(self.after)
    }
}

impl CapHeld {
    #[expect(clippy::cast_precision_loss, reason = "bytes of a run are far below 2^53")]
    fn of(samples: &[Sample], cap: u64, from: f64, to: f64) -> Option<Self> {
        let limit = cap.max(1) as f64;
        Some(CapHeld {
            cap,
            worst_second: worst_window(samples, from, to, 1.0)? as f64 / limit,
            mean: mean_rate(samples, from, to)? / limit,
        })
    }
}

/// The first time after the change from which on half a second keeps to the cap, within 5 %.
#[expect(clippy::cast_precision_loss, reason = "a cap is far below 2^53")]
fn in_force_ms(samples: &[Sample], at: f64, cap: u64) -> Option<f64> {
    let keeps = |sample: &&Sample| {
        mean_rate(samples, sample.at_s, sample.at_s + JUDGED_S).is_some_and(|rate| rate <= cap as f64 * 1.05)
    };
    let end = samples.last()?.at_s - JUDGED_S;
    let later = samples.iter().filter(|sample| sample.at_s >= at && sample.at_s <= end);
    later.clone().find(keeps).map(|sample| (sample.at_s - at) * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::super::samples::tests::course;
    use super::*;

    #[test]
    fn a_cap_that_changes_is_judged_on_both_sides() {
        // 1,000 bytes a second for five seconds, then 500 after a fifth of a second of the old rate.
        let samples = course(100, |number| if number < 52 { 100 } else { 50 });
        let held = CapsHeld::of(&samples, 1000, Some((5.0, 500))).unwrap();
        assert!((held.before.mean - 1.0).abs() < 1e-6 && held.before.worst_second <= 1.0, "{held:?}");
        let after = held.after.unwrap();
        assert!((after.mean - 1.0).abs() < 1e-6 && after.worst_second <= 1.01, "{held:?}");
        let in_force = held.in_force_ms.unwrap();
        assert!((50.0..=250.0).contains(&in_force), "{in_force}");
    }

    #[test]
    fn a_cap_that_is_not_kept_shows() {
        let samples = course(100, |_| 130);
        let held = CapsHeld::of(&samples, 1000, Some((5.0, 500))).unwrap();
        assert!(held.before.worst_second > 1.25 && held.after.unwrap().mean > 2.5);
        assert_eq!(held.in_force_ms, None);
        assert_eq!(CapsHeld::of(&[], 1000, None), None);
    }
}
