//! One measurement: warm-up, then a window in which everything is counted, on both sides.

pub(crate) mod cpu;
pub(crate) mod latency;
pub(crate) mod memory;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::interrupt::Interrupt;
use crate::load::meter::{Phase, Totals};
use crate::load::runtime::Runtime;
use crate::load::{Load, Running};
use crate::progress::Progress;
use crate::report::{Cost, Measurement, Percentiles};
use crate::server::Server;

/// How often progress is shown and memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Longest wait for all connections to be served, beyond the warm-up.
const GATHER: Duration = Duration::from_secs(20);

/// How a measurement is made.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// Name of what is measured, for reports.
    pub(crate) workload: String,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) runtime: Runtime,
    /// Cores of the load; a thread on each.
    pub(crate) cores: Vec<usize>,
}

/// Everything that is read at both edges of the window.
struct Reading {
    at: Instant,
    totals: Totals,
    server_cpu: Option<Duration>,
    load_cpu: Duration,
}

impl Reading {
    fn take(server: &Server, running: &Running) -> anyhow::Result<Self> {
        let server_cpu = match server.pid {
            None => None,
            Some(pid) => {
                Some(cpu::of_tree(pid).with_context(|| format!("{} (process {pid}) is gone", server.name))?)
            }
        };
        Ok(Reading { at: Instant::now(), totals: running.board.totals(), server_cpu, load_cpu: cpu::own() })
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
    let mut watch =
        Watch { running: &running, interrupt, progress: &progress, memory: None, pid: server.pid };
    watch.until(Instant::now() + window.warm_up, || false)?;
    let wanted = load.connections() as u64;
    watch.until(Instant::now() + GATHER, || running.board.totals().connections >= wanted)?;

    watch.memory = None;
    let before = Reading::take(server, &running)?;
    running.board.enter(Phase::Measured);
    watch.until(before.at + window.duration, || false)?;
    let after = Reading::take(server, &running)?;
    let memory = watch.memory;
    progress.finish();

    let board = running.board.clone();
    let recorded = running.finish().context("running the load")?;
    let totals = after.totals.since(&before.totals);
    if totals.answers() == 0 {
        let errors = board.errors();
        bail!(
            "{} answered nothing: {}",
            server.name,
            errors.first().map_or("no error either", String::as_str)
        );
    }
    let seconds = (after.at - before.at).as_secs_f64();
    let server_cpu =
        before.server_cpu.zip(after.server_cpu).map(|(before, after)| after.saturating_sub(before));
    Ok(Measurement {
        workload: window.workload.clone(),
        server: server.name.clone(),
        version: server.version.clone(),
        connections: wanted,
        connections_served: board.totals().connections.min(wanted),
        seconds,
        http_bytes: totals.http_bytes,
        bittorrent_bytes: totals.bittorrent_bytes,
        requests: totals.requests,
        blocks: totals.blocks,
        errors: board.totals().errors,
        error_texts: board.errors(),
        server_cpu: server_cpu.map(|cpu| Cost::of(cpu, totals.bytes())),
        load_cpu: Cost::of(after.load_cpu.saturating_sub(before.load_cpu), totals.bytes()),
        http: Percentiles::of(&recorded.http),
        bittorrent: Percentiles::of(&recorded.bittorrent),
        memory,
        runtime: window.runtime,
    })
}

/// Waiting, with an eye on everything.
struct Watch<'a> {
    running: &'a Running,
    interrupt: &'a Interrupt,
    progress: &'a Progress,
    /// The most that the server had so far.
    memory: Option<memory::Memory>,
    pid: Option<u32>,
}

impl Watch<'_> {
    fn until(&mut self, deadline: Instant, enough: impl Fn() -> bool) -> anyhow::Result<()> {
        loop {
            self.interrupt.check()?;
            if self.running.has_failed() {
                bail!("a load thread ended");
            }
            self.progress.show(&self.running.board.totals());
            if let Some(now) = self.pid.and_then(memory::of_process) {
                let most = self.memory.get_or_insert(now);
                most.resident_bytes = most.resident_bytes.max(now.resident_bytes);
                most.anonymous_bytes = most.anonymous_bytes.max(now.anonymous_bytes);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || enough() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}
