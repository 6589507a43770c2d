//! The contents as the control thread knows them: sorted by id and found by any name, kept up by the same news that shards get, so
//! that no request walks the store.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use millrace_pagecache::content::{Content, State};
use millrace_proto::admin::{ContentState, Rates};
use millrace_proto::id::{ContentId, ContentName, InfoHashV1, InfoHashV2};
use tokio::sync::Notify;

use super::viewer::Viewer;

/// Contents on one page when the asker names no number, and at most.
pub const PAGE_ENTRIES_MAX: usize = 1000;

/// Contents at rest that are looked at each second, to see whether they move; those that do are looked at anyway.
const RESTING_LOOKED_AT: usize = 10_000;

/// A content and what is worth remembering of it.
#[derive(Debug)]
pub struct Entry {
    /// The content.
    pub content: Arc<Content>,
    /// Its v1 infohash; each look at the metainfo would hash it again.
    pub v1: Option<InfoHashV1>,
    /// Its v2 infohash.
    pub v2: Option<InfoHashV2>,
    /// For searching without regard to case.
    name_lowercase: String,
    meters: [Meter; 3],
    /// The second of the last sample, counted by [`Index::sample`].
    sampled_s: AtomicU64,
}

/// A count that grows, and how fast.
#[derive(Debug, Default)]
struct Meter {
    seen: AtomicU64,
    rate: AtomicU64,
}

impl Meter {
    fn starting_at(count: u64) -> Self {
        Meter { seen: AtomicU64::new(count), rate: AtomicU64::new(0) }
    }

    /// Takes note of the count, so many seconds after the last time. The rate follows with a half-life of about two seconds. False
    /// when nothing moves.
    fn sample(&self, count: u64, seconds: u64) -> bool {
        let grown = count.saturating_sub(self.seen.swap(count, Ordering::Relaxed)) / seconds.max(1);
        let rate = self.rate.load(Ordering::Relaxed);
        if grown > 0 || rate > 0 {
            self.rate.store((rate - rate / 4).saturating_add(grown / 4), Ordering::Relaxed);
        }
        if grown == 0 && rate < 1024 {
            self.rate.store(0, Ordering::Relaxed);
            return false;
        }
        true
    }
}

impl Entry {
    fn new(content: Arc<Content>) -> Self {
        let metainfo = content.metainfo();
        Entry {
            v1: metainfo.and_then(|metainfo| metainfo.infohash_v1()),
            v2: metainfo.and_then(|metainfo| metainfo.infohash_v2()),
            name_lowercase: content.name().to_lowercase(),
            meters: counts(&content).map(Meter::starting_at),
            sampled_s: AtomicU64::new(0),
            content,
        }
    }

    /// The names under which peers ask for it.
    pub fn swarms(&self) -> impl Iterator<Item = InfoHashV1> + use<> {
        self.content.swarm_names()
    }

    /// Bytes per second over the last few.
    #[must_use]
    pub fn rates(&self) -> Rates {
        let [pull, http, bittorrent] =
            [0, 1, 2].map(|meter: usize| self.meters[meter].rate.load(Ordering::Relaxed));
        Rates { pull, http, bittorrent }
    }

    /// Whether bytes moved in the last seconds.
    fn moves(&self) -> bool {
        self.meters.iter().any(|meter| meter.rate.load(Ordering::Relaxed) > 0)
    }

    /// Takes a sample of what was moved. False when nothing moves, or when the sample of this second was taken.
    fn sample(&self, now_s: u64) -> bool {
        let seconds = now_s.saturating_sub(self.sampled_s.swap(now_s, Ordering::Relaxed));
        let meters = self.meters.iter().zip(counts(&self.content));
        seconds > 0 && meters.fold(false, |moves, (meter, count)| meter.sample(count, seconds) | moves)
    }
}

fn counts(content: &Content) -> [u64; 3] {
    let counters = content.counters();
    [&counters.origin_bytes, &counters.served_http, &counters.served_bittorrent]
        .map(|count| count.load(Ordering::Relaxed))
}

