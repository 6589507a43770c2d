//! What writing costs ingest: `pwrite` and a blocking thread for syncs against `tokio-uring` for either, alternating, medians of five.
//!
//!     cargo run --release -p millrace-relay --example ingest_writes [FOLDER]
//!
//! Six tasks write 2 GB in chunks of 64 KiB into one sparse file, as six range requests do, and every 64 MiB the file is synced in the
//! background, as commits do. A ticker of 1 ms on the same thread tells how long that thread is away from its other tasks.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use tokio::task::{LocalSet, spawn_blocking, spawn_local, yield_now};
use tokio::time::{MissedTickBehavior, interval};

const FILE_BYTES: u64 = 2_000_000_000 / TASKS / CHUNK_BYTES * CHUNK_BYTES * TASKS;
const CHUNK_BYTES: u64 = 64 << 10;
const TASKS: u64 = 6;
const SYNC_BYTES: u64 = 64 << 20;
const TICK: Duration = Duration::from_millis(1);
const REPEATS: usize = 5;

/// One way to write and to sync. With neither through the ring, the runtime is plain tokio.
#[derive(Debug, Clone, Copy)]
struct Way {
    name: &'static str,
    /// Writes go through the ring; otherwise the runtime's thread calls `pwrite`.
    ring_writes: bool,
    /// `fdatasync` goes through the ring; otherwise a blocking thread calls it.
    ring_syncs: bool,
}

const WAYS: [Way; 4] = [
    Way { name: "pwrite, sync on a thread", ring_writes: false, ring_syncs: false },
    Way { name: "ring write, sync on a thread", ring_writes: true, ring_syncs: false },
    Way { name: "pwrite, ring sync", ring_writes: false, ring_syncs: true },
    Way { name: "ring write, ring sync", ring_writes: true, ring_syncs: true },
];

/// What one run cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu_seconds_per_gb: f64,
    wall_seconds: f64,
    late_ms_max: f64,
    late_ms_99: f64,
    syncs: f64,
}

/// What the tasks of one run saw.
struct Seen {
    /// By how much each tick was late.
    late: Vec<Duration>,
    /// Syncs done, of the 30 that are due: a sync that is slow, or starts late, makes those due meanwhile wait and become one.
    syncs: u32,
}

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("millrace-ingest-writes-{}", std::process::id()));
    let result = measure(&path);
    // Absent where the first run could not create it.
    let _ = std::fs::remove_file(&path);
    result
}

fn measure(path: &Path) -> anyhow::Result<()> {
    let mut costs = [const { Vec::new() }; WAYS.len()];
    for _ in 0..REPEATS {
        for (way, costs) in WAYS.into_iter().zip(&mut costs) {
            costs.push(run(way, path)?);
        }
    }
    println!("medians of {REPEATS:<18} CPU-s/GB  wall s  late ms, max  late ms, 99 %  syncs");
    for (way, costs) in WAYS.iter().zip(&costs) {
        let median = |of: fn(&Cost) -> f64| {
            let mut values: Vec<f64> = costs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        println!(
            "{:<29} {:>8.3} {:>7.2} {:>13.1} {:>14.1} {:>6}",
            way.name,
            median(|cost| cost.cpu_seconds_per_gb),
            median(|cost| cost.wall_seconds),
            median(|cost| cost.late_ms_max),
            median(|cost| cost.late_ms_99),
            median(|cost| cost.syncs),
        );
    }
    Ok(())
}

fn run(way: Way, path: &Path) -> anyhow::Result<Cost> {
    // A file of its own for each run: nothing of it is in the page cache, and nothing of the run before is left to be written back.
    let _ = std::fs::remove_file(path);
    let file = File::options().read(true).write(true).create_new(true).open(path);
    let file = file.with_context(|| path.display().to_string())?;
    file.set_len(FILE_BYTES)?;
    let (cpu, wall) = (cpu_seconds()?, Instant::now());
    let Seen { mut late, syncs } = if way.ring_writes || way.ring_syncs {
        tokio_uring::start(write_all(way, file))?
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, write_all(way, file))?
    };
    let (cpu, wall) = (cpu_seconds()? - cpu, wall.elapsed());
    late.sort();
    let milliseconds = |late: Option<&Duration>| late.map_or(0.0, Duration::as_secs_f64) * 1e3;
    Ok(Cost {
        cpu_seconds_per_gb: cpu / (FILE_BYTES as f64 / 1e9),
        wall_seconds: wall.as_secs_f64(),
        late_ms_max: milliseconds(late.last()),
        late_ms_99: milliseconds(late.get(late.len() * 99 / 100)),
        syncs: f64::from(syncs),
    })
}

/// Writes and syncs the whole file.
async fn write_all(way: Way, file: File) -> io::Result<Seen> {
    let done = Rc::new(Cell::new(false));
    let ticker = spawn_local(tick(Rc::clone(&done)));
    let written = Rc::new(Cell::new(0));
    let syncer = spawn_local(sync(way, file.try_clone()?, Rc::clone(&written)));
    let file = Rc::new(file);
    let chunk = Bytes::from(vec![0x5a; usize::try_from(CHUNK_BYTES).map_err(io::Error::other)?]);
    let share = FILE_BYTES / TASKS;
    let writers: Vec<_> = (0..TASKS)
        .map(|task| {
            let range = task * share..(task + 1) * share;
            spawn_local(write(way, Rc::clone(&file), range, chunk.clone(), Rc::clone(&written)))
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    let syncs = syncer.await??;
    done.set(true);
    Ok(Seen { late: ticker.await?, syncs })
}

async fn write(
    way: Way,
    file: Rc<File>,
    range: Range<u64>,
    chunk: Bytes,
    written: Rc<Cell<u64>>,
) -> io::Result<()> {
    let ring = way.ring_writes.then(|| file.try_clone().map(tokio_uring::fs::File::from_std)).transpose()?;
    let mut at = range.start;
    while at < range.end {
        match &ring {
            Some(ring) => ring.write_all_at(chunk.clone(), at).await.0?,
            None => {
                file.write_all_at(&chunk, at)?;
                // As reading from a socket does that always has more: the other tasks get their turn.
                yield_now().await;
            }
        }
        at += CHUNK_BYTES;
        written.set(written.get() + CHUNK_BYTES);
    }
    Ok(())
}

/// Syncs whenever enough was written since the last time; how often that was.
async fn sync(way: Way, file: File, written: Rc<Cell<u64>>) -> io::Result<u32> {
    let ring = way.ring_syncs.then(|| file.try_clone().map(tokio_uring::fs::File::from_std)).transpose()?;
    let file = Arc::new(file);
    let (mut synced, mut syncs) = (0, 0);
    while synced < FILE_BYTES {
        if written.get() - synced < SYNC_BYTES && written.get() < FILE_BYTES {
            tokio::time::sleep(TICK).await;
            continue;
        }
        synced = written.get();
        match &ring {
            Some(ring) => ring.sync_data().await?,
            None => {
                let file = Arc::clone(&file);
                spawn_blocking(move || file.sync_data()).await??;
            }
        }
        syncs += 1;
    }
    Ok(syncs)
}

async fn tick(done: Rc<Cell<bool>>) -> Vec<Duration> {
    let mut late = Vec::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !done.get() {
        let due = ticks.tick().await;
        late.push(due.elapsed());
    }
    late
}

/// Of the whole process: blocking threads and the ring's workers are in it.
fn cpu_seconds() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(microseconds as f64 / 1e6)
}
