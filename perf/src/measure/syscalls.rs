//! System calls of a server, counted while the load goes on but after the measured window, since counting slows down what is counted:
//! by a tracepoint (`perf`), which costs little, or by `strace`, which costs much; the number for each byte is the same.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::cpu;

/// Seconds of counting.
const COUNTED_S: &str = "1";

/// What was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SystemCalls {
    /// For each GB delivered meanwhile.
    pub(crate) per_gb: f64,
    /// For each answer.
    pub(crate) per_answer: f64,
    /// The program that counted.
    pub(crate) counted_by: String,
}

/// Counts the system calls of a process and everything below it for a second, and says by which program; `None` where none may.
pub(crate) fn count(root: u32) -> Option<(u64, &'static str)> {
    let pids: Vec<String> = cpu::tree(root).iter().map(u32::to_string).collect();
    let pid = pids.join(",");
    let perf = ["stat", "-e", "raw_syscalls:sys_enter", "-x,", "-p", &pid, "--", "sleep", COUNTED_S];
    if let Some(calls) = run("perf", &perf).and_then(|text| parse_perf(&text)) {
        return Some((calls, "perf"));
    }
    // strace sums up when it is interrupted.
    let strace = ["--signal=INT", COUNTED_S, "strace", "-f", "-c", "-p", &pid];
    run("timeout", &strace).and_then(|text| parse_strace(&text)).map(|calls| (calls, "strace"))
}

/// What a program says on stderr; both write their sums there.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// `12345,,raw_syscalls:sys_enter,…`
fn parse_perf(text: &str) -> Option<u64> {
    text.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?.split(',').next()?.parse().ok()
}

/// The last line of the table: share, seconds, microseconds for each, calls, perhaps errors, `total`.
fn parse_strace(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.trim_end().ends_with(" total"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_are_understood() {
        assert_eq!(parse_perf("4711,,raw_syscalls:sys_enter,1001,100.00,,\n"), Some(4711));
        assert_eq!(parse_perf("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
        assert_eq!(parse_perf("event syntax error: 'raw_syscalls:sys_enter'\n"), None);
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     100.00    0.000030           3         8           read\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.000030           3        10         1 total\n";
        assert_eq!(parse_strace(table), Some(10));
        assert_eq!(parse_strace("strace: attach: Operation not permitted\n"), None);
    }
}
