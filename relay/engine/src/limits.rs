//! Every count, size and time-out of a shard, fixed at start-up: memory follows from these, whatever clients do.

use std::time::Duration;

/// Longest time that a back end waits before it turns its shard's loop, in nanoseconds: a loop that turns less often is stuck, not
/// idle.
pub const IDLE_NS_MAX: u64 = 1_000_000_000;

/// Limits of one shard. Counts are of this shard alone.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections of both protocols; at most 2^24.
    pub connections_max: u32,
    /// Connections from one IPv4 address or IPv6 /64, over all shards.
    pub connections_per_address_max: u32,
    /// Bytes of a request head, all of it.
    pub head_bytes_max: usize,
    /// Time from a connection (or the first byte of a later request) to the end of its head.
    pub head_timeout: Duration,
    /// Time a connection may lie idle between requests.
    pub idle_timeout: Duration,
    /// Time within which a reader that has been sent bytes must take some more.
    pub stall_timeout: Duration,
    /// Time a reader may wait for bytes that are on their way without one arriving.
    pub park_timeout: Duration,
    /// Time from a connection to the end of a BitTorrent handshake.
    pub handshake_timeout: Duration,
    /// Time without any message from a BitTorrent peer; the standard sends keep-alives every 2 minutes.
    pub peer_idle_timeout: Duration,
    /// Requests queued for one BitTorrent peer (`reqq`); more are rejected. Transmission 3 sends this many a second at most, so it is
    /// what bounds that client's rate: 2,000 of them are 32 MB/s.
    pub peer_requests_max: usize,
    /// BitTorrent peers served at a time; others wait choked.
    pub upload_slots: usize,
    /// Bytes of an incoming BitTorrent frame.
    pub frame_bytes_max: usize,
    /// Bytes one connection may send in its turn.
    pub turn_bytes: u64,
    /// Buffers of 2 MiB into which is read what is not in memory and was not asked for lately. With none, all of it goes through the page
    /// cache.
    pub read_buffers: usize,
    /// Time a drain may take before what is left is closed.
    pub drain_timeout: Duration,
    /// Time that a drain leaves an idle connection for one more request, which may be on its way. None where the relay stops: whoever
    /// connects again then finds out that it is gone.
    pub drain_idle: Duration,
}

impl Limits {
    /// These, with the times of `other` and its bound on the connections of an address: what may change while a shard runs, since
    /// nothing was made to that measure.
    #[must_use]
    pub fn with_times_of(&self, other: &Limits) -> Limits {
        Limits {
            connections_per_address_max: other.connections_per_address_max,
            head_timeout: other.head_timeout,
            idle_timeout: other.idle_timeout,
            stall_timeout: other.stall_timeout,
            park_timeout: other.park_timeout,
            handshake_timeout: other.handshake_timeout,
            peer_idle_timeout: other.peer_idle_timeout,
            drain_timeout: other.drain_timeout,
            drain_idle: other.drain_idle,
            ..self.clone()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 16_384,
            connections_per_address_max: 1_024,
            head_bytes_max: 16 * 1024,
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
            park_timeout: Duration::from_secs(120),
            handshake_timeout: Duration::from_secs(15),
            peer_idle_timeout: Duration::from_secs(150),
            peer_requests_max: 2_000,
            upload_slots: 512,
            frame_bytes_max: 128 * 1024,
            // A MiB, and the head of the answer before it: its end would else take a turn and a system call of its own.
            turn_bytes: 1024 * 1024 + 16 * 1024,
            read_buffers: 32,
            drain_timeout: Duration::from_secs(30),
            drain_idle: Duration::ZERO,
        }
    }
}
