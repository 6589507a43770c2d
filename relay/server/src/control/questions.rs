//! Answers what shards do not answer out of the store: pages, documents, the tracker, pull-through.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millrace_engine::event::{Answer, Document};
use millrace_engine::ledger::gate::Barrier;
use millrace_engine::op::Question;
use millrace_pagecache::Content;
use millrace_pagecache::occupied::Total;
use millrace_proto::admin::ContentState;
use millrace_proto::http::target::{Path, query_pairs};
use millrace_proto::id::{ContentName, InfoHashV1};
use millrace_proto::tracker::http::{AnnounceRequest, ScrapeRequest};
use millrace_proto::tracker::swarm::UnknownInfohash;
use millrace_proto::tracker::{AnnounceAnswer, SwarmCounts, response};
use tokio::sync::Semaphore;

use crate::config::Pages;
use crate::ingest::{AddError, NewPull};
use crate::relay::Relay;

use super::describe::Links;
use super::documents::{self, document, problem_document};
use super::heartbeat::{self, Heartbeats};
use super::index::{Entry, Filter, Index, PAGE_ENTRIES_MAX};
use super::page;
use super::routes::{Aspect, Route};
use super::tracker::{Announce, Tracker};
use super::viewer::Viewer;

/// First requests of pull-through that ask an origin at one time. More wait.
const PULLS_PENDING_MAX: usize = 64;
/// Contents on the page for people.
const PAGE_ROWS: usize = 200;

/// Everything that an answer is made of.
#[derive(Debug)]
pub struct Questions {
    pub(crate) relay: Arc<Relay>,
    pub(crate) index: Index,
    pub(crate) tracker: Tracker,
    pub(crate) links: Links,
    heartbeats: Heartbeats,
    pulls_pending: Arc<Semaphore>,
    occupied: Mutex<Option<Measured>>,
}

/// What the store occupies, and what it took to find out.
#[derive(Debug, Clone, Copy)]
struct Measured {
    total: Total,
    at: Instant,
    took: Duration,
}

impl Questions {
    pub(crate) fn new(relay: Arc<Relay>, tracker: Tracker) -> Self {
        let links = Links { base: relay.public_url.clone(), bittorrent_port: relay.bittorrent.port() };
        let heartbeats = Heartbeats::new(&relay.counters, Instant::now());
        Questions {
            heartbeats,
            relay,
            index: Index::default(),
            tracker,
            links,
            pulls_pending: Arc::new(Semaphore::new(PULLS_PENDING_MAX)),
            occupied: Mutex::default(),
        }
    }

    /// What the store occupies. Every content is looked at for it, so the answer may be a hundred times as old as that takes: of 100,000
    /// contents a few seconds, of a few hundred none that anybody would notice.
    pub(crate) fn occupied(&self) -> Total {
        let mut occupied = self.occupied.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        let fresh = |known: &Measured| at.duration_since(known.at) <= known.took * 100;
        let known = occupied.filter(fresh).unwrap_or_else(|| {
            let total = self.relay.store.occupied();
            Measured { total, at, took: at.elapsed() }
        });
        *occupied = Some(known);
        known.total
    }

    /// Answers one question of a shard that is not about [`Questions::pull`].
    pub(crate) fn answer(&self, question: &Question) -> Answer {
        let is_apart = self.relay.config.pages != Pages::WithData;
        Answer::Document(match Route::of(&question.path) {
            Some(Route::Home | Route::Index) if is_apart => page::not_found(),
            _ => self.document(question),
        })
    }

    /// Whether who asks is answered at all; probes come from anywhere.
    pub(super) fn answers(&self, question: &Question) -> bool {
        let ledger = &self.relay.ledger;
        let is_probe = matches!(Route::of(&question.path), Some(Route::Health | Route::Ready));
        let answers = is_probe || ledger.gate().rules.allow(question.peer);
        if !answers {
            ledger.turned_away.count(Barrier::Rules);
        }
        answers
    }

    /// The document that was asked for, of what is there for who asks.
    pub(crate) fn document(&self, question: &Question) -> Document {
        let query = question.query.as_deref().unwrap_or_default();
        let viewer = Viewer::Client(question.peer);
        let Some(route) = Route::of(&question.path) else {
            return self.about_content(&question.path, viewer);
        };
        match route {
            Route::Home => page::index(self, &filter(query, PAGE_ROWS).unwrap_or_default(), query, viewer),
            Route::Index => self.index_document(query, viewer),
            Route::Announce => self.announce_document(question, query),
            Route::Scrape => self.scrape_document(question, query),
            Route::Health => document(200, "text/plain; charset=utf-8", *b"ok\n"),
            Route::Ready => self.readiness(),
            Route::Robots => document(200, "text/plain; charset=utf-8", *b"User-agent: *\nDisallow: /\n"),
            Route::Icon | Route::OldIcon => document(200, "image/svg+xml", page::ICON.as_bytes()),
        }
    }

