//! The peers of one content on one shard, and what they were told it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_pagecache::layout::PieceIndex;
use millrace_proto::id::ContentId;
use millrace_proto::merkle::{Hash, Tree};
use millrace_proto::peer::bitfield;

use crate::ids::{ConnId, ShardId};
use crate::session::Shared;

/// A swarm exists while it has members.
#[derive(Debug)]
pub(crate) struct Swarm {
    content: Arc<Content>,
    members: Vec<ConnId>,
    /// The pieces that members were told of, or will be, as a bitfield (BEP 3). A new member gets this and not what the content has by
    /// then: so each piece is announced to each member exactly once, by the bitfield or by the news that adds it here.
    announced: Vec<u8>,
    /// Pieces that are not in `announced`.
    missing: u32,
    /// Hash trees that somebody asked for, above the piece layers; by root.
    pub(super) trees: BTreeMap<Hash, Tree>,
}

impl Swarm {
    /// Listens first and looks then: a piece that is verified in between comes as news and is found here already.
    fn new(content: &Arc<Content>, shard: ShardId) -> Self {
        content.listen(u32::from(shard.0));
        let piece_count = content.layout().piece_count();
        let mut announced = vec![0; usize::try_from(bitfield::bytes(piece_count)).unwrap_or(0)];
        for piece in (0..piece_count).filter(|piece| content.has_piece(PieceIndex(*piece))) {
            bitfield::insert(&mut announced, piece);
        }
        let missing = piece_count - announced.iter().map(|byte| byte.count_ones()).sum::<u32>();
        Swarm {
            content: Arc::clone(content),
            members: Vec::new(),
            announced,
            missing,
            trees: BTreeMap::new(),
        }
    }

    /// The connections of this content, in the order in which they came as long as none has left.
    pub(crate) fn members(&self) -> Vec<ConnId> {
        self.members.clone()
    }

    /// Takes note of a piece. False when members know of it already, or there is no such piece.
    pub(crate) fn learn(&mut self, piece: PieceIndex) -> bool {
        let is_new = !bitfield::contains(&self.announced, piece.0)
            && piece.0 < self.content.layout().piece_count()
            && bitfield::insert(&mut self.announced, piece.0);
        self.missing -= u32::from(is_new);
        is_new
    }

    /// Whether members know, or will be told, of every piece.
    pub(crate) fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// What members were told of, as a bitfield with its spare bits clear.
    pub(super) fn announced(&self) -> &[u8] {
        &self.announced
    }
}

impl Shared {
    /// Adds a peer to the swarm of a content.
    pub(super) fn join_swarm(&mut self, content: &Arc<Content>, conn: ConnId) -> &Swarm {
        let shard = self.shard;
        let swarm = self.swarms.entry(content.id()).or_insert_with(|| Swarm::new(content, shard));
        if !Arc::ptr_eq(&swarm.content, content) {
            // The content got a new body. Members of the old one notice by themselves, and leave.
            swarm.content.unlisten(u32::from(shard.0));
            let members = std::mem::take(&mut swarm.members);
            *swarm = Swarm { members, ..Swarm::new(content, shard) };
        }
        swarm.members.push(conn);
        swarm
    }

    /// Takes a peer out of a swarm, and the swarm away with its last peer.
    pub(super) fn leave_swarm(&mut self, content: ContentId, conn: ConnId) {
        let Some(swarm) = self.swarms.get_mut(&content) else { return };
        swarm.members.retain(|member| *member != conn);
        if swarm.members.is_empty() {
            swarm.content.unlisten(u32::from(self.shard.0));
            self.swarms.remove(&content);
        }
    }
}
