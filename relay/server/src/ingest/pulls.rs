//! The pulls under way, one a content however many ask; and adding, pausing, resuming, removing.

use std::cell::RefCell;
use std::collections::hash_map::{self, HashMap};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use millrace_pagecache::State;
use millrace_pagecache::content::Content;
use millrace_proto::access::Access;
use millrace_proto::id::ContentId;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::add;
use super::context::Context;
use super::error::AddError;
use super::fill::{self, Running};
use super::pull::First;
use super::request::NewPull;
use super::sources::Sources;

/// All pulls; lives on the ingest thread.
#[derive(Debug)]
pub(super) struct Pulls {
    context: Arc<Context>,
    running: RefCell<HashMap<ContentId, Entry>>,
    /// What each request made last, by key; whoever looks here asks the content whether it still holds.
    by_key: RefCell<HashMap<String, ContentId>>,
    /// Requests being looked into, by key: the same request waits for the first.
    adding: RefCell<HashMap<String, Rc<tokio::sync::Mutex<()>>>>,
    /// Held while a torrent is looked for and added: different requests may bring the same one.
    adding_torrent: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Entry {
    running: Running,
    task: JoinHandle<()>,
}

impl Pulls {
    /// No pulls yet, of the contents that the store has.
    #[must_use]
    pub(super) fn new(context: Arc<Context>) -> Rc<Self> {
        let kept = context.store.contents().into_iter();
        let kept = kept.map(|content| (Sources::from_value(content.sources()), content.id()));
        let by_key = kept.filter(|(sources, _)| !sources.superseded).map(|(sources, id)| (sources.key, id));
        let by_key = RefCell::new(by_key.collect());
        Rc::new(Pulls {
            context,
            running: RefCell::default(),
            by_key,
            adding: RefCell::default(),
            adding_torrent: tokio::sync::Mutex::default(),
        })
    }

    /// What they share.
    #[must_use]
    pub(super) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// See the field.
    pub(super) fn adding_torrent(&self) -> &tokio::sync::Mutex<()> {
        &self.adding_torrent
    }

    /// Goes on with every content of the store that has something left to do.
    pub(super) fn resume_all(self: &Rc<Self>) {
        let mut contents = self.context.store.contents();
        contents.sort_by_key(|content| (std::cmp::Reverse(content.priority()), content.added()));
        for content in contents {
            let unfinished = matches!(content.state(), State::Queued | State::Pulling);
            let unpublished = content.state() == State::Complete && content.metainfo().is_none();
            if unfinished || unpublished {
                self.start(&content, None);
            }
        }
    }

    /// Fills `content`, unless that is being done already.
    pub(super) fn start(self: &Rc<Self>, content: &Arc<Content>, first: Option<First>) {
        let id = content.id();
        if self.running.borrow().contains_key(&id) {
            return;
        }
        let (pulls, filling) = (Rc::clone(self), Arc::clone(content));
        let sources = Sources::from_value(content.sources());
        let task = tokio::task::spawn_local(async move {
            let shown = Rc::clone(&pulls);
            let show = move |running| {
                if let Some(entry) = shown.running.borrow_mut().get_mut(&id) {
                    entry.running = running;
                }
            };
            let changed = fill::fill(&pulls.context, filling, sources, first, show).await;
            pulls.running.borrow_mut().remove(&id);
            pulls.context.forget_status(id);
            if let Some(old) = changed {
                pulls.supersede(&old).await;
            }
        });
        self.running.borrow_mut().insert(id, Entry { running: Running::Other, task });
    }

    /// Adds what `request` asks for, or finds it.
    ///
    /// # Errors
    /// See [`AddError`].
    pub(super) async fn add(self: &Rc<Self>, request: NewPull) -> Result<Arc<Content>, AddError> {
        let key = request.key();
        let lock = Rc::clone(self.adding.borrow_mut().entry(key.clone()).or_default());
        let _only = lock.lock().await;
        let result = self.add_alone(request, &key).await;
        // Whoever waits for the lock holds it too.
        if Rc::strong_count(&lock) <= 2 {
            self.adding.borrow_mut().remove(&key);
        }
        result
    }

