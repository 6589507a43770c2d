//! The memory of the built-in tracker: who is in which swarm, for how long, and who is told about whom.
//!
//! Pure: time is an argument, so is the seed of the random choice, and everything is bounded by [`SwarmLimits`].
//! A peer is the address its announce came from with the port it named; nothing else it claims is believed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::compact::Family;
use super::{AnnounceAnswer, AnnounceEvent, SwarmCounts};

/// Bounds of a table. A peer takes about 200 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwarmLimits {
    /// Peers in all swarms together.
    pub peers_max: usize,
    /// Peers in one swarm.
    pub swarm_peers_max: usize,
    /// Peers of one address (IPv4) or one /64 (IPv6) in one swarm, so that nobody fills it alone.
    pub address_peers_max: usize,
    /// Most peers in one answer.
    pub answer_peers_max: usize,
    /// Peers in an answer when the asker names no number.
    pub answer_peers_default: usize,
    /// The interval that answers name.
    pub interval: Duration,
    /// The minimal interval that answers name.
    pub min_interval: Duration,
    /// A peer that is silent for so long is forgotten; more than [`Self::interval`], or everybody would be.
    pub silence_max: Duration,
}

impl Default for SwarmLimits {
    fn default() -> Self {
        Self {
            peers_max: 200_000,
            swarm_peers_max: 20_000,
            address_peers_max: 32,
            answer_peers_max: 200,
            answer_peers_default: 50,
            interval: Duration::from_secs(30 * 60),
            min_interval: Duration::from_secs(60),
            silence_max: Duration::from_secs(45 * 60),
        }
    }
}

/// An announce, stripped of its transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwarmAnnounce {
    /// The swarm.
    pub infohash: [u8; 20],
    /// The peer's name for itself.
    pub peer_id: [u8; 20],
    /// Where the announce came from (not what it claims), with the port it named; 0 for a peer nobody can call.
    pub address: SocketAddr,
    /// Bytes still to download; 0 for a seed.
    pub left: u64,
    /// What happened.
    pub event: AnnounceEvent,
    /// How many peers are wanted.
    pub numwant: Option<u32>,
}

/// The infohash is not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown torrent")]
pub struct UnknownInfohash;

#[derive(Debug, Clone)]
struct Peer {
    peer_id: [u8; 20],
    complete: bool,
    seen: Duration,
}

/// Ordered, so that what a seed chooses does not depend on a hasher's mood.
#[derive(Debug, Default)]
struct Swarm {
    peers: BTreeMap<SocketAddr, Peer>,
    counts: SwarmCounts,
    /// No peer was seen earlier than this, so nothing expires before it is silent for too long.
    seen_earliest: Duration,
}

/// The swarms of the contents that this relay tracks.
#[derive(Debug)]
pub struct SwarmTable {
    limits: SwarmLimits,
    swarms: BTreeMap<[u8; 20], Swarm>,
    peer_count: usize,
}

impl SwarmTable {
    /// A table without swarms.
    #[must_use]
    pub fn new(limits: SwarmLimits) -> Self {
        Self { limits, swarms: BTreeMap::new(), peer_count: 0 }
    }

    /// Tracks this infohash from now on; one that is tracked already keeps its peers.
    pub fn register(&mut self, infohash: [u8; 20]) {
        self.swarms.entry(infohash).or_default();
    }

    /// Forgets this infohash and its peers.
    pub fn unregister(&mut self, infohash: &[u8; 20]) {
        if let Some(swarm) = self.swarms.remove(infohash) {
            self.peer_count -= swarm.peers.len();
        }
    }

    /// Peers in all swarms together.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.peer_count
    }

    /// Takes note of a peer and chooses others for it.
    ///
    /// `now` is any clock that does not run backwards; `seed` decides the choice. The answer holds peers of the
    /// asker's address family, never the asker, never peers that cannot be called, and for a seed no seeds. A peer
    /// for which there is no room gets an answer all the same.
    ///
    /// # Errors
    /// [`UnknownInfohash`] when the swarm is not registered.
    pub fn announce(
        &mut self,
        announce: &SwarmAnnounce,
        now: Duration,
        seed: u64,
    ) -> Result<AnnounceAnswer, UnknownInfohash> {
        let limits = self.limits;
        let swarm = self.swarms.get_mut(&announce.infohash).ok_or(UnknownInfohash)?;
        let before = swarm.peers.len();
        swarm.expire(now, limits.silence_max);
        let room = limits.peers_max.saturating_sub(self.peer_count - before + swarm.peers.len());
        let address = SocketAddr::new(announce.address.ip().to_canonical(), announce.address.port());
        swarm.note(announce, address, now, &limits, room > 0);
        self.peer_count = self.peer_count - before + swarm.peers.len();

        let wanted = match announce.numwant {
            _ if announce.event == AnnounceEvent::Stopped => 0,
            None => limits.answer_peers_default,
            Some(wanted) => usize::try_from(wanted).unwrap_or(usize::MAX),
        };
        let wanted = wanted.min(limits.answer_peers_max);
        Ok(AnnounceAnswer {
            interval_s: seconds(limits.interval),
            min_interval_s: Some(seconds(limits.min_interval)),
            complete: swarm.counts.complete,
            incomplete: swarm.counts.incomplete,
            peers: swarm.choose(announce, address, wanted, seed),
        })
    }

    /// What is known about a swarm; `None` when it is not registered.
    pub fn scrape(&mut self, infohash: &[u8; 20], now: Duration) -> Option<SwarmCounts> {
        let swarm = self.swarms.get_mut(infohash)?;
        let before = swarm.peers.len();
        swarm.expire(now, self.limits.silence_max);
        self.peer_count -= before - swarm.peers.len();
        Some(swarm.counts)
    }

    /// Forgets the silent peers of all swarms; once a minute keeps abandoned swarms from holding room.
    pub fn expire(&mut self, now: Duration) {
        for swarm in self.swarms.values_mut() {
            let before = swarm.peers.len();
            swarm.expire(now, self.limits.silence_max);
            self.peer_count -= before - swarm.peers.len();
        }
    }
}

