//! One measurement: warm-up, then a window in which everything is counted, on both sides.

pub(crate) mod caps;
pub(crate) mod cool;
pub(crate) mod counted;
pub(crate) mod cpu;
pub(crate) mod disk;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod paths;
pub(crate) mod samples;
pub(crate) mod syscalls;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::interrupt::Interrupt;
use crate::load::meter::{Phase, Totals};
use crate::load::runtime::{Runtime, spun};
use crate::load::{Load, Running};
use crate::progress::Progress;
use crate::report::{Cost, Measurement, Percentiles, gigabytes};
use crate::server::Server;
use caps::{CapCourse, CapsHeld};
use counted::Counting;
use samples::Sample;
use syscalls::SystemCalls;

/// Longest time for which a window in which nothing was answered is made longer.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(30);

/// Longest wait for all connections to be served, beyond the warm-up.
const GATHER: Duration = Duration::from_secs(20);

/// Most samples that are kept of a window.
const SAMPLES_MAX: u32 = 3000;

/// How often a run is looked at, unless something needs it finer.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// How a measurement is made.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// Name of what is measured, for reports.
    pub(crate) workload: String,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// Ends the window earlier, once so many answers have come.
    pub(crate) answers: Option<u64>,
    pub(crate) runtime: Runtime,
    /// Cores of the load; a thread on each.
    pub(crate) cores: Vec<usize>,
    /// How often a sample is taken and progress shown.
    pub(crate) look: Duration,
    /// What is changed while it runs.
    pub(crate) caps: Option<CapCourse>,
    /// Whether system calls are counted afterwards.
    pub(crate) system_calls: bool,
}

impl Window {
    /// An ordinary one, in which nothing changes.
    pub(crate) fn steady(
        workload: String,
        warm_up: Duration,
        duration: Duration,
        runtime: Runtime,
        cores: Vec<usize>,
    ) -> Self {
        Window {
            workload,
            warm_up,
            duration,
            answers: None,
            runtime,
            cores,
            look: LOOK,
            caps: None,
            system_calls: false,
        }
    }
}

/// Everything that is read at both edges of the window.
struct Reading {
    at: Instant,
    totals: Totals,
    server_cpu: Option<Duration>,
    load_cpu: Duration,
    disk_bytes: Option<u64>,
}

impl Reading {
    fn take(server: &Server, running: &Running) -> anyhow::Result<Self> {
        let server_cpu = match server.pid {
            None => None,
            Some(pid) => {
                Some(cpu::of_tree(pid).with_context(|| format!("{} (process {pid}) is gone", server.name))?)
            }
        };
        Ok(Reading {
            at: Instant::now(),
            totals: running.board.totals(),
            server_cpu,
            load_cpu: cpu::own().saturating_sub(spun()),
            disk_bytes: server.pid.and_then(disk::read_by),
        })
    }
}

