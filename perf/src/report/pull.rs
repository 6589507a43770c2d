//! What serving during a pull came to.

use millrace_proto::units::{Rate, Size};
use serde::{Deserialize, Serialize};

use super::Cost;
use super::spread::Spread;
use super::table::{percentiles, rate};
use crate::measure::latency::Summary;

/// Some rounds of one pull each, and as many downloads from the origin itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PullMeasurement {
    pub(crate) workload: String,
    pub(crate) version: String,
    pub(crate) clients: u64,
    /// Those of them that went away in the middle.
    #[serde(default)]
    pub(crate) aborting: u64,
    pub(crate) rounds: u64,
    pub(crate) content_bytes: u64,
    /// Whether the relay was given the piece hashes, and so verified each piece before serving it.
    pub(crate) known_hashes: bool,
    /// Length of these pieces.
    pub(crate) piece_bytes: Option<u32>,
    /// Bytes per second; `None` is as fast as it goes.
    pub(crate) origin_rate: Option<u64>,
    pub(crate) origin_delay_ms: f64,
    /// First byte of the content at each client after the origin's first byte of it.
    pub(crate) first_byte: Summary,
    /// The same after the last byte of the origin's first piece, where nothing is served before that is verified.
    #[serde(default)]
    pub(crate) after_first_piece: Option<Summary>,
    /// The same for a client of the origin itself.
    pub(crate) direct_first_byte: Summary,
    /// Bytes of the content per second, from the first client's start to the last client's end.
    pub(crate) rate: Spread,
    pub(crate) direct_rate: Spread,
    /// Bytes that the origin sent to the relay, for each byte of the content.
    pub(crate) origin_ratio: Spread,
    pub(crate) server_cpu: Cost,
    pub(crate) errors: u64,
    pub(crate) error_texts: Vec<String>,
}

impl PullMeasurement {
    /// What was pulled, how often, by which relay.
    pub(crate) fn title(&self) -> String {
        format!("{}, {} rounds: millrace {}", self.workload, self.rounds, self.version)
    }

    /// How much later the relay's clients have their first byte than a client of the origin itself, at the 99th percentile of either.
    pub(crate) fn first_byte_later_ms(&self) -> f64 {
        self.first_byte.p99_ms - self.direct_first_byte.p99_ms
    }

    /// Time that the origin takes for one piece, where hashes are known and its rate is bounded.
    #[expect(clippy::cast_precision_loss, reason = "a rate is far below 2^53")]
    pub(crate) fn piece_ms(&self) -> Option<f64> {
        Some(f64::from(self.piece_bytes?) / self.origin_rate? as f64 * 1000.0)
    }

    /// Names and values for the table.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let spread = |Spread { median, min, max }: Spread| {
            format!("{} (from {} to {})", rate(median), rate(min), rate(max))
        };
        let limit = self.origin_rate.map_or("unlimited".into(), |rate| Rate(rate).to_string());
        let mut rows = vec![
            ("origin", format!("{}, {} ms before each answer", limit, self.origin_delay_ms)),
            ("first byte, ms later", percentiles(&self.first_byte)),
            ("  from the origin itself", percentiles(&self.direct_first_byte)),
            ("rate of the pull", spread(self.rate)),
            ("  from the origin itself", spread(self.direct_rate)),
        ];
        if let Some(after) = &self.after_first_piece {
            rows.insert(2, ("  after its first piece", percentiles(after)));
        }
        if let Some(limit) = self.origin_rate {
            #[expect(clippy::cast_precision_loss, reason = "a rate is far below 2^53")]
            rows.push(("share of the origin's", format!("{:.3}", self.rate.median / limit as f64)));
        }
        let Spread { median, min, max } = self.origin_ratio;
        rows.push(("sent by the origin", format!("{median:.3} × the size (from {min:.3} to {max:.3})")));
        if let Some(bytes) = self.piece_bytes {
            rows.push(("pieces", Size(bytes.into()).to_string()));
        }
        rows.push(("server CPU", format!("{:.4} s/GB delivered", self.server_cpu.per_gb)));
        rows.push(("errors", self.errors.to_string()));
        rows
    }
}
