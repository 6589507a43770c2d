//! What handshakes are made with, and what they come to: shared by all shards and the control thread.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use millrace_engine::counters::{Counter, Gauge};
use rustls::ServerConfig;

use super::kernel::Suites;

/// Bounds on the handshakes of one shard. They are computation: each takes as long as sending many requests' worth of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// Handshakes in progress; a connection more is closed at once.
    pub in_progress_max: u32,
    /// Time from a connection to the end of its handshake.
    pub timeout: Duration,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        HandshakeLimits { in_progress_max: 1_024, timeout: Duration::from_secs(10) }
    }
}

/// How a handshake ended. The labels of `millrace_tls_handshakes_total{result}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum HandshakeEnd {
    /// Done, with a certificate.
    Full,
    /// Done, with a ticket of an earlier connection.
    Resumed,
    /// The peer went, or what it sent is no handshake that we can follow.
    Failed,
    /// It took too long.
    TimedOut,
    /// There were too many in progress.
    Refused,
    /// The peer spoke HTTP without TLS, and was told so.
    PlainHttp,
}

impl HandshakeEnd {
    /// All of them, in the order of their numbers.
    pub const ALL: [(HandshakeEnd, &'static str); 6] = [
        (HandshakeEnd::Full, "full"),
        (HandshakeEnd::Resumed, "resumed"),
        (HandshakeEnd::Failed, "failed"),
        (HandshakeEnd::TimedOut, "timed_out"),
        (HandshakeEnd::Refused, "refused"),
        (HandshakeEnd::PlainHttp, "plain_http"),
    ];
}

/// What came of having the kernel encrypt for a connection. The labels of `millrace_tls_kernel_total{result}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum KernelEnd {
    /// It does.
    Taken,
    /// It did not want to, as where the peer had ended already; the relay goes on.
    Refused,
    /// It did not want to when it had to: the connection was cut.
    Lost,
    /// It did until its keys were used up, or the peer wanted others: the connection ended behind what had been asked for.
    Spent,
}

impl KernelEnd {
    /// All of them, in the order of their numbers.
    pub const ALL: [(KernelEnd, &'static str); 4] = [
        (KernelEnd::Taken, "taken"),
        (KernelEnd::Refused, "refused"),
        (KernelEnd::Lost, "lost"),
        (KernelEnd::Spent, "spent"),
    ];
}

/// What is offered to who connects.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Certificate, key, versions and tickets.
    pub config: Arc<ServerConfig>,
    /// The bounds.
    pub limits: HandshakeLimits,
    /// What the kernel may be asked to encrypt by.
    pub kernel: Suites,
}

/// The offer as it is now, and what came of it. A connection keeps what it began with, so a change disconnects nobody.
#[derive(Debug)]
pub struct Terms {
    offer: ArcSwap<Offer>,
    ends: [Counter; HandshakeEnd::ALL.len()],
    kernel_ends: [Counter; KernelEnd::ALL.len()],
    in_progress: Gauge,
}

impl Terms {
    /// Terms that begin with this offer.
    #[must_use]
    pub fn new(offer: Offer) -> Self {
        Terms {
            offer: ArcSwap::from_pointee(offer),
            ends: std::array::from_fn(|_| Counter::default()),
            kernel_ends: std::array::from_fn(|_| Counter::default()),
            in_progress: Gauge::default(),
        }
    }

    /// Who connects from now on is offered this.
    pub fn replace(&self, offer: Offer) {
        self.offer.store(Arc::new(offer));
    }

    /// What is offered now.
    #[must_use]
    pub fn offer(&self) -> Arc<Offer> {
        self.offer.load_full()
    }

    /// Handshakes that ended so.
    #[must_use]
    pub fn ended(&self, end: HandshakeEnd) -> u64 {
        self.ends[end as usize].value()
    }

    /// Connections that the kernel was asked to encrypt for, and for which that came to this.
    #[must_use]
    pub fn by_kernel(&self, end: KernelEnd) -> u64 {
        self.kernel_ends[end as usize].value()
    }

    /// Handshakes in progress, of all shards.
    #[must_use]
    pub fn in_progress(&self) -> u64 {
        self.in_progress.value()
    }

    pub(super) fn timeout(&self) -> Duration {
        self.offer.load().limits.timeout
    }

    pub(super) fn note(&self, end: HandshakeEnd) {
        self.ends[end as usize].increment();
    }

    pub(super) fn note_kernel(&self, end: KernelEnd) {
        self.kernel_ends[end as usize].increment();
    }

    pub(super) fn begin(&self) {
        self.in_progress.increment();
    }

    pub(super) fn leave(&self) {
        self.in_progress.decrement();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_numbered_in_the_order_of_their_labels() {
        for (number, (end, _)) in HandshakeEnd::ALL.iter().enumerate() {
            assert_eq!(*end as usize, number);
        }
        for (number, (end, _)) in KernelEnd::ALL.iter().enumerate() {
            assert_eq!(*end as usize, number);
        }
    }
}
