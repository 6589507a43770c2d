//! System calls of a server, counted while the load goes on but after the measured window, since counting slows down what is counted:
//! by tracepoints (`perf`), which cost little, or by `strace`, which costs much; the number for each byte is the same.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::cpu;

/// Seconds of counting.
const COUNTED_S: &str = "1";

/// All calls, to `perf`.
const ALL: &str = "raw_syscalls:sys_enter";

/// Those that put bytes into a socket, or ask how many it takes.
const SENDING: [&str; 9] =
    ["vmsplice", "splice", "sendfile64", "sendmsg", "sendto", "write", "writev", "getsockopt", "ioctl"];

/// What was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SystemCalls {
    /// For each GB delivered meanwhile.
    pub(crate) per_gb: f64,
    /// For each answer.
    pub(crate) per_answer: f64,
    /// Those that send, for each answer; the others receive, wait, or look at files.
    pub(crate) sending_per_answer: f64,
    /// The program that counted.
    pub(crate) counted_by: String,
}

/// Calls of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) all: u64,
    pub(crate) sending: u64,
    pub(crate) by: &'static str,
}

/// Counts the system calls of a process and everything below it for a second, and says by which program; `None` where none may.
pub(crate) fn count(root: u32) -> Option<Counted> {
    let pids: Vec<String> = cpu::tree(root).iter().map(u32::to_string).collect();
    let pid = pids.join(",");
    let sending = SENDING.map(|name| format!("syscalls:sys_enter_{name}")).join(",");
    let events = format!("{ALL},{sending}");
    let perf = ["stat", "-e", &events, "-x,", "-p", &pid, "--", "sleep", COUNTED_S];
    if let Some(counted) = run("perf", &perf).and_then(|text| parse_perf(&text)) {
        return Some(counted);
    }
    // strace sums up when it is interrupted.
    let strace = ["--signal=INT", COUNTED_S, "strace", "-f", "-c", "-p", &pid];
    run("timeout", &strace).and_then(|text| parse_strace(&text))
}

/// What a program says on stderr; both write their sums there.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A line for each event, such as `12345,,raw_syscalls:sys_enter,…`
fn parse_perf(text: &str) -> Option<Counted> {
    let count = |line: &str| line.split(',').next()?.parse::<u64>().ok();
    let all = text.lines().find(|line| line.contains(ALL)).and_then(count)?;
    let sending = text.lines().filter(|line| line.contains("syscalls:sys_enter_")).filter_map(count).sum();
    Some(Counted { all, sending, by: "perf" })
}

/// A line for each call: share, seconds, microseconds for each, calls, perhaps errors, name; the last is `total`.
fn parse_strace(text: &str) -> Option<Counted> {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        Some(((*words.last()?).to_owned(), words.get(3)?.parse::<u64>().ok()?))
    };
    let rows: Vec<(String, u64)> = text.lines().filter_map(row).collect();
    // strace says `sendfile` for what the kernel calls `sendfile64`.
    let sends = |name: &str| SENDING.iter().any(|known| known.trim_end_matches("64") == name);
    let (_, all) = rows.iter().find(|(name, _)| name == "total")?;
    let sending = rows.iter().filter(|(name, _)| sends(name)).map(|(_, calls)| calls).sum();
    Some(Counted { all: *all, sending, by: "strace" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_are_understood() {
        let perf = "4711,,raw_syscalls:sys_enter,1001,100.00,,\n40,,syscalls:sys_enter_splice,1001,100.00,,\n\
                    2,,syscalls:sys_enter_sendfile64,1001,100.00,,\n";
        assert_eq!(parse_perf(perf), Some(Counted { all: 4711, sending: 42, by: "perf" }));
        assert_eq!(parse_perf("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
        assert_eq!(parse_perf("event syntax error: 'raw_syscalls:sys_enter'\n"), None);
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     60.00    0.000030           3         8           recvfrom\n\
                     30.00    0.000030           3         5         1 splice\n\
                     10.00    0.000030           3         4           sendfile\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.000030           3        17         1 total\n";
        assert_eq!(parse_strace(table), Some(Counted { all: 17, sending: 9, by: "strace" }));
        assert_eq!(parse_strace("strace: attach: Operation not permitted\n"), None);
    }
}
