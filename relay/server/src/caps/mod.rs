//! The caps of a running relay: both layers, kept over restarts, and what comes of them now, told to those who enforce it.

pub mod clock;
mod file;
mod share;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use millrace_engine::event::News;
use millrace_engine::ledger::Ledger;
use millrace_proto::admin::caps::effective::InForce;
use millrace_proto::admin::caps::status::{CapsStatus, LocalFrom};
use millrace_proto::admin::caps::{Caps, CapsError, EffectiveCaps, Layer, Layers, Source};
use ring::digest;

use crate::ingest::budget::OriginBudget;
use crate::shards::Shards;

pub use self::clock::Clock;
pub use self::file::CapsFileError;
pub(crate) use self::share::Share;

/// Hexadecimal digits of an entity tag: 64 bits of SHA-256.
const TAG_BYTES: usize = 8;

/// Why a change is not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It was made from a document that is not the present one.
    #[error("the caps were changed by somebody else: read them again, and use the ETag of that answer")]
    Stale,
    /// What would come of it is refused.
    #[error(transparent)]
    Refused(#[from] CapsError),
    /// It cannot be kept.
    #[error("the caps cannot be written to the store, so they stay as they were: {0}")]
    Disk(#[from] io::Error),
}

/// Keeps the caps.
#[derive(Debug)]
pub struct Keeper {
    folder: PathBuf,
    clock: Clock,
    held: Mutex<Held>,
    /// Who sends, and who pulls.
    enforced: OnceLock<(Arc<Ledger>, Shards, Arc<OriginBudget>)>,
}

#[derive(Debug)]
struct Held {
    /// What flags and configuration file say.
    configured: Caps,
    layers: Layers,
    /// The local layer is not what the configuration says.
    changed: bool,
    /// The entries of schedules that what is enforced was made with.
    in_force: Vec<Source>,
    share: Share,
}

impl Keeper {
    /// The caps that `folder` has from the last run, or else what is configured. Nothing is enforced yet.
    ///
    /// # Errors
    /// See [`CapsFileError`].
    pub fn open(folder: PathBuf, configured: Caps, clock: Clock) -> Result<Keeper, CapsFileError> {
        let file::Loaded { layers, changed } = file::load(&folder, &configured)?;
        if changed {
            tracing::info!(
                local = layers.layer(Layer::Local).canonical(),
                "caps that were set while the relay ran hold instead of the configured ones, until either is changed"
            );
        }
        let held =
            Mutex::new(Held { configured, layers, changed, in_force: Vec::new(), share: Share::default() });
        Ok(Keeper { folder, clock, held, enforced: OnceLock::new() })
    }

    /// What holds now.
    #[must_use]
    pub fn effective(&self) -> EffectiveCaps {
        self.held().layers.effective(clock::civil(&self.clock.now()))
    }

    /// Enforces what holds, from now on through this ledger, these shards, and this budget of pulls.
    pub fn enforce(&self, ledger: Arc<Ledger>, shards: Shards, budget: Arc<OriginBudget>) {
        let _ = self.enforced.set((ledger, shards, budget));
        self.apply(&mut self.held());
    }

    /// One of the layers, and its entity tag.
    #[must_use]
    pub fn document(&self, layer: Layer) -> (Caps, String) {
        let caps = self.held().layers.layer(layer).clone();
        let tag = entity_tag(&caps);
        (caps, tag)
    }

    /// Changes a layer, if its tag is one that `is_expected`; it is kept before it is enforced. Waits for the disk.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing is changed then.
    pub fn change(
        &self,
        layer: Layer,
        is_expected: impl FnOnce(&str) -> bool,
        edit: impl FnOnce(&Caps) -> Result<Caps, CapsError>,
    ) -> Result<(), ChangeError> {
        let mut held = self.held();
        let present = held.layers.layer(layer);
        if !is_expected(&entity_tag(present)) {
            return Err(ChangeError::Stale);
        }
        let caps = edit(present)?;
        if caps == *present {
            return Ok(());
        }
        let document = caps.canonical();
        let layers = held.layers.with(layer, caps)?;
        file::save(&self.folder, &held.configured, &layers)?;
        held.changed = *layers.layer(Layer::Local) != held.configured;
        held.layers = layers;
        tracing::info!(?layer, document, "caps changed");
        self.apply(&mut held);
        Ok(())
    }

    /// Takes over what the configuration says now, if that is something else than before: it is the operator's newest word.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing is changed then.
    pub fn configure(&self, configured: &Caps) -> Result<(), ChangeError> {
        let mut held = self.held();
        if held.configured == *configured {
            return Ok(());
        }
        let layers = held.layers.with(Layer::Local, configured.clone())?;
        file::save(&self.folder, configured, &layers)?;
        held.layers = layers;
        held.configured = configured.clone();
        held.changed = false;
        tracing::info!(document = configured.canonical(), "caps of the configuration");
        self.apply(&mut held);
        Ok(())
    }

    /// Enforces this share of what holds for all that is sent, as another program sends as well.
    pub(crate) fn change_share(&self, change: impl FnOnce(&mut Share)) {
        let mut held = self.held();
        let before = held.share;
        change(&mut held.share);
        if held.share != before {
            self.apply(&mut held);
        }
    }

    /// Halvings of the share that is enforced.
    pub(crate) fn halvings(&self) -> u32 {
        self.held().share.halvings()
    }

    /// Whether anything that is sent has a cap that programs share.
    pub(crate) fn has_shared_caps(&self) -> bool {
        self.enforced.get().is_some_and(|(ledger, ..)| !ledger.caps().classes().is_empty())
    }

    /// What holds and why, for people and machines.
    #[must_use]
    pub fn status(&self) -> CapsStatus {
        let now = self.clock.now();
        let held = self.held();
        let effective = held.layers.effective(clock::civil(&now));
        let changes_at = effective.changes_in_s.map(|seconds| clock::after(&now, seconds));
        let budget = self.enforced.get().map(|(_, _, budget)| budget);
        let mut pulls_wait = budget.and_then(|budget| budget.obstacle());
        if let Some(wait) = pulls_wait.as_mut().filter(|wait| wait.until.is_none()) {
            // What a schedule pauses may go on when another entry is in force.
            wait.until = wait.source.and_then(|source| source.schedule).and_then(|_| changes_at.clone());
        }
        CapsStatus {
            now: clock::shown(&now),
            changes_at,
            origin_volume: budget.map(|budget| budget.status().2).unwrap_or_default(),
            origin_grants: budget.map(|budget| budget.grants()).unwrap_or_default(),
            pulls_wait,
            local_from: if held.changed { LocalFrom::Admin } else { LocalFrom::Configuration },
            effective,
        }
    }

    /// Enforces what schedules say, as the time comes. Ends never.
    pub async fn follow_schedule(&self) {
        loop {
            self.look_at_the_clock();
            // To the next full second by the clock on the wall, however it was set since; schedules go by minutes.
            let into_second = u64::try_from(self.clock.now().subsec_nanosecond()).unwrap_or(0);
            tokio::time::sleep(Duration::from_nanos(1_000_000_000 - into_second.min(999_000_000))).await;
        }
    }

    /// Enforces what schedules say now, where that is something else than before.
    fn look_at_the_clock(&self) {
        let mut held = self.held();
        if held.layers.in_force(clock::civil(&self.clock.now())) != held.in_force {
            self.apply(&mut held);
        }
    }

    fn apply(&self, held: &mut Held) {
        let effective = held.layers.effective(clock::civil(&self.clock.now()));
        let in_force: Vec<Source> = effective.schedule.iter().map(|InForce { source, .. }| *source).collect();
        for source in in_force.iter().filter(|source| !held.in_force.contains(source)) {
            tracing::info!(layer = ?source.layer, entry = source.schedule, "an entry of the caps' schedule is in force");
        }
        for source in held.in_force.iter().filter(|source| !in_force.contains(source)) {
            tracing::info!(layer = ?source.layer, entry = source.schedule, "an entry of the caps' schedule is over");
        }
        held.in_force = in_force;
        if let Some((ledger, shards, budget)) = self.enforced.get() {
            let caps = ledger.set_caps(&held.share.of(effective.clone()));
            shards.broadcast(|| News::Caps(Arc::clone(&caps)));
            budget.set(&effective);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A strong tag (RFC 9110 §8.8.3) that equal documents share.
fn entity_tag(caps: &Caps) -> String {
    let digest = digest::digest(&digest::SHA256, caps.canonical().as_bytes());
    format!("\"{}\"", data_encoding::HEXLOWER.encode(&digest.as_ref()[..TAG_BYTES]))
}

#[cfg(test)]
mod tests;
