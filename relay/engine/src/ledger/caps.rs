//! Caps on what is sent: a bucket for each class of connections that has one, and which classes a connection is in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_proto::admin::caps::{Cap, Cidr, EffectiveCaps};
use millrace_proto::id::ContentId;

use super::bucket::Bucket;
use super::networks::Networks;
use crate::ids::Protocol;

/// What a cap is about. The labels of `millrace_cap_bytes_per_second{scope}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Scope {
    /// Everything.
    Total,
    /// HTTP.
    Http,
    /// BitTorrent.
    BitTorrent,
    /// One content, over both protocols.
    Content,
    /// A group of client networks.
    Network,
    /// One connection.
    Connection,
}

impl Scope {
    /// All scopes, in the order of their numbers.
    pub const ALL: [(Scope, &'static str); 6] = [
        (Scope::Total, "total"),
        (Scope::Http, "http"),
        (Scope::BitTorrent, "bittorrent"),
        (Scope::Content, "content"),
        (Scope::Network, "network"),
        (Scope::Connection, "connection"),
    ];
}

/// Connections that share a cap.
#[derive(Debug)]
pub struct Class {
    /// What it is about.
    pub scope: Scope,
    /// The cap.
    pub bucket: Bucket,
    /// Connections that wait for it, on all shards.
    waiting: AtomicU64,
}

impl Class {
    fn new(scope: Scope, rate: u64) -> Self {
        Class { scope, bucket: Bucket::new(rate), waiting: AtomicU64::new(0) }
    }

