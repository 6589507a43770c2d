//! The opening of a connection: which content the peer wants, and our side of the handshake (BEP 3).

use std::sync::Arc;

use millrace_pagecache::content::{Content, State};
use millrace_proto::id::InfoHashV1;
use millrace_proto::peer::handshake::{HANDSHAKE_BYTES, Handshake, Opening, Progress, Reserved};

use crate::counters::Reason;
use crate::session::{Context, End};

/// A handshake that is arriving.
#[derive(Debug)]
pub(super) struct Handshaking {
    received: [u8; HANDSHAKE_BYTES],
    count: usize,
    /// Set once the peer has named it, and was answered.
    content: Option<Arc<Content>>,
}

/// What has come of a handshake so far.
#[derive(Debug)]
pub(super) enum Heard {
    /// Some of it is still to come.
    More,
    /// Both sides have made it.
    Opened(Opened),
    /// It is none.
    Foreign,
}

/// A handshake that both sides have made.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) content: Arc<Content>,
    pub(super) handshake: Handshake,
}

impl Handshaking {
    pub(super) fn new() -> Self {
        Handshaking { received: [0; HANDSHAKE_BYTES], count: 0, content: None }
    }

    /// What has arrived.
    pub(super) fn received(&self) -> &[u8] {
        &self.received[..self.count]
    }

    /// Takes the next bytes of the handshake off the front of `data`.
    pub(super) fn handle(&mut self, cx: &mut Context<'_>, data: &mut &[u8]) -> Result<Heard, End> {
        let (now, later) = data.split_at(data.len().min(HANDSHAKE_BYTES - self.count));
        self.received[self.count..self.count + now.len()].copy_from_slice(now);
        self.count += now.len();
        *data = later;

        let received = &self.received[..self.count];
        let progress = Handshake::parse(received);
        if progress == Progress::NotBitTorrent {
            return Ok(Heard::Foreign);
        }
        if self.content.is_none()
            && let Some(opening) = Opening::parse(received)
        {
            // BEP 3: answered before the peer id came, for which some wait.
            self.content = Some(answer(cx, &opening)?);
        }
        let Progress::Whole(handshake) = progress else { return Ok(Heard::More) };
        if handshake.peer_id == cx.shared.identity.peer_id {
            // Our own address, learned from a tracker.
            return Err(End::Now(Reason::NothingToDo));
        }
        Ok(self.content.take().map_or(Heard::More, |content| Heard::Opened(Opened { content, handshake })))
    }
}

/// Finds the content and queues our handshake, under the infohash that the peer used or upgrades to.
///
/// BEP 52, upgrade path: who asks for a hybrid by v1 and speaks v2 is answered with the v2 infohash. That is more than a courtesy:
/// libtorrent (2.0.8 and 2.1.1) checks our answer against what it knows of us by then. If its tracker named us in the v2 swarm too since it
/// called, it takes the v1 infohash for a mistake, leaves, and stays away for a minute.
fn answer(cx: &mut Context<'_>, opening: &Opening) -> Result<Arc<Content>, End> {
    let asked = InfoHashV1(opening.infohash);
    let content = cx.shared.catalog.by_infohash(asked, cx.peer.ip());
    let content = content.filter(|content| is_offered(content) && cx.admits(content));
    let content = Arc::clone(content.ok_or(End::Now(Reason::UnknownTorrent))?);
    let mut reserved = Reserved::default().with_fast().with_extension_protocol();
    if content.metainfo_of_swarm(asked).is_some_and(|metainfo| metainfo.info.v2) {
        reserved = reserved.with_v2();
    }
    let upgraded = content.v2_name_of(asked).filter(|_| opening.reserved.v2());
    let infohash = upgraded.unwrap_or(asked).0;
    let ours = Handshake { reserved, infohash, peer_id: cx.shared.identity.peer_id };
    cx.output.lease(&content);
    cx.output.push_bytes(&ours.encode());
    Ok(content)
}

/// Whether the content can have a swarm: it is there, and its metainfo cuts it into the pieces in which it is stored.
fn is_offered(content: &Content) -> bool {
    let layout = content.layout();
    content.state() != State::Removed
        && content.metainfo().is_some_and(|metainfo| {
            metainfo.info.piece_bytes == layout.piece_bytes() && metainfo.info.length == layout.length()
        })
}
