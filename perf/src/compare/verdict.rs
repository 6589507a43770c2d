//! What the numbers of a row say about its targets.

use std::fmt;

use serde::Serialize;

use super::row::{Goal, Quantity};
use super::side::Side;
use crate::report::Measurement;
use crate::report::pull::PullMeasurement;
use crate::report::spread::Spread;

/// A target, and where we are.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    quantity: &'static str,
    unit: &'static str,
    #[serde(skip)]
    decimals: usize,
    /// What of ours is judged, where it is not plain.
    of: Option<String>,
    /// The other side, where the value is a ratio to it.
    against: Option<String>,
    /// Of ratios: median by median; least and most are of runs that followed each other.
    value: Spread,
    sign: &'static str,
    first: f64,
    then: f64,
    pub(super) first_met: bool,
    then_met: bool,
}

impl Verdict {
    /// Our side, the first, against the best of the others; `None` where there is nothing to compare with.
    pub(super) fn against_best(goal: &Goal, sides: &[Side]) -> Option<Self> {
        let (ours, others) = sides.split_first()?;
        let median = |side: &Side| Some(side.spread(|run| goal.quantity.of(run))?.median);
        let named = |side: &&Side| goal.against.is_empty() || goal.against.contains(&side.who);
        let best = others.iter().filter(named).filter_map(|side| Some((median(side)?, side)));
        let (_, best) = best.reduce(|a, b| if goal.relation.holds(a.0, b.0) { a } else { b })?;
        Self::between(goal, ours, best)
    }

    /// One side against another.
    pub(super) fn between(goal: &Goal, ours: &Side, other: &Side) -> Option<Self> {
        let value = |measurement: &Measurement| goal.quantity.of(measurement);
        let pairs = ours.runs.iter().zip(&other.runs).map(|(ours, other)| value(ours) / value(other));
        let median = ours.spread(value)?.median / other.spread(value)?.median;
        let against = if other.asked == ours.asked { other.title() } else { other.asked.clone() };
        Some(Verdict {
            against: Some(against),
            ..Self::new(goal, goal.quantity.name(), Spread { median, ..Spread::of(pairs)? })
        })
    }

    /// As [`Verdict::between`], where there are several of ours.
    pub(super) fn of_one(goal: &Goal, ours: &Side, other: &Side) -> Option<Self> {
        Some(Verdict { of: Some(ours.asked.clone()), ..Self::between(goal, ours, other)? })
    }

    /// Numbers that one of our own commands found; what it did not find is missed.
    pub(super) fn found(goal: &Goal, loads: &[Measurement], pulls: &[PullMeasurement]) -> Self {
        let unknown = Spread { median: f64::NAN, min: f64::NAN, max: f64::NAN };
        Self::new(goal, goal.quantity.name(), goal.quantity.found(loads, pulls).unwrap_or(unknown))
    }

    fn new(goal: &Goal, quantity: &'static str, value: Spread) -> Self {
        Verdict {
            quantity,
            unit: goal.quantity.unit(),
            decimals: goal.quantity.decimals(),
            of: None,
            against: None,
            value,
            sign: goal.relation.sign(),
            first: goal.first,
            then: goal.then,
            first_met: goal.relation.holds(value.median, goal.first),
            then_met: goal.relation.holds(value.median, goal.then),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { quantity, unit, decimals, value, sign, first, then, .. } = self;
        let met = |is_met: bool| if is_met { "met" } else { "MISSED" };
        let of = self.of.as_ref().map_or_else(String::new, |of| format!(" of {of}"));
        let against = self.against.as_ref().map_or_else(String::new, |against| format!(" × {against}"));
        let Spread { median, min, max } = value;
        let median =
            if median.is_finite() { format!("{median:.decimals$}{unit}") } else { "never seen".into() };
        let (first_met, then_met) = (met(self.first_met), met(self.then_met));
        write!(f, "**{quantity}{of}: {median}{against}**")?;
        if (max - min).abs() > 0.0 {
            write!(f, " ({min:.decimals$}–{max:.decimals$})")?;
        }
        if first.is_infinite() {
            return Ok(());
        }
        write!(f, "; owed {sign} {first:.decimals$}: {first_met}, then {sign} {then:.decimals$}: {then_met}")
    }
}

impl Quantity {
    /// What a run says, of quantities that are compared between sides.
    pub(super) fn of(self, measurement: &Measurement) -> f64 {
        match self {
            Quantity::ServerCpu => measurement.server_cpu.map_or(f64::NAN, |cost| cost.per_gb),
            Quantity::Throughput => measurement.throughput(),
            Quantity::AnswersPerSecond => measurement.answers_per_second(),
            _ => f64::NAN,
        }
    }

    /// What our own commands found, of quantities that stand by themselves.
    fn found(self, loads: &[Measurement], pulls: &[PullMeasurement]) -> Option<Spread> {
        let load = loads.last();
        let pull = pulls.last();
        let one = |value: f64| Spread::of([value]);
        match self {
            Quantity::FirstByteLater => one(pull?.first_byte_later_ms()),
            Quantity::FirstByteAfterPiece => one(pull?.first_byte_later_ms() - pull?.piece_ms()?),
            Quantity::OriginRatio => {
                pull.map(|pull| Spread { median: pull.origin_ratio.max, ..pull.origin_ratio })
            }
            Quantity::BesideIdle => load?.idle.map(|idle| idle.throughput_ratio),
            Quantity::IdleMemory => one(load?.idle?.anonymous_bytes_each),
            Quantity::BesideCold => load?.beside_cold.map(|cold| cold.p99_ratio),
            Quantity::WorstSecond => one(load?.caps.as_ref()?.worst_second()?),
            Quantity::CapMean => one(load?.caps.as_ref()?.least_mean()?),
            Quantity::CapInForce => one(load?.caps.as_ref()?.in_force_ms()?),
            Quantity::Failed => one(failed(loads, pulls)),
            Quantity::ServerCpu | Quantity::Throughput | Quantity::AnswersPerSecond => None,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "connections are far fewer than 2^53")]
fn failed(loads: &[Measurement], pulls: &[PullMeasurement]) -> f64 {
    let of_load = |load: &Measurement| {
        let closed = load.idle.map_or(0, |idle| idle.connections - idle.still_open);
        load.errors + (load.connections - load.connections_served) + closed
    };
    let all = loads.iter().map(of_load).chain(pulls.iter().map(|pull| pull.errors));
    all.sum::<u64>() as f64
}
