//! `GET /v1/events`: changes of contents as they happen and the relay's state once a second, for whoever listens.

use std::sync::Arc;

use millrace_proto::admin::Event;
use millrace_proto::id::ContentId;
use tokio::sync::broadcast::{self, Receiver, Sender};

use super::index::Entry;
use super::questions::Questions;
use super::status;

/// Events that a slow listener may be behind before it misses some.
const BACKLOG: usize = 1024;

/// Where events go. Without listeners they are not even made.
#[derive(Debug, Clone)]
pub(super) struct Events(Sender<Arc<Event>>);

impl Default for Events {
    fn default() -> Self {
        Events(broadcast::channel(BACKLOG).0)
    }
}

impl Events {
    pub(super) fn subscribe(&self) -> Receiver<Arc<Event>> {
        self.0.subscribe()
    }

    pub(super) fn content(&self, questions: &Questions, entry: &Entry) {
        self.send(|| Event::Content { content: Box::new(questions.links.content(entry, false)) });
    }

    pub(super) fn removed(&self, id: ContentId) {
        self.send(|| Event::Removed { id: id.to_string() });
    }

    pub(super) fn relay(&self, questions: &Questions) {
        self.send(|| Event::Relay { status: Box::new(status::relay(questions)) });
    }

    fn send(&self, make: impl FnOnce() -> Event) {
        if self.0.receiver_count() > 0 {
            // The last listener may leave in between.
            let _ = self.0.send(Arc::new(make()));
        }
    }
}
