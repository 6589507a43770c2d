//! The postboxes of all shards: how the other threads of the relay tell them what happened.

use std::sync::Arc;

use millrace_engine::event::News;
use millrace_engine::ids::ShardId;
use millrace_send::mailbox::Postbox;

/// All shards; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shards {
    postboxes: Arc<[Postbox]>,
}

impl Shards {
    /// The shards whose numbers are the positions in `postboxes`; none at all for tests that need no shard.
    #[must_use]
    pub fn new(postboxes: Vec<Postbox>) -> Self {
        Shards { postboxes: postboxes.into() }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.postboxes.len()
    }

    /// Tells one shard; news for a number that no shard has is dropped.
    pub fn post(&self, shard: ShardId, news: News) {
        if let Some(postbox) = self.postboxes.get(usize::from(shard.0)) {
            postbox.post(news);
        }
    }

    /// Tells every shard.
    pub fn broadcast(&self, make: impl Fn() -> News) {
        self.postboxes.iter().for_each(|postbox| postbox.post(make()));
    }

    /// Tells the shards whose bits are set in `mask`.
    pub fn post_to(&self, mask: u64, make: impl Fn() -> News) {
        let mut left = mask;
        while left != 0 {
            let shard = left.trailing_zeros();
            left &= left - 1;
            if let Some(postbox) = usize::try_from(shard).ok().and_then(|shard| self.postboxes.get(shard)) {
                postbox.post(make());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_send::mailbox::Mailbox;

    use super::*;

    #[test]
    fn a_mask_names_shards_by_their_bits() {
        let (postboxes, mut mailboxes): (Vec<_>, Vec<_>) = (0..4).map(|_| Mailbox::new().unwrap()).unzip();
        let shards = Shards::new(postboxes);
        shards.post_to(0b1010 | 1 << 63, || News::Drain);
        let counts: Vec<_> =
            mailboxes.iter_mut().map(|mailbox| std::iter::from_fn(|| mailbox.next()).count()).collect();
        assert_eq!(counts, [0, 1, 0, 1]);
        shards.broadcast(|| News::Drain);
        shards.post(ShardId(2), News::Drain);
        shards.post(ShardId(9), News::Drain);
        let counts: Vec<_> =
            mailboxes.iter_mut().map(|mailbox| std::iter::from_fn(|| mailbox.next()).count()).collect();
        assert_eq!(counts, [1, 1, 2, 1]);
    }
}
