//! Connections to origins. A line is one connection at a time, lent to one request at a time, so that a limit on lines is a limit on
//! connections, and what was learned of a connection (how fast it is) is known before the next request is made on it.
//!
//! Each line has an HTTP client of its own, whose pool holds that one connection. A shared pool would not say which connection a
//! request gets, and opens one more when a request comes a moment before another's connection is back. Over HTTP/2 a line is a
//! connection as well: streams of one connection share its window, which is what limits an origin far away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use url::Url;

use super::client::Connection;
use super::origin::{Origin, Trust};

/// Lines that nobody used for so long are forgotten; their connections are closed by then.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// Lines of each origin that only what somebody waits for may use, where there are enough of them.
const KEPT: usize = 2;

/// The lines of all origins: by scheme, host and port.
#[derive(Debug)]
pub(super) struct Lines {
    /// Lines to one origin, lent or idle.
    most: usize,
    origins: Mutex<HashMap<String, OfOrigin>>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct OfOrigin {
    lent: usize,
    /// Most recently used last.
    idle: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    connection: Connection,
    trust: Trust,
    /// Bytes a second of the latest body, while more of it was to come; 0 is unknown.
    speed: u64,
    used: Instant,
}

/// The right to have one request under way, on a connection of its own. Dropping it gives the line back.
#[derive(Debug)]
pub(super) struct Lent {
    lines: Arc<Lines>,
    key: String,
    /// Present until dropped.
    line: Option<Line>,
}

impl Lines {
    /// At most `most` lines to each origin, at least one.
    #[must_use]
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Lines { most: most.max(1), origins: Mutex::default(), freed: Notify::new() })
    }

    /// A line to `origin`, the one used last where there is a choice; `None` while all are lent. The last few are lent only when the
    /// request is `urgent`: somebody waits for it.
    pub(super) fn try_lend(self: &Arc<Self>, origin: &Origin, urgent: bool) -> Option<Lent> {
        let key = key(&origin.url);
        let mut origins = self.origins();
        let of_origin = origins.entry(key.clone()).or_default();
        let kept = if urgent { 0 } else { KEPT.min(self.most / 4) };
        if of_origin.lent + kept >= self.most {
            return None;
        }
        let same = of_origin.idle.iter().rposition(|line| line.trust == origin.trust);
        let line = match same {
            Some(at) => of_origin.idle.remove(at),
            None => {
                // An idle line is a connection as well.
                if of_origin.lent + of_origin.idle.len() >= self.most {
                    of_origin.idle.remove(0);
                }
                let connection = Connection::default();
                Line { connection, trust: origin.trust, speed: 0, used: Instant::now() }
            }
        };
        of_origin.lent += 1;
        Some(Lent { lines: Arc::clone(self), key, line: Some(line) })
    }

    /// Waits until a line of any origin is given back. Enable it before trying, so that none is missed.
    pub(super) fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    /// A line to `origin` for what somebody waits for, as soon as there is one.
    pub(super) async fn lend(self: &Arc<Self>, origin: &Origin) -> Lent {
        loop {
            let mut freed = std::pin::pin!(self.freed());
            freed.as_mut().enable();
            if let Some(lent) = self.try_lend(origin, true) {
                return lent;
            }
            freed.await;
        }
    }

    fn origins(&self) -> MutexGuard<'_, HashMap<String, OfOrigin>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, key: &str, mut line: Line) {
        line.used = Instant::now();
        let mut origins = self.origins();
        if let Some(of_origin) = origins.get_mut(key) {
            of_origin.lent -= 1;
            of_origin.idle.push(line);
        }
        origins.retain(|_, of_origin| {
            of_origin.idle.retain(|line| line.used.elapsed() < IDLE_MAX);
            of_origin.lent > 0 || !of_origin.idle.is_empty()
        });
        drop(origins);
        self.freed.notify_waiters();
    }
}

impl Lent {
    /// Its connection.
    pub(super) fn connection(&self) -> &Connection {
        match &self.line {
            Some(line) => &line.connection,
            None => unreachable!("a line is there until it is dropped"),
        }
    }

    /// Bytes a second of its latest body; `None` while it has brought none.
    pub(super) fn speed(&self) -> Option<u64> {
        self.line.as_ref().map(|line| line.speed).filter(|speed| *speed > 0)
    }

    /// Notes the speed of a body that came to its end; `None` is a connection that broke, so that the next one is another.
    pub(super) fn measured(&mut self, speed: Option<u64>) {
        if let Some(line) = &mut self.line {
            line.speed = speed.unwrap_or(0);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            self.lines.give_back(&self.key, line);
        }
    }
}

/// Equal for URLs that lead to the same connections.
fn key(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::new(url, Trust::Named).unwrap()
    }

    #[test]
    fn lines_are_counted_for_each_origin_and_the_last_are_kept_for_the_urgent() {
        let lines = Lines::new(8);
        let (here, there) = (origin("http://h/a"), origin("http://i/a"));
        let mut held: Vec<_> = std::iter::from_fn(|| lines.try_lend(&here, false)).collect();
        assert_eq!(held.len(), 6);
        // Another file of the same host is the same origin; another host is not.
        assert!(lines.try_lend(&origin("http://h:80/b"), false).is_none());
        assert!(lines.try_lend(&there, false).is_some());
        held.extend(std::iter::from_fn(|| lines.try_lend(&here, true)));
        assert_eq!(held.len(), 8);
        held.pop();
        assert!(lines.try_lend(&here, false).is_none() && lines.try_lend(&here, true).is_some());
        for most in 0..3 {
            assert!(Lines::new(most).try_lend(&here, false).is_some(), "one line is for everybody");
        }
    }

    #[test]
    fn idle_lines_count_and_keep_what_was_learned() {
        let lines = Lines::new(2);
        let (named, given) = (origin("http://h/a"), Origin::new("http://h/b", Trust::Given).unwrap());
        let (mut first, second) =
            (lines.try_lend(&named, true).unwrap(), lines.try_lend(&named, true).unwrap());
        assert_eq!(first.speed(), None);
        first.measured(Some(5));
        drop((second, first));
        assert_eq!(lines.try_lend(&named, true).unwrap().speed(), Some(5), "the one used last");
        // One that may lead elsewhere has a connection of its own, in place of an idle one.
        let other = lines.try_lend(&given, true).unwrap();
        assert_eq!(lines.origins()["http://h"].idle.len() + 1, 2);
        drop(other);
        let mut again = lines.try_lend(&named, true).unwrap();
        again.measured(None);
        assert_eq!(again.speed(), None);
    }

    #[tokio::test]
    async fn who_waits_for_a_line_gets_the_next() {
        let lines = Lines::new(1);
        let here = origin("http://h/a");
        let held = lines.lend(&here).await;
        let (waiting, ()) = tokio::join!(lines.lend(&here), async move { drop(held) });
        assert!(lines.try_lend(&here, true).is_none());
        drop(waiting);
    }
}
