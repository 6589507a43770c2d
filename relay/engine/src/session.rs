//! What the two front ends have in common: what a session may touch while it handles an event, and how it ends.

use foldhash::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_proto::http::date::HttpDate;
use millrace_proto::id::ContentId;
use millrace_proto::peer::mse::KeyPair;

use crate::bittorrent::choker::Choker;
use crate::bittorrent::swarm::Swarm;
use crate::catalog::Catalog;
use crate::counters::{Counters, Reason};
use crate::http::Prepared;
use crate::ids::{ConnId, Now, ShardId};
use crate::ledger::Ledger;
use crate::ledger::gate::Gate;
use crate::limits::Limits;
use crate::op::{Op, Ops};
use crate::output::Output;

/// What every session of a shard shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) shard: ShardId,
    pub(crate) limits: Arc<Limits>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) catalog: Catalog,
    pub(crate) parked: Parked,
    pub(crate) swarms: HashMap<ContentId, Swarm>,
    pub(crate) choker: Choker,
    pub(crate) identity: Identity,
    pub(crate) random: Random,
    /// For message stream encryption, once somebody needed it.
    pub(crate) keys: Option<KeyPair>,
    pub(crate) draining: bool,
    pub(crate) prepared: Prepared,
    /// Where heads are written before they are queued: kept, since clearing it anew would cost more than writing the head.
    pub(crate) head: Vec<u8>,
    /// The `Date` of answers.
    pub(crate) date: HttpDate,
}

impl Shared {
    /// `Date` of an answer given now, formatted once a second.
    pub(crate) fn date(&mut self, now: Now) -> &HttpDate {
        if self.date.unix_seconds() != now.unix_s {
            self.date = HttpDate::from_unix(now.unix_s);
        }
        &self.date
    }
}

/// How this relay presents itself to peers.
#[derive(Debug, Clone)]
pub struct Identity {
    /// BitTorrent peer id, the same on every shard.
    pub peer_id: [u8; 20],
    /// Client name in the extension handshake (BEP 10 `v`).
    pub agent: String,
    /// BitTorrent listening port (BEP 10 `p`).
    pub port: u16,
}

/// Readers that wait for bytes on their way, by content.
#[derive(Debug, Default)]
pub(crate) struct Parked(HashMap<ContentId, Vec<ConnId>>);

impl Parked {
    /// Adds a reader. It must look again at what is visible after this (see [`Content::park`]).
    pub(crate) fn add(&mut self, shard: ShardId, content: &Content, conn: ConnId) {
        let waiting = self.0.entry(content.id()).or_default();
        // Who held the slot before is gone: so the list is never longer than the table of connections.
        waiting.retain(|held| held.slot() != conn.slot());
        waiting.push(conn);
        content.park(u32::from(shard.0));
    }

    /// Takes all who wait for a content; those that still have to wait park again.
    pub(crate) fn take(&mut self, content: ContentId) -> Vec<ConnId> {
        self.0.remove(&content).unwrap_or_default()
    }
}

/// Pseudo-random numbers from the seed that the shard was given (xorshift64*, Vigna 2016). For choices, not for secrets.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// What a session may touch while it handles one event.
pub(crate) struct Context<'a> {
    pub(crate) now: Now,
    pub(crate) conn: ConnId,
    pub(crate) peer: SocketAddr,
    pub(crate) shared: &'a mut Shared,
    pub(crate) output: &'a mut Output,
    pub(crate) ops: &'a mut Ops,
}

impl Context<'_> {
    /// Makes the session wait until bytes at `offset` are visible, and tells ingest that somebody waits. Returns the end of what
    /// has become visible meanwhile, so a reader that just missed the news does not wait for the next.
    pub(crate) fn park(&mut self, content: &Content, offset: u64, end: u64) -> u64 {
        self.shared.parked.add(self.shared.shard, content, self.conn);
        let visible = content.visible_until(offset, end);
        if visible == offset {
            self.ops.push(Op::Demand { content: content.id(), offset, bytes: end - offset });
        }
        visible
    }
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// After what is queued went out; what the peer still sends is discarded for a while, so that our last bytes reach it.
    AfterOutput(Reason),
    /// At once, and the peer can tell that the answer was cut.
    Reset(Reason),
    /// At once.
    Now(Reason),
}

/// Whether a session goes on.
pub(crate) type Step = Result<(), End>;

#[cfg(test)]
mod tests {
    use millrace_pagecache::layout::Layout;
    use millrace_pagecache::new_content::NewContent;

    use super::*;

    #[test]
    fn readers_that_come_and_go_do_not_pile_up() {
        let id = ContentId([1; 16]);
        let new = NewContent::growing(id, "file", "\"tag\"");
        let content = Content::simulated(new, Layout::growing("file"), Box::new(|_, _| {}));
        let mut parked = Parked::default();
        for generation in 0..100 {
            parked.add(ShardId(0), &content, ConnId::new(generation % 3, generation));
        }
        let waiting: Vec<u32> = parked.take(id).iter().map(|conn| conn.generation()).collect();
        assert_eq!(waiting, [97, 98, 99]);
    }
}