/// Puts `load` on `server` and measures.
///
/// # Errors
/// A server that is gone or answers nothing, threads that cannot start, Ctrl-C.
pub(crate) fn measure(
    server: &Server,
    load: &Load,
    window: &Window,
    interrupt: &Interrupt,
) -> anyhow::Result<Measurement> {
    let progress = Progress::start(&window.workload, window.warm_up + window.duration);
    let running = load.start(window.runtime, &window.cores);
    let mut watch = Watch::new(&running, interrupt, &progress, server.pid, window);
    watch.until(Instant::now() + window.warm_up, || false)?;
    let wanted = load.connections() as u64;
    if window.answers.is_none() {
        watch.until(Instant::now() + GATHER, || running.board.totals().connections >= wanted)?;
    }

    // Asking costs the server time, so it is done outside of the window.
    let paths_before = server.metrics.as_ref().and_then(|metrics| metrics.paths().ok());
    let before = Reading::take(server, &running)?;
    running.board.enter(Phase::Measured);
    watch.begin(&before);
    let enough = || {
        let answered = running.board.totals().since(&before.totals).answers();
        window.answers.is_some_and(|answers| answered >= answers)
    };
    let counting = server.metrics.clone().filter(|_| window.caps.is_some());
    let counting = counting.map(|metrics| Counting::start(metrics, before.at));
    let mut starts = Vec::new();
    for (start, step) in window.caps.iter().flat_map(|course| course.starts(window.duration)) {
        watch.until(before.at + start, enough)?;
        starts.push(before.at.elapsed().as_secs_f64());
        if let Some(course) = window.caps.as_ref().filter(|_| starts.len() > 1) {
            caps::patch(&course.admin, &step.patch)?;
        }
    }
    let ends_at = before.at + window.duration;
    watch.until(ends_at, enough)?;
    // With thousands of connections a window may be shorter than any one answer.
    watch.until(ends_at + FIRST_ANSWER_MAX, || running.board.totals().since(&before.totals).bytes() > 0)?;
    let counted = counting.map(Counting::finish).unwrap_or_default();
    let after = Reading::take(server, &running)?;
    let paths = paths_before.and_then(|before| {
        let after = server.metrics.as_ref()?.paths().ok()?;
        Some(paths::since(&before, after))
    });
    let samples = watch.samples;
    let held =
        window.caps.as_ref().and_then(|course| CapsHeld::of(&course.steps, &starts, &samples, &counted));
    if window.system_calls {
        running.board.enter(Phase::Unmeasured);
    }
    let syscalls = server.pid.filter(|_| window.system_calls).and_then(|pid| count_calls(&running, pid));
    progress.finish();

    let board = running.board.clone();
    let recorded = running.finish().context("running the load")?;
    let totals = after.totals.since(&before.totals);
    if totals.bytes() == 0 {
        let errors = board.errors();
        let first = errors.first().map_or("no error either", String::as_str);
        bail!("{} answered nothing: {first}", server.name);
    }
    let spent = before.server_cpu.zip(after.server_cpu).map(|(before, after)| after.saturating_sub(before));
    let disk = before.disk_bytes.zip(after.disk_bytes).map(|(before, after)| after.saturating_sub(before));
    Ok(Measurement {
        workload: window.workload.clone(),
        server: server.name.clone(),
        version: server.version.clone(),
        connections: wanted,
        connections_served: board.totals().connections.min(wanted),
        seconds: (after.at - before.at).as_secs_f64(),
        http_bytes: totals.http_bytes,
        bittorrent_bytes: totals.bittorrent_bytes,
        requests: totals.requests,
        blocks: totals.blocks,
        errors: board.totals().errors,
        error_texts: board.errors(),
        server_cpu: spent.map(|cpu| Cost::of(cpu, totals.bytes())),
        load_cpu: Cost::of(after.load_cpu.saturating_sub(before.load_cpu), totals.bytes()),
        http: Percentiles::of(&recorded.http),
        bittorrent: Percentiles::of(&recorded.bittorrent),
        memory: samples::most_memory(&samples),
        disk_bytes: disk,
        paths: paths.unwrap_or_default(),
        runtime: window.runtime,
        changed_at_s: starts.get(1).copied(),
        caps: held,
        samples,
        syscalls,
        ..Measurement::default()
    })
}

/// System calls of the server while the load goes on.
#[expect(clippy::cast_precision_loss, reason = "counts of a second are far below 2^53")]
fn count_calls(running: &Running, pid: u32) -> Option<SystemCalls> {
    let before = running.board.totals();
    let counted = syscalls::count(pid)?;
    let meanwhile = running.board.totals().since(&before);
    Some(SystemCalls {
        per_gb: counted.all as f64 / gigabytes(meanwhile.bytes()),
        per_answer: counted.all as f64 / meanwhile.answers() as f64,
        sending_per_answer: counted.sending as f64 / meanwhile.answers() as f64,
        counted_by: counted.by.to_owned(),
    })
}

/// Waiting, with an eye on everything.
struct Watch<'a> {
    running: &'a Running,
    interrupt: &'a Interrupt,
    progress: &'a Progress,
    pid: Option<u32>,
    look: Duration,
    /// Since when samples are taken, and from which counts on.
    begun: Option<(Instant, Totals)>,
    every: Duration,
    samples: Vec<Sample>,
}

impl<'a> Watch<'a> {
    fn new(
        running: &'a Running,
        interrupt: &'a Interrupt,
        progress: &'a Progress,
        pid: Option<u32>,
        window: &Window,
    ) -> Self {
        let (look, every) = (window.look, window.look.max(window.duration / SAMPLES_MAX));
        Watch { running, interrupt, progress, pid, look, begun: None, every, samples: Vec::new() }
    }

    fn begin(&mut self, reading: &Reading) {
        self.begun = Some((reading.at, reading.totals));
        self.samples.clear();
    }

    fn until(&mut self, deadline: Instant, enough: impl Fn() -> bool) -> anyhow::Result<()> {
        loop {
            self.interrupt.check()?;
            if self.running.has_failed() {
                bail!("a load thread ended");
            }
            let totals = self.running.board.totals();
            self.progress.show(&totals);
            self.sample(&totals);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || enough() {
                return Ok(());
            }
            std::thread::sleep(left.min(self.look));
        }
    }

    fn sample(&mut self, totals: &Totals) {
        let Some((begun, from)) = &self.begun else { return };
        let at = begun.elapsed();
        let due = self.every.saturating_mul(u32::try_from(self.samples.len()).unwrap_or(u32::MAX));
        if at >= due {
            let counted = totals.since(from);
            let memory = self.pid.and_then(memory::of_process).unwrap_or_default();
            self.samples.push(Sample {
                at_s: at.as_secs_f64(),
                bytes: counted.bytes(),
                errors: counted.errors,
                memory,
            });
        }
    }
}
