//! CPU time as the kernel accounts it: of a process with its threads, dead ones included, of its children, and of those it has waited for.

use std::time::Duration;

use nix::sys::time::TimeValLike as _;
use nix::time::ClockId;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// CPU time of this process since it started.
pub(crate) fn own() -> Duration {
    ClockId::CLOCK_PROCESS_CPUTIME_ID.now().map_or(Duration::ZERO, |time| nanoseconds(time.num_nanoseconds()))
}

/// CPU time of all children of this process that have ended and were waited for.
pub(crate) fn of_ended_children() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let time = |time: nix::sys::time::TimeVal| nanoseconds(time.num_nanoseconds());
    getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_or(Duration::ZERO, |usage| time(usage.user_time()) + time(usage.system_time()))
}

/// CPU time of a process and everything below it; what has ended without being waited for is lost.
/// `None` when the process is gone or its clock may not be read.
pub(crate) fn of_tree(root: u32) -> Option<Duration> {
    let mut sum = of_process(root)?;
    for child in tree(root).into_iter().skip(1) {
        // A child that ends while we look is either counted by its parent from now on, or too short to matter.
        sum += of_process(child).unwrap_or_default();
    }
    Some(sum)
}

/// The clock of the process itself is exact to the nanosecond and keeps what ended threads used, which the sum over
/// `task/*/schedstat` does not. Children that were waited for are known in clock ticks only (`cutime`, `cstime`).
fn of_process(pid: u32) -> Option<Duration> {
    let process = Pid::from_raw(i32::try_from(pid).ok()?);
    let own = ClockId::pid_cpu_clock_id(process).ok()?.now().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(nanoseconds(own.num_nanoseconds()) + waited_for(&stat, ticks_per_second())?)
}

fn nanoseconds(count: i64) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(0))
}

fn ticks_per_second() -> u64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100)
}

/// `cutime` and `cstime`, fields 16 and 17 of `/proc/PID/stat`. The name in field 2 may hold anything, parentheses included.
fn waited_for(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(13);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((next()? + next()?) * 1000 / ticks_per_second.max(1)))
}

/// `root`, and every live process below it.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Uses CPU time and reports how much by the same clock.
    fn burn(time: Duration) {
        let started = own();
        let mut number = 0;
        while own() - started < time {
            number = std::hint::black_box(crate::payload::mix(number));
        }
    }

    #[test]
    fn the_time_of_ended_threads_stays() {
        let before = of_tree(std::process::id()).unwrap();
        std::thread::spawn(|| burn(Duration::from_millis(60))).join().unwrap();
        let used = of_tree(std::process::id()).unwrap() - before;
        assert!(used >= Duration::from_millis(60), "{used:?}");
    }

    #[test]
    fn children_count_while_they_live_and_after() {
        // The inner shell burns until its own accounting shows a quarter of a second, says so, and waits to be told to end.
        let burn = "while [ $(awk '{print $14+$15}' /proc/$$/stat) -lt 25 ]; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; done; echo; read x";
        let mut child = Command::new("sh")
            .args(["-c", "sh -c \"$0\"; echo; read x", burn])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(&mut output, &mut byte).unwrap();
        let living = of_tree(child.id()).unwrap();
        std::io::Write::write_all(&mut input, b"\n").unwrap();
        std::io::Read::read_exact(&mut output, &mut byte).unwrap();
        let ended = of_tree(child.id()).unwrap();
        std::io::Write::write_all(&mut input, b"\n").unwrap();
        child.wait().unwrap();
        assert!(living >= Duration::from_millis(200), "while it lives: {living:?}");
        assert!(ended >= Duration::from_millis(200), "after it ended: {ended:?}");
    }

    #[test]
    fn names_with_parentheses_do_not_move_the_fields() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 150 250 20 0 1 0";
        assert_eq!(waited_for(stat, 100), Some(Duration::from_secs(4)));
        assert_eq!(waited_for("7 (x", 100), None);
    }

    #[test]
    fn who_is_gone_has_no_clock() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(of_tree(child.id()), None);
    }
}