/// Which contents are asked for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Part of the name, without regard to case.
    pub text: Option<String>,
    /// Their state.
    pub state: Option<ContentState>,
    /// Only those whose id is greater.
    pub after: Option<ContentId>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Only those whose bytes move.
    pub active: bool,
}

/// One page of the index.
#[derive(Debug, Default)]
pub struct Page {
    /// By id.
    pub entries: Vec<Arc<Entry>>,
    /// Whether there are more behind the last.
    pub more: bool,
}

#[derive(Debug, Default)]
struct Names {
    by_id: BTreeMap<ContentId, Arc<Entry>>,
    /// Contents of the same torrent have the same names.
    by_swarm: HashMap<InfoHashV1, Vec<ContentId>>,
    evictions: u64,
}

/// The contents whose bytes move, or did when they were last looked at.
#[derive(Debug, Default)]
struct Moving {
    entries: HashMap<ContentId, Arc<Entry>>,
    now_s: u64,
    /// The last of those at rest that were looked at.
    last: Option<ContentId>,
}

/// All contents.
#[derive(Debug, Default)]
pub struct Index {
    names: RwLock<Names>,
    /// Locked after `names`, where both are.
    moving: Mutex<Moving>,
    removed: Notify,
}

impl Index {
    /// Adds a content, or what has become of it.
    pub fn put(&self, content: Arc<Content>) -> Arc<Entry> {
        let entry = Arc::new(Entry::new(content));
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        for swarm in entry.swarms() {
            let named = names.by_swarm.entry(swarm).or_default();
            if !named.contains(&entry.content.id()) {
                named.push(entry.content.id());
            }
        }
        if let Some(before) = names.by_id.insert(entry.content.id(), Arc::clone(&entry))
            && before.content.state() == State::Removed
            && !before.content.is_growing()
        {
            // The store replaces the object of a content in two cases: its end became known, or its bytes went.
            names.evictions += 1;
        }
        let mut moving = self.moving();
        entry.sampled_s.store(moving.now_s, Ordering::Relaxed);
        // Whoever adds something wants to see it move at once.
        moving.entries.insert(entry.content.id(), Arc::clone(&entry));
        drop(moving);
        entry
    }

    /// Forgets a content.
    pub fn remove(&self, id: ContentId) -> Option<Arc<Entry>> {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let entry = names.by_id.remove(&id)?;
        self.moving().entries.remove(&id);
        for swarm in entry.swarms() {
            let Some(named) = names.by_swarm.get_mut(&swarm) else { continue };
            named.retain(|other| *other != id);
            if named.is_empty() {
                names.by_swarm.remove(&swarm);
            }
        }
        self.removed.notify_waiters();
        Some(entry)
    }

    /// Waits until a content that ingest has removed is not found here any more.
    pub async fn gone(&self, id: ContentId) {
        loop {
            let removed = self.removed.notified();
            if self.find(ContentName::Id(id), Viewer::Operator).is_none() {
                return;
            }
            removed.await;
        }
    }