    /// [`Pulls::add`], until what it answers outlives a power cut.
    ///
    /// # Errors
    /// As [`Pulls::add`]; what the disk says.
    pub(super) async fn add_durably(self: &Rc<Self>, request: NewPull) -> Result<Arc<Content>, AddError> {
        let content = self.add(request).await?;
        let durable = self.context.make_durable(&content).await;
        durable.map_err(|error| add::store_error(&self.context, &error))?;
        Ok(content)
    }

    async fn add_alone(self: &Rc<Self>, request: NewPull, key: &str) -> Result<Arc<Content>, AddError> {
        // Who names origins beside a torrent that failed means them to be tried.
        let means_others = request.metainfo.is_some() && !request.sources.is_empty();
        let found = self.find(key, request.id);
        let Some(content) = found.filter(|content| !(means_others && content.state() == State::Failed))
        else {
            return self.add_new(request, None).await;
        };
        if request.sha256.is_some() && content.sha256() != request.sha256.as_ref() {
            return Err(AddError::OtherDigest(content.id()));
        }
        Ok(self.revive(content))
    }

    /// The content that the same request made.
    pub(super) fn find(&self, key: &str, id: Option<ContentId>) -> Option<Arc<Content>> {
        if let Some(id) = id {
            return self.context.store.get(id);
        }
        let id = self.by_key.borrow().get(key).copied()?;
        self.context.store.get(id).filter(|content| {
            let sources = Sources::from_value(content.sources());
            sources.key == key && !sources.superseded
        })
    }

    /// Notes which content the request of this key has made.
    pub(super) fn note_key(&self, key: &str, id: ContentId) {
        self.by_key.borrow_mut().insert(key.to_owned(), id);
    }

    /// A request for what failed is a wish to try again.
    pub(super) fn revive(self: &Rc<Self>, content: Arc<Content>) -> Arc<Content> {
        if content.state() == State::Failed && !content.is_quarantined() {
            content.set_error(None);
            self.context.change(&content, State::Queued);
        }
        if content.state() == State::Queued {
            self.start(&content, None);
        }
        content
    }

    /// The origin of `old` has another version: pulls that as a content of its own.
    async fn supersede(self: &Rc<Self>, old: &Arc<Content>) {
        let sources = Sources::from_value(old.sources());
        let mut origins = sources.origins.clone();
        origins.iter_mut().for_each(|origin| origin.validators.clear());
        let request = NewPull {
            name: Some(old.name().to_owned()),
            mirrors: sources.mirrors.clone(),
            pin: old.is_pinned(),
            priority: old.priority(),
            access: Some(Access::clone(&old.access())),
            ..NewPull::default()
        };
        let sources = Sources {
            key: sources.key,
            origins,
            mirrors: sources.mirrors,
            superseded: false,
            sha256_wanted: None,
        };
        match self.add_from_origins(request, sources, Some(old.id())).await {
            Ok(new) => tracing::info!(old = %old.id(), new = %new.id(), "pulling the origin's new version"),
            Err(error) => {
                tracing::error!(content = %old.id(), "the origin's new version cannot be pulled: {error}")
            }
        }
    }

    /// Somebody waits for bytes of a content.
    pub(super) fn demand(self: &Rc<Self>, id: ContentId, offset: u64, bytes: u64) {
        if let Some(entry) = self.running.borrow().get(&id) {
            if let Running::Pull(pull) = &entry.running {
                pull.demand(offset, bytes);
            }
            return;
        }
        // Evicted, or left queued: a demand is a reason to pull it.
        let Some(content) = self.context.store.get(id).filter(|content| content.state() == State::Queued)
        else {
            return;
        };
        self.start(&content, None);
    }

