//! A shard's ring before the shard runs.
//!
//! Rings and the entries of their buffers may count against a limit that all processes of a user share (`RLIMIT_MEMLOCK`). So all
//! rings of a relay are made before one of its shards starts, and a relay that does not get them all can still go without.

use std::fmt;

use io_uring::IoUring;
use millrace_engine::limits::Limits;
use millrace_send::Setup;

use crate::buffers::{self, Buffers};
use crate::probe::{Refusal, explain};
use crate::ring::{self, Size};

/// Requests that one system call submits; what a loop makes beyond that costs another call.
const SUBMISSIONS: u32 = 1024;

/// Completions kept free for connections that arrive in one loop.
const ACCEPTS: u32 = 1024;

/// A ring of the size that a shard needs, with its buffers, still disabled. Dropped, it gives everything back.
pub struct Reservation {
    uring: IoUring,
    /// Taken by the shard that runs.
    buffers: Option<Buffers>,
    connections_max: u32,
    /// Buffers for reads past the page cache.
    reads_max: usize,
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("connections_max", &self.connections_max)
            .field("buffers", &self.buffers)
            .finish_non_exhaustive()
    }
}

/// Makes the ring of a shard of these limits, on any thread; the shard's thread takes it over.
///
/// # Errors
/// Why there is none: no io_uring at all (see [`probe`](crate::probe())), no memory or descriptor for one more.
pub fn reserve(limits: &Limits) -> Result<Reservation, Refusal> {
    let (connections_max, reads_max) = (limits.connections_max, limits.read_buffers);
    let count = buffers::count_for(connections_max);
    let (uring, _) = ring::open(size(connections_max, count, reads_max)).map_err(explain)?;
    let buffers = Buffers::new(&uring.submitter(), count).map_err(explain)?;
    Ok(Reservation { uring, buffers: Some(buffers), connections_max, reads_max })
}

/// Everything that can complete at once has a place: for each connection a receive, a poll and a failed cancellation of each, every
/// provided buffer, a read into every buffer for them and two completions of a zero-copy send out of every second, accepts. Beyond the kernel's 65,536 the rest is an overflow, see [`Size`].
fn size(connections_max: u32, buffers: u16, reads_max: usize) -> Size {
    let reads = u32::try_from(reads_max).unwrap_or(u32::MAX);
    let connections = connections_max.saturating_mul(4);
    let completions =
        connections.saturating_add(u32::from(buffers) + ACCEPTS).saturating_add(reads.saturating_mul(2));
    Size { submissions: SUBMISSIONS, completions: completions.min(65_536) }
}

impl Reservation {
    /// Whether it is large enough for this shard.
    pub(crate) fn suffices(&self, setup: &Setup) -> bool {
        setup.connections_max <= self.connections_max && setup.sender.buffers_max() <= self.reads_max
    }

    /// The ring, and the buffers that are registered with it, for the loop that retires them.
    ///
    /// # Panics
    /// When they were taken before.
    pub(crate) fn take(&mut self) -> (&mut IoUring, Buffers) {
        match self.buffers.take() {
            Some(buffers) => (&mut self.uring, buffers),
            None => unreachable!("a reservation is for one shard"),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(buffers) = &mut self.buffers {
            // The ring was never enabled, so nothing is in flight. Where the kernel refuses, the memory is leaked.
            let _ = buffers.retire(&self.uring.submitter());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_that_never_ran_gives_its_memory_back_on_any_thread() {
        if !crate::probe::available_to_test("a_ring_that_never_ran_gives_its_memory_back_on_any_thread") {
            return;
        }
        let limits = Limits { connections_max: 64, ..Limits::default() };
        let mut reserved = crate::probe::patiently(|| reserve(&limits)).unwrap();
        let retire = move || {
            let (uring, mut buffers) = reserved.take();
            buffers.retire(&uring.submitter())
        };
        std::thread::spawn(retire).join().unwrap().unwrap();
    }
}
