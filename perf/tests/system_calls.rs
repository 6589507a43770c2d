//! How many system calls the relay makes for what it sends, while it is busy: counted by `perf` or `strace`, whichever is here and allowed to.
//! How much goes into a call depends on how the load is scheduled beside the relay, so the bounds are wide: they show a call too many for each
//! block or each piece of an answer, not a call too many for each batch. `perf/RESULTS.md` has what was measured.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::{perf, relay, text};

/// Calls for 1 MiB over HTTP, everything included: receiving the request, waiting, looking whether the file is what it was, and sending. Usually 4 to 7.
const HTTP_MIB_MAX: f64 = 12.0;

/// Calls that send fifty blocks: into the pipe, out of the pipe, and how much the socket takes. Three for a full batch; batches fall short of
/// fifty blocks where the load is late with its requests, and a smaller one takes as many.
const BATCH_MAX: f64 = 3.0 * 2.0;

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
fn fifty_blocks_are_sent_by_a_handful_of_calls() {
    let Some(calls) = count(&["bt", "--connections", "16", "--queue", "500"]) else { return };
    let each = calls["sending_per_answer"].as_f64().unwrap() * BATCH_BLOCKS;
    assert!((1.0..=BATCH_MAX).contains(&each), "{each} for each {BATCH_BLOCKS} blocks: {calls}");
}
