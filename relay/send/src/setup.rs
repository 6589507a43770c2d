//! What a back end is given to run a shard with, and what it hands outward.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use millrace_engine::counters::Counters;
use millrace_engine::ids::{ConnId, Protocol, ShardId};
use millrace_engine::op::Question;
use millrace_engine::shard::Shard;
use millrace_proto::id::ContentId;

use crate::mailbox::Mailbox;
use crate::sender::Sender;

/// What the connections of a listener speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// BitTorrent.
    BitTorrent,
}

impl Front {
    /// What the engine hears, to which records are unknown.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        match self {
            Front::Http | Front::Https => Protocol::Http,
            Front::BitTorrent => Protocol::BitTorrent,
        }
    }
}

/// Everything one shard's loop owns.
#[derive(Debug)]
pub struct Setup {
    /// The shard's number.
    pub id: ShardId,
    /// The state machine.
    pub shard: Shard,
    /// Connection slots: the shard's `limits.connections_max`. Slot numbers stay below it.
    pub connections_max: u32,
    /// The CPU to run on, from 0; none leaves it to the scheduler.
    pub core: Option<usize>,
    /// Listening sockets, as [`socket::make_listener`](crate::socket::make_listener) makes them.
    pub listeners: Vec<(OwnedFd, Front)>,
    /// Where news for the shard arrives.
    pub mailbox: Mailbox,
    /// The shard's send path.
    pub sender: Sender,
    /// What the shard counts.
    pub counters: Arc<Counters>,
}

/// What a shard wants from outside: operations that no back end carries out itself. Called in the shard's loop, so it must not wait.
#[derive(Debug)]
pub enum Outward {
    /// Somebody waits for these bytes: ingest fetches them next. May be dropped, it comes again.
    Demand {
        /// The content.
        content: ContentId,
        /// First byte wanted, in the content's linear space.
        offset: u64,
        /// How many bytes will be wanted from there.
        bytes: u64,
    },
    /// A request for the control thread, which answers with `News::Answer`. Must not be dropped.
    Ask {
        /// The shard to answer to.
        shard: ShardId,
        /// The connection that waits.
        conn: ConnId,
        /// What was asked.
        question: Box<Question>,
    },
}
