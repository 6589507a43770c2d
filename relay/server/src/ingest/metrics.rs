//! What ingest counts, for `/metrics` and `status`. Written by ingest with relaxed atomics, read by the control thread.

use std::time::Duration;

use millrace_engine::counters::{Counter, Gauge};
use millrace_engine::durations::Durations;

/// The counters of ingest.
#[derive(Debug, Default)]
pub struct IngestMetrics {
    /// Pulls under way.
    pub pulls_active: Gauge,
    /// Bytes of bodies that origins sent us, wasted ones included.
    pub origin_bytes: Counter,
    /// Requests made, by class of the answer's status: index 1 to 5; index 0 counts those without an answer.
    pub requests: [Counter; 6],
    /// Requests that had to be made again.
    pub retries: Counter,
    /// Pieces that did not match their hash.
    pub hash_failures: Counter,
    /// Contents whose origin changed while they were pulled.
    pub origin_changes: Counter,
    /// Connections that were refused because of where they led.
    pub guard_refusals: Counter,
    /// Time from the start of a fill to its first byte.
    pub fill_to_first_byte: Durations,
}

impl IngestMetrics {
    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        let class = usize::from(status / 100).min(5);
        self.requests[class].increment();
    }

    /// Counts a first byte.
    pub fn first_byte(&self, after: Duration) {
        self.fill_to_first_byte.record_ns(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
    }
}
