//! The BitTorrent front end: one session a peer, one swarm a content.

pub(crate) mod session;
pub(crate) mod swarm;

pub(crate) use session::Session;