    /// Asks for nothing more of a content until resumed.
    ///
    /// # Errors
    /// No such content.
    pub(super) fn pause(&self, id: ContentId) -> Result<(), AddError> {
        let content = self.context.store.get(id).ok_or(AddError::Absent)?;
        if let Some(Entry { running: Running::Pull(pull), .. }) = self.running.borrow().get(&id) {
            pull.pause();
        } else if let Some(entry) = self.running.borrow_mut().remove(&id) {
            // What cannot stop half-way is begun anew.
            entry.task.abort();
        }
        self.context.change(&content, State::Paused);
        Ok(())
    }

    /// Goes on with a content that was paused, or that failed.
    ///
    /// # Errors
    /// No such content.
    pub(super) fn resume(self: &Rc<Self>, id: ContentId) -> Result<(), AddError> {
        let content = self.context.store.get(id).ok_or(AddError::Absent)?;
        if content.state() == State::Paused {
            let finished = content.is_complete() || content.is_imported();
            let under_way = self.running.borrow().contains_key(&id);
            let state = match (finished, under_way) {
                (true, _) => State::Complete,
                (false, true) => State::Pulling,
                (false, false) => State::Queued,
            };
            self.context.change(&content, state);
        }
        if let Some(Entry { running: Running::Pull(pull), .. }) = self.running.borrow().get(&id) {
            pull.resume();
            return Ok(());
        }
        self.revive(content);
        Ok(())
    }

    /// Stops the pull of a content and removes it.
    ///
    /// # Errors
    /// No such content, or what the disk says.
    pub(super) async fn remove(&self, id: ContentId) -> Result<(), AddError> {
        let entry = self.running.borrow_mut().remove(&id);
        if let Some(entry) = entry {
            self.end(id, entry).await;
        }
        self.context.forget_status(id);
        let store = Arc::clone(&self.context.store);
        let removed = self.context.blocking(move || store.remove(id)).await;
        let removed = removed.map_err(|error| AddError::Store(error.to_string()))?;
        let content = removed.map_err(|error| match error {
            millrace_pagecache::StoreError::Absent(_) => AddError::Absent,
            other => AddError::Store(other.to_string()),
        })?;
        let key = Sources::from_value(content.sources()).key;
        if let hash_map::Entry::Occupied(noted) = self.by_key.borrow_mut().entry(key)
            && *noted.get() == id
        {
            noted.remove();
        }
        self.context.gone(id);
        let _ = content.take_parked();
        Ok(())
    }

    /// Stops a pull where it is, and waits for what it was writing.
    async fn end(&self, id: ContentId, entry: Entry) {
        entry.task.abort();
        // Over, it has taken all that it started with it.
        let _ = entry.task.await;
        self.context.writes.landed(id, 0..u64::MAX).await;
    }

    /// Lets ranges under way come to their end by `until`, then ends all pulls as [`Pulls::stop`] does. What has arrived of pieces that are
    /// not whole, where hashes are known.
    pub(super) async fn rest(&self, until: Instant) -> Vec<(ContentId, Vec<Range<u64>>)> {
        let pulls: Vec<_> = {
            let running = self.running.borrow();
            let pulls = running.values().filter_map(|entry| match &entry.running {
                Running::Pull(pull) => Some(Rc::clone(pull)),
                Running::Other => None,
            });
            pulls.collect()
        };
        pulls.iter().for_each(|pull| pull.pause());
        for pull in &pulls {
            let _ = tokio::time::timeout_at(until, pull.is_quiet()).await;
        }
        self.stop().await;
        pulls.iter().filter_map(|pull| pull.arrived()).collect()
    }

    /// Ends all pulls and commits what they have.
    pub(super) async fn stop(&self) {
        let entries: Vec<_> = self.running.borrow_mut().drain().collect();
        for (id, entry) in entries {
            self.end(id, entry).await;
            self.context.forget_status(id);
            if let Some(content) = self.context.store.get(id).filter(|content| !content.is_growing()) {
                let store = Arc::clone(&self.context.store);
                let committed = self.context.blocking(move || store.commit(&content)).await;
                if let Ok(Err(error)) = committed {
                    tracing::warn!(content = %id, "what was verified could not be kept: {error}");
                }
            }
        }
    }
}
