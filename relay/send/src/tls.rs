//! TLS for clients, between the socket and everything else: the engine gets what was decrypted and counts payload, and of what it sends
//! records are made here, or by the kernel where it offers that. A connection that came by a listener of TLS has a [session](Session) from its accept to its close.
//!
//! Handshakes are computation, and would hold up those who are being served: each loop carries out a few, by time, and the others wait
//! in their order. Their number is bounded, and the time that one may take.

mod handed;
mod handover;
mod handshakes;
mod kernel;
mod outgoing;
mod sending;
mod session;
mod terms;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use millrace_engine::event::Event;
use millrace_engine::ids::{ConnId, Now};

use crate::clock;
pub(crate) use handover::Sealer;
use handshakes::Handshakes;
pub use kernel::{Suites, probe};
pub(crate) use sending::Sealed;
use session::{Phase, Session, Violation};
pub use terms::{HandshakeEnd, HandshakeLimits, KernelEnd, Offer, Terms};

/// The sessions of a shard.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    /// None where no listener speaks TLS.
    terms: Option<Arc<Terms>>,
    /// By slot.
    sessions: Vec<Option<Box<Session>>>,
    handshakes: Handshakes,
    /// Where payload is decrypted to, one connection after the other.
    plain: Vec<u8>,
    /// Where payload is gathered before it is encrypted.
    gathered: Vec<u8>,
    /// Memory for records that no session has in use.
    spare: Vec<u8>,
}

/// Whether a session has something to send that the socket does not take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Flushed {
    /// Nothing.
    All,
    /// Something: [`Sender::flush`](crate::Sender::flush) when the socket takes bytes again.
    Blocked,
}

impl Layer {
    pub(crate) fn new(terms: Arc<Terms>) -> Self {
        Layer { terms: Some(terms), ..Layer::default() }
    }

    /// Whether records stand between this connection and the engine.
    pub(crate) fn has(&self, conn: ConnId) -> bool {
        self.get(conn).is_some()
    }

    fn get(&self, conn: ConnId) -> Option<&Session> {
        self.sessions.get(conn.index())?.as_deref().filter(|session| session.conn == conn)
    }

    /// A connection begins with a handshake. False where there are too many, and it has to be closed.
    pub(crate) fn begin(&mut self, conn: ConnId, now: Now) -> bool {
        let Some(terms) = &self.terms else { return false };
        let offer = terms.offer();
        if self.handshakes.count() >= offer.limits.in_progress_max {
            terms.note(HandshakeEnd::Refused);
            return false;
        }
        let Some(session) = Session::new(conn, Arc::clone(&offer.config), offer.kernel) else { return false };
        if self.sessions.len() <= conn.index() {
            self.sessions.resize_with(conn.index() + 1, || None);
        }
        self.sessions[conn.index()] = Some(Box::new(session));
        self.handshakes.begin(conn, now.monotonic_ns);
        terms.begin();
        true
    }

