//! Bringing all of ingest to rest, so that another program can go on with it: ranges under way come to their end, nothing is begun, and
//! nothing is written any more.

use std::rc::Rc;
use std::time::Duration;

use millrace_pagecache::content::Content;
use millrace_pagecache::{PieceIndex, State};
use tokio::sync::{OwnedRwLockWriteGuard, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pulls::Pulls;
use super::{Command, Elsewhere};
use crate::upgrade::Loose;

/// Ingest at rest: as long as this is held, no blocking thread changes the store.
pub(super) struct Rest {
    _held: OwnedRwLockWriteGuard<()>,
}

/// Brings `pulls` to rest. What is added comes to its end as well, or is told after `patience` that the relay is stopping.
pub(super) async fn begin(
    pulls: &Rc<Pulls>,
    adding: &mut JoinSet<()>,
    patience: Duration,
) -> (Rest, Vec<Loose>) {
    let until = Instant::now() + patience;
    let added = tokio::time::timeout_at(until, async { while adding.join_next().await.is_some() {} }).await;
    if added.is_err() {
        adding.shutdown().await;
    }
    let arrived = pulls.rest(until).await;
    let context = pulls.context();
    super::save_count(context).await;
    let held = std::sync::Arc::clone(&context.disk).write_owned().await;
    let mut loose: Vec<_> = context.store.contents().iter().filter_map(|content| loose(content)).collect();
    for (id, arrived) in arrived {
        context.arrived().insert(id, arrived.clone());
        match loose.iter_mut().find(|loose| loose.id == id) {
            Some(loose) => loose.arrived = arrived,
            None => loose.push(Loose { id, visible: Vec::new(), arrived }),
        }
    }
    (Rest { _held: held }, loose)
}

/// What is visible of a content and vouched for by no file.
fn loose(content: &Content) -> Option<Loose> {
    if matches!(content.state(), State::Complete | State::Removed) || content.is_quarantined() {
        return None;
    }
    let visible = content.visible_beyond_pieces();
    (!visible.is_empty()).then(|| Loose { id: content.id(), visible, arrived: Vec::new() })
}

impl Rest {
    /// Waits for the word: what was asked meanwhile where everything goes on here, nothing when it does not, after which there is nothing
    /// left to be done. Who asks for what is here already has it at once.
    pub(super) async fn wait(
        self,
        pulls: &Pulls,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Option<Vec<Command>> {
        let mut waiting = Vec::new();
        loop {
            match commands.recv().await? {
                Command::TakeBack => return Some(waiting),
                Command::LeaveTo(Elsewhere(demand)) => {
                    drop(waiting);
                    self.pass_on(pulls, commands, demand).await;
                    return None;
                }
                Command::Stop => return None,
                // It comes again.
                Command::Demand { .. } => {}
                command => waiting.extend(find(pulls, command)),
            }
        }
    }

    /// Passes on what readers wait for, until they are gone. Everything else is told that this relay stops.
    async fn pass_on(
        self,
        pulls: &Pulls,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        demand: impl Fn(millrace_proto::id::ContentId, u64, u64),
    ) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Demand { id, offset, bytes } => demand(id, offset, bytes),
                Command::Stop => break,
                command => drop(find(pulls, command)),
            }
        }
    }
}

/// Answers a request of a reader for a content that is here, and gives back every other command.
fn find(pulls: &Pulls, command: Command) -> Option<Command> {
    let Command::Pull(request, then) = command else { return Some(command) };
    let found = pulls.find(&request.key(), request.id);
    match found.filter(|content| !matches!(content.state(), State::Failed | State::Removed)) {
        Some(content) => {
            then.act(Ok(content));
            None
        }
        None => Some(Command::Pull(request, then)),
    }
}

/// What `missing` leaves of the pieces of a content that are not whole.
pub(super) fn arrived_of(
    content: &Content,
    missing: impl Fn(std::ops::Range<u64>) -> Vec<std::ops::Range<u64>>,
) -> Vec<std::ops::Range<u64>> {
    let (layout, mut arrived) = (content.layout(), Vec::new());
    for piece in (0..layout.piece_count()).map(PieceIndex).filter(|piece| !content.has_piece(*piece)) {
        let range = layout.piece_range(piece);
        let mut at = range.start;
        for gap in missing(range.clone()) {
            if gap.start > at {
                arrived.push(at..gap.start);
            }
            at = gap.end;
        }
        if at < range.end {
            arrived.push(at..range.end);
        }
    }
    arrived
}
