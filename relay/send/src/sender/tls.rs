//! What a sender does for connections with TLS.

use std::os::fd::BorrowedFd;

use millrace_engine::event::Event;
use millrace_engine::ids::{ConnId, Now};

use super::Sender;
use crate::outcome::Outcome;
use crate::tls::{Flushed, Sealed};

impl Sender {
    /// A connection came by a listener of TLS: what it sends is handed to [`received`](Sender::received) from now on. False where it has to be
    /// closed instead, since there are too many handshakes in progress.
    #[must_use]
    pub fn begin_tls(&mut self, conn: ConnId, now: Now) -> bool {
        self.tls.begin(conn, now)
    }

    /// Whether the connection [began](Sender::begin_tls) with TLS.
    #[must_use]
    pub fn is_encrypted(&self, conn: ConnId) -> bool {
        self.tls.has(conn)
    }

    /// An encrypted connection sent `data`, or its end. `deliver` is given the events that this means for the engine.
    pub fn received(
        &mut self,
        conn: ConnId,
        socket: BorrowedFd<'_>,
        data: &[u8],
        deliver: impl FnMut(Event<'_>),
    ) -> Flushed {
        self.tls.receive(conn, socket, data, deliver)
    }

    /// The next connection whose handshake is to [go on](Sender::handshake) in this loop. Call until there is none.
    pub fn next_handshake(&mut self) -> Option<ConnId> {
        self.tls.next_handshake()
    }

    /// Lets a handshake go on whose turn it is; as [`received`](Sender::received).
    pub fn handshake(
        &mut self,
        conn: ConnId,
        socket: BorrowedFd<'_>,
        deliver: impl FnMut(Event<'_>),
    ) -> Flushed {
        self.tls.handshake(conn, socket, deliver)
    }

    /// The next connection that is to be given up because its handshake takes too long. Call until there is none, once a loop.
    pub fn next_overdue_handshake(&mut self, now: Now) -> Option<ConnId> {
        self.tls.next_overdue(now)
    }

    /// The socket of an encrypted connection takes bytes again, whether the engine waits for that or not.
    pub fn flush(&mut self, conn: ConnId, socket: BorrowedFd<'_>) -> Flushed {
        self.tls.flush(conn, socket)
    }

    /// Ends what an encrypted connection sends: the peer is told that it is whole. The socket is shut down behind that.
    pub fn shut_down_tls(&mut self, conn: ConnId, socket: BorrowedFd<'_>) -> Flushed {
        self.tls.shut_down(conn, socket)
    }

    /// Counts what the kernel took and encrypted, in so many pieces, so much of it out of these buffers.
    pub(super) fn note_encrypted(
        &mut self,
        conn: ConnId,
        pieces: usize,
        sent: u64,
        from_buffers: &[(usize, u64)],
    ) {
        self.tls.note_sent(conn, pieces, sent);
        let staged: u64 = from_buffers.iter().map(|(_, bytes)| bytes).sum();
        self.cold.copies_mut().copied(sent - staged);
    }

    /// Counts what was encrypted, so much of it out of these buffers, and what the socket took of it.
    pub(super) fn note_sealed(&mut self, sealed: &Sealed, from_buffers: &[(usize, u64)]) -> Outcome {
        self.counters.sent_tls_bytes.add(sealed.progress.sent);
        self.cold.consume(from_buffers);
        let staged: u64 = from_buffers.iter().map(|(_, bytes)| bytes).sum();
        self.cold.copies_mut().copied(sealed.encrypted - staged);
        Outcome::Sent(sealed.progress.told())
    }
}