    fn index_document(&self, query: &str, viewer: Viewer) -> Document {
        match filter(query, PAGE_ENTRIES_MAX) {
            Ok(filter) => documents::index(&self.index, &self.links, &filter, viewer, &without_after(query)),
            Err(problem) => problem_document(400, problem),
        }
    }

    /// `/c/{name}.torrent` and its like, and the page of a folder.
    fn about_content(&self, path: &str, viewer: Viewer) -> Document {
        let named = Aspect::of(path);
        let found = named.and_then(|(name, aspect)| Some((self.index.find(name, viewer)?, aspect)));
        let Some((entry, aspect)) = found else { return page::not_found() };
        match aspect {
            Aspect::Page => page::content(self, &entry),
            Aspect::Json => documents::json(&self.links.content(&entry, true)),
            Aspect::Metalink => documents::metalink(&self.links, &entry),
            Aspect::Torrent | Aspect::V1Torrent => {
                let content = &entry.content;
                let half = content.v1_half().filter(|_| aspect == Aspect::V1Torrent);
                match half.or(content.metainfo()) {
                    Some(metainfo) => documents::torrent(&self.links, content, metainfo),
                    None => problem_document(404, not_a_torrent_yet(&entry)),
                }
            }
        }
    }

    fn readiness(&self) -> Document {
        match self.unready() {
            Some(why) => problem_document(503, why),
            None => document(200, "text/plain; charset=utf-8", *b"ready\n"),
        }
    }

    /// Why nobody should be sent here, if so. The store is open as long as the relay runs.
    pub(crate) fn unready(&self) -> Option<String> {
        if self.relay.stop.is_wished() {
            return Some("The relay is draining.".into());
        }
        let stuck = self.stuck_shards();
        (!stuck.is_empty()).then(|| heartbeat::describe(&stuck))
    }

    /// The shards whose loops do not turn, by number.
    pub(crate) fn stuck_shards(&self) -> Vec<usize> {
        // Behind an upgrade each shard ends when it has nothing left to finish, the others maybe hours later.
        match *self.relay.replaced.borrow() {
            true => Vec::new(),
            false => self.heartbeats.stuck(&self.relay.counters, Instant::now()),
        }
    }

    /// Notes a peer and answers with others.
    pub(crate) fn announce(&self, announce: &Announce) -> Result<AnnounceAnswer, UnknownInfohash> {
        let content = self.of_swarm(announce.infohash, announce.ip).ok_or(UnknownInfohash)?;
        self.tracker.announce(announce, content.is_complete())
    }

    /// Counts of a swarm, for who asks from this address.
    pub(crate) fn scrape(&self, infohash: &[u8; 20], asker: IpAddr) -> Option<SwarmCounts> {
        self.tracker.scrape(infohash, self.of_swarm(*infohash, asker)?.is_complete())
    }

    /// The content of a swarm, if it is there for a peer with this address.
    fn of_swarm(&self, infohash: [u8; 20], peer: IpAddr) -> Option<Arc<Content>> {
        let found = self.index.find(ContentName::V1(InfoHashV1(infohash)), Viewer::Client(peer))?;
        Some(Arc::clone(&found.content))
    }

    fn announce_document(&self, question: &Question, query: &str) -> Document {
        let mut body = Vec::new();
        match AnnounceRequest::parse(query) {
            Ok(request) => {
                let announce = Announce {
                    infohash: request.infohash,
                    peer_id: request.peer_id,
                    ip: question.peer,
                    port: request.port,
                    left: request.left,
                    event: request.event,
                    numwant: request.numwant,
                };
                match self.announce(&announce) {
                    Ok(answer) => response::write_announce(&answer, &mut body),
                    Err(unknown) => response::write_failure(&unknown.to_string(), &mut body),
                }
            }
            Err(error) => response::write_failure(&error.to_string(), &mut body),
        }
        // Refusals are answers too (BEP 3): clients show the reason of a 200 only.
        document(200, "text/plain", body)
    }

    fn scrape_document(&self, question: &Question, query: &str) -> Document {
        let mut body = Vec::new();
        match ScrapeRequest::parse(query) {
            Ok(request) => {
                let known =
                    request.infohashes().filter_map(|hash| Some((hash, self.scrape(&hash, question.peer)?)));
                response::write_scrape(known, &mut body);
            }
            Err(error) => response::write_failure(&error.to_string(), &mut body),
        }
        document(200, "text/plain", body)
    }

