//! How many system calls the relay makes for what it sends, while it is busy: counted by `perf` or `strace`, whichever is here and allowed to.
//! The counts do not depend on how fast the machine is, but for those of waiting, which a busier relay makes fewer of.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::{perf, relay, text};

/// Calls for 1 MiB over HTTP, everything included: receiving the request, waiting, looking whether the file is what it was, and sending.
const HTTP_MIB_MAX: f64 = 8.0;

/// Calls that send a batch of blocks: into the pipe, out of the pipe, and how much the socket takes. A tenth more is for batches that fall short
/// of fifty blocks, which take as many.
const BATCH_MAX: f64 = 3.0 * 1.1;

/// Blocks that a pipe holds.
const BATCH_BLOCKS: f64 = 50.0;

/// What was counted under a load; `None`, visibly, where nobody may count.
fn count(load: &[&str]) -> Option<Value> {
    let output = perf(load)
        .args(["--syscalls", "--content-bytes", "64MiB", "--duration", "200ms", "--warm-up", "1s"])
        .args(["--json", "-", "--relay"])
        .arg(relay())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let calls = report["measurements"][0]["syscalls"].clone();
    if calls.is_null() {
        eprintln!("SKIPPED: neither perf nor strace is here and may count");
        return None;
    }
    Some(calls)
}

#[test]
fn a_hot_mib_over_http_takes_a_handful_of_calls() {
    let Some(calls) = count(&["http", "--connections", "16", "--range-bytes", "1MiB"]) else { return };
    let each = calls["per_answer"].as_f64().unwrap();
    assert!((1.0..=HTTP_MIB_MAX).contains(&each), "{calls}");
}

#[test]
fn a_batch_of_fifty_blocks_is_sent_by_three_calls() {
    let Some(calls) = count(&["bt", "--connections", "16", "--queue", "500"]) else { return };
    let each = calls["sending_per_answer"].as_f64().unwrap() * BATCH_BLOCKS;
    assert!((1.0..=BATCH_MAX).contains(&each), "{each} for each {BATCH_BLOCKS} blocks: {calls}");
}
