//! What a shard wants done. A back end turns each operation into system calls, or into changes of a model.

use millrace_proto::id::ContentId;

use crate::ids::ConnId;

/// Operations that have been decided and not yet carried out, in order.
pub type Ops = Vec<Op>;

/// One operation. The enum is closed: a back end that handles every variant is complete.
#[derive(Debug)]
pub enum Op {
    /// Deliver what the peer sends, as [`Event::Received`](crate::event::Event::Received), until told otherwise. Accepted connections
    /// start paused.
    Receive {
        /// The connection.
        conn: ConnId,
    },
    /// Deliver nothing until the next `Receive`: the peer is ahead of us, and its bytes stay in the kernel.
    PauseReceive {
        /// The connection.
        conn: ConnId,
    },
    /// Send from [`Shard::output`](crate::shard::Shard::output) as much as the socket takes, at most `bytes_max`. Answered by exactly one
    /// [`Event::Sent`](crate::event::Event::Sent); at most one `Send` of a connection is under way.
    Send {
        /// The connection.
        conn: ConnId,
        /// The byte budget of this turn, at least 1.
        bytes_max: u64,
    },
    /// Finish sending (FIN) after what was sent; what the peer still sends is delivered.
    Shutdown {
        /// The connection.
        conn: ConnId,
    },
    /// Close the connection and free its slot. No event of it follows.
    Close {
        /// The connection.
        conn: ConnId,
        /// Abort with a reset, so that the reader cannot take what arrived for a whole body.
        reset: bool,
    },
    /// Somebody waits for these bytes: ingest fetches them next. Sent again while it still waits, so it may be dropped.
    Demand {
        /// The content.
        content: ContentId,
        /// First byte wanted, in the content's linear space.
        offset: u64,
        /// How many bytes will be wanted from there, as far as is known.
        bytes: u64,
    },
    /// A request that is not answered out of the store: the control thread answers it with
    /// [`News::Answer`](crate::event::News::Answer).
    Ask {
        /// The connection that waits.
        conn: ConnId,
        /// What was asked.
        question: Box<Question>,
    },
}

/// A request for a page, a document or the tracker, as the control thread needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The path as it was sent, still escaped. Of a `HEAD` the shard drops the body.
    pub path: String,
    /// The raw query, without `?`.
    pub query: Option<String>,
    /// Address of the asker.
    pub peer: std::net::IpAddr,
}
