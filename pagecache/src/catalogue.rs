//! A map from names to contents that shards read without a lock.
//!
//! Changes copy one of 256 buckets and swap it in, so that adding to a store of 100,000 contents copies a few hundred
//! entries and never makes a reader wait.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;

const BUCKETS: usize = 256;

/// Names of one kind, and what they name.
#[derive(Debug)]
pub struct Catalogue<K, V> {
    hasher: RandomState,
    buckets: Box<[ArcSwap<HashMap<K, V>>]>,
}

impl<K, V> Default for Catalogue<K, V> {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| ArcSwap::from_pointee(HashMap::new())).collect();
        Catalogue { hasher: RandomState::new(), buckets }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Catalogue<K, V> {
    /// What `name` names.
    pub fn find(&self, name: &K) -> Option<V> {
        self.bucket(name).load().get(name).cloned()
    }

    /// Names `value`, instead of what the name named before.
    pub fn insert(&self, name: K, value: V) {
        self.bucket(&name).rcu(|bucket| {
            let mut bucket = HashMap::clone(bucket);
            bucket.insert(name.clone(), value.clone());
            Arc::new(bucket)
        });
    }

    /// Forgets a name.
    pub fn remove(&self, name: &K) {
        self.bucket(name).rcu(|bucket| {
            let mut bucket = HashMap::clone(bucket);
            bucket.remove(name);
            Arc::new(bucket)
        });
    }

    /// Everything named, in no order; what changes meanwhile may or may not be there.
    pub fn all(&self) -> Vec<V> {
        self.buckets.iter().flat_map(|bucket| bucket.load().values().cloned().collect::<Vec<_>>()).collect()
    }

    fn bucket(&self, name: &K) -> &ArcSwap<HashMap<K, V>> {
        let hash = usize::try_from(self.hasher.hash_one(name) % 256).unwrap_or(0);
        &self.buckets[hash]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_and_go() {
        let catalogue = Catalogue::default();
        for name in 0..1000 {
            catalogue.insert(name, name * 2);
        }
        catalogue.insert(7, 1);
        catalogue.remove(&8);
        assert_eq!((catalogue.find(&7), catalogue.find(&8), catalogue.find(&9)), (Some(1), None, Some(18)));
        assert_eq!(catalogue.all().len(), 999);
    }
}
