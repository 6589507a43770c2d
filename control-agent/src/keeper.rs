//! Keeps the relay at the desired state: a pass whenever that state, the relay or something in it changes, and now and then.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use millrace_proto::admin::{ContentState, Event};
use millrace_proto::control::DesiredState;
use millrace_proto::control::report::Obstacle;
use millrace_proto::id::ContentId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::{Admin, AdminError, Events};
use crate::config::Config;
use crate::converge::Converger;
use crate::folder::Folder;
use crate::plan::Own;

/// Before a relay that is away is looked for again.
const AWAY: Duration = Duration::from_secs(1);

/// A relay tells its state once a second: one that is silent for so long is away.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What came of the last pass, for reports.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Sequence of the state that it was made for.
    pub(crate) sequence: Option<u64>,
    /// Whether the relay is at that state.
    pub(crate) converged: bool,
    pub(crate) obstacles: Vec<Obstacle>,
    pub(crate) own: Arc<Own>,
}

/// Keeps.
#[derive(Debug)]
pub(crate) struct Keeper {
    converger: Converger,
    held: watch::Receiver<Option<Arc<DesiredState>>>,
    outcome: watch::Sender<Outcome>,
    interval: Duration,
}

/// What ends a wait.
enum Woken {
    /// A pass is due.
    Due,
    /// The relay is gone.
    Away,
}

impl Keeper {
    pub(crate) fn open(
        config: &Config,
        folder: &Folder,
        admin: Admin,
        held: watch::Receiver<Option<Arc<DesiredState>>>,
    ) -> anyhow::Result<Keeper> {
        let converger = Converger::open(admin, folder, config.retry_interval)?;
        Ok(Keeper { converger, held, outcome: watch::Sender::default(), interval: config.converge_interval })
    }

    /// What comes of passes. It is marked as changed when contents change, too.
    pub(crate) fn outcome(&self) -> (Admin, watch::Receiver<Outcome>) {
        (self.converger.admin().clone(), self.outcome.subscribe())
    }

    /// Keeps, for as long as it is let.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut is_told = false;
        loop {
            let error = match self.converger.admin().events().await {
                Ok(events) => {
                    tracing::info!("the relay answers");
                    is_told = false;
                    self.follow(events).await
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!("{error}");
            }
            self.publish(Err(error));
            tokio::time::sleep(AWAY).await;
        }
    }

    /// Passes, until the relay goes away.
    async fn follow(&mut self, mut events: Events) -> AdminError {
        loop {
            let Some(desired) = self.held.borrow_and_update().clone() else {
                self.publish(Ok(Vec::new()));
                match self.wait(&mut events, None).await {
                    Woken::Due => continue,
                    Woken::Away => return AdminError::Away("it has gone".to_owned()),
                }
            };
            let passed = tokio::select! {
                passed = self.converger.pass(&desired) => Some(passed),
                // Another state is desired: this one is not pursued any further.
                _ = self.held.changed() => None,
            };
            match passed {
                None => continue,
                Some(Err(away @ AdminError::Away(_))) => return away,
                Some(passed) => self.publish(passed),
            }
            if let Woken::Away = self.wait(&mut events, Some(&desired)).await {
                return AdminError::Away("it has gone".to_owned());
            }
        }
    }

    /// Waits until something changed that a pass could be needed for.
    async fn wait(&mut self, events: &mut Events, desired: Option<&DesiredState>) -> Woken {
        let due = Instant::now() + self.interval;
        let mut heard = Instant::now();
        let mut has_changed = false;
        loop {
            tokio::select! {
                changed = self.held.changed() => {
                    // The other end lives as long as the process.
                    let _ = changed;
                    return Woken::Due;
                }
                () = tokio::time::sleep_until(due) => return Woken::Due,
                () = tokio::time::sleep_until(heard + SILENCE_MAX) => return Woken::Away,
                event = events.next() => {
                    heard = Instant::now();
                    match event {
                        None => return Woken::Away,
                        // Once a second: a good measure for telling what changed meanwhile.
                        Some(Event::Relay { .. }) if std::mem::take(&mut has_changed) => {
                            self.outcome.send_modify(|_| {});
                        }
                        Some(Event::Relay { .. }) => {}
                        Some(event) => {
                            has_changed = true;
                            if self.concerns(&event, desired) {
                                return Woken::Due;
                            }
                        }
                    }
                }
            }
        }
    }

    /// Whether a pass could have something to do after this.
    fn concerns(&self, event: &Event, desired: Option<&DesiredState>) -> bool {
        let Some(desired) = desired else { return false };
        let own = self.converger.own();
        let is_wanted = |id: ContentId| desired.wanted().any(|(wanted, _)| wanted == id);
        match event {
            Event::Reset => true,
            Event::Removed { id } => id.parse().is_ok_and(is_wanted),
            Event::Content { content } => {
                let is_heir = || content.supersedes.as_deref().and_then(|old| old.parse().ok());
                let is_failed = content.state == ContentState::Failed;
                match content.id.parse::<ContentId>() {
                    Ok(id) if own.contents.contains(&id) => is_failed || !is_wanted(id),
                    _ => is_heir().is_some_and(|old: ContentId| own.contents.contains(&old)),
                }
            }
            Event::Relay { .. } => false,
        }
    }

    fn publish(&self, passed: Result<Vec<Obstacle>, AdminError>) {
        let (obstacles, answered) = match passed {
            Ok(obstacles) => (obstacles, true),
            Err(error) => (vec![Obstacle { content: None, what: error.to_string() }], false),
        };
        let sequence = self.held.borrow().as_ref().map(|held| held.sequence);
        let converged = answered && obstacles.is_empty() && sequence.is_some();
        let own = Arc::new(self.converger.own().clone());
        let outcome = Outcome { sequence, converged, obstacles, own };
        let before = self.outcome.borrow().clone();
        if outcome == before {
            return;
        }
        self.outcome.send_replace(outcome);
        if converged && !(before.converged && before.sequence == sequence) {
            tracing::info!(sequence, "the relay is as the controller wants it");
        }
    }
}