    /// Takes what was received, nothing for the peer's end, and hands what comes of it to `deliver`. What is part of a handshake waits
    /// for its [turn](Self::next_handshake).
    pub(crate) fn receive(
        &mut self,
        conn: ConnId,
        socket: BorrowedFd<'_>,
        data: &[u8],
        mut deliver: impl FnMut(Event<'_>),
    ) -> Flushed {
        let Layer { sessions, handshakes, .. } = self;
        let Some(session) = find(sessions, conn) else { return Flushed::All };
        session.has_ended |= data.is_empty();
        if session.phase == Phase::Refused {
            if data.is_empty() {
                deliver(Event::Received { conn, data });
            }
            return Flushed::All;
        }
        let received = session.receive(data);
        if session.is_handshaking() && received.is_ok() && (!data.is_empty() || session.is_waiting) {
            if !std::mem::replace(&mut session.is_waiting, true) {
                handshakes.wait(conn);
            }
            return Flushed::All;
        }
        self.advance(conn, socket, received, deliver)
    }

    /// Whose handshake is to go on in this loop. Call until there is none.
    pub(crate) fn next_handshake(&mut self) -> Option<ConnId> {
        loop {
            let conn = self.handshakes.next_waiting()?;
            if let Some(session) = find(&mut self.sessions, conn).filter(|session| session.is_handshaking()) {
                session.is_waiting = false;
                return Some(conn);
            }
        }
    }

    /// Lets the handshake go on whose turn it is.
    pub(crate) fn handshake(
        &mut self,
        conn: ConnId,
        socket: BorrowedFd<'_>,
        deliver: impl FnMut(Event<'_>),
    ) -> Flushed {
        let began = clock::now();
        let flushed = self.advance(conn, socket, Ok(()), deliver);
        self.handshakes.spent(clock::now().monotonic_ns.saturating_sub(began.monotonic_ns));
        flushed
    }

    /// The next connection whose handshake has taken too long, or that does not go although it was refused.
    pub(crate) fn next_overdue(&mut self, now: Now) -> Option<ConnId> {
        let sessions = &self.sessions;
        let is_over = |conn: ConnId| {
            let session = sessions.get(conn.index()).and_then(Option::as_deref);
            !session.is_some_and(|session| session.conn == conn && session.phase != Phase::Open)
        };
        let timeout_ns = u64::try_from(self.terms.as_ref()?.timeout().as_nanos()).unwrap_or(u64::MAX);
        let until_ns = now.monotonic_ns.checked_sub(timeout_ns)?;
        let conn = self.handshakes.next_overdue(until_ns, is_over)?;
        if self.get(conn).is_some_and(Session::is_handshaking) {
            self.note(HandshakeEnd::TimedOut);
        }
        Some(conn)
    }

    fn advance(
        &mut self,
        conn: ConnId,
        socket: BorrowedFd<'_>,
        received: Result<(), Violation>,
        mut deliver: impl FnMut(Event<'_>),
    ) -> Flushed {
        let Layer { terms, sessions, handshakes, plain, spare, .. } = self;
        let (Some(session), Some(terms)) = (find(sessions, conn), terms) else { return Flushed::All };
        plain.clear();
        session.outgoing.share(spare);
        let was_handshaking = session.is_handshaking();
        let is_plain_http = received.is_ok() && session.is_plain_http();
        let mut is_broken = false;
        if is_plain_http {
            terms.note(HandshakeEnd::PlainHttp);
            session.refuse_plain_http();
        } else if received.and_then(|()| session.advance(plain)).is_err() {
            is_broken = !was_handshaking;
            if was_handshaking {
                terms.note(HandshakeEnd::Failed);
            }
            session.refuse();
        } else if was_handshaking && session.phase == Phase::Open {
            terms.note(if session.is_resumed() { HandshakeEnd::Resumed } else { HandshakeEnd::Full });
            handshakes.leave();
            terms.leave();
        } else if was_handshaking && session.has_ended {
            terms.note(HandshakeEnd::Failed);
            session.refuse();
        }
        let flushed = sending::flush(session, socket, 0);
        session.outgoing.share(spare);
        let is_spent = session.is_spent();
        if is_spent {
            terms.note_kernel(KernelEnd::Spent);
        }
        let has_ended = session.has_ended || is_spent;
        if !plain.is_empty() {
            deliver(Event::Received { conn, data: plain });
        }
        if is_broken || flushed.end == crate::sender::End::Broken {
            deliver(Event::Broken { conn });
        } else if has_ended {
            deliver(Event::Received { conn, data: &[] });
        }
        flushed.as_flushed()
    }

    fn note(&self, end: HandshakeEnd) {
        if let Some(terms) = &self.terms {
            terms.note(end);
        }
    }

    /// A connection is closed.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        let Some(slot) = self.sessions.get_mut(conn.index()) else { return };
        let Some(session) = slot.take_if(|session| session.conn == conn) else { return };
        if session.has_been_open {
            return;
        }
        self.handshakes.leave();
        if let Some(terms) = &self.terms {
            terms.leave();
        }
    }

    /// A loop begins.
    pub(crate) fn begin_turn(&mut self) {
        self.handshakes.begin_turn();
    }

    /// When there is something to do although nothing happens, in monotonic nanoseconds.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.handshakes.deadline_ns()
    }
}

fn find(sessions: &mut [Option<Box<Session>>], conn: ConnId) -> Option<&mut Session> {
    sessions.get_mut(conn.index())?.as_deref_mut().filter(|session| session.conn == conn)
}
