//! What other threads tell a shard, passed on to the connections that it concerns.

use millrace_proto::id::ContentId;

use super::Shard;
use super::connection::Session;
use crate::bittorrent;
use crate::event::News;
use crate::ids::Now;
use crate::op::Ops;
use crate::session::{Context, Step};

impl Shard {
    pub(super) fn news(&mut self, now: Now, news: News, ops: &mut Ops) {
        match news {
            News::Put(content) => {
                let id = content.id();
                self.shared.catalog.put(content);
                self.wake(now, id, ops);
            }
            News::Gone(id) => {
                self.shared.catalog.remove(id);
                self.wake(now, id, ops);
                self.for_swarm(now, id, ops, |peer, cx| peer.handle_gone(cx));
            }
            News::Arrived(id) => self.wake(now, id, ops),
            News::Changed(id) => {
                self.wake(now, id, ops);
                self.for_swarm(now, id, ops, bittorrent::Session::handle_changed);
            }
            News::Piece { content, piece } => {
                let Some(swarm) = self.shared.swarms.get_mut(&content) else { return };
                if swarm.learn(piece) {
                    let is_last = swarm.is_whole();
                    self.for_swarm(now, content, ops, |peer, cx| peer.handle_piece(cx, piece, is_last));
                }
            }
            News::Answer { conn, answer } => self.step(now, conn, ops, |session, cx| match session {
                Session::Http(http) => http.handle_answer(cx, answer),
                Session::BitTorrent(_) => Ok(()),
            }),
            News::Caps(caps) => {
                for id in self.waits.replace(caps) {
                    self.queue(id);
                }
            }
            News::Gate(gate) => self.shared.gate = gate,
            News::Drain => self.drain(now, ops),
            News::Limits(limits) => self.shared.limits = limits,
        }
    }

    /// Those who wait for bytes of a content look again.
    fn wake(&mut self, now: Now, content: ContentId, ops: &mut Ops) {
        for id in self.shared.parked.take(content) {
            self.step(now, id, ops, Session::refill);
        }
    }

    fn for_swarm(
        &mut self,
        now: Now,
        content: ContentId,
        ops: &mut Ops,
        mut act: impl FnMut(&mut bittorrent::Session, &mut Context<'_>) -> Step,
    ) {
        let members =
            self.shared.swarms.get(&content).map(bittorrent::swarm::Swarm::members).unwrap_or_default();
        for id in members {
            self.step(now, id, ops, |session, cx| match session {
                Session::BitTorrent(peer) => act(peer, cx),
                Session::Http(_) => Ok(()),
            });
        }
    }
}
