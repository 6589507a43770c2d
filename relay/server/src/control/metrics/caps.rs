//! Caps on what is sent, and how hard they bite, by what they are about. Caps of contents and of networks are counted, not named: there
//! may be thousands.

use std::fmt;
use std::sync::Arc;

use millrace_engine::ledger::caps::{EgressCaps, Scope};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Counters, Labels, Writer, as_f64, count_of};

pub(super) fn caps(out: &mut Writer<'_>, caps: &EgressCaps, counters: &[Arc<Counters>]) -> fmt::Result {
    let labels: [[(&str, &str); 1]; Scope::ALL.len()] = Scope::ALL.map(|(_, name)| [("scope", name)]);
    let of = |scope: Scope| -> Labels<'_> { &labels[scope as usize] };
    let alone = [Scope::Total, Scope::Http, Scope::BitTorrent, Scope::Connection];
    // A gauge cannot say "none": infinity compares rightly with every rate.
    let rate = |scope| caps.rate(scope).map_or(f64::INFINITY, as_f64);
    out.family(
        "cap_bytes_per_second",
        "Caps on what is sent: on everything, on a protocol, on each connection; +Inf is none",
        MetricType::Gauge,
        alone.map(|scope| (of(scope), ConstGauge::new(rate(scope)))),
    )?;
    let count = |scope| caps.classes().iter().filter(|class| class.scope == scope).count();
    out.gauge(
        "caps",
        "Contents and groups of networks that have a cap of their own",
        [Scope::Content, Scope::Network].map(|scope| (of(scope), count_of(count(scope)))),
    )?;
    let waiting = |scope| {
        caps.classes().iter().filter(|class| class.scope == scope).map(|class| class.waiting()).sum::<u64>()
    };
    let shared = Scope::ALL.iter().map(|(scope, _)| *scope).filter(|scope| *scope != Scope::Connection);
    out.gauge(
        "cap_waiting",
        "Connections that have something to send and wait for a cap that they share",
        shared.map(|scope| (of(scope), waiting(scope))),
    )?;
    let waits =
        |scope: Scope| counters.iter().map(|counters| counters.cap_waits[scope as usize].value()).sum();
    out.counter(
        "cap_waits",
        "Times that a cap made a connection wait",
        Scope::ALL.iter().map(|(scope, _)| (of(*scope), waits(*scope))),
    )
}
