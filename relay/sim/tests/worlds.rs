//! Worlds by the dozen, each decided by its seed.
//!
//! `MILLRACE_SIM_SEEDS=1000` plays more of them, `MILLRACE_SIM_SEED=17` plays one alone.

use std::panic::catch_unwind;

use millrace_sim::world::{Outcome, play};

const SEEDS: u64 = 30;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn every_world_keeps_its_promises_and_is_the_same_twice() {
    let only = number("MILLRACE_SIM_SEED");
    let seeds = only.map_or(0..number("MILLRACE_SIM_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let mut failed = Vec::new();
    let mut outcomes = Vec::new();
    for seed in seeds {
        match (catch_unwind(|| play(seed)), catch_unwind(|| play(seed))) {
            (Ok(first), Ok(second)) if first == second => outcomes.push(first),
            (Ok(_), Ok(_)) => failed.push(format!("{seed}: two runs differ")),
            (first, _) => failed.push(format!("{seed}: {}", text(first.err()))),
        }
    }
    let replay = "; to play one again: MILLRACE_SIM_SEED=<seed> cargo test -p millrace-sim --test worlds";
    assert!(failed.is_empty(), "failed seeds:\n{}{replay}", failed.join("\n"));
    if only.is_none() {
        is_eventful(&outcomes);
    }
}

fn text(panic: Option<Box<dyn std::any::Any + Send>>) -> String {
    let panic = panic.unwrap_or_else(|| Box::new("the second run alone"));
    let string = panic.downcast_ref::<String>().cloned();
    string.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// A world in which nothing happens proves nothing.
fn is_eventful(outcomes: &[Outcome]) {
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let sums = [sum(|o| o.http_bytes), sum(|o| o.bittorrent_bytes), sum(|o| o.parked), sum(|o| o.cut)];
    assert!(sums.iter().all(|sum| *sum > 0), "nothing happened: {sums:?}");
}
