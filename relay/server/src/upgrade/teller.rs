//! The thread by which the new program of an upgrade tells the old one what its readers wait for, and asks it before files lose their
//! names.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_engine::event::News;
use millrace_pagecache::waiting::SHARDS_MAX;
use millrace_pagecache::{Content, State};
use millrace_proto::id::ContentId;
use millrace_send::Mailbox;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::link::Link;
use super::message::{Fate, Message};
use crate::relay::Relay;

/// How long the old program is waited for before files lose their names, and for room on the line to it.
pub(super) const LEAVING: Duration = Duration::from_secs(5);

/// Within such a time all programs together keep each cap.
pub(super) const ALL_TOGETHER: Duration = Duration::from_millis(1_050);

/// Readers repeat what they wait for every second, and what was missed is looked at again by then.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Waits of one content that are remembered; one that is forgotten is asked for again.
const WAITS_MAX: usize = 1024;

/// Starts the thread, which ends with the old program. `mailbox` is one of the shards' at the place `number`.
///
/// # Errors
/// No thread, no descriptor.
pub(super) fn start(
    link: Link,
    relay: Arc<Relay>,
    mailbox: Mailbox,
    number: u32,
) -> io::Result<JoinHandle<()>> {
    let asker = Arc::new(Asker { link: link.try_clone()?, waiting: Mutex::new(Some(HashMap::new())) });
    let asked = Arc::clone(&asker);
    relay.store.ask_before_unlinking(move |id| asked.may_unlink(id));
    let teller = Teller { link, mailbox, number, relay, asker, waits: HashMap::new() };
    std::thread::Builder::new().name("predecessor".into()).spawn(move || teller.run())
}

/// Those who wait for the old program's word before files lose their names; none when it is gone.
type Waiting = HashMap<ContentId, Vec<mpsc::Sender<()>>>;

#[derive(Debug)]
struct Asker {
    link: Link,
    waiting: Mutex<Option<Waiting>>,
}

impl Asker {
    /// Asks the old program to open none of a content's files any more. False when it does not answer.
    fn may_unlink(&self, id: ContentId) -> bool {
        let (answer, answered) = mpsc::channel();
        match &mut *self.waiting() {
            None => return true,
            Some(waiting) => waiting.entry(id).or_default().push(answer),
        }
        // It may be gone by now, which the thread that listens finds out.
        let _ = self.link.send(&Message::Leaving { id });
        answered.recv_timeout(LEAVING) != Err(RecvTimeoutError::Timeout)
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the old program what has become of the contents that its readers wait for: to the relay it is one shard more, which parks.
struct Teller {
    link: Link,
    mailbox: Mailbox,
    number: u32,
    relay: Arc<Relay>,
    asker: Arc<Asker>,
    waits: HashMap<ContentId, Vec<Range<u64>>>,
}

impl Teller {
    fn run(mut self) {
        loop {
            let sleeps = self.mailbox.may_sleep();
            let timeout = if sleeps { LOOK_EVERY } else { Timespec { tv_sec: 0, tv_nsec: 0 } };
            let (said, polled) = {
                let mut ends =
                    [PollFd::new(&self.link, PollFlags::IN), PollFd::new(&self.mailbox, PollFlags::IN)];
                let polled = poll(&mut ends, Some(&timeout));
                (!ends[0].revents().is_empty(), polled)
            };
            self.mailbox.wake();
            if polled == Ok(0) {
                self.waits.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.tell(id));
            }
            while let Some(news) = self.mailbox.next() {
                match news {
                    News::Arrived(id) | News::Changed(id) | News::Gone(id) => self.tell(id),
                    News::Put(content) => self.tell(content.id()),
                    _ => {}
                }
            }
            if said && polled.is_ok() && !self.listen() {
                break;
            }
        }
        // Who waits for its word need not any more.
        *self.asker.waiting() = None;
        tracing::info!("upgrade: the old program has ended");
        // What it sent last counts for a second.
        std::thread::sleep(ALL_TOGETHER);
        self.relay.caps.change_share(|share| share.before = 0);
    }

    /// Takes one message. False when the old program is gone.
    fn listen(&mut self) -> bool {
        match self.link.receive() {
            Ok(Some((Message::Demand { id, offset, bytes }, _))) => {
                let wait = offset..offset.saturating_add(bytes);
                let waits = self.waits.entry(id).or_default();
                if !waits.contains(&wait) {
                    if waits.len() == WAITS_MAX {
                        waits.remove(0);
                    }
                    waits.push(wait);
                }
                self.relay.ingest.demand(id, offset, bytes);
                self.tell(id);
                true
            }
            Ok(Some((Message::Left { id }, _))) => {
                if let Some(waiting) = &mut *self.asker.waiting() {
                    waiting.remove(&id);
                }
                true
            }
            Ok(Some((other, _))) => {
                tracing::warn!(?other, "upgrade: the old program says what nobody asked for");
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(%error, "upgrade: the old program cannot be understood");
                error.kind() == io::ErrorKind::WouldBlock
            }
        }
    }

    /// Says what is there of that for which somebody waits. What cannot be said is said at the next look.
    fn tell(&mut self, id: ContentId) {
        let Some(waits) = self.waits.get_mut(&id) else { return };
        let Some(content) = self.relay.store.get(id) else {
            let gone = Message::Bytes { id, visible: None, ended: None, fate: Fate::Removed };
            if self.link.send(&gone).is_ok() {
                self.waits.remove(&id);
            }
            return;
        };
        // Before the look, so that what comes after it is heard of.
        if self.number < SHARDS_MAX {
            content.park(self.number);
        }
        let fate = match content.state() {
            State::Failed => Fate::Failed { why: content.error() },
            State::Removed => Fate::Removed,
            _ => Fate::Open,
        };
        let ended = content.length().filter(|length| content.visible_bytes() >= *length);
        let mut told = Ok(());
        for wait in waits.iter_mut() {
            // As far as it says at a time: the rest is said in the same way.
            while let Some(visible) = visible(&content, wait) {
                let end = visible.end;
                told =
                    self.link.send(&Message::Bytes { id, visible: Some(visible), ended, fate: Fate::Open });
                if told.is_err() {
                    return;
                }
                wait.start = end;
            }
        }
        waits.retain(|wait| !wait.is_empty() && ended.is_none_or(|length| wait.start < length));
        let is_over = waits.is_empty() || fate != Fate::Open;
        if fate != Fate::Open || ended.is_some() {
            told = self.link.send(&Message::Bytes { id, visible: None, ended, fate });
        }
        if told.is_ok() && is_over {
            self.waits.remove(&id);
        }
    }
}

/// The visible bytes at the start of `wait`, from the beginning of their block on.
fn visible(content: &Content, wait: &Range<u64>) -> Option<Range<u64>> {
    let end = content.visible_until(wait.start, wait.end);
    let block_bytes = content.layout().block_bytes().max(1);
    (end > wait.start).then(|| wait.start / block_bytes * block_bytes..end)
}
