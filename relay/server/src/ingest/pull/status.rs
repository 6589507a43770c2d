//! What a pull shows of itself to `status` and the pages.

use std::sync::atomic::Ordering;
use std::time::Instant;

use millrace_proto::id::ContentId;

use super::Pull;

/// A pull, as last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct PullStatus {
    /// Which content.
    #[serde(skip)]
    pub content: Option<ContentId>,
    /// Bytes a second over the latest quarter of a second.
    pub rate: u64,
    /// Bytes received from origins since the content was added.
    pub origin_bytes: u64,
    /// Its origins, best first.
    pub origins: Vec<OriginStatus>,
    /// Ranges in flight, first byte and end.
    pub in_flight: Vec<(u64, u64)>,
    /// What a person should know.
    pub note: Option<String>,
}

/// An origin of a pull.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct OriginStatus {
    /// Without user and password.
    pub url: String,
    /// Bytes a second of one request.
    pub speed: u64,
    /// Requests under way.
    pub requests: usize,
    /// What went wrong last.
    pub error: Option<String>,
    /// Not asked any more.
    pub given_up: bool,
}

impl Pull {
    /// Puts the status where other threads read it.
    pub(super) fn publish_status(&self) {
        let status = self.status();
        self.context.publish_status(self.content.id(), status);
    }

    /// Bytes a second since the last status.
    fn rate(&self) -> u64 {
        let (bytes, now) = (self.arrived_bytes.get(), Instant::now());
        let (before, then) = self.measured.replace((bytes, now));
        let ms = u64::try_from((now - then).as_millis()).unwrap_or(u64::MAX);
        (bytes - before).saturating_mul(1_000) / ms.max(1)
    }

    fn status(&self) -> PullStatus {
        let balance = self.balance.borrow();
        let sources = self.sources.borrow();
        let origins = sources.origins.iter().zip(balance.origins()).map(|(origin, standing)| OriginStatus {
            url: origin.shown(),
            speed: standing.speed,
            requests: standing.in_flight,
            error: standing.error.clone(),
            given_up: standing.given_up,
        });
        PullStatus {
            content: Some(self.content.id()),
            rate: self.rate(),
            origin_bytes: self.content.counters().origin_bytes.load(Ordering::Relaxed),
            origins: origins.collect(),
            in_flight: self.planner.borrow().in_flight().map(|run| (run.start, run.end)).collect(),
            note: balance.error().map(str::to_owned),
        }
    }
}
