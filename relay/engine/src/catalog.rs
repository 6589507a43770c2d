//! The contents that a shard knows, under all their names. Each shard has its own, kept up by news, so a look-up waits for nobody.

use foldhash::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_proto::id::{ContentId, ContentName, InfoHashV1};
use millrace_proto::peer::mse::SkeyHash;

/// Contents by id and by infohash.
#[derive(Debug, Default)]
pub struct Catalog {
    contents: HashMap<ContentId, Arc<Content>>,
    /// What handshakes carry (see [`Content::swarm_names`]), and who has that name. Those who share one have the same bytes.
    swarms: HashMap<InfoHashV1, Vec<ContentId>>,
    /// The keys of `swarms`, by what encrypted handshakes carry of them.
    skeys: HashMap<SkeyHash, InfoHashV1>,
    edition: u64,
}

impl Catalog {
    /// Adds a content, or what has become of it.
    pub fn put(&mut self, content: Arc<Content>) {
        self.edition += 1;
        for infohash in content.swarm_names() {
            let named = self.swarms.entry(infohash).or_insert_with(|| {
                self.skeys.insert(SkeyHash::of(&infohash.0), infohash);
                Vec::new()
            });
            if !named.contains(&content.id()) {
                named.push(content.id());
            }
        }
        self.contents.insert(content.id(), content);
    }

    /// Forgets a content.
    pub fn remove(&mut self, id: ContentId) -> Option<Arc<Content>> {
        let content = self.contents.remove(&id)?;
        self.edition += 1;
        for infohash in content.swarm_names() {
            let Some(named) = self.swarms.get_mut(&infohash) else { continue };
            named.retain(|other| *other != id);
            if named.is_empty() {
                self.swarms.remove(&infohash);
                self.skeys.remove(&SkeyHash::of(&infohash.0));
            }
        }
        Some(content)
    }

    /// A number that is another one after each change, so that what was found can be kept until then.
    #[must_use]
    pub fn edition(&self) -> u64 {
        self.edition
    }

    /// The content of this id.
    #[must_use]
    pub fn by_id(&self, id: ContentId) -> Option<&Arc<Content>> {
        self.contents.get(&id)
    }

    /// The content under any of its names. Of several that share one, which have the same bytes, it is one that admits this client if
    /// any does; whether it does is still to be asked.
    #[must_use]
    pub fn by_name(&self, name: ContentName, client: IpAddr) -> Option<&Arc<Content>> {
        match name {
            ContentName::Id(id) => self.by_id(id),
            ContentName::V1(v1) => self.named(v1, client, |_| true),
            ContentName::V2(v2) => self.named(v2.truncated(), client, |content| {
                content.metainfo().is_some_and(|metainfo| metainfo.infohash_v2() == Some(v2))
            }),
        }
    }

    /// A content whose v1 infohash, or truncated v2 infohash, this is, and which admits this peer.
    #[must_use]
    pub fn by_infohash(&self, infohash: InfoHashV1, peer: IpAddr) -> Option<&Arc<Content>> {
        self.named(infohash, peer, |_| true).filter(|content| content.admits(peer))
    }

    fn named(
        &self,
        infohash: InfoHashV1,
        client: IpAddr,
        is_meant: impl Fn(&Content) -> bool,
    ) -> Option<&Arc<Content>> {
        let named = self.swarms.get(&infohash)?.iter().rev().filter_map(|id| self.by_id(*id));
        let mut named = named.filter(|content| is_meant(content)).peekable();
        let last = named.peek().copied();
        named.find(|content| content.admits(client)).or(last)
    }

    /// The infohash of a content here that admits this peer, from its hash in an encrypted handshake.
    #[must_use]
    pub fn infohash_of(&self, skey: SkeyHash, peer: IpAddr) -> Option<InfoHashV1> {
        self.skeys.get(&skey).copied().filter(|infohash| self.by_infohash(*infohash, peer).is_some())
    }
}

#[cfg(test)]
mod tests {
    use millrace_pagecache::NewContent;
    use millrace_pagecache::layout::Layout;
    use millrace_proto::merkle::PieceHash;
    use millrace_proto::metainfo::{Builder, plan_files};

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_swarm_outlives_one_of_two_who_have_it() {
        let plan = plan_files("file", 16_384, &[(vec![], 5)]).unwrap();
        let hash = PieceHash { v1: Some([1; 20]), v2: Some([2; 32]) };
        let metainfo = Arc::new(Builder::new(plan).build(&[hash]).unwrap());
        let infohash = metainfo.infohash_v1().unwrap();
        let mut catalog = Catalog::default();
        for number in [1, 2] {
            let new = NewContent::with_metainfo(ContentId([number; 16]), Arc::clone(&metainfo), "\"e\"");
            let layout = Layout::from_info(&metainfo.info).unwrap();
            catalog.put(Content::simulated(new, layout, Box::new(|_, _| {})));
        }
        for (gone, left) in [(2, Some(1)), (1, None)] {
            catalog.remove(ContentId([gone; 16]));
            let found = catalog.by_infohash(infohash, PEER).map(|content| content.id().0[0]);
            assert_eq!(found, left, "after {gone} is gone");
            let named = catalog.infohash_of(SkeyHash::of(&infohash.0), PEER);
            assert_eq!(named, left.map(|_| infohash), "by its hash, after {gone} is gone");
        }
        assert!(catalog.swarms.is_empty() && catalog.skeys.is_empty());
    }
}
