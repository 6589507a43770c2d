//! A load without something else and beside it, in turn: connections that do nothing, or requests for what is not in memory.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use millrace_proto::units::Size;

use crate::load::idle::Idle;
use crate::load::runtime::Runtime;
use crate::load::{Load, Order, Running};
use crate::measure::cool::{Behind, cool};
use crate::measure::{Window, cpu, disk, measure, memory};
use crate::plan::Plan;
use crate::report::spread::Spread;
use crate::report::{ColdCost, IdleCost, Measurement, gigabytes};
use crate::server::memory_limit::{MemoryLimit, SERVER_BYTES_MIN};
use crate::server::{HttpFile, Server};
use crate::stage::Stage;

/// Connections that ask for cold ranges, and how long these are.
const COLD_CONNECTIONS: usize = 16;
const COLD_RANGE_BYTES: u64 = 1 << 20;

/// The share of the cold file that there is memory for.
const COLD_ALLOWED: u64 = 4;

/// Pairs of runs; the last one is shown.
#[derive(Default)]
struct Pairs {
    last: Vec<Measurement>,
}

impl Pairs {
    /// Errors of pairs that are not shown must not get lost.
    fn add(&mut self, mut without: Measurement, mut with: Measurement) {
        for (now, earlier) in [&mut without, &mut with].into_iter().zip(&self.last) {
            now.errors += earlier.errors;
            now.error_texts.extend(earlier.error_texts.iter().cloned());
        }
        self.last = vec![without, with];
    }
}

/// Without connections that do nothing and beside them; of the latter it tells what they cost.
///
/// # Errors
/// As [`measure`], and connections that cannot be opened.
pub(crate) fn idle(
    stage: &Stage<'_>,
    server: &Server,
    load: &Load,
    window: &Window,
) -> anyhow::Result<Vec<Measurement>> {
    let (plan, interrupt) = (stage.plan, stage.interrupt);
    let anonymous = || server.pid.and_then(memory::of_process).map_or(0, |memory| memory.anonymous_bytes);
    let http = server.http.as_ref().filter(|_| plan.http_connections > 0);
    let beside =
        Window { workload: format!("{} beside {} idle", window.workload, plan.idle), ..window.clone() };
    let (mut throughputs, mut cpus, mut grown) = (Vec::new(), Vec::new(), 0);
    let mut pairs = Pairs::default();
    for pair in 0..plan.pull.rounds {
        let without = measure(server, load, window, interrupt)?;
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
            throughput_ratio: spread(&throughputs)?,
            cpu_ratio: Spread::of(cpus.iter().copied()),
        });
        pairs.add(without, with);
    }
    Ok(pairs.last)
}

/// Without requests for what is not in memory and beside them; of the latter it tells how much longer requests take. The server has memory
/// for a part of the cold file.
///
/// # Errors
/// As [`measure`], and a server without the cold file.
pub(crate) fn cold(
    stage: &Stage<'_>,
    server: &Server,
    load: &Load,
    window: &Window,
) -> anyhow::Result<Vec<Measurement>> {
    let (plan, interrupt) = (stage.plan, stage.interrupt);
    let asked = cold_load(stage.cold_file(server)?, plan);
    let files = disk::files_below(stage.folder(), plan.cold_bytes)?;
    let limit = MemoryLimit::new((plan.cold_bytes / COLD_ALLOWED).max(SERVER_BYTES_MIN)).ok();
    if let (Some(limit), Some(root)) = (&limit, server.pid) {
        limit.add(&cpu::tree(root))?;
    }
    let text = format!("{} beside cold ranges of {}", window.workload, Size(plan.cold_bytes));
    let beside = Window { workload: text, ..window.clone() };
    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    let mut pairs = Pairs::default();
    for _ in 0..plan.pull.rounds {
        let without = measure(server, load, window, interrupt)?;
        cool(&files)?;
        let behind = limit.is_none().then(|| Behind::start(files.clone()));
        let reading = Reading::start(&asked, stage.runtime, &plan.cores.load);
        let mut with = measure(server, load, &beside, interrupt)?;
        let bytes_per_second = reading.finish(&mut with)?;
        drop(behind);
        rates.push(bytes_per_second);
        // What the server spent was for both.
        let bytes = with.bytes() + whole(bytes_per_second * with.seconds);
        with.server_cpu = with.server_cpu.map(|cost| cost.over(bytes));
        with.load_cpu = with.load_cpu.over(bytes);
        let p99 = |run: &Measurement| run.slowest().map(|latency| latency.p99_ms);
        ratios.push(p99(&with).zip(p99(&without)).map_or(f64::NAN, |(with, without)| with / without));
        with.beside_cold = Some(ColdCost { throughput: spread(&rates)?, p99_ratio: spread(&ratios)? });
        pairs.add(without, with);
    }
    Ok(pairs.last)
}

/// Lets the calling thread run when no other wants to (`SCHED_IDLE`), where `chrt` of util-linux is there: one that wakes then waits for no
/// slice of it.
fn give_way() {
    let thread = nix::unistd::gettid().to_string();
    let chrt = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).stderr(Stdio::null()).status();
    if !chrt.is_ok_and(|status| status.success()) {
        eprintln!("no chrt here: what is hot may seem slower beside what is cold than it is");
    }
}

fn spread(values: &[f64]) -> anyhow::Result<Spread> {
    Spread::of(values.iter().copied()).context("nothing was measured")
}

fn cold_load(file: HttpFile, plan: &Plan) -> Load {
    let http = crate::load::HttpLoad {
        file,
        paths: std::sync::Arc::default(),
        connections: COLD_CONNECTIONS,
        range_bytes: COLD_RANGE_BYTES,
        ranges: None,
        rate: None,
    };
    Load {
        http: Some(http),
        bittorrent: None,
        order: Order::Random,
        seed: plan.seed,
        aborting: crate::load::Aborting::default(),
        verify: None,
    }
}

/// The cold requests, while they run. They have threads of their own on the cores of the load, which give way to the others: these would
/// else notice their answers late, because a core was busy with taking what is cold.
struct Reading {
    running: Running,
    began: Instant,
}

impl Reading {
    fn start(load: &Load, runtime: Runtime, cores: &[usize]) -> Self {
        let start = || {
            give_way();
            load.start(runtime, cores)
        };
        // Threads have the priority of the one that starts them.
        let running = std::thread::scope(|scope| scope.spawn(start).join());
        let running = running.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Reading { running, began: Instant::now() }
    }

    /// Ends them; their bytes per second. Their errors count as those of `beside`.
    fn finish(self, beside: &mut Measurement) -> anyhow::Result<f64> {
        let (totals, seconds) = (self.running.board.totals(), self.began.elapsed().as_secs_f64());
        beside.errors += totals.errors;
        beside.error_texts.extend(self.running.board.errors());
        self.running.finish().context("running the cold requests")?;
        Ok(gigabytes(totals.bytes()) * 1e9 / seconds)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes of a run are positive, and far below 2^53"
)]
fn whole(bytes: f64) -> u64 {
    bytes as u64
}
