//! Carrying out a [`Plan`] whose content is complete and in memory: the load, and one measurement, or two where something is
//! measured without and beside something else.

use millrace_proto::units::Size;

use crate::beside;
use crate::made::StorePlan;
use crate::measure::caps::{CapCourse, course};
use crate::measure::{LOOK, Window, measure};
use crate::plan::Plan;
use crate::report::{Measurement, Report};
use crate::server::relay;
use crate::stage::Stage;
use crate::subject::Subject;

/// Runs a plan and adds what came of it to `report`.
///
/// # Errors
/// Whatever keeps it from being measured, in words for people.
pub(crate) fn run(stage: &Stage<'_>, report: &mut Report) -> anyhow::Result<()> {
    let plan = stage.plan;
    if plan.cores.overlap() {
        report.note("server and load share cores, and so take time from each other");
    }
    if plan.verify {
        report.note("every byte was checked, which costs the load CPU time");
    }
    let measurements = measurements(stage)?;
    if plan.syscalls && measurements.iter().any(|measurement| measurement.syscalls.is_none()) {
        report.note("system calls could not be counted: neither perf nor strace is here and allowed to");
    }
    if let Subject::Running { metrics, .. } = &plan.subject
        && measurements.iter().any(|measurement| measurement.paths.is_empty())
    {
        report.note(format!(
            "the relay tells nobody at {metrics} by which way it sends: start it with --metrics there, or name the address by --target-metrics"
        ));
    }
    for measurement in &measurements {
        report.missed.extend(plan.floors.iter().filter_map(|floor| floor.missed_by(measurement)));
    }
    report.measurements.extend(measurements);
    Ok(())
}

/// What a plan measures: one measurement, or one without and one beside something else.
///
/// # Errors
/// Whatever keeps it from being measured.
pub(crate) fn measurements(stage: &Stage<'_>) -> anyhow::Result<Vec<Measurement>> {
    let plan = stage.plan;
    let server = stage.server()?;
    let load = plan.load(&server)?;
    let mut window = window(plan, stage);
    window.caps = plan.caps.map(|(first, then)| {
        let id = server.http.as_ref().and_then(|file| file.path.split('/').nth(2)).unwrap_or_default();
        CapCourse { admin: relay::admin_in(stage.folder()), steps: course(first, then, id) }
    });
    if plan.idle > 0 {
        return beside::idle(stage, &server, &load, &window);
    }
    if plan.cold_bytes > 0 {
        return beside::cold(stage, &server, &load, &window);
    }
    let mut measurement = measure(&server, &load, &window, stage.interrupt)?;
    measurement.swept = plan.swept.then(|| asked(plan));
    Ok(vec![measurement])
}

/// How a plan measures.
pub(crate) fn window(plan: &Plan, stage: &Stage<'_>) -> Window {
    Window {
        workload: workload(plan),
        warm_up: plan.warm_up,
        duration: plan.duration,
        answers: None,
        runtime: stage.runtime,
        cores: plan.cores.load.clone(),
        // Caps are judged by the second, to a hundredth of it.
        look: if plan.caps.is_some() { LOOK / 10 } else { LOOK },
        caps: None,
        system_calls: plan.syscalls,
    }
}

/// What is asked on each connection.
fn asked(plan: &Plan) -> String {
    let http = format!("HTTP, {}", Size(plan.range_bytes));
    let bittorrent = format!("BitTorrent, {} blocks queued", plan.queue);
    match (plan.http_connections, plan.bittorrent_connections) {
        (_, 0) => http,
        (0, _) => bittorrent,
        _ => format!("{http} and {bittorrent}"),
    }
}

/// What is measured, in a few words.
fn workload(plan: &Plan) -> String {
    let mut http = format!("HTTP {} × {}", plan.http_connections, Size(plan.range_bytes));
    let StorePlan { contents, asked, sparse, .. } = plan.store;
    if contents > 1 {
        http = format!("{http} of {asked} among {contents} contents");
    }
    if sparse {
        http = format!("{http} of a hole of {}", Size(plan.content_bytes));
    }
    let bittorrent = format!("BitTorrent {} × {} blocks", plan.bittorrent_connections, plan.queue);
    match (plan.http_connections, plan.bittorrent_connections) {
        (_, 0) => http,
        (0, _) => bittorrent,
        _ => format!("{http} + {bittorrent}"),
    }
}
