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
    /// How often everything was asked for.
    #[cfg(test)]
    walks: std::sync::atomic::AtomicUsize,
}

impl<K, V> Default for Catalogue<K, V> {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| ArcSwap::from_pointee(HashMap::new())).collect();
        Catalogue {
            hasher: RandomState::new(),
            buckets,
            #[cfg(test)]
            walks: std::sync::atomic::AtomicUsize::default(),
        }
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

    /// Names many at once: a bucket is copied once, not once for each of its names.
    pub fn insert_all(&self, named: impl IntoIterator<Item = (K, V)>) {
        let mut shares: Vec<Vec<(K, V)>> = (0..BUCKETS).map(|_| Vec::new()).collect();
        for (name, value) in named {
            shares[self.index(&name)].push((name, value));
        }
        for (bucket, share) in self.buckets.iter().zip(shares) {
            bucket.rcu(|bucket| {
                let mut bucket = HashMap::clone(bucket);
                bucket.extend(share.iter().cloned());
                Arc::new(bucket)
            });
        }
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
        #[cfg(test)]
        self.walks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.buckets.iter().flat_map(|bucket| bucket.load().values().cloned().collect::<Vec<_>>()).collect()
    }

    /// How often [`Catalogue::all`] was called.
    #[cfg(test)]
    pub(crate) fn walks(&self) -> usize {
        self.walks.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn bucket(&self, name: &K) -> &ArcSwap<HashMap<K, V>> {
        &self.buckets[self.index(name)]
    }

    fn index(&self, name: &K) -> usize {
        usize::try_from(self.hasher.hash_one(name) % BUCKETS as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_are_as_one_after_the_other() {
        let catalogue = Catalogue::default();
        catalogue.insert(7, 0);
        catalogue.insert_all((0..1000).chain([5]).map(|name| (name, name * 2)));
        assert_eq!(
            (catalogue.find(&7), catalogue.find(&999), catalogue.find(&1000)),
            (Some(14), Some(1998), None)
        );
        assert_eq!(catalogue.all().len(), 1000);
    }

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
