//! What happened: the input of a shard.

use std::net::SocketAddr;
use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_pagecache::layout::{FileIndex, PieceIndex};
use millrace_proto::id::ContentId;

use crate::ids::{ConnId, Protocol};
use crate::ledger::caps::EgressCaps;
use crate::ledger::gate::Gate;
use crate::limits::Limits;

/// One event, delivered by a back end.
#[derive(Debug)]
pub enum Event<'a> {
    /// A peer connected. The back end chose a free slot.
    Accepted {
        /// Name of the new connection.
        conn: ConnId,
        /// The listener it came by.
        protocol: Protocol,
        /// The peer's address; IPv4-mapped addresses are given as IPv4.
        peer: SocketAddr,
    },
    /// The peer sent bytes; none at all means that it will send no more (FIN).
    Received {
        /// The connection.
        conn: ConnId,
        /// The bytes, valid for this call only.
        data: &'a [u8],
    },
    /// A `Send` ended.
    Sent {
        /// The connection.
        conn: ConnId,
        /// How it ended.
        outcome: Sent,
    },
    /// A blocked socket takes bytes again.
    Writable {
        /// The connection.
        conn: ConnId,
    },
    /// The connection is lost: reset by the peer, timed out, unreachable.
    Broken {
        /// The connection.
        conn: ConnId,
    },
    /// A message from outside the shard.
    News(News),
    /// Comes once a loop, after everything else: the shard hands out turns to send, and looks at its deadlines.
    Turn,
}

/// How a `Send` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// This many bytes of the output went out.
    Bytes {
        /// Count of bytes, 0 or more.
        bytes: u64,
        /// The socket takes no more for now: `Writable` will follow.
        blocked: bool,
    },
    /// The bytes cannot be had from the disk any more (read error, an import edited under us, a file that is gone). The connection
    /// is still usable, the answer is not.
    Unreadable,
    /// The socket is broken.
    Broken,
}

/// What other threads tell a shard.
#[derive(Debug)]
pub enum News {
    /// A content was added, or got a name (an infohash) or a new body. Replaces the one with the same id.
    Put(Arc<Content>),
    /// A content was removed.
    Gone(ContentId),
    /// More bytes of a content are visible, for those who parked.
    Arrived(ContentId),
    /// A piece was verified, for those who listen.
    Piece {
        /// The content.
        content: ContentId,
        /// The piece that may now be offered.
        piece: PieceIndex,
    },
    /// A content's state changed (paused, resumed, failed, complete).
    Changed(ContentId),
    /// The control thread's answer to an `Ask`.
    Answer {
        /// The connection that waits.
        conn: ConnId,
        /// The answer.
        answer: Answer,
    },
    /// The caps were changed.
    Caps(Arc<EgressCaps>),
    /// Who is let in was changed: it holds for whoever asks from now on, and for peers that are here.
    Gate(Arc<Gate>),
    /// Take no new connections, finish running answers, then close.
    Drain,
    /// Other times and counts; what sizes memory is as it was at start.
    Limits(Arc<Limits>),
}

/// What the control thread answers.
#[derive(Debug)]
pub enum Answer {
    /// A document made for this request.
    Document(Document),
    /// The request is for this file of this content (pull-through): the shard serves it as it would under `/c/`.
    File {
        /// The content, also put into the catalog.
        content: Arc<Content>,
        /// Which of its files.
        file: FileIndex,
    },
}

/// A small answer made on the spot.
#[derive(Debug, Clone)]
pub struct Document {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Further header fields.
    pub fields: Vec<(&'static str, String)>,
    /// The body.
    pub body: Arc<[u8]>,
}
