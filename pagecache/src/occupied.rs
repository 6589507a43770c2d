//! What contents occupy on disk, where some of them have files in common.
//!
//! Equal files of two contents are two names of one file, so its bytes count once, and are free when the last name goes.

use std::collections::{BTreeSet, HashMap};

use millrace_proto::id::ContentId;

use crate::layout::FileIndex;

/// Which file of which file system: device and inode.
pub type FileId = (u64, u64);

/// What one content occupies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupied {
    /// Bytes of the files that have no other name.
    pub own_bytes: u64,
    /// The files that have other names, be it in other contents or outside of the store.
    pub shared: Vec<SharedFile>,
}

/// A file that has several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedFile {
    /// Which file of the content.
    pub file: FileIndex,
    /// Which file of the disk: the same in every content that has it.
    pub id: FileId,
    /// Bytes it occupies.
    pub bytes: u64,
}

impl Occupied {
    /// Bytes of everything it has, shared or not.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.own_bytes + self.shared.iter().map(|file| file.bytes).sum::<u64>()
    }
}

/// What contents occupy together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// Bytes on disk.
    pub used: u64,
    /// Bytes that would be there besides, had each content a copy of its own.
    pub saved: u64,
}

impl Total {
    /// The sum over `contents`.
    pub fn of<'a>(contents: impl IntoIterator<Item = &'a Occupied>) -> Total {
        let mut names = Names::default();
        let mut total = Total::default();
        for occupied in contents {
            let new_bytes = names.add(occupied);
            total.used += new_bytes;
            total.saved += occupied.bytes() - new_bytes;
        }
        total
    }
}

/// The total over contents that come, change and go. Those that rest are looked at once, when they have come to rest.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counted: HashMap<ContentId, Occupied>,
    names: Names,
    /// Bytes of all of them, had each content a copy of its own.
    bytes: u64,
    used: u64,
    changing: BTreeSet<ContentId>,
}

impl Tally {
    /// Has a content looked at the next time: it is new, or may occupy something else than before.
    pub(crate) fn mark(&mut self, id: ContentId) {
        self.changing.insert(id);
    }

    /// The sum over all contents. `look` says what one occupies, and whether that stays so until it is marked again; `None` if there is
    /// none of this id any more.
    pub(crate) fn total(&mut self, mut look: impl FnMut(ContentId) -> Option<(Occupied, bool)>) -> Total {
        for id in std::mem::take(&mut self.changing) {
            if let Some(before) = self.counted.remove(&id) {
                self.bytes -= before.bytes();
                self.used -= self.names.remove(&before);
                self.names.forget_gone(&before);
            }
            let Some((now, rests)) = look(id) else { continue };
            self.bytes += now.bytes();
            self.used += self.names.add(&now);
            if now != Occupied::default() {
                self.counted.insert(id, now);
            }
            if !rests {
                self.changing.insert(id);
            }
        }
        Total { used: self.used, saved: self.bytes - self.used }
    }
}

/// How many names each shared file has among the contents counted.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<FileId, usize>);

impl Names {
    /// Counts a content; the bytes that were not there before.
    pub(crate) fn add(&mut self, occupied: &Occupied) -> u64 {
        let mut new_bytes = occupied.own_bytes;
        for file in &occupied.shared {
            let names = self.0.entry(file.id).or_default();
            *names += 1;
            new_bytes += if *names == 1 { file.bytes } else { 0 };
        }
        new_bytes
    }

    /// Takes a content out that was counted; the bytes that go with it.
    pub(crate) fn remove(&mut self, occupied: &Occupied) -> u64 {
        let mut gone_bytes = occupied.own_bytes;
        for file in &occupied.shared {
            let Some(names) = self.0.get_mut(&file.id) else { continue };
            *names = names.saturating_sub(1);
            gone_bytes += if *names == 0 { file.bytes } else { 0 };
        }
        gone_bytes
    }

    /// Forgets those files of a content that was taken out whose last name that was.
    fn forget_gone(&mut self, occupied: &Occupied) {
        for file in &occupied.shared {
            if self.0.get(&file.id) == Some(&0) {
                self.0.remove(&file.id);
            }
        }
    }

    /// Whether anything went with a content that was taken out: bytes of its own, or the last name of a file.
    pub(crate) fn is_gone(&self, occupied: &Occupied) -> bool {
        occupied.own_bytes > 0 || occupied.shared.iter().any(|file| self.0.get(&file.id) == Some(&0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occupied(own_bytes: u64, shared: &[(u64, u64)]) -> Occupied {
        let file = |&(inode, bytes): &(u64, u64)| SharedFile { file: FileIndex(0), id: (1, inode), bytes };
        Occupied { own_bytes, shared: shared.iter().map(file).collect() }
    }

    #[test]
    fn what_is_shared_counts_once() {
        let contents = [occupied(5, &[(7, 100)]), occupied(0, &[(7, 100), (8, 10)]), occupied(3, &[])];
        assert_eq!(Total::of(&contents), Total { used: 118, saved: 100 });
        // A file with a second name outside of the store, and one that a content has twice.
        assert_eq!(Total::of(&contents[1..2]), Total { used: 110, saved: 0 });
        assert_eq!(Total::of(&[occupied(0, &[(9, 4), (9, 4)])]), Total { used: 4, saved: 4 });
    }

    #[test]
    fn the_tally_is_the_sum_over_all_and_looks_at_those_that_changed() {
        let id = |number: u64| ContentId((u128::from(number)).to_be_bytes());
        let mut contents: HashMap<ContentId, Occupied> = HashMap::new();
        let (mut tally, mut seed) = (Tally::default(), 1u64);
        for round in 0..2_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (which, bytes, inode) = (id((seed >> 33) % 50), (seed >> 40) % 1_000, (seed >> 50) % 8);
            let shared: &[(u64, u64)] = if inode < 6 { &[(inode, 100 + inode)] } else { &[] };
            if seed >> 60 == 0 {
                contents.remove(&which)
            } else {
                contents.insert(which, occupied(bytes, shared))
            };
            tally.mark(which);
            let mut looked_at = 0;
            let total = tally.total(|id| {
                looked_at += 1;
                Some((contents.get(&id)?.clone(), true))
            });
            assert_eq!((total, looked_at), (Total::of(contents.values()), 1), "round {round}");
        }
        contents.clear();
        (0..50).for_each(|number| tally.mark(id(number)));
        assert_eq!(tally.total(|_| None), Total::default());
        assert!(tally.counted.is_empty() && tally.names.0.is_empty(), "nothing of what went is kept");
    }

    #[test]
    fn what_does_not_rest_is_looked_at_each_time() {
        let mut tally = Tally::default();
        tally.mark(ContentId([1; 16]));
        for bytes in 1..5 {
            let total = tally.total(|_| Some((occupied(bytes, &[]), bytes == 3)));
            assert_eq!(total.used, bytes.min(3));
        }
    }

    #[test]
    fn the_last_name_takes_the_bytes() {
        let (one, other) = (occupied(5, &[(7, 100)]), occupied(0, &[(7, 100)]));
        let mut names = Names::default();
        assert_eq!((names.add(&one), names.add(&other)), (105, 0));
        assert_eq!(names.remove(&other), 0);
        assert!(!names.is_gone(&other));
        assert_eq!(names.remove(&one), 105);
        assert!(names.is_gone(&other) && names.is_gone(&one));
    }
}