    /// `/pull/{origin}/{path}`, of which `rest` is what follows `/pull/`: the first request starts the pull, everyone shares it. The
    /// answer is given to `reply` when the origin has begun to answer, maybe on another thread.
    pub(crate) async fn pull(&self, rest: &str, reply: impl FnOnce(Answer) + Send + 'static) {
        let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
        let Some(origin) = self.relay.origins.get(name) else {
            return reply(refusal(404, "No origin of this name is configured."));
        };
        // The shard has refused `..` and its disguises; the look here keeps this safe on its own.
        if path.is_empty() || path.ends_with('/') || Path::parse(&format!("/{path}")).is_err() {
            return reply(refusal(404, "Name a file below the origin."));
        }
        let Ok(permit) = Arc::clone(&self.pulls_pending).acquire_owned().await else {
            return reply(refusal(503, "The relay is stopping."));
        };
        let request = NewPull::from_origin(format!("{}{path}", origin.url), origin.headers);
        let again = format!("/pull/{rest}");
        self.relay.ingest.pull(request, move |pulled| {
            reply(pulled_answer(pulled, again));
            drop(permit);
        });
    }
}

fn refusal(status: u16, detail: impl Into<String>) -> Answer {
    Answer::Document(problem_document(status, detail.into()))
}

/// `again` is what was asked for.
fn pulled_answer(pulled: Result<Arc<Content>, AddError>, again: String) -> Answer {
    match pulled {
        // Another program pulls from now on: whoever connects again speaks to that.
        Err(error @ AddError::Stopping) => {
            let mut document = problem_document(307, error.to_string());
            document.fields.push(("Location", again));
            Answer::Document(document)
        }
        Ok(content) => match content.layout().file_index_at_path(|_| true) {
            Some(file) => Answer::File { content, file },
            None => refusal(502, "The origin's file has no bytes to serve."),
        },
        // Downloaders try again after a 502; what the origin does not have, they must not wait for.
        Err(error) if error.is_absent_at_origin() => refusal(404, "The origin has no such file."),
        Err(error) => refusal(502, format!("The origin could not be read: {error}")),
    }
}

fn not_a_torrent_yet(entry: &Entry) -> &'static str {
    match entry.content.state() {
        millrace_pagecache::State::Failed => "There is no torrent of this content: its pull failed.",
        _ => "There is no torrent of this content yet: its hashes are known when its last byte has arrived.",
    }
}

/// Reads `q`, `state`, `after` and `limit`; what else a query says is none of ours.
pub(crate) fn filter(query: &str, limit: usize) -> Result<Filter, String> {
    let mut filter = Filter { limit: Some(limit), ..Filter::default() };
    for (name, value) in query_pairs(query) {
        // A form writes spaces as `+`.
        let text = String::from_utf8_lossy(&value.bytes().collect::<Vec<_>>()).replace('+', " ");
        if text.is_empty() {
            continue;
        }
        match name.decode().as_deref() {
            Some("q") => filter.text = Some(text),
            Some("state") => filter.state = Some(state(&text)?),
            Some("after") => filter.after = Some(text.parse().map_err(|_| "`after` is no content id")?),
            Some("limit") => {
                let number: usize = text.parse().map_err(|_| "`limit` is no number")?;
                filter.limit = Some(number.clamp(1, limit));
            }
            _ => {}
        }
    }
    Ok(filter)
}

fn state(text: &str) -> Result<ContentState, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "`state` is queued, pulling, complete, paused or failed".to_owned())
}

/// The query less `after`, ready for another parameter.
pub(crate) fn without_after(query: &str) -> String {
    let kept = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("after="));
    // Only what cannot leave a quoted attribute or a header line is repeated.
    let plain = |pair: &&str| pair.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"'".contains(&byte));
    kept.filter(plain).map(|pair| format!("{pair}&")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_or_refused() {
        let found = filter("q=big+file%21&state=pulling&limit=7&other=x", 1000).unwrap();
        assert_eq!(found.text.as_deref(), Some("big file!"));
        assert_eq!((found.state, found.limit), (Some(ContentState::Pulling), Some(7)));
        assert_eq!(filter("limit=99999", 1000).unwrap().limit, Some(1000));
        for bad in ["state=lost", "after=x", "limit=-1"] {
            assert!(filter(bad, 1000).is_err(), "{bad}");
        }
        assert_eq!(filter("", 9).unwrap(), Filter { limit: Some(9), ..Filter::default() });
    }

    #[test]
    fn the_next_page_keeps_the_search_and_nothing_dangerous() {
        assert_eq!(without_after("q=a&after=b&limit=2"), "q=a&limit=2&");
        assert_eq!(without_after("q=a\">&state=failed"), "state=failed&");
        assert_eq!(without_after(""), "");
    }
}
