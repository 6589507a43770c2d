//! The whole job of one content: room, pull, torrent, digest, and what is said at the end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use millrace_engine::counters::Gauge;
use millrace_pagecache::content::Content;
use millrace_pagecache::{PieceIndex, State, StoreError};

use super::context::{Context, Promise};
use super::pull::{End, First, Pull};
use super::sources::Sources;
use super::{digest, growing, publish};

/// How long the disk is left to the first bytes of a pull. A file system that syncs makes whoever writes beside it wait.
const FIRST_BYTES: Duration = Duration::from_millis(20);

/// What is under way, for those who want a word with it.
#[derive(Debug, Clone)]
pub(super) enum Running {
    /// By ranges.
    Pull(Rc<Pull>),
    /// Waiting for room, reading in order, or making the torrent.
    Other,
}

/// Does all that is left to do for `content`; `show` is told what is under way. The content's state says how it ended; a change of
/// the origin is returned, since the new version is another content.
pub(super) async fn fill(
    context: &Arc<Context>,
    content: Arc<Content>,
    sources: Sources,
    first: Option<First>,
    show: impl Fn(Running),
) -> Option<Arc<Content>> {
    let active = Active::new(&context.metrics.pulls_active);
    // An earlier pull of it may have been stopped in the middle of a write.
    context.writes.landed(content.id(), 0..u64::MAX).await;
    let result = tokio::select! {
        // Polled first, so that nothing is between the first bytes and the file.
        biased;
        result = fill_to_end(context, &content, &sources, first, &show) => result,
        end = not_durable(context, &content) => Err(end),
    };
    context.writes.landed(content.id(), 0..u64::MAX).await;
    drop(active);
    // A content that grew is another object now.
    let content = context.store.get(content.id()).unwrap_or(content);
    match result {
        Ok(()) => None,
        Err(End::Complete) => None,
        Err(End::Failed(error)) => {
            match context.make_durable(&content).await {
                Ok(()) | Err(StoreError::Absent(_)) => fail(context, &content, &error).await,
                Err(lost) => discard(context, &content, &context.disk_error(&lost.to_string())).await,
            }
            None
        }
        Err(End::Changed(error)) => {
            context.metrics.origin_changes.increment();
            let kept = Sources { superseded: true, ..Sources::from_value(content.sources()) };
            content.set_sources(kept.to_value());
            fail(context, &content, &error).await;
            Some(content)
        }
    }
}

/// Counts a pull as under way, also when it is stopped in the middle.
struct Active<'a>(&'a Gauge);

impl<'a> Active<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.increment();
        Active(gauge)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

/// Makes the content durable beside its pull. Ends only if that fails.
async fn not_durable(context: &Arc<Context>, content: &Arc<Content>) -> End {
    tokio::time::sleep(FIRST_BYTES).await;
    context.make_spares();
    match context.make_durable(content).await {
        // What is gone was removed by somebody, who ends this pull.
        Ok(()) | Err(StoreError::Absent(_)) => std::future::pending().await,
        Err(error) => End::Failed(context.disk_error(&error.to_string())),
    }
}

async fn fill_to_end(
    context: &Arc<Context>,
    content: &Arc<Content>,
    sources: &Sources,
    first: Option<First>,
    show: &impl Fn(Running),
) -> Result<(), End> {
    // With hashes known there is no first range to be lost by a pause.
    if content.metainfo().is_some() && !content.is_complete() {
        share(context, content).await?;
    }
    // Shown before anything waits, so that a pause finds it and the first range still comes to its end.
    let pull =
        (!content.is_growing()).then(|| Pull::new(Arc::clone(context), Arc::clone(content), sources.clone()));
    show(pull.clone().map_or(Running::Other, Running::Pull));
    // Kept to the end, so that no other pull is promised the same room.
    let _room = match content.is_complete() || content.is_imported() {
        true => None,
        false => Some(begin(context, content).await?),
    };
    let Some(pull) = pull else {
        return match growing::fill(context, content, sources, first).await {
            End::Complete => finish(context, &settle(context, content).await?, sources, show).await,
            end => Err(end),
        };
    };
    fill_ranges(context, content, sources, pull, first).await
}

/// Finds room for what is still to come.
async fn begin(context: &Arc<Context>, content: &Arc<Content>) -> Result<Arc<Promise>, End> {
    let promised = context.promise_room(content).await;
    let promise = promised.map_err(|error| End::Failed(context.io_error(&error)))?;
    content.set_error(None);
    if content.state() != State::Paused {
        context.change(content, State::Pulling);
    }
    Ok(promise)
}