    /// The content under any of its names, if it is there for who looks.
    #[must_use]
    pub fn find(&self, name: ContentName, viewer: Viewer) -> Option<Arc<Entry>> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let named: &[ContentId] = match &name {
            ContentName::Id(id) => std::slice::from_ref(id),
            ContentName::V1(v1) => names.by_swarm.get(v1)?,
            ContentName::V2(v2) => names.by_swarm.get(&v2.truncated())?,
        };
        let is_meant = |entry: &&Arc<Entry>| {
            viewer.sees(&entry.content) && !matches!(name, ContentName::V2(v2) if entry.v2 != Some(v2))
        };
        named.iter().rev().filter_map(|id| names.by_id.get(id)).find(is_meant).map(Arc::clone)
    }

    /// How often a content was emptied to make room.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.names.read().unwrap_or_else(PoisonError::into_inner).evictions
    }

    /// How many there are for who looks.
    #[must_use]
    pub fn count(&self, viewer: Viewer) -> usize {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        match viewer {
            Viewer::Operator => names.by_id.len(),
            client => names.by_id.values().filter(|entry| client.sees(&entry.content)).count(),
        }
    }

    /// The contents that a filter lets through, of those that are there for who looks.
    #[must_use]
    pub fn page(&self, filter: &Filter, viewer: Viewer) -> Page {
        let limit = filter.limit.unwrap_or(PAGE_ENTRIES_MAX).clamp(1, PAGE_ENTRIES_MAX);
        let text = filter.text.as_ref().map(|text| text.to_lowercase());
        let first = filter.after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut wanted =
            names.by_id.range((first, Bound::Unbounded)).map(|(_, entry)| entry).filter(|entry| {
                viewer.sees(&entry.content)
                    && text.as_ref().is_none_or(|text| entry.name_lowercase.contains(text))
                    && filter.state.is_none_or(|state| state_of(&entry.content) == state)
                    && (!filter.active || entry.moves())
            });
        let entries = wanted.by_ref().take(limit).map(Arc::clone).collect();
        Page { entries, more: wanted.next().is_some() }
    }

    /// Takes a sample of the counts of all contents that move, and looks which of the others have begun to; once a second.
    pub fn sample(&self) {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut moving = self.moving();
        moving.now_s += 1;
        let Moving { entries, now_s, last } = &mut *moving;
        entries.retain(|_, entry| entry.sample(*now_s));
        let first = last.map_or(Bound::Unbounded, Bound::Excluded);
        *last = None;
        let resting = names.by_id.range((first, Bound::Unbounded)).take(RESTING_LOOKED_AT);
        for (looked_at, (id, entry)) in (1..).zip(resting) {
            if entry.sample(*now_s) {
                entries.insert(*id, Arc::clone(entry));
            }
            *last = (looked_at == RESTING_LOOKED_AT).then_some(*id);
        }
    }

    /// What all contents move together, in bytes per second.
    #[must_use]
    pub fn rates(&self) -> Rates {
        self.moving().entries.values().fold(Rates::default(), |sum, entry| {
            let Rates { pull, http, bittorrent } = entry.rates();
            Rates { pull: sum.pull + pull, http: sum.http + http, bittorrent: sum.bittorrent + bittorrent }
        })
    }

    fn moving(&self) -> MutexGuard<'_, Moving> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `each` with every content, in no order that means anything.
    pub fn for_each(&self, mut each: impl FnMut(&Entry)) {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.by_id.values().for_each(|entry| each(entry));
    }
}

/// The state as the API names it.
#[must_use]
pub fn state_of(content: &Content) -> ContentState {
    match content.state() {
        State::Queued => ContentState::Queued,
        State::Pulling => ContentState::Pulling,
        State::Complete => ContentState::Complete,
        State::Paused => ContentState::Paused,
        State::Failed | State::Removed => ContentState::Failed,
    }
}

#[cfg(test)]
mod tests {
    use millrace_pagecache::{Layout, NewContent};

    use super::*;

    pub(crate) fn content(number: u8, name: &str) -> Arc<Content> {
        let id = ContentId([number; 16]);
        let new = NewContent::single_of_length(id, name, 100, 16384, "\"e\"").unwrap();
        Content::simulated(new, Layout::single(name, 100, 16384).unwrap(), Box::new(|_, bytes| bytes.fill(0)))
    }

    fn check(filter: &Filter, expected: &[u8], more: bool) {
        let index = Index::default();
        for (number, name) in [(3, "Cherry.iso"), (1, "apple.iso"), (2, "banana.img"), (4, "date.iso")] {
            index.put(content(number, name));
        }
        index
            .find(ContentName::Id(ContentId([2; 16])), Viewer::Operator)
            .unwrap()
            .content
            .set_state(State::Paused);
        let page = index.page(filter, Viewer::Operator);
        assert_eq!(page.entries.iter().map(|entry| entry.content.id().0[0]).collect::<Vec<_>>(), expected);
        assert_eq!(page.more, more);
    }

