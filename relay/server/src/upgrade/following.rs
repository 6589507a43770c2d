//! What the old program of an upgrade does afterwards: it finishes what runs, and learns from the new one what has become of contents.

use std::io;
use std::process::Child;
use std::sync::Arc;
use std::thread::JoinHandle;

use millrace_engine::event::News;
use millrace_pagecache::{Content, State};
use tokio::sync::OwnedRwLockWriteGuard;

use super::link::Link;
use super::message::{Fate, Message};
use crate::ingest::PassOn;
use crate::relay::Relay;

/// The program that is the relay now.
#[derive(Debug)]
pub(crate) struct Successor {
    link: Link,
    child: Child,
    /// What it calls itself.
    pub(crate) version: String,
    /// Nothing is changed here any more.
    _changes: OwnedRwLockWriteGuard<()>,
}

impl Successor {
    /// It has everything.
    pub(super) fn new(link: Link, child: Child, version: String, changes: OwnedRwLockWriteGuard<()>) -> Self {
        Successor { link, child, version, _changes: changes }
    }

    /// Which process it is.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// How readers here ask for bytes from now on.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn demands(&self) -> io::Result<PassOn> {
        let link = self.link.try_clone()?;
        Ok(Box::new(move |id, offset, bytes| {
            // Without anybody there nothing comes, and who waits is let go in time.
            let _ = link.send(&Message::Demand { id, offset, bytes });
        }))
    }

    /// Starts the thread that does here what the successor says has become of contents, until that is gone; then it does `gone`.
    ///
    /// # Errors
    /// No thread, no descriptor.
    pub(crate) fn follow(
        self,
        relay: Arc<Relay>,
        gone: impl FnOnce() + Send + 'static,
    ) -> io::Result<Following> {
        let link = self.link.try_clone()?;
        let thread = std::thread::Builder::new().name("follow".into()).spawn(move || {
            let Successor { link, mut child, _changes, .. } = self;
            let _ = link.set_patience(None);
            while let Ok(Some((message, _))) = link.receive() {
                apply(&relay, &link, message);
            }
            gone();
            // One that has ended before us is our child still.
            let _ = child.try_wait();
        })?;
        Ok(Following { link, thread })
    }
}

/// The thread that follows a successor.
pub(crate) struct Following {
    link: Link,
    thread: JoinHandle<()>,
}

impl Following {
    /// Tells the successor that nobody reads here any more.
    pub(crate) fn end(self) {
        self.link.hang_up();
        let _ = self.thread.join();
    }
}

fn apply(relay: &Relay, link: &Link, message: Message) {
    match message {
        Message::Bytes { id, visible, ended, fate } => {
            let Some(content) = relay.store.get(id) else { return };
            if let Some(run) = visible {
                content.follow(run);
            }
            if let Some(length) = ended.filter(|_| content.is_growing()) {
                content.follow(0..length);
                content.end_growth();
            }
            take_fate(relay, &content, fate);
            let waiting = content.take_parked();
            relay.shards.post_to(waiting, || News::Arrived(id));
        }
        Message::Leaving { id } => {
            // Whoever follows this program may have it open as well.
            if !relay.store.may_unlink(id) {
                return;
            }
            if let Some(content) = relay.store.get(id) {
                content.leave();
                relay.shards.broadcast(|| News::Gone(id));
            }
            let _ = link.send(&Message::Left { id });
        }
        _ => {}
    }
}

fn take_fate(relay: &Relay, content: &Content, fate: Fate) {
    let state = match fate {
        Fate::Open if content.state() == State::Failed => State::Pulling,
        Fate::Open => return,
        Fate::Failed { why } => {
            content.set_error(why.as_deref());
            State::Failed
        }
        Fate::Removed => State::Removed,
    };
    content.set_state(state);
    let id = content.id();
    relay.shards.broadcast(|| News::Changed(id));
}
