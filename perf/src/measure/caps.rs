//! Whether caps hold: no second above them, little below them under demand, and in force soon after they were changed. It is looked at
//! from both sides: by what the relay counts at its send calls, and by what arrives, which the queues of sockets blur.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::counted::{Counted, Of, in_force_ms};
use super::samples::{Sample, mean_rate, worst_window};

/// After a change, the time that what is queued in sockets already may take before it counts at the clients, in seconds.
const SETTLED_S: f64 = 1.0;

/// The same at the relay: a change is to be in force by then.
const IN_FORCE_S: f64 = 0.1;

/// What a second may carry above a cap: a share of it, and at least so many bytes.
const SLACK: (f64, f64) = (0.01, 65_536.0);

/// Caps that hold for a while, and what is to be seen then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CapStep {
    pub(crate) name: &'static str,
    /// What is asked of the relay; the first holds from the start.
    pub(crate) patch: String,
    /// What is capped.
    pub(crate) of: Of,
    /// Bytes per second; `None` is unlimited.
    pub(crate) cap: Option<u64>,
}

/// Everything that P11 is about: `cap` on everything, another, none at all for a while, and caps on one protocol and on `content`.
pub(crate) fn course(cap: u64, then: u64, content: &str) -> Vec<CapStep> {
    let total = |name, cap: Option<u64>| {
        let value = cap.map_or("null".to_owned(), |cap| cap.to_string());
        CapStep { name, patch: format!("{{\"egress\":{{\"total\":{value}}}}}"), of: Of::All, cap }
    };
    let quarter = cap / 4;
    let http = format!("{{\"egress\":{{\"total\":{cap},\"http\":{quarter}}}}}");
    let of_content =
        format!("{{\"egress\":{{\"http\":null}},\"contents\":{{\"{content}\":{{\"egress\":{quarter}}}}}}}");
    vec![
        total("total", Some(cap)),
        total("total, changed", Some(then)),
        total("total, back", Some(cap)),
        total("total, paused", Some(0)),
        total("total, resumed", Some(cap)),
        total("none", None),
        CapStep { name: "HTTP, a quarter of the total", patch: http, of: Of::Http, cap: Some(quarter) },
        CapStep {
            name: "content, a quarter of the total",
            patch: of_content,
            of: Of::All,
            cap: Some(quarter),
        },
    ]
}

/// A course of caps, set while the load runs, each for the same time.
#[derive(Debug, Clone)]
pub(crate) struct CapCourse {
    /// The relay's admin socket.
    pub(crate) admin: PathBuf,
    pub(crate) steps: Vec<CapStep>,
}

impl CapCourse {
    /// When each step begins, in a window of `duration`.
    pub(crate) fn starts(&self, duration: Duration) -> impl Iterator<Item = (Duration, &CapStep)> {
        let each = duration / u32::try_from(self.steps.len().max(1)).unwrap_or(u32::MAX);
        (0..).map(move |number| each * number).zip(&self.steps)
    }
}

/// Changes caps; once this returns, the relay has taken them over.
///
/// # Errors
/// The relay does not answer, or refuses.
pub(crate) fn patch(admin: &Path, body: &str) -> anyhow::Result<()> {
    let mut socket = UnixStream::connect(admin).context("the relay's admin socket")?;
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

/// How caps held, one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CapsHeld(pub(crate) Vec<StepHeld>);

/// How one step of a course went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepHeld {
    pub(crate) name: String,
    /// As the relay counts.
    pub(crate) relay: Option<CapHeld>,
    /// As the clients do.
    pub(crate) clients: Option<CapHeld>,
    /// From asking for it until what the relay sent kept to it, in milliseconds; `None` if it never did, or could not be seen.
    pub(crate) in_force_ms: Option<f64>,
}

/// One cap.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct CapHeld {
    /// Bytes per second.
    pub(crate) cap: u64,
    /// The most bytes within any one second.
    pub(crate) worst_second: u64,
    /// Bytes per second on average.
    pub(crate) mean: f64,
}

impl CapsHeld {
    /// Judges a course whose steps began at `starts` seconds.
    pub(crate) fn of(
        steps: &[CapStep],
        starts: &[f64],
        samples: &[Sample],
        counted: &[Counted],
    ) -> Option<Self> {
        let end = samples.last()?.at_s;
        let ends = starts.iter().skip(1).copied().chain([end]);
        let held = steps.iter().zip(starts).zip(ends).map(|((step, start), end)| StepHeld {
            name: step.name.to_owned(),
            relay: step.cap.and_then(|cap| of_relay(counted, step.of, cap, start + IN_FORCE_S, end)),
            clients: step
                .cap
                .filter(|_| step.of == Of::All)
                .and_then(|cap| of_clients(samples, cap, *start, end)),
            in_force_ms: step.cap.and_then(|cap| in_force_ms(counted, step.of, *start, cap)),
        });
        Some(CapsHeld(held.collect()))
    }

