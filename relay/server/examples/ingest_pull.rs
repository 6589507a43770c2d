//! What a whole pull costs in each way of writing (`--ingest-io`), alternating, medians of five: requests, bodies, writes, hashes, commits.
//!
//!     cargo run --release -p millrace-relay --example ingest_pull [FOLDER]
//!
//! The origin is another process on loopback. Only the relay's CPU is counted: its ingest, hash and sync threads, and the workers that
//! the kernel starts for its ring.

#![expect(clippy::print_stdout, reason = "a program for people")]

#[path = "../tests/support/origin.rs"]
mod origin;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use millrace_pagecache::{Options, State, Store};
use millrace_relay::ingest::{Ingest, IngestConfig, NewPull, Way};
use millrace_relay::shards::Shards;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use origin::{Behaviour, Origin};

const FILE_BYTES: u64 = 1_000_000_000;
const REPEATS: usize = 5;
const WAYS: [(&str, Way); 2] = [("pwrite", Way::Pwrite), ("uring", Way::Uring)];

/// What one pull cost.
struct Cost {
    cpu_seconds: f64,
    wall_seconds: f64,
}

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--origin") {
        println!("{}", Origin::single(FILE_BYTES, 1, Behaviour::default()).file_url());
        loop {
            std::thread::park();
        }
    }
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("millrace-ingest-pull-{}", std::process::id()));
    let (mut origin, url) = start_origin()?;
    let result = measure(&folder, &url);
    origin.kill()?;
    origin.wait()?;
    result
}

fn start_origin() -> anyhow::Result<(Child, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.arg("--origin").stdout(Stdio::piped()).spawn()?;
    let mut url = String::new();
    BufReader::new(child.stdout.take().context("it is piped")?).read_line(&mut url)?;
    Ok((child, url.trim().to_owned()))
}

fn measure(folder: &Path, url: &str) -> anyhow::Result<()> {
    let mut costs = [const { Vec::new() }; WAYS.len()];
    for _ in 0..REPEATS {
        for ((_, way), costs) in WAYS.into_iter().zip(&mut costs) {
            let cost = pull(way, folder, url);
            // Absent where the store could not be made.
            let _ = std::fs::remove_dir_all(folder);
            costs.push(cost?);
        }
    }
    println!("medians of {REPEATS}  CPU-s/GB  wall s/GB");
    for ((name, _), costs) in WAYS.into_iter().zip(&costs) {
        let median = |of: fn(&Cost) -> f64| {
            let mut values: Vec<f64> = costs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        println!(
            "{name:<12} {:>8.3} {:>10.2}",
            median(|cost| cost.cpu_seconds),
            median(|cost| cost.wall_seconds)
        );
    }
    Ok(())
}

fn pull(way: Way, folder: &Path, url: &str) -> anyhow::Result<Cost> {
    let store = Arc::new(Store::open(folder, Options::default())?);
    let (cpu, wall) = (cpu_seconds()?, Instant::now());
    let config = IngestConfig { way, ..IngestConfig::default() };
    let (ingest, thread) = Ingest::start(config, store, Shards::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let content = runtime.block_on(ingest.add(NewPull::from_operator(url)?))?;
    while content.state() != State::Complete || content.sha256().is_none() {
        if content.state() == State::Failed {
            bail!("the pull failed: {:?}", content.error());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let wall_seconds = wall.elapsed().as_secs_f64();
    ingest.stop();
    if thread.join().is_err() {
        bail!("ingest panicked");
    }
    Ok(Cost { cpu_seconds: cpu_seconds()? - cpu, wall_seconds })
}

/// Of this process: blocking threads and the ring's workers are in it.
fn cpu_seconds() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(microseconds as f64 / 1e6)
}