/// Hashes what a growing content became.
async fn finish(
    context: &Arc<Context>,
    content: &Arc<Content>,
    sources: &Sources,
    show: &impl Fn(Running),
) -> Result<(), End> {
    let pull = Pull::new(Arc::clone(context), Arc::clone(content), sources.clone());
    show(Running::Pull(Rc::clone(&pull)));
    fill_ranges(context, content, sources, pull, None).await
}

async fn fill_ranges(
    context: &Arc<Context>,
    content: &Arc<Content>,
    sources: &Sources,
    pull: Rc<Pull>,
    first: Option<First>,
) -> Result<(), End> {
    let digesting = spawn_digest(context, content, sources);
    match pull.run(first).await {
        End::Complete => complete(context, content, sources, digesting).await,
        end => Err(end),
    }
}

async fn settle(context: &Arc<Context>, content: &Arc<Content>) -> Result<Arc<Content>, End> {
    content.end_growth();
    context.announce_bytes(content);
    let (store, growing) = (Arc::clone(&context.store), Arc::clone(content));
    let length = content.visible_bytes();
    let settled = context.blocking(move || store.settle(&growing, length)).await;
    let settled = settled.map_err(|error| End::Failed(context.io_error(&error)))?;
    let settled = settled.map_err(|error| End::Failed(context.disk_error(&error.to_string())))?;
    context.put(&settled);
    let _ = content.take_parked();
    Ok(settled)
}

/// A digest under way; dropping it stops it.
struct Digesting(tokio::task::JoinHandle<std::io::Result<[u8; 32]>>);

impl Drop for Digesting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A content of one file has a digest, which is known already where the content was complete before. One that somebody said it
/// must have is what was hoped for, not what was found: it is checked each time.
fn spawn_digest(context: &Arc<Context>, content: &Arc<Content>, sources: &Sources) -> Option<Digesting> {
    let single = content.layout().files().iter().filter(|file| !file.padding).count() == 1;
    let known = content.sha256().is_some() && content.is_complete() && sources.sha256_wanted.is_none();
    (single && !known).then(|| {
        let (context, content) = (Arc::clone(context), Arc::clone(content));
        Digesting(tokio::task::spawn_local(async move { digest::whole(&context, &content).await }))
    })
}

/// Everything is here and hashed: torrent, state, digest. A digest that was wanted is checked before anything is called complete.
async fn complete(
    context: &Arc<Context>,
    content: &Arc<Content>,
    sources: &Sources,
    digesting: Option<Digesting>,
) -> Result<(), End> {
    let wanted = sources.sha256_wanted.is_some();
    let mut digesting = digesting;
    if wanted {
        record_digest(context, content, digesting.take()).await?;
    }
    if content.metainfo().is_none() {
        let (store, publishing, context_) =
            (Arc::clone(&context.store), Arc::clone(content), Arc::clone(context));
        let now = context.unix_now();
        let published = context
            .blocking(move || publish::publish(&store, &publishing, context_.config.links.as_ref(), now))
            .await
            .map_err(|error| End::Failed(context.io_error(&error)))?;
        match published {
            Ok(()) => context.put(content),
            // It is served over HTTP all the same.
            Err(error) => tracing::warn!(content = %content.id(), "{error}"),
        }
    }
    // What was paused while its hashes were still being made stays paused.
    if content.state() != State::Paused {
        context.change(content, State::Complete);
    }
    tracing::info!(content = %content.id(), name = content.name(), bytes = content.length(), "complete");
    // From here on others may need its room.
    unless_gone(context, content, commit(context, content).await)?;
    unless_gone(context, content, share(context, content).await)?;
    if !wanted {
        record_digest(context, content, digesting).await?;
    }
    Ok(())
}

/// Whether the content was evicted or removed, so that nothing is left to be done about this object of it.
fn is_gone(context: &Context, content: &Arc<Content>) -> bool {
    context.store.get(content.id()).is_none_or(|current| !Arc::ptr_eq(&current, content))
}

/// What cannot be done to a content because it is gone is no failure of it.
fn unless_gone(context: &Context, content: &Arc<Content>, done: Result<(), End>) -> Result<(), End> {
    match done {
        Err(End::Failed(_)) if is_gone(context, content) => Ok(()),
        done => done,
    }
}

