//! `GET /v1/events`: changes of contents as they happen and the relay's state once a second, for whoever listens.
//!
//! What changed last is remembered by name, not by value: who comes back with `Last-Event-ID` is told how those contents are by
//! now, once each, which takes the same memory however long somebody was away.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use futures_util::Stream;
use millrace_proto::admin::Event;
use millrace_proto::id::{ContentId, ContentName};
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::admin::Admin;
use super::index::Entry;
use super::parting::until_replaced;
use super::problem::Refusal;
use super::questions::Questions;
use super::status;
use super::viewer::Viewer;

/// Events that a slow listener may be behind. One that is further behind is let go, and may come back.
const BACKLOG: usize = 1024;

/// Changes remembered for those who come back.
const REMEMBERED: usize = 8192;

/// Listeners at one time.
const LISTENERS_MAX: usize = 32;

/// Where events go. Without listeners they are not even made.
#[derive(Debug, Clone)]
pub(super) struct Events {
    sender: Sender<Told>,
    changes: Arc<Mutex<Changes>>,
    places: Arc<Semaphore>,
    replaced: watch::Receiver<bool>,
}

/// An event and its number; the state of the relay has none, as nobody misses it.
#[derive(Debug, Clone)]
struct Told {
    number: Option<u64>,
    event: Arc<Event>,
}

/// The contents that changed last.
#[derive(Debug)]
struct Changes {
    /// Tells the numbers of this relay from those of the one that ran before.
    run: u64,
    last: u64,
    log: VecDeque<(u64, ContentId)>,
}

impl Changes {
    fn note(&mut self, id: ContentId) -> u64 {
        if self.log.len() == REMEMBERED {
            self.log.pop_front();
        }
        self.last += 1;
        self.log.push_back((self.last, id));
        self.last
    }

    /// What changed after the event of this name, each content once, with the number of its last change; `None` where that is not
    /// known any more.
    fn since(&self, name: &str) -> Option<Vec<(u64, ContentId)>> {
        let (run, number) = name.split_once('-')?;
        let number: u64 = number.parse().ok()?;
        let forgotten = self.log.front().map_or(self.last, |(first, _)| first - 1);
        if u64::from_str_radix(run, 16) != Ok(self.run) || number < forgotten || number > self.last {
            return None;
        }
        let mut seen = HashSet::new();
        let newest_first = self.log.iter().rev().take_while(|(change, _)| *change > number);
        let mut changed: Vec<_> = newest_first.filter(|(_, id)| seen.insert(*id)).copied().collect();
        changed.reverse();
        Some(changed)
    }
}

/// As `Last-Event-ID` has it.
fn name(run: u64, number: u64) -> String {
    format!("{run:x}-{number}")
}

impl Events {
    /// Those who listen are let go once another program is the relay, and may come back to that.
    pub(super) fn new(replaced: watch::Receiver<bool>) -> Self {
        // A clock that stands before 1970 is still a number.
        let run = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        let changes = Changes { run: u64::try_from(run).unwrap_or_default(), last: 0, log: VecDeque::new() };
        Events {
            sender: broadcast::channel(BACKLOG).0,
            changes: Arc::new(Mutex::new(changes)),
            places: Arc::new(Semaphore::new(LISTENERS_MAX)),
            replaced,
        }
    }

    pub(super) fn content(&self, questions: &Questions, entry: &Entry) {
        self.changed(entry.content.id(), || Event::Content {
            content: Box::new(questions.links.content_of_operator(entry, false)),
        });
    }

    pub(super) fn removed(&self, id: ContentId) {
        self.changed(id, || Event::Removed { id: id.to_string() });
    }

    pub(super) fn relay(&self, questions: &Questions) {
        self.send(None, || Event::Relay { status: Box::new(status::relay(questions)) });
    }

    fn changed(&self, id: ContentId, make: impl FnOnce() -> Event) {
        // Numbered and sent under one lock, so that nobody who comes in between hears of it twice or never.
        let mut changes = self.changes();
        let number = changes.note(id);
        self.send(Some(number), make);
    }

    fn send(&self, number: Option<u64>, make: impl FnOnce() -> Event) {
        if self.sender.receiver_count() > 0 {
            // The last listener may leave in between.
            let _ = self.sender.send(Told { number, event: Arc::new(make()) });
        }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to listen, where somebody left off who says what was heard last.
    fn listen(&self, questions: &Questions, heard: Option<&str>) -> Result<Listener, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let detail = format!("{LISTENERS_MAX} listen already: try again when one of them has left.");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
        let (live, missed, run) = {
            let changes = self.changes();
            let missed = heard.map(|heard| changes.since(heard).ok_or(changes.last));
            (self.sender.subscribe(), missed, changes.run)
        };
        let first = match missed {
            None => VecDeque::new(),
            // The name is that of now: who asks again with it misses nothing.
            Some(Err(last)) => [Told { number: Some(last), event: Arc::new(Event::Reset) }].into(),
            Some(Ok(changed)) => {
                changed.into_iter().map(|(number, id)| Told::of_now(questions, number, id)).collect()
            }
        };
        Ok(Listener { first, live, run, replaced: self.replaced.clone(), _place: place })
    }
}

