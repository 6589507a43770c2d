//! Which contents have equal files, and which are the same torrent: found by what is equal, so that a store of 100,000 contents is not looked
//! through for each that comes or goes.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash as Key;

use millrace_proto::id::{ContentId, InfoHashV1};
use millrace_proto::merkle::Hash;

use crate::content::Content;

/// What files are equal in: length, and root of the hash tree (BEP 52).
type Root = (u64, Hash);

/// The contents of a store by what they may have in common.
#[derive(Debug, Default)]
pub(crate) struct Twins {
    by_root: HashMap<Root, Holders>,
    by_torrent: HashMap<InfoHashV1, Holders>,
}

/// Nearly always one.
#[derive(Debug)]
enum Holders {
    One(ContentId),
    More(BTreeSet<ContentId>),
}

impl Twins {
    /// Notes what is known of a content; again when more is. Its files are noted if it `lends` them.
    pub(crate) fn insert(&mut self, content: &Content, lends: bool) {
        if lends {
            content
                .roots()
                .for_each(|(_, length, root)| note(&mut self.by_root, (length, root), content.id()));
        }
        content.swarm_names().for_each(|name| note(&mut self.by_torrent, name, content.id()));
    }

    /// Forgets a content.
    pub(crate) fn remove(&mut self, content: &Content) {
        content.roots().for_each(|(_, length, root)| forget(&mut self.by_root, (length, root), content.id()));
        content.swarm_names().for_each(|name| forget(&mut self.by_torrent, name, content.id()));
    }

    /// The contents that have a file of this length and root.
    pub(crate) fn with_file(&self, length: u64, root: Hash) -> impl Iterator<Item = ContentId> {
        self.by_root.get(&(length, root)).into_iter().flat_map(Holders::iter)
    }

    /// The contents that have this infohash.
    pub(crate) fn with_name(&self, name: InfoHashV1) -> impl Iterator<Item = ContentId> {
        self.by_torrent.get(&name).into_iter().flat_map(Holders::iter)
    }
}

impl Holders {
    fn iter(&self) -> impl Iterator<Item = ContentId> {
        let (one, more) = match self {
            Holders::One(id) => (Some(*id), None),
            Holders::More(ids) => (None, Some(ids)),
        };
        one.into_iter().chain(more.into_iter().flatten().copied())
    }
}

fn note<K: Key + Eq>(map: &mut HashMap<K, Holders>, key: K, id: ContentId) {
    let holders = map.entry(key).or_insert(Holders::One(id));
    match holders {
        Holders::One(known) if *known == id => {}
        Holders::One(known) => *holders = Holders::More(BTreeSet::from([*known, id])),
        Holders::More(ids) => {
            ids.insert(id);
        }
    }
}

fn forget<K: Key + Eq>(map: &mut HashMap<K, Holders>, key: K, id: ContentId) {
    let is_empty = match map.get_mut(&key) {
        None => false,
        Some(Holders::One(known)) => *known == id,
        Some(Holders::More(ids)) => {
            ids.remove(&id);
            ids.is_empty()
        }
    };
    if is_empty {
        map.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ContentId {
        ContentId([number; 16])
    }

    #[test]
    fn whoever_has_a_key_is_found_by_it_until_forgotten() {
        let mut map = HashMap::new();
        let held = |map: &HashMap<u8, Holders>, key: u8| -> Vec<ContentId> {
            map.get(&key).into_iter().flat_map(Holders::iter).collect()
        };
        for (key, number) in [(7, 2), (7, 2), (8, 2), (7, 1), (7, 3)] {
            note(&mut map, key, id(number));
        }
        assert_eq!((held(&map, 7), held(&map, 8)), (vec![id(1), id(2), id(3)], vec![id(2)]));
        forget(&mut map, 7, id(2));
        forget(&mut map, 8, id(1));
        forget(&mut map, 9, id(1));
        assert_eq!((held(&map, 7), held(&map, 8)), (vec![id(1), id(3)], vec![id(2)]));
        for number in 1..=3 {
            forget(&mut map, 7, id(number));
            forget(&mut map, 8, id(number));
        }
        assert!(map.is_empty(), "what nobody has is not kept");
    }
}
