//! Ranges that are not in memory: every pass takes the files of the relay out of the page cache, checks that they are gone, and asks for
//! each range once, in an order of the seed. The relay starts anew for each pass, since pages that it has mapped would stay.

use std::time::Duration;

use millrace_proto::units::Size;

use crate::measure::cool::{RESIDENT_MAX, cool};
use crate::measure::{LOOK, Window, disk, measure};
use crate::report::Report;
use crate::stage::Stage;

/// Files smaller than this are the relay's own, not content.
const CONTENT_BYTES_MIN: u64 = 256 * 1024;

/// Runs all passes.
///
/// # Errors
/// Whatever keeps it from being measured, memory that cannot be emptied of the files included.
pub(crate) fn run(stage: &Stage<'_>, report: &mut Report) -> anyhow::Result<()> {
    let (plan, interrupt) = (stage.plan, stage.interrupt);
    let relay = stage.relay_of_file()?;
    for pass in 1..=plan.pull.rounds {
        let starting = relay.start(interrupt)?;
        let server = starting.into_server(&relay.program, plan.content_bytes, false, interrupt)?;
        let resident = cool(&disk::files_below(stage.folder(), CONTENT_BYTES_MIN)?)?;
        match resident {
            None => report.note("fincore is missing, so nobody checked that the files left the page cache"),
            Some(share) if share > RESIDENT_MAX => {
                report.note(format!(
                    "{:.0} % of the files stayed in the page cache: this is not cold",
                    share * 100.0
                ));
            }
            Some(_) => {}
        }
        let load = plan.load(&server)?;
        let ranges = plan.content_bytes.div_ceil(plan.range_bytes);
        let connections = plan.http_connections;
        let workload = format!("cold HTTP {connections} × {}, pass {pass}", Size(plan.range_bytes));
        let cores = plan.cores.load.clone();
        let steady = Window::steady(workload, Duration::ZERO, plan.duration, stage.runtime, cores);
        // A pass may be over within a second.
        let window = Window { answers: Some(ranges), look: LOOK / 10, ..steady };
        let mut measurement = measure(&server, &load, &window, interrupt)?;
        measurement.resident_before = resident;
        report.missed.extend(plan.floors.iter().filter_map(|floor| floor.missed_by(&measurement)));
        report.measurements.push(measurement);
    }
    Ok(())
}