impl Swarm {
    fn note(
        &mut self,
        announce: &SwarmAnnounce,
        address: SocketAddr,
        now: Duration,
        limits: &SwarmLimits,
        room: bool,
    ) {
        let complete = announce.left == 0;
        let known = self.peers.get(&address).cloned();
        if announce.event == AnnounceEvent::Stopped {
            // Somebody else behind the same address cannot take this peer away without knowing its name.
            if known.is_some_and(|peer| peer.peer_id == announce.peer_id) {
                self.remove(&address);
            }
            return;
        }
        let room = room && self.peers.len() < limits.swarm_peers_max;
        if known.is_none() && !(room && self.neighbours(address.ip()) < limits.address_peers_max) {
            return;
        }
        // A seed that says `completed` again, and one that was never seen downloading, completed nothing here.
        let finished = known.as_ref().is_some_and(|peer| !peer.complete) && complete;
        if finished && announce.event == AnnounceEvent::Completed {
            self.counts.downloaded = self.counts.downloaded.saturating_add(1);
        }
        self.remove(&address);
        self.seen_earliest = if self.peers.is_empty() { now } else { self.seen_earliest.min(now) };
        self.peers.insert(address, Peer { peer_id: announce.peer_id, complete, seen: now });
        *self.count_of(complete) += 1;
    }

    fn remove(&mut self, address: &SocketAddr) {
        if let Some(peer) = self.peers.remove(address) {
            *self.count_of(peer.complete) -= 1;
        }
    }

    fn count_of(&mut self, complete: bool) -> &mut u32 {
        if complete { &mut self.counts.complete } else { &mut self.counts.incomplete }
    }

    /// Peers that share the address, or for IPv6 the /64, which one customer holds.
    fn neighbours(&self, address: IpAddr) -> usize {
        let (first, last) = match address {
            IpAddr::V4(_) => (address, address),
            IpAddr::V6(v6) => {
                let rest = u128::from(u64::MAX);
                let prefix = v6.to_bits() & !rest;
                (IpAddr::V6(prefix.into()), IpAddr::V6((prefix | rest).into()))
            }
        };
        self.peers.range(SocketAddr::new(first, 0)..=SocketAddr::new(last, u16::MAX)).count()
    }

    fn expire(&mut self, now: Duration, silence_max: Duration) {
        if now.saturating_sub(self.seen_earliest) <= silence_max {
            return;
        }
        let counts = &mut self.counts;
        let mut seen_earliest = now;
        self.peers.retain(|_, peer| {
            let keep = now.saturating_sub(peer.seen) <= silence_max;
            if keep {
                seen_earliest = seen_earliest.min(peer.seen);
            } else if peer.complete {
                counts.complete -= 1;
            } else {
                counts.incomplete -= 1;
            }
            keep
        });
        self.seen_earliest = seen_earliest;
    }

    /// A uniform choice in one pass (reservoir sampling, Vitter's algorithm R).
    fn choose(
        &self,
        announce: &SwarmAnnounce,
        asker: SocketAddr,
        wanted: usize,
        seed: u64,
    ) -> Vec<SocketAddr> {
        let mut chosen: Vec<SocketAddr> = Vec::with_capacity(wanted.min(self.peers.len()));
        if wanted == 0 {
            return chosen;
        }
        let family = Family::of(asker.ip());
        let useful = self.peers.iter().filter(|(address, peer)| {
            Family::of(address.ip()) == family
                && address.port() != 0
                // The asker, as `note` has just written it down, or under an earlier port.
                && peer.peer_id != announce.peer_id
                && !(peer.complete && announce.left == 0)
        });
        let mut random = seed;
        for (met, (address, _)) in useful.enumerate() {
            if chosen.len() < wanted {
                chosen.push(*address);
            } else if let Some(place) = chosen.get_mut(below(met + 1, &mut random)) {
                *place = *address;
            }
        }
        chosen
    }
}

/// A number below `bound` (which is not 0) from SplitMix64; the bias of the remainder is at most 2^-32 here.
fn below(bound: usize, state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    u64::try_from(bound).ok().and_then(|bound| usize::try_from(mixed % bound).ok()).unwrap_or(0)
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
