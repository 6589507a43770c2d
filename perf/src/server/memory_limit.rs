//! A bound on the memory of a server and on the cached pages that it brings in, so that a file can be larger than the cache that is allowed
//! for it: a memory cgroup of our own, version 2 or 1. It needs root.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// Where memory cgroups are made, and how their bound is called: version 2 where it has the memory controller, else version 1.
const PLACES: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];

/// What a server needs for itself, whatever it serves: with less it would be ended.
pub(crate) const SERVER_BYTES_MIN: u64 = 160 << 20;

/// Time for the last process to leave.
const PATIENCE: Duration = Duration::from_secs(5);

/// A group; it goes away with this value. Processes that are still in it then go on without a bound.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    group: PathBuf,
}

impl MemoryLimit {
    /// Makes a group that may use so many bytes.
    ///
    /// # Errors
    /// Nobody lets us.
    pub(crate) fn new(bytes: u64) -> anyhow::Result<Self> {
        let mut last = None;
        for (place, bound) in PLACES {
            match Self::in_place(Path::new(place), bound, bytes) {
                Ok(limit) => return Ok(limit),
                Err(error) => last = Some(error),
            }
        }
        bail!("no memory cgroup: {}", last.map(|error| error.to_string()).unwrap_or_default())
    }

    fn in_place(place: &Path, bound: &str, bytes: u64) -> io::Result<Self> {
        let group = place.join(format!("millrace-perf-{}", std::process::id()));
        std::fs::create_dir(&group)?;
        let limit = MemoryLimit { group };
        // Fails where the place has no memory controller, which makes no such file.
        let file = std::fs::OpenOptions::new().write(true).open(limit.group.join(bound))?;
        io::Write::write_all(&mut &file, bytes.to_string().as_bytes())?;
        Ok(limit)
    }

    /// Bounds these processes from now on. What they used before stays where it was.
    ///
    /// # Errors
    /// One of them is gone.
    pub(crate) fn add(&self, pids: &[u32]) -> anyhow::Result<()> {
        for pid in pids {
            std::fs::write(self.group.join("cgroup.procs"), pid.to_string())
                .with_context(|| format!("bounding the memory of process {pid}"))?;
        }
        Ok(())
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // Who is still in it goes on without a bound.
        let procs = std::fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            let parent = self.group.parent().unwrap_or(Path::new("/")).join("cgroup.procs");
            // It may have ended by itself.
            let _ = std::fs::write(parent, pid);
        }
        let began = Instant::now();
        // A group cannot go before its last process is gone for good, which takes a moment after it was waited for.
        while std::fs::remove_dir(&self.group).is_err() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_wants_more_is_ended_and_the_group_goes_away() {
        let limit = match MemoryLimit::new(32 << 20) {
            Ok(limit) => limit,
            Err(error) => {
                eprintln!("SKIPPED: {error}");
                return;
            }
        };
        // Waits for a line, then keeps ten times what is allowed.
        let mut child = Command::new("sh")
            .args(["-c", "read line; x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo ${#x}"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        limit.add(&[child.id()]).unwrap();
        io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
        assert!(!child.wait().unwrap().success(), "300 MB fit in 32 MiB");
        let group = limit.group.clone();
        drop(limit);
        assert!(!group.exists());
    }
}
