//! What happens at a relay, in lines for people.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::Sender;

use millrace_proto::admin::{ContentState, ContentStatus, Event};

use crate::client::{Client, Followed, state_name};

use super::{INTERVAL, Message};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// Whether somebody should look.
    pub(super) is_bad: bool,
}

/// What was told of each content last.
#[derive(Debug, Default)]
pub(super) struct Journal {
    known: HashMap<String, (String, ContentState, Option<String>)>,
}

impl Journal {
    /// What an event says to people; most say nothing new.
    pub(super) fn line(&mut self, event: Event) -> Option<Line> {
        let good = |text: String| Some(Line { text, is_bad: false });
        match event {
            Event::Content { content } => self.content(*content),
            Event::Removed { id } => {
                let name = self.known.remove(&id).map_or(id, |(name, ..)| name);
                good(format!("removed  {name}"))
            }
            Event::Reset => good("events were missed".to_owned()),
            Event::Relay { .. } => None,
        }
    }

    fn content(&mut self, content: ContentStatus) -> Option<Line> {
        let ContentStatus { id, name, state, error, .. } = content;
        let now = (printable(&name), state, error);
        let before = self.known.insert(id, now.clone());
        if before.as_ref() == Some(&now) {
            return None;
        }
        let (name, state, error) = now;
        let told = match before {
            Some((_, before, _)) if before != state => {
                format!("{name}  {} → {}", state_name(before), state_name(state))
            }
            Some(_) if error.is_none() => return None,
            Some(_) => name,
            None => format!("{name}  {}", state_name(state)),
        };
        let is_bad = error.is_some() || state == ContentState::Failed;
        let text = error.map_or(told.clone(), |error| format!("{told}  {}", printable(&error)));
        Some(Line { text, is_bad })
    }
}

/// A stranger's words: nothing in them may speak to the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Follows the events, until nobody wants to know any more. Where they break off they are taken up again.
pub(super) fn follow(socket: PathBuf, sender: &Sender<Message>) {
    let (mut journal, mut heard) = (Journal::default(), None);
    while let Ok(client) = Client::at(socket.clone()) {
        let mut is_wanted = true;
        // That the relay is away is told by who asks for samples.
        let _ = client.follow(&mut heard, |event| {
            if let Some(line) = journal.line(event) {
                is_wanted = sender.send(Message::Event(line)).is_ok();
            }
            if is_wanted { Followed::On } else { Followed::Enough }
        });
        if !is_wanted {
            return;
        }
        std::thread::sleep(INTERVAL);
    }
}
