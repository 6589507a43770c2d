//! The BitTorrent front end: one [`session`] a connection, one [`swarm`] a content, one [`choker`] a shard.
//!
//! A connection is [handshaking](handshake), maybe behind [encryption](encryption), and then a [peer](peer). What it says is cut into messages by the [`inbox`]; blocks it
//! asks for wait in [`requests`] until the output ran empty, and are then queued in one batch by [`serve`]. This relay pulls
//! from origins and never from peers, so it asks nothing of them.

pub(crate) mod choker;
mod encryption;
mod extensions;
mod handshake;
mod hashes;
mod inbox;
mod outbox;
mod peer;
mod requests;
mod serve;
pub(crate) mod session;
pub(crate) mod swarm;

pub(crate) use session::Session;
