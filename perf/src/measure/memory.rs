//! Memory of a process: what is resident, and what of that is its own (anonymous) rather than pages of files it maps.

use serde::{Deserialize, Serialize};

/// Bytes of a process tree's root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Resident, pages of mapped files included.
    pub(crate) resident_bytes: u64,
    /// Anonymous: heap, stacks, buffers.
    pub(crate) anonymous_bytes: u64,
}

/// What a process has now; `None` when it is gone or may not be looked at.
pub(crate) fn of_process(pid: u32) -> Option<Memory> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// `status` is kept up to date by the kernel, while `smaps_rollup` walks every page table: that would be charged to the load.
fn parse(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(Memory { resident_bytes: field("VmRSS:")?, anonymous_bytes: field("RssAnon:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_shows() {
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        // Not a difference: the tests beside this one allocate and free too. The kernel counts in batches.
        let memory = of_process(std::process::id()).unwrap();
        assert!(memory.anonymous_bytes >= 60 << 20, "{memory:?}");
        assert!(memory.resident_bytes >= memory.anonymous_bytes, "{memory:?}");
        drop(block);
    }

    #[test]
    fn fields_are_read_in_kib() {
        let text = "Name:\tx\nVmRSS:\t    1200 kB\nRssAnon:\t     400 kB\n";
        assert_eq!(parse(text), Some(Memory { resident_bytes: 1_228_800, anonymous_bytes: 409_600 }));
        assert_eq!(parse("Name:\tzombie\n"), None);
    }
}
