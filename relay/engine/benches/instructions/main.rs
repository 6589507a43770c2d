//! How many instructions the codecs and the engine take for one operation, compared with what is recorded in `instructions.txt`.
//!
//! Valgrind's callgrind counts, so a busy machine counts what an idle one does. Each case is played twice, once with twice the rounds;
//! the difference is free of start and set-up. Counts can be compared only under the conditions that are recorded with them (compiler,
//! C library, kind of processor): under others the table says how, and nothing fails.
//!
//!     cargo bench -p millrace-engine --bench instructions                     # compare; status 1 when a count has moved
//!     cargo bench -p millrace-engine --bench instructions -- --update         # record what is counted now
//!     cargo bench -p millrace-engine --bench instructions -- --profile CASE   # the functions that a case spends them in
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a case that does not do what it says fails by panicking; the table is what the program is for"
)]

mod callgrind;
mod codecs;
mod conditions;
mod record;
mod shard;
mod torrents;

use std::process::ExitCode;

use record::{Record, Verdict};

/// Something whose instructions are counted.
struct Case {
    name: &'static str,
    /// What one operation is.
    operation: &'static str,
    /// Operations of one round.
    operations: u64,
    /// Rounds of the shorter run: enough that what happens once in a while is spread over them.
    rounds: u64,
    /// Makes what the rounds need. A round checks its own outcome.
    prepare: fn() -> Box<dyn FnMut()>,
}

fn cases() -> impl Iterator<Item = &'static Case> {
    codecs::CASES.iter().chain(shard::CASES)
}

fn case(name: &str) -> &'static Case {
    cases().find(|case| case.name == name).unwrap_or_else(|| panic!("no such case: {name}"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo adds `--bench`.
    let asked: Vec<&str> = arguments.iter().map(String::as_str).filter(|asked| *asked != "--bench").collect();
    match asked[..] {
        ["--play", name, rounds] => play(case(name), rounds.parse().unwrap()),
        _ if cfg!(debug_assertions) => {
            cases().for_each(|case| play(case, 1));
            println!("every case was played; an unoptimised build is not counted");
        }
        [] => return compare(),
        ["--update"] => Record::of(cases().map(|case| (case, callgrind::count(case)))).write(),
        ["--profile", name] => callgrind::profile(case(name)),
        _ => panic!("expected nothing, --update, or --profile CASE"),
    }
    ExitCode::SUCCESS
}

/// What is counted.
fn play(case: &Case, rounds: u64) {
    let mut round = (case.prepare)();
    (0..rounds).for_each(|_| round());
}

fn compare() -> ExitCode {
    let record = Record::read();
    println!("{:<28} {:>12} {:>12} {:>9}", "instructions per operation", "recorded", "now", "change");
    let mut moved = 0;
    for case in cases() {
        let verdict = record.judge(case.name, callgrind::count(case));
        println!("{:<28} {verdict}", case.name);
        moved += u32::from(!matches!(verdict, Verdict::Same(_)));
    }
    for name in record.names().filter(|name| cases().all(|case| case.name != *name)) {
        println!("{name:<28} is recorded and is no case");
        moved += 1;
    }
    let differences = record.differences();
    if !differences.is_empty() {
        println!("not judged: {}", differences.join("; "));
    } else if moved > 0 {
        println!("{moved} not as recorded; if they are to be so from now on, record them with --update");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