    #[test]
    fn pages_are_by_id_and_filtered() {
        check(&Filter::default(), &[1, 2, 3, 4], false);
        check(&Filter { limit: Some(2), ..Filter::default() }, &[1, 2], true);
        check(
            &Filter { after: Some(ContentId([2; 16])), limit: Some(2), ..Filter::default() },
            &[3, 4],
            false,
        );
        check(&Filter { text: Some("CHERRY".into()), ..Filter::default() }, &[3], false);
        check(&Filter { state: Some(ContentState::Paused), ..Filter::default() }, &[2], false);
        check(&Filter { text: Some("iso".into()), limit: Some(2), ..Filter::default() }, &[1, 3], true);
        check(&Filter { limit: Some(0), ..Filter::default() }, &[1], true);
    }

    #[test]
    fn rates_rise_and_come_to_rest() {
        let index = Index::default();
        let entry = index.put(content(1, "x"));
        entry.content.counters().served_http.fetch_add(4_000_000, Ordering::Relaxed);
        index.sample();
        assert_eq!(entry.rates(), Rates { pull: 0, http: 1_000_000, bittorrent: 0 });
        let active = Filter { active: true, ..Filter::default() };
        assert_eq!(index.page(&active, Viewer::Operator).entries.len(), 1);
        (0..60).for_each(|_| index.sample());
        assert_eq!(entry.rates(), Rates::default());
        assert!(index.page(&active, Viewer::Operator).entries.is_empty());
    }

    #[test]
    fn of_many_contents_those_at_rest_are_looked_at_in_turn() {
        let index = Index::default();
        let number = |number: usize| ContentId((number as u128).to_be_bytes());
        for id in (0..2 * RESTING_LOOKED_AT + 1).map(number) {
            let new = NewContent::single_of_length(id, "x", 100, 16384, "\"e\"").unwrap();
            index.put(Content::simulated(new, Layout::single("x", 100, 16384).unwrap(), Box::new(|_, _| {})));
        }
        index.sample();
        assert!(index.moving().entries.is_empty(), "none of them moves");
        let places = [0, RESTING_LOOKED_AT, 2 * RESTING_LOOKED_AT].map(number);
        let entries = places.map(|id| index.find(ContentName::Id(id), Viewer::Operator).unwrap());
        entries.iter().for_each(|entry| {
            entry.content.counters().served_http.fetch_add(4_000_000, Ordering::Relaxed);
        });
        (0..3).for_each(|_| index.sample());
        assert!(entries.iter().all(|entry| entry.rates().http > 0));
        assert_eq!(index.rates().http, entries.iter().map(|entry| entry.rates().http).sum::<u64>());
        index.remove(places[0]);
        assert_eq!(index.moving().entries.len(), 2);
    }

    #[test]
    fn what_is_removed_is_found_under_no_name() {
        let index = Index::default();
        index.put(content(1, "x"));
        assert!(index.remove(ContentId([1; 16])).is_some());
        assert!(index.find(ContentName::Id(ContentId([1; 16])), Viewer::Operator).is_none());
        assert_eq!(index.count(Viewer::Operator), 0);
    }

    #[test]
    fn what_is_not_for_a_client_is_not_there() {
        let index = Index::default();
        for (number, access) in [(1, "public"), (2, "10.0.0.0/8"), (3, "signed"), (4, "none")] {
            let content = content(number, "x");
            content.set_access(access.parse().unwrap());
            index.put(content);
        }
        let seen = |viewer| {
            let page = index.page(&Filter::default(), viewer);
            let listed: Vec<_> = page.entries.iter().map(|entry| entry.content.id().0[0]).collect();
            let is_found =
                |number: &u8| index.find(ContentName::Id(ContentId([*number; 16])), viewer).is_some();
            assert_eq!((1..=4).filter(is_found).collect::<Vec<_>>(), listed);
            assert_eq!(index.count(viewer), listed.len());
            listed
        };
        assert_eq!(seen(Viewer::Operator), [1, 2, 3, 4]);
        assert_eq!(seen(Viewer::Client("10.1.1.1".parse().unwrap())), [1, 2]);
        assert_eq!(seen(Viewer::Client("::ffff:10.1.1.1".parse().unwrap())), [1, 2]);
        assert_eq!(seen(Viewer::Client("127.0.0.1".parse().unwrap())), [1]);
    }
}