impl Told {
    fn of_now(questions: &Questions, number: u64, id: ContentId) -> Self {
        let event = match questions.index.find(ContentName::Id(id), Viewer::Operator) {
            Some(entry) => {
                Event::Content { content: Box::new(questions.links.content_of_operator(&entry, false)) }
            }
            None => Event::Removed { id: id.to_string() },
        };
        Told { number: Some(number), event: Arc::new(event) }
    }
}

/// Somebody who listens.
struct Listener {
    first: VecDeque<Told>,
    live: Receiver<Told>,
    run: u64,
    replaced: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next event; `None` when the listener is too far behind, or the relay ends.
    async fn next(&mut self) -> Option<Sent> {
        let Told { number, event } = match self.first.pop_front() {
            Some(told) => told,
            None => {
                let told = tokio::select! {
                    told = self.live.recv() => told,
                    () = until_replaced(&mut self.replaced) => return None,
                };
                match told {
                    Ok(told) => told,
                    Err(error) => {
                        tracing::info!(%error, "somebody who listens to events is let go");
                        return None;
                    }
                }
            }
        };
        let kind = match &*event {
            Event::Content { .. } => "content",
            Event::Removed { .. } => "removed",
            Event::Relay { .. } => "relay",
            Event::Reset => "reset",
        };
        let sent = Sent::default().event(kind);
        let sent = match number {
            Some(number) => sent.id(name(self.run, number)),
            None => sent,
        };
        sent.json_data(&*event)
            .inspect_err(|error| tracing::debug!(%error, "an event cannot be written"))
            .ok()
    }
}

/// Follow what changes
///
/// Server-sent events (`event` and `data` lines, one JSON document each): `content` when one was added or its state, hashes or error
/// changed, `removed`, and `relay` once a second. Who comes back with `Last-Event-ID` hears how everything that changed meanwhile is
/// now, each content once; `reset` says that too much has changed, or that the relay was restarted: read `/v1/contents` again. Who
/// is more than 1,024 events behind is disconnected. At most 32 may listen.
#[utoipa::path(
    get, path = "/v1/events", tag = "relay",
    params(("Last-Event-ID" = Option<String>, Header, description = "The `id` heard last.")),
    responses((status = 200, description = "Events, without an end.", content_type = "text/event-stream", body = Event)),
)]
pub(super) async fn follow(
    State(admin): State<Admin>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>, Refusal> {
    // A name that is no text is none of ours: the answer is a reset, like to any other that is not known.
    let heard = headers.get("last-event-id").map(|heard| heard.to_str().unwrap_or_default());
    let listener = admin.events.listen(&admin.questions, heard)?;
    let stream = futures_util::stream::unfold(listener, async |mut listener| {
        let sent = listener.next().await?;
        Some((Ok(sent), listener))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ContentId {
        ContentId([number; 16])
    }

    #[track_caller]
    fn check(changes: &Changes, heard: &str, expected: Option<&[(u64, u8)]>) {
        let expected =
            expected.map(|changed| changed.iter().map(|(number, byte)| (*number, id(*byte))).collect());
        assert_eq!(changes.since(heard), expected, "{heard}");
    }

    #[test]
    fn who_comes_back_hears_each_content_once() {
        let mut changes = Changes { run: 0xab, last: 0, log: VecDeque::new() };
        check(&changes, "ab-0", Some(&[]));
        for number in [1, 2, 1, 3] {
            changes.note(id(number));
        }
        assert_eq!(name(changes.run, 4), "ab-4");
        check(&changes, "ab-4", Some(&[]));
        check(&changes, "ab-3", Some(&[(4, 3)]));
        check(&changes, "ab-0", Some(&[(2, 2), (3, 1), (4, 3)]));
        for unknown in ["ab-5", "ac-4", "ab", "", "ab-x", "-"] {
            check(&changes, unknown, None);
        }
    }

    #[test]
    fn what_is_long_ago_is_not_known() {
        let mut changes = Changes { run: 1, last: 0, log: VecDeque::new() };
        for _ in 0..REMEMBERED + 10 {
            changes.note(id(1));
        }
        check(&changes, "1-9", None);
        check(&changes, "1-10", Some(&[(u64::try_from(REMEMBERED + 10).unwrap(), 1)]));
    }
}
