//! How the control thread hears what the shards hear.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use millrace_engine::event::News;
use millrace_pagecache::Content;
use millrace_proto::id::ContentName;
use millrace_send::Mailbox;
use tokio::io::unix::AsyncFd;

use super::announce::Announcer;
use super::documents::duplicates;
use super::events::Events;
use super::questions::Questions;
use super::viewer::Viewer;

/// News looked at before others on this thread get a turn.
const NEWS_MAX: usize = 256;

/// Hears the news that shards hear.
pub(super) struct Ears {
    pub(super) questions: Arc<Questions>,
    pub(super) events: Events,
    pub(super) announcer: Announcer,
    /// Pieces for which block heads were made, by piece length: most contents need no more than another one had.
    pub(super) covered: HashMap<u32, u32>,
}

impl Ears {
    pub(super) async fn listen(mut self, mut mailbox: Mailbox) {
        #[expect(
            deprecated,
            reason = "the replacement is unsafe, for types that do not own what they name; an OwnedFd does"
        )]
        let registered = mailbox.as_fd().try_clone_to_owned().and_then(AsyncFd::new);
        let bell = match registered {
            Ok(bell) => bell,
            Err(error) => {
                tracing::error!(%error, "the control thread hears no news: contents added from now on are not listed");
                return;
            }
        };
        loop {
            for _ in 0..NEWS_MAX {
                let Some(news) = mailbox.next() else { break };
                self.note(news);
            }
            if mailbox.may_sleep() {
                match bell.readable().await {
                    Ok(mut ready) => ready.clear_ready(),
                    Err(_) => return,
                }
            } else {
                tokio::task::yield_now().await;
            }
            mailbox.wake();
        }
    }

    pub(super) fn note(&mut self, news: News) {
        match news {
            News::Put(content) => {
                let entry = self.questions.index.put(content);
                // A private torrent has its own trackers and no other (BEP 27).
                if !entry.content.metainfo().is_some_and(|metainfo| metainfo.info.private) {
                    entry.swarms().for_each(|swarm| self.questions.tracker.register(swarm.0));
                }
                self.cover(&entry.content);
                entry.content.set_links(duplicates(&entry.content));
                self.announcer.note(&entry);
                self.events.content(&self.questions, &entry);
            }
            News::Gone(id) => {
                if let Some(entry) = self.questions.index.remove(id) {
                    entry.swarms().for_each(|swarm| self.questions.tracker.unregister(&swarm.0));
                    self.announcer.removed(id);
                    self.events.removed(id);
                }
            }
            News::Changed(id) => {
                if let Some(entry) = self.questions.index.find(ContentName::Id(id), Viewer::Operator) {
                    self.announcer.note(&entry);
                    self.events.content(&self.questions, &entry);
                }
            }
            News::Arrived(_)
            | News::Piece { .. }
            | News::Answer { .. }
            | News::Caps(_)
            | News::Gate(_)
            | News::Limits(_)
            | News::Drain => {}
        }
    }

    /// Makes the heads of this content's blocks, which shards then send by reference.
    fn cover(&mut self, content: &Content) {
        let (piece_bytes, pieces) = (content.layout().piece_bytes(), content.layout().piece_count());
        let covered = self.covered.entry(piece_bytes).or_insert(0);
        if content.metainfo().is_none() || pieces <= *covered {
            return;
        }
        *covered = pieces;
        let headers = Arc::clone(&self.questions.relay.headers);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = headers.cover(piece_bytes, pieces) {
                tracing::warn!(%error, "no table of block heads: they are copied");
            }
        });
    }
}
