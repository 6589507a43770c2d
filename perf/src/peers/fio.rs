//! fio reading the test file past the page cache: what the disk gives to who does nothing else.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::interrupt::Interrupt;
use crate::load::runtime::pin_to;
use crate::report::{Cost, Measurement};

/// What is read and how.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) file: &'a Path,
    pub(crate) cores: &'a [usize],
    pub(crate) range_bytes: u64,
    /// Reads under way at a time.
    pub(crate) depth: usize,
    pub(crate) duration: Duration,
}

/// What fio reports, as far as it is read here.
#[derive(Deserialize)]
struct Output {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    read: Direction,
    /// Percent of a core.
    usr_cpu: f64,
    sys_cpu: f64,
}

#[derive(Deserialize)]
struct Direction {
    io_bytes: u64,
    total_ios: u64,
    /// Milliseconds.
    runtime: u64,
}

/// Reads at random with `O_DIRECT` through io_uring. What fio reads counts as delivered, each read as an answer.
///
/// # Errors
/// It does not start, fails, or Ctrl-C.
pub(crate) fn run(
    program: &Path,
    workload: &str,
    reading: &Reading<'_>,
    interrupt: &Interrupt,
) -> anyhow::Result<Measurement> {
    let mut command = Command::new(program);
    command.args([
        "--name=read",
        "--rw=randread",
        "--direct=1",
        "--ioengine=io_uring",
        "--thread",
        "--time_based",
    ]);
    command.arg(format!("--filename={}", reading.file.display()));
    command.arg(format!("--bs={}", reading.range_bytes)).arg(format!("--iodepth={}", reading.depth));
    command.arg(format!("--runtime={}", reading.duration.as_secs().max(1))).arg("--output-format=json");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let cores = reading.cores.to_owned();
    let started = std::thread::spawn(move || {
        pin_to(&cores)?;
        command.spawn()
    });
    let mut child = started
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that starts fio panicked"))?
        .context("starting fio")?;
    let began = Instant::now();
    while child.try_wait()?.is_none() {
        if interrupt.check().is_err() || began.elapsed() > reading.duration * 2 + Duration::from_secs(30) {
            child.kill()?;
            child.wait()?;
            interrupt.check()?;
            bail!("fio takes too long");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("fio ended with {}", output.status);
    }
    parse(&output.stdout, workload, &super::version(program, "--version"))
}

fn parse(json: &[u8], workload: &str, version: &str) -> anyhow::Result<Measurement> {
    let output: Output = serde_json::from_slice(json).context("what fio reports")?;
    let job = output.jobs.first().context("fio reports no job")?;
    let time = Duration::from_millis(job.read.runtime);
    let cpu = time.mul_f64((job.usr_cpu + job.sys_cpu).max(0.0) / 100.0);
    Ok(Measurement {
        workload: workload.to_owned(),
        server: "fio O_DIRECT".into(),
        version: version.to_owned(),
        seconds: time.as_secs_f64(),
        http_bytes: job.read.io_bytes,
        requests: job.read.total_ios,
        server_cpu: Some(Cost::of(cpu, job.read.io_bytes)),
        disk_bytes: Some(job.read.io_bytes),
        ..Measurement::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_time_and_cpu_are_read() {
        let json =
            br#"{"fio version": "fio-3.33", "jobs": [{"jobname": "read", "usr_cpu": 5.0, "sys_cpu": 20.0,
            "read": {"io_bytes": 4000000000, "total_ios": 3814, "runtime": 2000, "bw": 1}}]}"#;
        let measurement = parse(json, "P5", "3.33").unwrap();
        assert!((measurement.throughput() - 2e9).abs() < 1.0);
        assert!((measurement.server_cpu.unwrap().per_gb - 0.125).abs() < 1e-9);
        assert!(parse(b"{}", "P5", "").is_err());
    }
}
