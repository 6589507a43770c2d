//! Metrics of who was not let in.

use std::fmt;

use millrace_engine::ledger::Ledger;

use super::Writer;

pub(super) fn access(out: &mut Writer<'_>, ledger: &Ledger) -> fmt::Result {
    let counts: Vec<_> =
        ledger.turned_away.values().map(|(name, count)| ([("reason", name)], count)).collect();
    out.counter(
        "access_refusals",
        "Requests and handshakes of who may not have what was asked for",
        counts.iter().map(|(labels, count)| (&labels[..], *count)),
    )
}
