//! The contents that a shard knows, under all their names. Each shard has its own, kept up by news, so a look-up waits for nobody.

use std::collections::HashMap;
use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_proto::id::{ContentId, ContentName, InfoHashV1};

/// Contents by id and by infohash.
#[derive(Debug, Default)]
pub struct Catalog {
    contents: HashMap<ContentId, Arc<Content>>,
    /// What handshakes carry: see [`Content::swarm_names`].
    swarms: HashMap<InfoHashV1, ContentId>,
}

impl Catalog {
    /// Adds a content, or what has become of it.
    pub fn put(&mut self, content: Arc<Content>) {
        for infohash in content.swarm_names() {
            self.swarms.insert(infohash, content.id());
        }
        self.contents.insert(content.id(), content);
    }

    /// Forgets a content.
    pub fn remove(&mut self, id: ContentId) -> Option<Arc<Content>> {
        let content = self.contents.remove(&id)?;
        for infohash in content.swarm_names() {
            // Two contents may share an infohash; the name stays with the one that has it now.
            if self.swarms.get(&infohash) == Some(&id) {
                self.swarms.remove(&infohash);
            }
        }
        Some(content)
    }

    /// The content of this id.
    #[must_use]
    pub fn by_id(&self, id: ContentId) -> Option<&Arc<Content>> {
        self.contents.get(&id)
    }

    /// The content under any of its names.
    #[must_use]
    pub fn by_name(&self, name: ContentName) -> Option<&Arc<Content>> {
        match name {
            ContentName::Id(id) => self.by_id(id),
            ContentName::V1(v1) => self.by_infohash(v1),
            ContentName::V2(v2) => self.by_infohash(v2.truncated()).filter(|content| {
                content.metainfo().is_some_and(|metainfo| metainfo.infohash_v2() == Some(v2))
            }),
        }
    }

    /// The content whose v1 infohash, or truncated v2 infohash, this is.
    #[must_use]
    pub fn by_infohash(&self, infohash: InfoHashV1) -> Option<&Arc<Content>> {
        self.by_id(*self.swarms.get(&infohash)?)
    }
}
