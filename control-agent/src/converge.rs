//! Bringing the relay to the desired state, once: look, plan, do. Every pass begins anew, so it can be dropped at any instant.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use millrace_proto::admin::ContentStatus;
use millrace_proto::control::DesiredState;
use millrace_proto::control::report::Obstacle;
use millrace_proto::id::ContentId;

use crate::admin::{Admin, AdminError};
use crate::folder::Folder;
use crate::plan::{Own, Step, adopt, plan};

/// What this agent did.
const OWN: &str = "own.json";

/// Additions at a time: each may wait for an origin.
const ADDITIONS_MAX: usize = 8;

/// An addition that was cut off may still come about; so long it is remembered whose it would be.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Converges, and remembers what it did.
#[derive(Debug)]
pub(crate) struct Converger {
    admin: Admin,
    folder: Folder,
    own: Own,
    retry: Duration,
    started: Instant,
    tried: HashMap<ContentId, Tried>,
}

/// The last step of a content that asked its origins.
#[derive(Debug)]
struct Tried {
    step: Step,
    at: Instant,
    said: Said,
}

/// What came of it.
#[derive(Debug)]
enum Said {
    /// Nothing yet, or nobody waited for it.
    UnderWay,
    Done,
    Refused(String),
}

impl Tried {
    /// Why `step` is not taken now, if that is so: it was, not long ago, and would fail again.
    fn speaks_against(&self, step: &Step, retry: Duration) -> Option<String> {
        if self.at.elapsed() >= retry {
            return None;
        }
        match (&self.said, step) {
            (Said::Refused(why), step) if self.step == *step => Some(why.clone()),
            (Said::Done, Step::Resume(_)) => Some("its pull failed, and is tried again later".to_owned()),
            _ => None,
        }
    }
}

impl Converger {
    /// Goes on from what was done in the last run.
    pub(crate) fn open(admin: Admin, folder: &Folder, retry: Duration) -> anyhow::Result<Converger> {
        let own = folder.read_json(OWN)?.unwrap_or_default();
        let (folder, tried) = (folder.clone(), HashMap::new());
        Ok(Converger { admin, folder, own, retry, started: Instant::now(), tried })
    }

    pub(crate) fn admin(&self) -> &Admin {
        &self.admin
    }

    pub(crate) fn own(&self) -> &Own {
        &self.own
    }

    /// One pass; what stands in the way of the desired state.
    ///
    /// # Errors
    /// The relay is away: nothing is known.
    pub(crate) async fn pass(&mut self, desired: &DesiredState) -> Result<Vec<Obstacle>, AdminError> {
        let mut obstacles = Vec::new();
        let relay = |what: String| Obstacle { content: None, what };
        let mut may_pull = true;
        if self.admin.caps().await? != desired.caps {
            match self.admin.set_caps(&desired.caps).await {
                Ok(()) => {
                    tracing::info!("caps set");
                    // What was refused may be allowed now.
                    self.tried.retain(|_, tried| !matches!(tried.said, Said::Refused(_)));
                }
                Err(AdminError::Refused { detail, .. }) => {
                    // They may be what keeps it from an origin.
                    may_pull = false;
                    obstacles.push(relay(format!("nothing is added, as the caps are refused: {detail}")));
                }
                Err(away) => return Err(away),
            }
        }
        let there = self.admin.contents().await?;
        let mut own = self.own.clone();
        adopt(&there, &mut own);
        let mut steps = plan(desired, &there, &own);
        steps.retain(|step| may_pull || !step.asks_origins());
        for step in &steps {
            let id = step.content();
            match step {
                Step::Add(..) => drop(own.contents.insert(id)),
                Step::Pin(_) if !own.contents.contains(&id) => drop(own.pins.insert(id)),
                _ => {}
            }
        }
        self.forget(&mut own, desired, &there);
        if let Err(error) = self.remember(own) {
            // What could not be told from the operator's afterwards is not begun.
            obstacles.push(relay(error));
            return Ok(obstacles);
        }
        let wanted: HashSet<ContentId> = desired.wanted().map(|(id, _)| id).collect();
        self.tried.retain(|id, _| wanted.contains(id));
        self.carry_out(steps, &mut obstacles).await?;
        Ok(obstacles)
    }

