//! Who goes first: the pulls under way with their priorities, and what each of them could use.

use std::collections::{BTreeMap, HashMap};

use millrace_proto::admin::caps::effective::EffectiveContent;
use millrace_proto::id::ContentId;

/// What a pull could use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing: all is asked for, or its origins rest.
    Nothing,
    /// More bytes; it has as many requests as it makes.
    Bytes,
    /// One more request, which it is not granted.
    Request,
}

#[derive(Debug, Clone, Copy)]
struct Ranked {
    /// What the content was added with.
    own: i32,
    wish: Wish,
}

/// The pulls under way.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    pulls: HashMap<ContentId, Ranked>,
    /// Priorities that the caps name.
    named: HashMap<ContentId, i32>,
}

impl Ranks {
    /// Takes over the priorities that the caps name.
    pub(super) fn name(&mut self, contents: &BTreeMap<ContentId, EffectiveContent>) {
        let named = contents.iter().filter_map(|(id, content)| Some((*id, content.priority?)));
        self.named = named.collect();
    }

    /// Notes what a pull could use now.
    pub(super) fn wish(&mut self, id: ContentId, own: i32, wish: Wish) {
        self.pulls.insert(id, Ranked { own, wish });
    }

    /// A pull is over.
    pub(super) fn leave(&mut self, id: ContentId) {
        self.pulls.remove(&id);
    }

    fn priority(&self, id: ContentId, own: i32) -> i32 {
        self.named.get(&id).copied().unwrap_or(own)
    }

    /// Whether `id`, which has `busy` requests under way, may make another. While one of higher priority is not granted a request,
    /// nobody below it makes one; where bytes are capped and one of higher priority could use more, each below it has one at a time.
    pub(super) fn may_request(&self, id: ContentId, own: i32, busy: usize, bytes_are_capped: bool) -> bool {
        let mine = self.priority(id, own);
        let above = self.pulls.iter().filter(|(other, ranked)| self.priority(**other, ranked.own) > mine);
        above.into_iter().all(|(_, ranked)| match ranked.wish {
            Wish::Nothing => true,
            Wish::Bytes => !bytes_are_capped || busy == 0,
            Wish::Request => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_go_first_as_far_as_they_can_use_it() {
        let [low, high, other] = [1, 2, 3].map(|byte| ContentId([byte; 16]));
        let mut ranks = Ranks::default();
        ranks.wish(low, 0, Wish::Bytes);
        ranks.wish(high, 5, Wish::Bytes);
        ranks.wish(other, 0, Wish::Request);
        // Equals do not wait for each other, and nobody waits where nothing is capped.
        assert!(ranks.may_request(low, 0, 6, false) && ranks.may_request(high, 5, 6, true));
        assert!(!ranks.may_request(low, 0, 1, true) && ranks.may_request(low, 0, 0, true));
        ranks.wish(high, 5, Wish::Request);
        assert!(!ranks.may_request(low, 0, 0, false));
        ranks.wish(high, 5, Wish::Nothing);
        assert!(ranks.may_request(low, 0, 6, true));
        // The caps' word goes before that of the addition.
        ranks.wish(high, 5, Wish::Request);
        let named = EffectiveContent { priority: Some(7), ..EffectiveContent::default() };
        ranks.name(&BTreeMap::from([(low, named)]));
        assert!(ranks.may_request(low, 0, 6, true) && !ranks.may_request(other, 0, 0, true));
        ranks.name(&BTreeMap::new());
        ranks.leave(high);
        assert!(ranks.may_request(low, 0, 6, true));
    }
}