    /// Connections that wait for it, on all shards.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// One more waits.
    pub(crate) fn enter(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// So many wait no longer.
    pub(crate) fn leave(&self, count: usize) {
        self.waiting.fetch_sub(count as u64, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Total,
    Http,
    BitTorrent,
    Content(ContentId),
    Network(Vec<Cidr>),
}

/// All caps on what is sent. What has no cap is not in it.
#[derive(Debug, Default)]
pub struct EgressCaps {
    classes: Vec<Arc<Class>>,
    numbers: HashMap<Key, u32>,
    networks: Networks,
    per_connection: Option<u64>,
}

impl EgressCaps {
    /// What `caps` says about egress. Caps that were there `before` go on with what they have granted.
    #[must_use]
    pub fn new(caps: &EffectiveCaps, before: &EgressCaps) -> Self {
        let egress = &caps.egress;
        let mut new = EgressCaps { per_connection: egress.per_connection.value, ..EgressCaps::default() };
        new.put(before, Key::Total, Scope::Total, egress.total);
        new.put(before, Key::Http, Scope::Http, egress.http);
        new.put(before, Key::BitTorrent, Scope::BitTorrent, egress.bittorrent);
        for (id, content) in &caps.contents {
            new.put(before, Key::Content(*id), Scope::Content, content.egress);
        }
        for group in &egress.networks {
            let key = Key::Network(group.cidr.clone());
            if let Some(number) = new.put(before, key, Scope::Network, group.total) {
                group.cidr.iter().for_each(|cidr| new.networks.add(*cidr, number));
            }
        }
        new
    }

    fn put(&mut self, before: &EgressCaps, key: Key, scope: Scope, cap: Cap) -> Option<u32> {
        let rate = cap.value?;
        let class = match before.class(&key) {
            Some(class) => Arc::clone(class),
            None => Arc::new(Class::new(scope, rate)),
        };
        class.bucket.set_rate(rate);
        let number = u32::try_from(self.classes.len()).ok()?;
        self.classes.push(class);
        self.numbers.insert(key, number);
        Some(number)
    }

    fn class(&self, key: &Key) -> Option<&Arc<Class>> {
        self.numbers.get(key).and_then(|number| self.classes.get(*number as usize))
    }

    /// Whether there is no cap at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty() && self.per_connection.is_none()
    }

    /// All classes, by number.
    #[must_use]
    pub fn classes(&self) -> &[Arc<Class>] {
        &self.classes
    }

    /// Bytes a second of each connection.
    #[must_use]
    pub fn per_connection(&self) -> Option<u64> {
        self.per_connection
    }

    /// The rate of the one class of this scope; of contents, networks and connections there is none.
    #[must_use]
    pub fn rate(&self, scope: Scope) -> Option<u64> {
        let key = match scope {
            Scope::Total => Key::Total,
            Scope::Http => Key::Http,
            Scope::BitTorrent => Key::BitTorrent,
            Scope::Connection => return self.per_connection,
            Scope::Content | Scope::Network => return None,
        };
        self.class(&key).map(|class| class.bucket.rate())
    }

    /// The numbers of the classes that a client of this protocol and address is in, whatever it asks for: everything, the protocol, and
    /// every group of networks that contains the address.
    #[must_use]
    pub(crate) fn of_client(&self, protocol: Protocol, address: IpAddr) -> Vec<u32> {
        let protocol = match protocol {
            Protocol::Http => Key::Http,
            Protocol::BitTorrent => Key::BitTorrent,
        };
        let shared = [Key::Total, protocol].into_iter().filter_map(|key| self.numbers.get(&key).copied());
        shared.chain(self.networks.of(address)).collect()
    }

    /// The number of the class of a content.
    #[must_use]
    pub(crate) fn of_content(&self, content: ContentId) -> Option<u32> {
        self.numbers.get(&Key::Content(content)).copied()
    }
}

#[cfg(test)]
mod tests {
    use millrace_proto::admin::caps::effective::{EffectiveContent, EffectiveNetwork};

    use super::*;

    fn cap(value: u64) -> Cap {
        Cap { value: Some(value), source: None }
    }

    fn content(number: u8) -> ContentId {
        ContentId([number; 16])
    }

    /// Everything may send 1,000, HTTP 500, two overlapping networks 10 and 20, content 7 a single byte.
    fn caps() -> EffectiveCaps {
        let mut caps = EffectiveCaps::default();
        caps.egress.total = cap(1_000);
        caps.egress.http = cap(500);
        for (cidr, total) in [("10.0.0.0/8", 10), ("10.1.0.0/16", 20)] {
            caps.egress
                .networks
                .push(EffectiveNetwork { cidr: vec![cidr.parse().unwrap()], total: cap(total) });
        }
        caps.contents.insert(content(7), EffectiveContent { egress: cap(1), priority: None });
        caps.contents.insert(content(8), EffectiveContent::default());
        caps
    }

    #[track_caller]
    fn check(protocol: Protocol, address: &str, of: u8, expected: &[u64]) {
        let caps = EgressCaps::new(&caps(), &EgressCaps::default());
        let numbers = caps.of_client(protocol, address.parse().unwrap());
        let numbers = numbers.into_iter().chain(caps.of_content(content(of)));
        let rates: Vec<u64> = numbers.map(|number| caps.classes()[number as usize].bucket.rate()).collect();
        assert_eq!(rates, expected, "{protocol:?} {address}");
    }

    #[test]
    fn a_connection_is_in_every_class_that_fits_it() {
        check(Protocol::Http, "10.1.0.1", 7, &[1_000, 500, 10, 20, 1]);
        check(Protocol::BitTorrent, "10.2.0.1", 8, &[1_000, 10]);
        check(Protocol::BitTorrent, "192.0.2.1", 9, &[1_000]);
    }

    #[test]
    fn a_cap_that_stays_is_the_same_bucket_with_another_rate() {
        let before = EgressCaps::new(&caps(), &EgressCaps::default());
        let mut changed = caps();
        changed.egress.total = cap(2_000);
        changed.egress.http = Cap::default();
        let after = EgressCaps::new(&changed, &before);
        assert!(Arc::ptr_eq(&before.classes()[0], &after.classes()[0]));
        assert_eq!((before.rate(Scope::Total), after.rate(Scope::Total)), (Some(2_000), Some(2_000)));
        assert_eq!((after.rate(Scope::Http), after.classes().len()), (None, 4));
        assert!(!after.is_empty() && EgressCaps::new(&EffectiveCaps::default(), &after).is_empty());
    }
}
