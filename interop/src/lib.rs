//! What the interop tests share: the relay program as a child process, an origin that can be slowed and broken, and real
//! clients, each behind one small type.
//!
//! This is test support: whatever goes wrong in the harness itself panics and says what it was doing. Every wait is
//! bounded. Nothing here reaches beyond loopback.
#![forbid(unsafe_code)]

pub mod agent;
pub mod clients;
pub mod controller;
pub mod http;
pub mod origin;
pub mod pattern;
pub mod process;
pub mod proxy;
pub mod relay;
pub mod scratch;
pub mod torrent;

use std::time::{Duration, Instant};

/// How long a download of the matrix may take before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks `poll` until it answers.
///
/// # Panics
/// If it has not answered `within` that time; `what` names what was waited for.
#[track_caller]
pub fn until<T>(what: &str, within: Duration, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = poll() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {within:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bytes of the file that the matrix moves: `MILLRACE_INTEROP_BYTES`, or 96 MiB.
#[must_use]
pub fn matrix_bytes() -> u64 {
    from_environment("MILLRACE_INTEROP_BYTES", 96 << 20)
}

/// Bytes per second of the matrix' origin: `MILLRACE_INTEROP_RATE`, or 20 MB/s.
#[must_use]
pub fn matrix_rate() -> u64 {
    from_environment("MILLRACE_INTEROP_RATE", 20_000_000)
}

fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number of bytes is wanted")),
        Err(_) => default,
    }
}
