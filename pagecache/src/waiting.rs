//! Which shards wait for bytes of a content.
//!
//! A mask of shards stands for all their readers: arrival wakes each waiting shard once, and that shard looks after
//! its own readers. No lock and no list is shared.

use crate::sync::{AtomicU64, Ordering};

/// Most shards a relay has: one bit each.
pub const SHARDS_MAX: u32 = 64;

/// The shards that wait for a content.
///
/// # A parked reader is never missed
/// A reader parks (read-modify-write of `parked`) and then looks again; a writer reveals and then takes the mask
/// (read-modify-write of `parked`). The two modifications have an order. If parking came first, the writer's swap
/// returns the bit and the shard is woken. If the swap came first, parking reads what it wrote, so with
/// `Acquire`/`Release` the reveal happened before the second look, which therefore finds the bytes. That is why
/// [`Waiting::take_parked`] swaps always, and never looks first with a plain load.
#[derive(Debug)]
pub struct Waiting {
    parked: AtomicU64,
    listeners: AtomicU64,
}

impl Default for Waiting {
    fn default() -> Self {
        Waiting { parked: AtomicU64::new(0), listeners: AtomicU64::new(0) }
    }
}

impl Waiting {
    /// Notes that `shard` (below [`SHARDS_MAX`]) has a reader waiting. The caller looks for the bytes once more after
    /// this, and sleeps only if they are still absent.
    pub fn park(&self, shard: u32) {
        self.parked.fetch_or(bit(shard), Ordering::AcqRel);
    }

    /// The shards to wake, called after revealing bytes or changing the state. Each call starts a new mask.
    pub fn take_parked(&self) -> u64 {
        self.parked.swap(0, Ordering::AcqRel)
    }

    /// Notes that `shard` has swarm members who want to hear of new pieces.
    pub fn listen(&self, shard: u32) {
        self.listeners.fetch_or(bit(shard), Ordering::AcqRel);
    }

    /// Takes [`Waiting::listen`] back.
    pub fn unlisten(&self, shard: u32) {
        self.listeners.fetch_and(!bit(shard), Ordering::AcqRel);
    }

    /// The shards that want to hear of new pieces; they stay in the mask.
    pub fn listeners(&self) -> u64 {
        // A read-modify-write for the reason given above: a shard that starts listening either is seen here, or sees
        // the piece that was announced.
        self.listeners.fetch_or(0, Ordering::AcqRel)
    }
}

fn bit(shard: u32) -> u64 {
    debug_assert!(shard < SHARDS_MAX, "shard {shard} has no bit");
    1_u64.checked_shl(shard).unwrap_or(0)
}

#[cfg(all(test, loom))]
mod loom_tests {
    //! `RUSTFLAGS="--cfg loom" cargo test -p millrace-pagecache --lib --release loom`
    use super::*;
    use crate::visible::Visible;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn a_parked_reader_is_never_missed() {
        loom::model(|| {
            let shared = Arc::new((Waiting::default(), Visible::growing()));
            let writer = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.1.grow_to(1);
                    shared.0.take_parked()
                })
            };
            let mut asleep = false;
            if shared.1.until(0, 1) == 0 {
                shared.0.park(3);
                asleep = shared.1.until(0, 1) == 0;
            }
            let woken = writer.join().unwrap();
            assert!(!asleep || woken & (1 << 3) != 0, "asleep and never woken");
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn taking_empties_parked_and_leaves_listeners() {
        let waiting = Waiting::default();
        waiting.park(0);
        waiting.park(63);
        waiting.listen(1);
        assert_eq!(waiting.take_parked(), 1 | 1 << 63);
        assert_eq!(waiting.take_parked(), 0);
        assert_eq!(waiting.listeners(), 2);
        assert_eq!(waiting.listeners(), 2);
        waiting.unlisten(1);
        assert_eq!(waiting.listeners(), 0);
    }
}
