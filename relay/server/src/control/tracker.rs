//! The built-in tracker: this relay's contents only. It answers with the relay itself and with whoever announced.
//!
//! Where the relay says it is: the IP address of `--public-url` where that names one, else the address that BitTorrent is bound to,
//! else loopback for an asker on this machine, else the first address of this machine that is not loopback; always of the asker's
//! family. An asker of a family that the relay has no address of gets the other peers only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_proto::tracker::swarm::{SwarmAnnounce, SwarmLimits, SwarmTable, UnknownInfohash};
use millrace_proto::tracker::{AnnounceAnswer, AnnounceEvent, SwarmCounts};
use ring::rand::{SecureRandom, SystemRandom};

/// Where the relay can be reached by BitTorrent.
#[derive(Debug, Clone)]
pub struct Reachable {
    /// The address of `--public-url`, when it is one.
    pub public: Option<IpAddr>,
    /// The listener; its port counts whatever the address.
    pub bound: SocketAddr,
    /// This machine's addresses that are not loopback.
    pub local: Vec<IpAddr>,
}

impl Reachable {
    /// What to tell somebody who asks from `asker`.
    #[must_use]
    pub fn address_for(&self, asker: IpAddr) -> Option<SocketAddr> {
        let asker = asker.to_canonical();
        let loopback: IpAddr =
            if asker.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let bound = Some(self.bound.ip()).filter(|ip| !ip.is_unspecified());
        let reachable_by_loopback = asker.is_loopback() && bound.is_none_or(|ip| ip == loopback);
        let candidates =
            [self.public.filter(|ip| !ip.is_unspecified()), reachable_by_loopback.then_some(loopback), bound];
        let local = self.local.iter().copied().filter(|_| bound.is_none());
        let ip = candidates.into_iter().flatten().chain(local).find(|ip| ip.is_ipv4() == asker.is_ipv4())?;
        Some(SocketAddr::new(ip, self.bound.port()))
    }
}

/// An announce without its transport.
#[derive(Debug, Clone, Copy)]
pub struct Announce {
    /// The swarm.
    pub infohash: [u8; 20],
    /// The peer's name for itself.
    pub peer_id: [u8; 20],
    /// Where the announce came from.
    pub ip: IpAddr,
    /// The port it named.
    pub port: u16,
    /// Bytes still to download.
    pub left: u64,
    /// What happened.
    pub event: AnnounceEvent,
    /// How many peers are wanted.
    pub numwant: Option<u32>,
}

/// The swarms of this relay's contents.
#[derive(Debug)]
pub struct Tracker {
    table: Mutex<SwarmTable>,
    reachable: Reachable,
    peer_id: [u8; 20],
    started: Instant,
    random: SystemRandom,
}

impl Tracker {
    /// A tracker without swarms.
    #[must_use]
    pub fn new(reachable: Reachable, peer_id: [u8; 20]) -> Self {
        Tracker {
            table: Mutex::new(SwarmTable::new(SwarmLimits::default())),
            reachable,
            peer_id,
            started: Instant::now(),
            random: SystemRandom::new(),
        }
    }

    /// Tracks a swarm from now on.
    pub fn register(&self, infohash: [u8; 20]) {
        self.table().register(infohash);
    }

    /// Forgets a swarm.
    pub fn unregister(&self, infohash: &[u8; 20]) {
        self.table().unregister(infohash);
    }

