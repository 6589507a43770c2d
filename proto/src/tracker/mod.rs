//! Tracker announces and scrapes over HTTP and UDP, from both sides (BEP 3, 7, 15, 23, 41, 48), and the swarm table
//! of the built-in tracker.
//!
//! The wire modules turn bytes into values and back; [`swarm::SwarmTable`] decides what the answers are.

use std::net::SocketAddr;

pub mod compact;
pub mod http;
pub mod query;
pub mod response;
pub mod swarm;
pub mod udp;

/// What happened at the peer (BEP 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AnnounceEvent {
    /// Nothing but time; the regular announce.
    #[default]
    Periodic,
    /// The last piece arrived.
    Completed,
    /// The download begins.
    Started,
    /// The peer leaves.
    Stopped,
}

/// What a tracker says about a swarm (BEP 48).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SwarmCounts {
    /// Peers with everything.
    pub complete: u32,
    /// Peers that still download.
    pub incomplete: u32,
    /// How often a download was completed, as far as the tracker knows.
    pub downloaded: u32,
}

/// What a tracker answers to an announce, over HTTP or UDP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnnounceAnswer {
    /// Seconds until the next regular announce.
    pub interval_s: u32,
    /// Seconds that must pass before any further announce; UDP has no word for it.
    pub min_interval_s: Option<u32>,
    /// Peers with everything.
    pub complete: u32,
    /// Peers that still download.
    pub incomplete: u32,
    /// Addresses to connect to.
    pub peers: Vec<SocketAddr>,
}
