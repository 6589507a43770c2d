//! Tells the trackers of given torrents that this relay has them (BEP 3, 12, 15): when it starts, every so often, when the last byte
//! came, and when it stops. Torrents made here name only the built-in tracker, which needs no telling.

mod exchange;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_pagecache::State;
use millrace_pagecache::content::Content;
use millrace_proto::id::ContentId;
use millrace_proto::tracker::AnnounceEvent;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use url::Url;

use crate::ingest::client::ClientError;
use crate::ingest::origin::Trust;
use crate::ingest::sources::Sources;

use super::describe::Links;
use super::index::Entry;
use exchange::{Exchange, Report};

/// Announces under way at one time.
const ANNOUNCES_MAX: usize = 16;
/// Trackers of one torrent that are tried.
const TRACKERS_MAX: usize = 32;
/// Whatever a tracker asks for, between announces.
const INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(3600);
/// After the first failure of all trackers; doubled with each further one.
const BACKOFF: Duration = Duration::from_secs(60);
const BACKOFF_MAX: Duration = Duration::from_secs(1800);
/// For all farewells together, when the relay stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// The announces of all torrents.
#[derive(Debug, Clone)]
pub(super) struct Announcer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    exchange: Exchange,
    own: Vec<String>,
    under_way: Semaphore,
    torrents: Mutex<HashMap<ContentId, Torrent>>,
}

/// One torrent's task.
#[derive(Debug)]
struct Torrent {
    content: Arc<Content>,
    changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Announcer {
    /// An announcer that names this port and peer id.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub(super) fn new(links: &Links, peer_id: [u8; 20]) -> Result<Self, ClientError> {
        Ok(Announcer(Arc::new(Shared {
            exchange: Exchange::new(peer_id, links.bittorrent_port)?,
            own: links.trackers(),
            under_way: Semaphore::new(ANNOUNCES_MAX),
            torrents: Mutex::default(),
        })))
    }

    /// A content was added, got its torrent, or changed its state.
    pub(super) fn note(&self, entry: &Arc<Entry>) {
        let mut torrents = self.0.torrents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(torrent) = torrents.get(&entry.content.id()) {
            torrent.changed.notify_one();
            if Arc::ptr_eq(&torrent.content, &entry.content) {
                return;
            }
            // An emptied content is a new object; the task of the old one says farewell.
            torrents.remove(&entry.content.id());
        }
        let Some(metainfo) = entry.content.metainfo() else { return };
        let tiers = foreign(&metainfo.announce, &self.0.own);
        if tiers.is_empty() {
            return;
        }
        let changed = Arc::new(Notify::new());
        let course = Course {
            shared: Arc::clone(&self.0),
            entry: Arc::clone(entry),
            changed: Arc::clone(&changed),
            tiers,
            named: named_hosts(&entry.content),
        };
        let task = tokio::spawn(course.run());
        torrents.insert(entry.content.id(), Torrent { content: Arc::clone(&entry.content), changed, task });
    }

    /// A content is gone: its task says farewell by itself, since the content's state says so.
    pub(super) fn removed(&self, id: ContentId) {
        let mut torrents = self.0.torrents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(torrent) = torrents.remove(&id) {
            torrent.changed.notify_one();
        }
    }

    /// The relay stops: farewell to all trackers, as far as that is quickly done.
    pub(super) async fn stop(&self) {
        let torrents = std::mem::take(&mut *self.0.torrents.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.exchange.stop();
        let tasks = torrents.into_values().map(|torrent| {
            torrent.changed.notify_one();
            torrent.task
        });
        let _ = tokio::time::timeout(FAREWELL, futures_util::future::join_all(tasks)).await;
    }
}

/// The trackers that are not ours, in their tiers.
fn foreign(announce: &[Vec<String>], own: &[String]) -> Vec<Vec<String>> {
    let mut left = TRACKERS_MAX;
    let mut tiers = Vec::new();
    for tier in announce {
        let tier: Vec<_> = tier.iter().filter(|tracker| !own.contains(tracker)).take(left).cloned().collect();
        left -= tier.len();
        if !tier.is_empty() {
            tiers.push(tier);
        }
    }
    tiers
}

/// The hosts that the operator named as origins of this content: its trackers may be there, wherever that is. All else that a torrent
/// names is a stranger's word, whoever handed the torrent in.
fn named_hosts(content: &Content) -> Vec<String> {
    let origins = Sources::from_value(content.sources()).origins.into_iter();
    let named = origins.filter(|origin| origin.trust == Trust::Named);
    named.filter_map(|origin| origin.url.host_str().map(str::to_owned)).collect()
}

fn is_named(tracker: &str, hosts: &[String]) -> bool {
    let url = Url::parse(tracker).ok();
    url.as_ref()
        .and_then(Url::host_str)
        .is_some_and(|host| hosts.iter().any(|named| named.eq_ignore_ascii_case(host)))
}

/// The announces of one torrent.
struct Course {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    changed: Arc<Notify>,
    tiers: Vec<Vec<String>>,
    named: Vec<String>,
}

/// What the trackers were told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Incomplete,
    Complete,
}