    /// Peers in all swarms.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.table().peer_count()
    }

    /// Forgets who has been silent for too long.
    pub fn expire(&self) {
        self.table().expire(self.started.elapsed());
    }

    /// Answers an announce. `relay_is_complete` is what the relay is counted as.
    ///
    /// # Errors
    /// The swarm is none of this relay's.
    pub fn announce(
        &self,
        announce: &Announce,
        relay_is_complete: bool,
    ) -> Result<AnnounceAnswer, UnknownInfohash> {
        let noted = SwarmAnnounce {
            infohash: announce.infohash,
            peer_id: announce.peer_id,
            address: SocketAddr::new(announce.ip, announce.port),
            left: announce.left,
            event: announce.event,
            numwant: announce.numwant,
        };
        let mut answer = self.table().announce(&noted, self.now(), self.seed())?;
        if announce.peer_id == self.peer_id {
            return Ok(answer);
        }
        if relay_is_complete {
            answer.complete = answer.complete.saturating_add(1);
        } else {
            answer.incomplete = answer.incomplete.saturating_add(1);
        }
        let wants_peers = announce.numwant != Some(0) && announce.event != AnnounceEvent::Stopped;
        if wants_peers && let Some(own) = self.reachable.address_for(announce.ip) {
            // First, because a UDP answer is cut at the end.
            answer.peers.retain(|peer| *peer != own);
            answer.peers.insert(0, own);
        }
        Ok(answer)
    }

    /// What is known about a swarm, the relay included; `None` when it is none of this relay's.
    pub fn scrape(&self, infohash: &[u8; 20], relay_is_complete: bool) -> Option<SwarmCounts> {
        let mut counts = self.table().scrape(infohash, self.now())?;
        let count = if relay_is_complete { &mut counts.complete } else { &mut counts.incomplete };
        *count = count.saturating_add(1);
        Some(counts)
    }

    fn table(&self) -> MutexGuard<'_, SwarmTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Which peers are chosen is nobody's secret: without randomness the choice is merely always the same.
    fn seed(&self) -> u64 {
        let mut bytes = [0; 8];
        let _ = self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reachable(public: Option<&str>, bound: &str) -> Reachable {
        Reachable {
            public: public.map(|ip| ip.parse().unwrap()),
            bound: bound.parse().unwrap(),
            local: vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
        }
    }

    #[track_caller]
    fn check(reachable: &Reachable, asker: &str, expected: Option<&str>) {
        assert_eq!(
            reachable.address_for(asker.parse().unwrap()),
            expected.map(|address| address.parse().unwrap())
        );
    }

    #[test]
    fn the_relay_names_an_address_of_the_askers_family() {
        let any = reachable(None, "[::]:6881");
        check(&any, "198.51.100.1", Some("192.0.2.10:6881"));
        check(&any, "::ffff:198.51.100.1", Some("192.0.2.10:6881"));
        check(&any, "2001:db8:1::1", Some("[2001:db8::10]:6881"));
        check(&any, "127.0.0.1", Some("127.0.0.1:6881"));
        check(&any, "::1", Some("[::1]:6881"));
        let public = reachable(Some("203.0.113.5"), "0.0.0.0:7000");
        check(&public, "198.51.100.1", Some("203.0.113.5:7000"));
        let bound = reachable(None, "192.0.2.77:7000");
        check(&bound, "127.0.0.1", Some("192.0.2.77:7000"));
        check(&bound, "2001:db8:1::1", None);
    }

    #[test]
    fn the_relay_is_among_the_peers_and_in_the_counts() {
        let tracker = Tracker::new(reachable(None, "[::]:6881"), *b"-MR0100-aaaaaaaaaaaa");
        let infohash = [7; 20];
        let mut announce = Announce {
            infohash,
            peer_id: [1; 20],
            ip: "198.51.100.1".parse().unwrap(),
            port: 5000,
            left: 10,
            event: AnnounceEvent::Started,
            numwant: None,
        };
        assert_eq!(tracker.announce(&announce, true), Err(UnknownInfohash));
        tracker.register(infohash);
        let answer = tracker.announce(&announce, true).unwrap();
        assert_eq!((answer.complete, answer.incomplete), (1, 1));
        assert_eq!(answer.peers, ["192.0.2.10:6881".parse().unwrap()]);
        announce.peer_id = [2; 20];
        announce.port = 5001;
        let answer = tracker.announce(&announce, false).unwrap();
        assert_eq!(answer.peers.len(), 2);
        assert_eq!((answer.complete, answer.incomplete), (0, 3));
        assert_eq!(tracker.scrape(&infohash, true).unwrap().complete, 1);
        announce.numwant = Some(0);
        assert!(tracker.announce(&announce, true).unwrap().peers.is_empty());
    }
}
