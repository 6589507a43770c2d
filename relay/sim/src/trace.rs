//! A fingerprint of everything that went between a shard and its kernel, in order.

use millrace_engine::event::{Event, News, Sent};
use millrace_engine::ids::{ConnId, Now};
use millrace_engine::op::Op;

use crate::random::mix;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Trace(pub(crate) u64);

impl Trace {
    fn note(&mut self, kind: u64, conn: Option<ConnId>, number: u64) {
        let conn = conn.map_or(u64::MAX, |conn| u64::from(conn.slot()) << 32 | u64::from(conn.generation()));
        for word in [kind, conn, number] {
            self.0 = mix(self.0.rotate_left(5) ^ word);
        }
    }

    pub(crate) fn note_event(&mut self, now: Now, event: &Event<'_>) {
        match event {
            Event::Accepted { conn, .. } => self.note(1, Some(*conn), now.monotonic_ns),
            Event::Received { conn, data } => self.note(2, Some(*conn), fold(data)),
            Event::Sent { conn, outcome: Sent::Bytes { bytes, blocked } } => {
                self.note(3, Some(*conn), bytes << 1 | u64::from(*blocked));
            }
            Event::Sent { conn, .. } => self.note(4, Some(*conn), 0),
            Event::Writable { conn } => self.note(5, Some(*conn), 0),
            Event::Broken { conn } => self.note(6, Some(*conn), 0),
            Event::News(news) => self.note_news(news),
            Event::Turn => self.note(7, None, now.monotonic_ns),
        }
    }

    fn note_news(&mut self, news: &News) {
        let (kind, content) = match news {
            News::Put(content) => (20, Some(content.id())),
            News::Gone(id) => (21, Some(*id)),
            News::Arrived(id) => (22, Some(*id)),
            News::Piece { content, piece } => (30 + u64::from(piece.0), Some(*content)),
            News::Changed(id) => (23, Some(*id)),
            News::Answer { .. } => (24, None),
            News::Drain => (25, None),
            News::Limits(_) => (26, None),
            News::Caps(_) => (27, None),
            News::Gate(_) => (28, None),
        };
        self.note(kind, None, content.map_or(0, |id| fold(&id.0)));
    }

    pub(crate) fn note_op(&mut self, op: &Op) {
        match op {
            Op::Receive { conn } => self.note(11, Some(*conn), 0),
            Op::PauseReceive { conn } => self.note(12, Some(*conn), 0),
            Op::Send { conn, bytes_max } => self.note(13, Some(*conn), *bytes_max),
            Op::Shutdown { conn } => self.note(14, Some(*conn), 0),
            Op::Close { conn, reset } => self.note(15, Some(*conn), u64::from(*reset)),
            Op::Demand { offset, bytes, .. } => self.note(16, None, offset ^ bytes.rotate_left(32)),
            Op::Ask { conn, .. } => self.note(17, Some(*conn), 0),
        }
    }

    /// Bytes that a peer received.
    pub(crate) fn note_read(&mut self, conn: ConnId, bytes: &[u8]) {
        self.note(8, Some(conn), fold(bytes));
    }
}

fn fold(bytes: &[u8]) -> u64 {
    bytes.iter().fold(bytes.len() as u64, |sum, byte| sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(*byte))
}