impl Course {
    async fn run(mut self) {
        let mut told = Told::Nothing;
        let mut failures = 0;
        loop {
            let (is_here, is_complete) = self.standing();
            let event = match (told, is_here, is_complete) {
                (Told::Nothing, true, _) => Some(AnnounceEvent::Started),
                (Told::Nothing, false, _) => None,
                (_, false, _) => Some(AnnounceEvent::Stopped),
                (Told::Incomplete, true, true) => Some(AnnounceEvent::Completed),
                (_, true, _) => Some(AnnounceEvent::Periodic),
            };
            let mut rest = None;
            if let Some(event) = event {
                match self.announce(event).await {
                    Some(interval) => {
                        failures = 0;
                        told = match (event, is_complete) {
                            (AnnounceEvent::Stopped, _) => Told::Nothing,
                            (_, true) => Told::Complete,
                            (_, false) => Told::Incomplete,
                        };
                        rest = is_here.then_some(interval.clamp(*INTERVAL.start(), *INTERVAL.end()));
                    }
                    // Nobody waits for a farewell that does not get through.
                    None if event == AnnounceEvent::Stopped => told = Told::Nothing,
                    None => {
                        rest = Some(backoff(failures));
                        failures += 1;
                    }
                }
            }
            if self.is_over() && told == Told::Nothing {
                return;
            }
            self.wait(rest, told, event).await;
        }
    }

    /// Whether the torrent is served to everybody now, and whether it is whole.
    fn standing(&self) -> (bool, bool) {
        let content = &self.entry.content;
        let served = matches!(content.state(), State::Queued | State::Pulling | State::Complete);
        // Whoever asks a tracker of somebody else is told of all that announced themselves there.
        (served && content.is_public() && !self.shared.exchange.is_stopping(), content.is_complete())
    }

    fn is_over(&self) -> bool {
        self.entry.content.state() == State::Removed || self.shared.exchange.is_stopping()
    }

    /// Until the next announce is due, or the standing is another than the one that trackers know.
    async fn wait(&self, rest: Option<Duration>, told: Told, last: Option<AnnounceEvent>) {
        let due = async {
            match rest {
                Some(rest) => tokio::time::sleep(rest).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => return,
                () = self.changed.notified() => {}
            }
            let news = match self.standing() {
                (false, _) => told != Told::Nothing || self.is_over(),
                // A tracker that failed is not asked again for each change.
                (true, _) if told == Told::Nothing => last.is_none() || last == Some(AnnounceEvent::Stopped),
                (true, is_complete) => is_complete && told == Told::Incomplete,
            };
            if news {
                return;
            }
        }
    }

    /// Tells one tracker of each tier that answers; the first that answers is asked first the next time (BEP 12). The interval that
    /// it wants, or none when no tracker answers.
    async fn announce(&mut self, event: AnnounceEvent) -> Option<Duration> {
        let _permit = self.shared.under_way.acquire().await.ok()?;
        let content = &self.entry.content;
        let report = Report {
            uploaded: content.counters().served_bittorrent.load(std::sync::atomic::Ordering::Relaxed),
            left: content.length().unwrap_or(u64::MAX).saturating_sub(content.visible_bytes()),
            event,
        };
        for tier in &mut self.tiers {
            for at in 0..tier.len() {
                let mut interval = None;
                let trusted = is_named(&tier[at], &self.named);
                // A hybrid torrent is two swarms (BEP 52).
                for swarm in self.entry.swarms() {
                    match self.shared.exchange.announce(&tier[at], swarm.0, &report, trusted).await {
                        Ok(wanted) => interval = Some(wanted),
                        Err(error) => {
                            tracing::debug!(tracker = %tier[at], %error, id = %content.id(), "announce");
                            break;
                        }
                    }
                }
                if interval.is_some() {
                    tier[..=at].rotate_right(1);
                    return interval;
                }
            }
        }
        None
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_trackers_and_surplus_ones_are_left_out() {
        let tiers = |tiers: &[&[&str]]| -> Vec<Vec<String>> {
            tiers.iter().map(|tier| tier.iter().map(|&tracker| tracker.to_owned()).collect()).collect()
        };
        let own = vec!["http://own/announce".to_owned()];
        let given = tiers(&[&["http://own/announce"], &["http://a", "http://own/announce"], &["udp://b"]]);
        assert_eq!(foreign(&given, &own), tiers(&[&["http://a"], &["udp://b"]]));
        let many = vec![vec!["http://x".to_owned(); 40], vec!["http://y".to_owned()]];
        assert_eq!(foreign(&many, &own).concat().len(), TRACKERS_MAX);
    }

    #[test]
    fn trackers_are_trusted_only_on_hosts_that_were_named() {
        let hosts = vec!["10.0.0.1".to_owned(), "lan".to_owned()];
        for named in ["http://10.0.0.1:6969/announce", "http://lan/announce", "udp://LAN:80/announce"] {
            assert!(is_named(named, &hosts), "{named}");
        }
        for strange in
            ["http://127.0.0.1/", "http://lan.example/", "http://lan@127.0.0.1/", "udp:", "lan", ""]
        {
            assert!(!is_named(strange, &hosts), "{strange}");
        }
    }

    #[test]
    fn failures_are_asked_again_ever_more_rarely() {
        assert_eq!(backoff(0), Duration::from_secs(60));
        assert_eq!(backoff(2), Duration::from_secs(240));
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }
}