    /// The most that a second carried, by what it may; as the relay counts, where it was seen: what waits in sockets while the clients get
    /// no CPU arrives in a later second.
    pub(crate) fn worst_second(&self) -> Option<f64> {
        let held = self.0.iter().filter_map(|step| step.relay.or(step.clients));
        held.map(CapHeld::worst_of_allowed).reduce(f64::max)
    }

    /// The least mean, by its cap; as the relay counts, where it was seen.
    pub(crate) fn least_mean(&self) -> Option<f64> {
        let held = self.0.iter().filter_map(|step| step.relay.or(step.clients));
        held.filter(|held| held.cap > 0).map(CapHeld::mean_of_cap).reduce(f64::min)
    }

    /// The longest that a cap took to be in force.
    pub(crate) fn in_force_ms(&self) -> Option<f64> {
        let limited = self.0.iter().filter(|step| step.relay.is_some()).skip(1);
        limited.map(|step| step.in_force_ms).try_fold(0.0, |most, time| Some(f64::max(most, time?)))
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a second are far below 2^53")]
impl CapHeld {
    /// The worst second by what it may carry.
    pub(crate) fn worst_of_allowed(self) -> f64 {
        let cap = self.cap as f64;
        self.worst_second as f64 / (cap + (cap * SLACK.0).max(SLACK.1))
    }

    /// The mean by the cap.
    pub(crate) fn mean_of_cap(self) -> f64 {
        self.mean / self.cap.max(1) as f64
    }
}

fn of_relay(counted: &[Counted], of: Of, cap: u64, from: f64, to: f64) -> Option<CapHeld> {
    let (worst_second, mean) = super::counted::worst_and_mean(counted, of, from, to)?;
    Some(CapHeld { cap, worst_second, mean })
}

fn of_clients(samples: &[Sample], cap: u64, start: f64, end: f64) -> Option<CapHeld> {
    // The first step was in force before the window began.
    let from = if start > 0.0 { start + SETTLED_S } else { 0.0 };
    Some(CapHeld {
        cap,
        worst_second: worst_window(samples, from, end, 1.0)?,
        mean: mean_rate(samples, from, end)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::tests::course as samples_of;
    use super::*;

    fn steps(caps: &[u64]) -> Vec<CapStep> {
        let step = |cap: &u64| CapStep { name: "a", patch: String::new(), of: Of::All, cap: Some(*cap) };
        caps.iter().map(step).collect()
    }

    fn counts(samples: &[Sample]) -> Vec<Counted> {
        let one = |sample: &Sample| Counted {
            from_s: sample.at_s,
            to_s: sample.at_s + 0.001,
            all: sample.bytes,
            http: 0,
        };
        samples.iter().map(one).collect()
    }

    #[test]
    fn a_cap_that_changes_is_judged_on_both_sides() {
        // A GB a second for five seconds, then half of it after two tenths of a second of the old rate.
        let samples = samples_of(100, |number| if number < 53 { 100_000_000 } else { 50_000_000 });
        let caps = [1_000_000_000, 500_000_000];
        let held = CapsHeld::of(&steps(&caps), &[0.0, 5.0], &samples, &counts(&samples)).unwrap();
        let late = held.in_force_ms().unwrap();
        assert!((100.0..=300.0).contains(&late), "{held:?}");
        assert!(held.least_mean().unwrap() > 0.98, "{held:?}");
        let clients = held.0[1].clients.unwrap();
        assert!((clients.mean_of_cap() - 1.0).abs() < 1e-6 && clients.worst_of_allowed() <= 1.0, "{held:?}");
    }

    #[test]
    fn a_cap_that_is_not_kept_shows() {
        let samples = samples_of(100, |_| 130_000_000);
        let held =
            CapsHeld::of(&steps(&[1_000_000_000, 500_000_000]), &[0.0, 5.0], &samples, &counts(&samples))
                .unwrap();
        // Ten samples a second: nine intervals are surely within one.
        assert!(held.worst_second().unwrap() > 2.3, "{held:?}");
        assert_eq!(held.in_force_ms(), None);
        assert_eq!(CapsHeld::of(&steps(&[1]), &[0.0], &[], &[]), None);
        // A pause lets nothing through.
        let held = CapsHeld::of(&steps(&[1, 0]), &[0.0, 5.0], &samples, &counts(&samples)).unwrap();
        assert!(held.0[1].relay.unwrap().worst_of_allowed() > 1_000.0, "{held:?}");
    }

    #[test]
    fn the_course_has_a_step_for_everything_that_may_be_done_to_a_cap() {
        let course = course(200, 100, "abc");
        let caps: Vec<_> = course.iter().map(|step| step.cap).collect();
        assert_eq!(caps, [200, 100, 200, 0, 200, -1, 50, 50].map(|cap: i64| u64::try_from(cap).ok()));
        for step in &course {
            serde_json::from_str::<serde_json::Value>(&step.patch).unwrap();
        }
        let course = CapCourse { admin: PathBuf::new(), steps: course };
        let starts: Vec<_> =
            course.starts(Duration::from_secs(80)).map(|(start, _)| start.as_secs()).collect();
        assert_eq!(starts, [0, 10, 20, 30, 40, 50, 60, 70]);
    }
}
