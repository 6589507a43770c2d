//! One connection, and the table of them.

use std::net::SocketAddr;

use super::Shard;
use super::deadlines::Deadline;
use super::path::Path;
use crate::bittorrent;
use crate::counters::Reason;
use crate::http;
use crate::ids::{ConnId, Now, Protocol};
use crate::op::{Op, Ops};
use crate::output::Output;
use crate::session::{Context, Step};

/// Whether a connection may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// Nothing queued.
    Idle,
    /// In the queue for a turn.
    Queued,
    /// A cap makes it wait.
    Capped,
    /// A `Send` is under way, for which the caps granted this many bytes.
    Granted(u64),
    /// The socket takes no more.
    Blocked,
}

/// How far a connection's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// It is open.
    No,
    /// It ends after its output.
    AfterOutput(Reason),
    /// Our side is shut down; we wait for the peer's end, or for the deadline.
    Lingering(Reason),
}

#[derive(Debug)]
pub(super) enum Session {
    Http(http::Session),
    BitTorrent(Box<bittorrent::Session>),
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) peer: SocketAddr,
    pub(super) output: Output,
    pub(super) sending: Sending,
    /// The caps it is under.
    pub(super) path: Path,
    pub(super) closing: Closing,
    /// Set while the socket is blocked or the connection lingers; otherwise the session's own deadline counts.
    pub(super) stall: Option<Deadline>,
    pub(super) session: Session,
}

impl Shard {
    pub(super) fn accept(
        &mut self,
        now: Now,
        id: ConnId,
        protocol: Protocol,
        peer: SocketAddr,
        ops: &mut Ops,
    ) {
        let shared = &mut self.shared;
        // What comes over HTTP was accepted on its way into the drain, and nobody else will answer it.
        let refusal = if shared.draining && protocol == Protocol::BitTorrent {
            Some(Reason::Draining)
        } else if !shared.ledger.addresses.enter(peer.ip(), shared.limits.connections_per_address_max) {
            Some(Reason::TooManyFromAddress)
        } else {
            None
        };
        if let Some(reason) = refusal {
            shared.counters.close(reason);
            ops.push(Op::Close { conn: id, reset: false });
            return;
        }
        let session = match protocol {
            Protocol::Http => {
                shared.counters.accepted_http.increment();
                shared.counters.connections_http.increment();
                Session::Http(http::Session::new(now, shared))
            }
            Protocol::BitTorrent => {
                shared.counters.accepted_bittorrent.increment();
                shared.counters.connections_bittorrent.increment();
                Session::BitTorrent(Box::new(bittorrent::Session::new(now, &shared.limits)))
            }
        };
        let conn = Conn {
            id,
            peer,
            output: Output::default(),
            sending: Sending::Idle,
            path: Path::default(),
            closing: Closing::No,
            stall: None,
            session,
        };
        let slot = &mut self.conns[id.index()];
        assert!(slot.is_none(), "the back end accepted into slot {} that is in use", id.slot());
        *slot = Some(Box::new(conn));
        self.open += 1;
        ops.push(Op::Receive { conn: id });
    }

    pub(super) fn close(&mut self, id: ConnId, reason: Reason, reset: bool, ops: &mut Ops) {
        let Some(mut conn) =
            self.conns.get_mut(id.index()).and_then(|slot| slot.take_if(|conn| conn.id == id))
        else {
            return;
        };
        self.open -= 1;
        let shared = &mut self.shared;
        if let Sending::Granted(granted) = conn.sending {
            conn.path.give_back(granted, self.waits.per_connection());
        }
        shared.ledger.addresses.leave(conn.peer.ip());
        shared.counters.close(reason);
        match conn.session {
            Session::Http(_) => shared.counters.connections_http.decrement(),
            Session::BitTorrent(peer) => {
                shared.counters.connections_bittorrent.decrement();
                peer.leave(id, shared);
            }
        }
        ops.push(Op::Close { conn: id, reset });
    }

    /// Bytes of memory that a connection holds, besides its place in the table.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self, id: ConnId) -> Option<usize> {
        let conn = self.conn(id)?;
        let session = match &conn.session {
            Session::Http(http) => http.held_bytes(),
            Session::BitTorrent(peer) => size_of::<bittorrent::Session>() + peer.held_bytes(),
        };
        Some(size_of::<Conn>() + conn.output.held_bytes() + session)
    }

    pub(super) fn open_ids(&self) -> Vec<ConnId> {
        self.conns.iter().flatten().map(|conn| conn.id).collect()
    }

    pub(super) fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.conns.get(id.index())?.as_deref().filter(|conn| conn.id == id)
    }

    pub(super) fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.index())?.as_deref_mut().filter(|conn| conn.id == id)
    }
}

impl Session {
    pub(super) fn refill(&mut self, cx: &mut Context<'_>) -> Step {
        match self {
            Session::Http(http) => http.refill(cx),
            Session::BitTorrent(peer) => peer.refill(cx),
        }
    }
}