/// Has the files stored once that another content has as well; those that were still to come are here by that.
async fn share(context: &Arc<Context>, content: &Arc<Content>) -> Result<(), End> {
    let (store, sharing, before) = (Arc::clone(&context.store), Arc::clone(content), content.pieces_have());
    let shared = context.blocking(move || store.share(&sharing)).await;
    let shared = shared
        .map_err(|error| End::Failed(context.io_error(&error)))?
        .map_err(|error| End::Failed(context.disk_error(&error.to_string())));
    context.announce_bytes(content);
    if content.pieces_have() > before {
        let pieces = (0..content.layout().piece_count()).map(PieceIndex);
        pieces
            .filter(|piece| content.has_piece(*piece))
            .for_each(|piece| context.announce_piece(content, piece));
    }
    if let bytes @ 1.. = shared? {
        tracing::info!(content = %content.id(), bytes, "stored once: another content has the same bytes");
    }
    Ok(())
}

async fn record_digest(
    context: &Arc<Context>,
    content: &Arc<Content>,
    digesting: Option<Digesting>,
) -> Result<(), End> {
    let Some(mut digesting) = digesting else { return Ok(()) };
    let digest = (&mut digesting.0).await.map_err(std::io::Error::other).and_then(|digest| digest);
    if is_gone(context, content) {
        return Ok(());
    }
    let digest = digest.map_err(|error| End::Failed(context.io_error(&error)))?;
    if content.set_sha256(digest) {
        context.put(content);
        return unless_gone(context, content, save(context, content).await);
    }
    let wanted = content.sha256().map(|wanted| HEXLOWER.encode(wanted)).unwrap_or_default();
    let why = format!(
        "SHA-256 is {} and should be {wanted}: what was served while pulling could not be verified",
        HEXLOWER.encode(&digest)
    );
    disown(context, content, &why).await;
    Err(End::Failed(why))
}

/// Bytes that are known to be wrong are served to nobody any more, and not taken for good by the next start either: what was
/// pulled is dropped; what lies in place is somebody else's file, and stays.
async fn disown(context: &Arc<Context>, content: &Arc<Content>, why: &str) {
    let (store, id) = (Arc::clone(&context.store), content.id());
    match context.blocking(move || store.evict(id)).await {
        Ok(Ok(empty)) => context.put(&empty),
        _ => content.quarantine(why),
    }
    context.announce_bytes(content);
}

async fn commit(context: &Arc<Context>, content: &Arc<Content>) -> Result<(), End> {
    let (store, committing) = (Arc::clone(&context.store), Arc::clone(content));
    let committed =
        context.blocking(move || store.commit(&committing).and_then(|()| store.save(&committing))).await;
    committed
        .map_err(|error| End::Failed(context.io_error(&error)))?
        .map_err(|error| End::Failed(context.disk_error(&error.to_string())))
}

async fn save(context: &Arc<Context>, content: &Arc<Content>) -> Result<(), End> {
    let (store, saving) = (Arc::clone(&context.store), Arc::clone(content));
    let saved = context.blocking(move || store.save(&saving)).await;
    saved
        .map_err(|error| End::Failed(context.io_error(&error)))?
        .map_err(|error| End::Failed(context.disk_error(&error.to_string())))
}

/// Undoes the addition of a content whose creation the disk did not keep, as if it had failed at once; its readers are let go.
async fn discard(context: &Arc<Context>, content: &Arc<Content>, error: &str) {
    tracing::error!(content = %content.id(), name = content.name(), "cannot be added: {error}");
    content.quarantine(error);
    let (store, id) = (Arc::clone(&context.store), content.id());
    match context.blocking(move || store.remove(id)).await {
        Ok(Err(error)) if !matches!(error, StoreError::Absent(_)) => {
            tracing::error!(content = %id, "what it left cannot be removed: {error}");
            context.change(content, State::Failed);
        }
        _ => context.gone(id),
    }
    let _ = content.take_parked();
}

/// Says why, lets the readers go, and keeps what was verified.
async fn fail(context: &Arc<Context>, content: &Arc<Content>, error: &str) {
    tracing::error!(content = %content.id(), name = content.name(), "pull failed: {error}");
    content.set_error(Some(error));
    // Growing contents cannot go on later, so nothing of them is kept.
    if !content.is_growing()
        && let Err(End::Failed(also)) = commit(context, content).await
    {
        tracing::warn!(content = %content.id(), "what was verified could not be kept: {also}");
    }
    // The state comes last: who sees it may start the pull again.
    context.change(content, State::Failed);
}
