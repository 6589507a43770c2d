//! Pulling from an origin that tells no length: read once, in order, to its end.
//!
//! Such an origin cannot resume. After a break it is read again from the start; what is here already is compared, not written.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use millrace_pagecache::content::Content;
use reqwest::Response;

use super::answer::{Accepted, Body};
use super::balance::{Balance, Crowd};
use super::budget::Grant;
use super::client::FetchError;
use super::context::Context;
use super::planner::RANGE_BYTES_MAX;
use super::pull::{End, First};
use super::sources::Sources;

/// How often a grant is looked for that is lacking.
const GRANT_LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why a reading ended early.
enum Halt {
    Fetch(FetchError),
    Disk(std::io::Error),
    /// The bytes at this offset are not those that came before.
    Differs(u64),
}

/// Fills `content` to the end that its origin gives it.
pub(super) async fn fill(
    context: &Arc<Context>,
    content: &Arc<Content>,
    sources: &Sources,
    first: Option<First>,
) -> End {
    let mut balance = Balance::new(sources.origins.len(), 1, Crowd::ONE, context.config.patience);
    let (began, mut first) = (Instant::now(), first);
    loop {
        let now_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let asked = first.as_ref().map(|first| first.origin);
        let is_granted = |origin: usize| context.budget.is_granted(&sources.origins[origin].url);
        let Some(origin) = asked.or_else(|| balance.choose_among(now_ms, 0, is_granted)) else {
            let able = balance.choose(now_ms, 0);
            if let Some(wait) = able.and_then(|able| context.budget.ungranted(&sources.origins[able].url)) {
                content.set_error(Some(&format!("waits: {}", wait.why)));
                // A grant comes with a change of the caps.
                let _ = tokio::time::timeout(GRANT_LOOK_EVERY, context.budget.freed()).await;
                continue;
            }
            let Some(at) = balance.rested_at_ms(now_ms) else {
                return End::Failed(balance.error().unwrap_or("no origin is left").to_owned());
            };
            tokio::time::sleep(Duration::from_millis(at - now_ms)).await;
            continue;
        };
        balance.started(origin);
        let before = content.visible_bytes();
        let result = read_once(context, content, sources, origin, first.take()).await;
        let fresh = content.visible_bytes() - before;
        balance.ended(origin, fresh, 1);
        let error = match result {
            Ok(()) => {
                content.set_error(None);
                return End::Complete;
            }
            Err(Halt::Disk(error)) => return End::Failed(context.io_error(&error)),
            Err(Halt::Differs(at)) => {
                return End::Changed(format!("origin changed while pulling: byte {at} is another one now"));
            }
            Err(Halt::Fetch(FetchError::Refused(super::answer::Refused::Changed(difference)))) => {
                return End::Changed(format!("origin changed while pulling: {difference}"));
            }
            Err(Halt::Fetch(error)) => error,
        };
        context.metrics.retries.increment();
        let url = sources.origins[origin].shown();
        tracing::warn!(content = %content.id(), origin = %url, "{error}");
        let text = format!("{url}: {error}");
        content.set_error(Some(&text));
        balance.failed(origin, now_ms, error.fate(), context.dice(), text);
    }
}

async fn read_once(
    context: &Arc<Context>,
    content: &Arc<Content>,
    sources: &Sources,
    index: usize,
    first: Option<First>,
) -> Result<(), Halt> {
    let origin = &sources.origins[index];
    let asked_at = first.as_ref().map_or_else(Instant::now, |first| first.asked_at);
    let (mut response, accepted, _line, mut grant) = match first {
        Some(first) => (first.response, first.accepted, first.line, first.grant),
        None => {
            let mut grant = context.budget.request().await;
            grant.ask_of(&origin.url);
            let (known, range) = (origin.validators.get(&0), 0..grant.reserve(RANGE_BYTES_MAX).max(1));
            let line = context.lines.lend(origin).await;
            let asked =
                context.clients.fetch(line.connection(), origin, &origin.url, &range, known, false).await;
            let (response, accepted) = asked.map_err(Halt::Fetch)?;
            (response, accepted, line, grant)
        }
    };
    check_whole(&accepted)?;
    pour(context, content, &mut response, &mut grant, asked_at).await
}

/// An origin that suddenly knows its length, or ranges, is another one.
fn check_whole(accepted: &Accepted) -> Result<(), Halt> {
    match accepted.body {
        Body::Whole(None) => Ok(()),
        _ => Err(Halt::Fetch(
            super::answer::Refused::Wrong("it tells a length now, and told none before".into()).into(),
        )),
    }
}

async fn pour(
    context: &Arc<Context>,
    content: &Arc<Content>,
    response: &mut Response,
    grant: &mut Grant,
    asked_at: Instant,
) -> Result<(), Halt> {
    let (mut at, mut fresh) = (0, Instant::now());
    while let Some(chunk) = context.clients.chunk(response).await.map_err(Halt::Fetch)? {
        let bytes = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if content.visible_bytes() == 0 {
            context.metrics.first_byte(asked_at.elapsed());
        }
        context.metrics.origin_bytes.add(bytes);
        content.counters().origin_bytes.fetch_add(bytes, Ordering::Relaxed);
        let here = content.visible_bytes().clamp(at, at + bytes);
        let mut old = chunk;
        let new = old.split_off(usize::try_from(here - at).unwrap_or(old.len()));
        let mut stored = vec![0; old.len()];
        content.read(at, &mut stored).map_err(Halt::Disk)?;
        if let Some(place) = old.iter().zip(&stored).position(|(a, b)| a != b) {
            return Err(Halt::Differs(at + u64::try_from(place).unwrap_or(0)));
        }
        if !new.is_empty() {
            let no_stream = || Halt::Disk(std::io::Error::other("the content has another writer"));
            let mut stream = content.stream(here).ok_or_else(no_stream)?;
            context.writes.append(content, &mut stream, new).await.map_err(Halt::Disk)?;
            context.announce_bytes(content);
        }
        at += bytes;
        grant.pay(bytes).await;
        if fresh.elapsed() > Duration::from_secs(1) {
            fresh = Instant::now();
            context.make_room(0).await.map_err(Halt::Disk)?;
        }
    }
    if at < content.visible_bytes() {
        return Err(Halt::Differs(at));
    }
    Ok(())
}