    async fn carry_out(&mut self, steps: Vec<Step>, obstacles: &mut Vec<Obstacle>) -> Result<(), AdminError> {
        let (slow, prompt): (Vec<_>, Vec<_>) = steps.into_iter().partition(Step::asks_origins);
        for step in prompt {
            let outcome = carry_out(&self.admin, &step).await;
            note(step.content(), outcome, obstacles)?;
        }
        let mut due = Vec::new();
        for step in slow {
            let tried = self.tried.get(&step.content());
            match tried.and_then(|tried| tried.speaks_against(&step, self.retry)) {
                Some(what) => obstacles.push(Obstacle { content: Some(step.content()), what }),
                None => due.push(step),
            }
        }
        for step in &due {
            let tried = Tried { step: step.clone(), at: Instant::now(), said: Said::UnderWay };
            self.tried.insert(step.content(), tried);
        }
        let admin = &self.admin;
        let outcomes = stream::iter(due).map(|step| async move {
            let outcome = carry_out(admin, &step).await;
            (step.content(), outcome)
        });
        let mut outcomes = std::pin::pin!(outcomes.buffer_unordered(ADDITIONS_MAX));
        while let Some((id, outcome)) = outcomes.next().await {
            if let Some(tried) = self.tried.get_mut(&id) {
                tried.said = match &outcome {
                    Ok(()) => Said::Done,
                    Err(AdminError::Away(_)) => Said::UnderWay,
                    Err(error) => Said::Refused(error.to_string()),
                };
            }
            note(id, outcome, obstacles)?;
        }
        Ok(())
    }

    /// Lets go of what is not there any more.
    fn forget(&self, own: &mut Own, desired: &DesiredState, there: &[ContentStatus]) {
        let mut known: HashSet<ContentId> =
            there.iter().filter_map(|content| content.id.parse().ok()).collect();
        own.pins.retain(|id| known.contains(id));
        known.extend(desired.wanted().map(|(id, _)| id));
        let is_recent =
            |id: &ContentId| self.tried.get(id).is_some_and(|tried| tried.at.elapsed() < REMEMBERED);
        if self.started.elapsed() > REMEMBERED {
            own.contents.retain(|id| known.contains(id) || is_recent(id));
        }
    }

    fn remember(&mut self, own: Own) -> Result<(), String> {
        if own != self.own {
            self.folder.write_json(OWN, &own).map_err(|error| error.to_string())?;
            self.own = own;
        }
        Ok(())
    }
}

async fn carry_out(admin: &Admin, step: &Step) -> Result<(), AdminError> {
    match step {
        Step::Remove(id) => {
            tracing::info!(content = %id, "removing what is not desired any more");
            admin.remove(*id).await
        }
        Step::Unpin(id) => admin.order(*id, "unpin").await,
        Step::Pin(id) => admin.order(*id, "pin").await,
        Step::Resume(id) => admin.order(*id, "resume").await,
        Step::Prioritise(id, priority) => admin.prioritise(*id, *priority).await,
        Step::Admit(id, access) => {
            tracing::info!(content = %id, %access, "saying who may have it");
            admin.admit(*id, access.clone()).await
        }
        Step::Add(id, content) => {
            tracing::info!(content = %id, "adding");
            let status = admin.add(content).await?;
            if status.id == id.to_string() {
                return Ok(());
            }
            let detail = format!("the relay has this already, as {}, and keeps it so", status.id);
            Err(AdminError::Refused { status: 409, detail })
        }
    }
}

/// What is gone meanwhile needs nothing; what is refused is an obstacle; a relay that is away ends the pass.
fn note(
    id: ContentId,
    outcome: Result<(), AdminError>,
    obstacles: &mut Vec<Obstacle>,
) -> Result<(), AdminError> {
    match outcome {
        Err(away @ AdminError::Away(_)) => Err(away),
        Err(refused) if !refused.is_absent() => {
            tracing::warn!(content = %id, "{refused}");
            obstacles.push(Obstacle { content: Some(id), what: refused.to_string() });
            Ok(())
        }
        _ => Ok(()),
    }
}
