//! Carrying out a [`Plan`]: the test file and the relay where they are ours, the load, one measurement.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use millrace_proto::units::Size;

use crate::compare::spread::Spread;
use crate::interrupt::Interrupt;
use crate::load::Load;
use crate::load::idle::Idle;
use crate::load::runtime::Runtime;
use crate::measure::caps::{CapChange, CapsHeld};
use crate::measure::{LOOK, Window, measure, memory};
use crate::payload::Payload;
use crate::plan::{Plan, Subject};
use crate::report::{IdleCost, Measurement, Report, gigabytes};
use crate::server::scratch::Scratch;
use crate::server::{Server, relay};

/// Runs a plan and adds what came of it to `report`.
///
/// # Errors
/// Whatever keeps it from being measured, in words for people.
pub(crate) fn run(
    plan: &Plan,
    runtime: Runtime,
    interrupt: &Interrupt,
    report: &mut Report,
) -> anyhow::Result<()> {
    let scratch = Scratch::create(plan.folder.as_deref())?;
    let server = server(plan, &scratch, interrupt)?;
    let load = plan.load(&server)?;
    if plan.cores.overlap() {
        report.note("server and load share cores, and so take time from each other");
    }
    if plan.verify {
        report.note("every byte was checked, which costs the load CPU time");
    }
    let window = window(plan, &scratch, runtime);
    if plan.idle > 0 {
        let pairs = beside_idle(plan, &server, &load, &window, interrupt)?;
        add(plan, pairs, report);
        return Ok(());
    }
    let mut measurement = measure(&server, &load, &window, interrupt)?;
    if let Some((first, then)) = plan.caps {
        let change = measurement.changed_at_s.map(|at| (at, then));
        measurement.caps = CapsHeld::of(&measurement.samples, first, change);
    }
    if plan.syscalls && measurement.syscalls.is_none() {
        report.note("system calls could not be counted: neither perf nor strace is here and allowed to");
    }
    measurement.swept = plan.swept;
    add(plan, vec![measurement], report);
    Ok(())
}

fn add(plan: &Plan, measurements: Vec<Measurement>, report: &mut Report) {
    for measurement in &measurements {
        report.missed.extend(plan.floors.iter().filter_map(|floor| floor.missed_by(measurement)));
    }
    report.measurements.extend(measurements);
}

fn window(plan: &Plan, scratch: &Scratch, runtime: Runtime) -> Window {
    Window {
        workload: workload(plan),
        warm_up: plan.warm_up,
        duration: plan.duration,
        answers: None,
        runtime,
        cores: plan.cores.load.clone(),
        // Caps are judged by the second, to a hundredth of it.
        look: if plan.caps.is_some() { LOOK / 10 } else { LOOK },
        change: plan.caps.map(|(_, total)| CapChange {
            after: plan.duration / 2,
            admin: relay::admin_in(scratch.path()),
            total,
        }),
        system_calls: plan.syscalls,
    }
}

/// The load without connections that do nothing and beside them, in turn; ratios are medians over the pairs.
fn beside_idle(
    plan: &Plan,
    server: &Server,
    load: &Load,
    window: &Window,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Measurement>> {
    let anonymous = || server.pid.and_then(memory::of_process).map_or(0, |memory| memory.anonymous_bytes);
    let http = server.http.as_ref().filter(|_| plan.http_connections > 0);
    let beside =
        Window { workload: format!("{} beside {} idle", window.workload, plan.idle), ..window.clone() };
    let (mut throughputs, mut cpus, mut grown) = (Vec::new(), Vec::new(), 0);
    let mut last: Vec<Measurement> = Vec::new();
    for pair in 0..plan.pull.rounds {
        let mut without = measure(server, load, window, interrupt)?;
        let before = anonymous();
        let idle = Idle::open(plan.idle, http, server, interrupt)?;
        if pair == 0 {
            // Memory that was used once is used again: only the first time shows what they need.
            grown = anonymous().saturating_sub(before);
        }
        let mut with = measure(server, load, &beside, interrupt)?;
        throughputs.push(with.throughput() / without.throughput());
        cpus.extend(
            with.server_cpu.zip(without.server_cpu).map(|(with, without)| with.per_gb / without.per_gb),
        );
        with.idle = Some(IdleCost {
            connections: plan.idle as u64,
            still_open: idle.open_count() as u64,
            anonymous_bytes_each: gigabytes(grown) / gigabytes(plan.idle as u64),
            throughput_ratio: median(&throughputs).unwrap_or(1.0),
            cpu_ratio: median(&cpus),
        });
        // The last pair is shown; errors of the others must not get lost.
        for (now, earlier) in [&mut without, &mut with].into_iter().zip(&last) {
            now.errors += earlier.errors;
            now.error_texts.extend(earlier.error_texts.iter().cloned());
        }
        last = vec![without, with];
    }
    Ok(last)
}

fn median(values: &[f64]) -> Option<f64> {
    Spread::of(values.iter().copied()).map(|spread| spread.median)
}

/// What is measured, in a few words.
fn workload(plan: &Plan) -> String {
    let http = format!("HTTP {} × {}", plan.http_connections, Size(plan.range_bytes));
    let bittorrent = format!("BitTorrent {} × {} blocks", plan.bittorrent_connections, plan.queue);
    match (plan.http_connections, plan.bittorrent_connections) {
        (_, 0) => http,
        (0, _) => bittorrent,
        _ => format!("{http} + {bittorrent}"),
    }
}

/// The server of a plan, ready: the relay that runs, or one of our own with the whole test file.
///
/// # Errors
/// It is not there, or does not start.
pub(crate) fn server(plan: &Plan, scratch: &Scratch, interrupt: &Interrupt) -> anyhow::Result<Server> {
    let torrent = plan.bittorrent_connections > 0;
    if let Subject::Running(remote, pid) = &plan.subject {
        let content = remote.complete(torrent)?.context("the relay has no complete content to ask for")?;
        let server = remote.describe(&content, torrent)?;
        return Ok(Server { pid: *pid, ..server });
    }
    let file = write_payload(scratch.path(), plan)?;
    let source = file.to_str().context("a temporary folder whose path is not UTF-8")?.to_owned();
    let relay = plan.relay(scratch, vec![source])?.context("the plan names no relay")?;
    relay.start(interrupt)?.into_server(&relay.program, plan.content_bytes, torrent, interrupt)
}

/// Writes the test file of a plan.
///
/// # Errors
/// Those of the file system.
pub(crate) fn write_payload(folder: &Path, plan: &Plan) -> anyhow::Result<PathBuf> {
    let path = folder.join("payload.bin");
    let file = File::create_new(&path).with_context(|| format!("creating {}", path.display()))?;
    let mut file = BufWriter::new(file);
    Payload::new(plan.seed)
        .write(&mut file, plan.content_bytes)
        .with_context(|| format!("writing {}", path.display()))?;
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(path)
}
