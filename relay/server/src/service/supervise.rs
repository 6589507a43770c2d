//! The thread that feeds the manager's watchdog and keeps its status line: fed only when every shard's loop has turned since the last
//! feed, so that a relay whose port answers to nobody is restarted.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_engine::counters::Counters;
use millrace_engine::limits::IDLE_NS_MAX;
use millrace_pagecache::State as ContentState;
use millrace_proto::units::Size;

use super::{Notify, State};
use crate::relay::Relay;

/// How often the status line is looked at where no watchdog wants more.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Times that the shards are looked at within the watchdog's time: one of them may fall on a shard that waits for a disk.
const LOOKS: u32 = 3;

/// The thread; it ends with this value.
#[derive(Debug)]
pub(crate) struct Supervision {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The time within which the manager wants to be told that all is well (`WatchdogSec=`), where it watches this process.
pub(crate) fn watchdog_interval(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
    // sd_watchdog_enabled(3): without a process id it is for whoever reads it.
    if number("WATCHDOG_PID").is_some_and(|process| process != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|micros| *micros > 0).map(Duration::from_micros)
}

impl Supervision {
    /// Starts the thread, where somebody listens.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub(crate) fn start(
        notify: Arc<Notify>,
        watchdog: Option<Duration>,
        relay: Arc<Relay>,
    ) -> io::Result<Self> {
        if !notify.is_wanted() {
            return Ok(Supervision { stop: None, thread: None });
        }
        let every = watchdog.map_or(STATUS_EVERY, |watchdog| (watchdog / LOOKS).min(STATUS_EVERY));
        if every < Duration::from_nanos(2 * IDLE_NS_MAX) {
            tracing::warn!(
                "the watchdog's time is short for shards that turn once a second when idle: set WatchdogSec= to 10 s or more"
            );
        }
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("service".into()).spawn(move || {
            let mut turns = Turns::new(&relay.counters);
            let mut said = String::new();
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let draining = relay.stop.is_wished();
                let standing = turns.standing(&relay.counters);
                // A shard that has drained turns no more; how long a drain may take is limited by the manager's stop timeout.
                if watchdog.is_some() && (draining || standing.is_empty()) {
                    notify.send(State::Watchdog);
                }
                let status = status(&relay, &standing);
                // What is wrong is said at every look.
                if !draining && (status != said || !standing.is_empty()) {
                    notify.send(State::Status(&status));
                    said = status;
                }
            }
        })?;
        Ok(Supervision { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Supervision {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How often each shard had turned when all of them last had.
struct Turns(Vec<u64>);

impl Turns {
    fn new(counters: &[Arc<Counters>]) -> Self {
        Turns(counters.iter().map(|counters| counters.loops.value()).collect())
    }

    /// The shards that have not turned since all of them last had, by number; none, and time begins anew.
    fn standing(&mut self, counters: &[Arc<Counters>]) -> Vec<usize> {
        let now = Turns::new(counters);
        let unmoved = |(number, (then, now)): (usize, (&u64, &u64))| (then == now).then_some(number);
        let standing: Vec<_> = self.0.iter().zip(&now.0).enumerate().filter_map(unmoved).collect();
        if standing.is_empty() {
            *self = now;
        }
        standing
    }
}

/// The line that `systemctl status` shows.
pub(crate) fn status(relay: &Relay, standing: &[usize]) -> String {
    if !standing.is_empty() {
        let numbers: Vec<_> = standing.iter().map(ToString::to_string).collect();
        return format!("Stuck: shard {} does not turn; the watchdog is not fed", numbers.join(", "));
    }
    let contents = relay.store.contents();
    let pulling = contents.iter().filter(|content| content.state() == ContentState::Pulling).count();
    let sum =
        |count: fn(&Counters) -> u64| relay.counters.iter().map(|counters| count(counters)).sum::<u64>();
    format!(
        "Serving {} contents, {pulling} of them being pulled, to {} connections; {} served",
        contents.len(),
        sum(|counters| counters.connections_http.value() + counters.connections_bittorrent.value()),
        Size(sum(|counters| counters.served_http_bytes.value() + counters.served_bittorrent_bytes.value())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_well_when_every_shard_has_turned_since_it_last_was() {
        let counters: Vec<Arc<Counters>> = (0..2).map(|_| Arc::default()).collect();
        let mut turns = Turns::new(&counters);
        assert_eq!(turns.standing(&counters), [0, 1]);
        counters[0].loops.increment();
        assert_eq!(turns.standing(&counters), [1]);
        counters[1].loops.increment();
        assert_eq!(turns.standing(&counters), [0_usize; 0], "the first has turned since, if long ago");
        counters[0].loops.increment();
        assert_eq!(turns.standing(&counters), [1]);
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let own = std::process::id().to_string();
        let interval = |micros: Option<&str>, process: Option<&str>| {
            let variable = |name: &str| match name {
                "WATCHDOG_USEC" => micros.map(OsString::from),
                _ => process.map(OsString::from),
            };
            watchdog_interval(&variable)
        };
        let seconds = Some(Duration::from_secs(3));
        assert_eq!(interval(Some("3000000"), Some(&own)), seconds);
        assert_eq!(interval(Some("3000000"), None), seconds);
        assert_eq!(interval(Some("3000000"), Some("1")), None);
        assert_eq!(
            [interval(None, Some(&own)), interval(Some("0"), None), interval(Some("x"), None)],
            [None; 3]
        );
    }
}
