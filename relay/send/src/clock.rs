//! The time of a loop, and the CPU it runs on.

use std::io;

use millrace_engine::ids::Now;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// The time now, on clocks that all shards share. Without a system call on usual hosts.
#[must_use]
pub fn now() -> Now {
    // Neither clock can fail on Linux; 0 would show in every log line.
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let (seconds, nanos) = (u64::try_from(time.tv_sec()), u64::try_from(time.tv_nsec()));
        seconds.unwrap_or(0) * 1_000_000_000 + nanos.unwrap_or(0)
    });
    let real = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(0, |time| time.tv_sec());
    Now { monotonic_ns: monotonic, unix_s: u64::try_from(real).unwrap_or(0) }
}

/// Binds the calling thread to a CPU.
///
/// # Errors
/// There is no such CPU, or the container does not have it.
pub fn pin(core: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).map_err(|error| {
        io::Error::new(io::Error::from(error).kind(), format!("CPU {core} cannot be used: {error}"))
    })
}
