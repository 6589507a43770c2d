//! What serving during a pull came to.

use millrace_proto::units::Size;
use serde::{Deserialize, Serialize};

use super::Cost;
use super::table::{percentiles, rate};
use crate::faststart::rate_text;
use crate::measure::latency::Summary;

/// Some rounds of one pull each, and as many downloads from the origin itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PullMeasurement {
    pub(crate) workload: String,
    pub(crate) version: String,
    pub(crate) clients: u64,
    pub(crate) rounds: u64,
    pub(crate) content_bytes: u64,
    /// Whether the relay was given the piece hashes, and so verified each piece before serving it.
    pub(crate) known_hashes: bool,
    /// Length of these pieces, where BitTorrent clients took part.
    pub(crate) piece_bytes: Option<u32>,
    /// Bytes per second; `None` is as fast as it goes.
    pub(crate) origin_rate: Option<u64>,
    pub(crate) origin_delay_ms: f64,
    /// First byte of the content at each client after the origin's first byte of it.
    pub(crate) first_byte: Summary,
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

/// Several values of one quantity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of nothing, all zeros.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let (lower, upper) = (values.len().saturating_sub(1) / 2, values.len() / 2);
        Spread {
            median: f64::midpoint(at(lower), at(upper)),
            min: at(0),
            max: at(values.len().saturating_sub(1)),
        }
    }
}

impl PullMeasurement {
    /// Names and values for the table.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let spread = |Spread { median, min, max }: Spread| {
            format!("{} (from {} to {})", rate(median), rate(min), rate(max))
        };
        let mut rows = vec![
            (
                "origin",
                format!("{}, {} ms before each answer", rate_text(self.origin_rate), self.origin_delay_ms),
            ),
            ("first byte, ms later", percentiles(&self.first_byte)),
            ("  from the origin itself", percentiles(&self.direct_first_byte)),
            ("rate of the pull", spread(self.rate)),
            ("  from the origin itself", spread(self.direct_rate)),
        ];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_lie_in_the_middle() {
        let spread = |values: &[f64]| {
            let Spread { median, min, max } = Spread::of(values);
            [median, min, max]
        };
        assert_eq!(spread(&[3.0, 1.0, 2.0]), [2.0, 1.0, 3.0]);
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), [2.5, 1.0, 4.0]);
        assert_eq!((spread(&[7.0]), spread(&[])), ([7.0; 3], [0.0; 3]));
    }
}
