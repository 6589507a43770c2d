//! What a shard counts. Written by one shard with relaxed atomics, read by the control thread for `/metrics` and `status`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::durations::Durations;
use crate::ledger::caps::Scope;

/// A number that only grows, and that one thread alone counts: without a locked instruction, which would wait for every store before it.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds `count`. Two threads that do so at the same time lose one of the two.
    pub fn add(&self, count: u64) {
        self.0.store(self.value().wrapping_add(count), Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The number so far, for any thread.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that only grows, counted by any thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The number so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a connection was closed from our side, or a request refused. The labels of `millrace_closed_total{reason}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// The peer ended it.
    PeerClosed,
    /// The socket broke.
    Broken,
    /// The table of connections is full.
    TooManyConnections,
    /// Too many connections from one address.
    TooManyFromAddress,
    /// A request head was refused.
    BadRequest,
    /// A request head or handshake took too long.
    SlowHead,
    /// Idle for too long.
    Idle,
    /// A reader that reads nothing.
    Stalled,
    /// Bytes that were waited for did not come.
    ParkedTooLong,
    /// The content failed, was removed or became unreadable in the middle of an answer.
    ContentLost,
    /// An answer after which the connection ends, as announced.
    EndOfAnswer,
    /// Not a BitTorrent handshake, or an encrypted one of a peer that is expected to come back in plain.
    NotBitTorrent,
    /// A handshake for a torrent that is not here, or not for that peer.
    UnknownTorrent,
    /// A malformed or absurd peer message.
    BadMessage,
    /// The relay is draining.
    Draining,
    /// Neither side wants anything of the other: two seeds, or the relay itself.
    NothingToDo,
    /// A peer that takes nothing but an encrypted stream.
    EncryptionRequired,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [(Reason, &'static str); 17] = [
        (Reason::PeerClosed, "peer_closed"),
        (Reason::Broken, "broken"),
        (Reason::TooManyConnections, "too_many_connections"),
        (Reason::TooManyFromAddress, "too_many_from_address"),
        (Reason::BadRequest, "bad_request"),
        (Reason::SlowHead, "slow_head"),
        (Reason::Idle, "idle"),
        (Reason::Stalled, "stalled"),
        (Reason::ParkedTooLong, "parked_too_long"),
        (Reason::ContentLost, "content_lost"),
        (Reason::EndOfAnswer, "end_of_answer"),
        (Reason::NotBitTorrent, "not_bittorrent"),
        (Reason::UnknownTorrent, "unknown_torrent"),
        (Reason::BadMessage, "bad_message"),
        (Reason::Draining, "draining"),
        (Reason::NothingToDo, "nothing_to_do"),
        (Reason::EncryptionRequired, "encryption_required"),
    ];
}

/// The counters of one shard, written by its thread alone.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted, by HTTP and by BitTorrent.
    pub accepted_http: Tally,
    /// Connections accepted on the BitTorrent port.
    pub accepted_bittorrent: Tally,
    /// Open HTTP connections.
    pub connections_http: Gauge,
    /// Open BitTorrent connections.
    pub connections_bittorrent: Gauge,
    /// HTTP requests whose head was read.
    pub requests: Tally,
    /// Time from the end of a request's head to the last byte of its answer handed to the kernel.
    pub request_durations: Durations,
    /// HTTP answers by class of status: index 1 to 5.
    pub responses: [Tally; 6],
    /// Bytes of contents sent over HTTP.
    pub served_http_bytes: Tally,
    /// Bytes of contents sent over BitTorrent.
    pub served_bittorrent_bytes: Tally,
    /// BitTorrent handshakes that came through message stream encryption.
    pub encrypted_handshakes: Tally,
    /// BitTorrent blocks queued for sending.
    pub blocks: Tally,
    /// BitTorrent requests rejected.
    pub rejects: Tally,
    /// BitTorrent peers unchoked now.
    pub unchoked: Gauge,
    /// Readers that had to wait for bytes on their way.
    pub parked: Tally,
    /// Times that a cap made a connection wait, by [`Scope`].
    pub cap_waits: [Tally; Scope::ALL.len()],
    /// Loops turned: the sign of life, at least one within [`IDLE_NS_MAX`](crate::limits::IDLE_NS_MAX).
    pub loops: Tally,
    /// Connections closed, by [`Reason`].
    pub closed: [Tally; Reason::ALL.len()],

    // What back ends count.
    /// Bytes sent by page reference.
    pub sent_reference_bytes: Tally,
    /// Bytes sent by sendfile.
    pub sent_sendfile_bytes: Tally,
    /// Bytes sent by copying.
    pub sent_copy_bytes: Tally,
    /// Bytes of zero-copy sends that the kernel reports it did not copy.
    pub sent_zero_copy_bytes: Tally,
    /// Bytes of zero-copy sends that it copied all the same.
    pub sent_zero_copy_copied_bytes: Tally,
    /// Zero-copy sends that it refused.
    pub zero_copy_refusals: Tally,
    /// Bytes sent after they were encrypted here.
    pub sent_tls_bytes: Tally,
    /// Reads that brought data into the page cache before a send.
    pub brought_in: Tally,
    /// Bytes of them.
    pub brought_in_bytes: Tally,
    /// Reads past the page cache, for one send alone.
    pub read_direct: Tally,
    /// Bytes of them, with what lay around them in their blocks.
    pub read_direct_bytes: Tally,
    /// Sends that waited for a buffer to read into.
    pub buffer_waits: Tally,
    /// Completion queue overflows.
    pub ring_overflows: Tally,
    /// Time of a loop from its first event to its end.
    pub loop_durations: Durations,
}

impl Counters {
    /// Counts one closed connection.
    pub fn close(&self, reason: Reason) {
        self.closed[reason as usize].increment();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_the_order_of_their_labels() {
        for (number, (reason, _)) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
    }
}
