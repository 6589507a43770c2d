//! Ranges that are not in memory: every pass takes the files of the relay out of the page cache, checks that they are gone, and asks for
//! each range once, in an order of the seed. The relay starts anew for each pass, since pages that it has mapped would stay.

use std::time::Duration;

use anyhow::{Context as _, bail};
use millrace_proto::units::Size;

use crate::interrupt::Interrupt;
use crate::load::runtime::Runtime;
use crate::measure::{LOOK, Window, disk, measure};
use crate::plan::{Plan, Subject};
use crate::report::Report;
use crate::run::write_payload;
use crate::server::scratch::Scratch;

/// Files smaller than this are the relay's own, not content.
const CONTENT_BYTES_MIN: u64 = 256 * 1024;

/// Share of the content that may be left in memory for a pass to count as cold.
const RESIDENT_MAX: f64 = 0.02;

/// How often the page cache is told to let go.
const ATTEMPTS: u32 = 8;

/// Runs all passes.
///
/// # Errors
/// Whatever keeps it from being measured, memory that cannot be emptied of the files included.
pub(crate) fn run(
    plan: &Plan,
    runtime: Runtime,
    interrupt: &Interrupt,
    report: &mut Report,
) -> anyhow::Result<()> {
    if matches!(plan.subject, Subject::Running(..)) {
        bail!("cold starts its own relay: leave --target out");
    }
    let scratch = Scratch::create(plan.folder.as_deref())?;
    let file = write_payload(scratch.path(), plan)?;
    let source = file.to_str().context("a temporary folder whose path is not UTF-8")?.to_owned();
    let relay = plan.relay(&scratch, vec![source])?.context("the plan names no relay")?;
    for pass in 1..=plan.pull.rounds {
        let starting = relay.start(interrupt)?;
        let server = starting.into_server(&relay.program, plan.content_bytes, false, interrupt)?;
        let resident = empty_cache(&scratch)?;
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
        let steady = Window::steady(workload, Duration::ZERO, plan.duration, runtime, cores);
        // A pass may be over within a second.
        let window = Window { answers: Some(ranges), look: LOOK / 10, ..steady };
        let mut measurement = measure(&server, &load, &window, interrupt)?;
        measurement.resident_before = resident;
        report.missed.extend(plan.floors.iter().filter_map(|floor| floor.missed_by(&measurement)));
        report.measurements.push(measurement);
    }
    Ok(())
}

/// Takes the content's files out of memory; the largest share of one that stayed.
fn empty_cache(scratch: &Scratch) -> anyhow::Result<Option<f64>> {
    let files = disk::files_below(scratch.path(), CONTENT_BYTES_MIN)?;
    let mut left = None;
    for attempt in 0..ATTEMPTS {
        for file in &files {
            disk::drop_from_cache(file).with_context(|| file.display().to_string())?;
        }
        let shares: Option<Vec<f64>> = files.iter().map(|file| disk::resident_share(file)).collect();
        left = shares.map(|shares| shares.into_iter().fold(0.0, f64::max));
        if left.is_none_or(|share| share <= RESIDENT_MAX) {
            break;
        }
        // Pages on their way between the lists of the kernel cannot be dropped just now.
        std::thread::sleep(LOOK * attempt);
    }
    Ok(left)
}
