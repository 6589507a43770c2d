//! What a running relay has to do with the program before it and the one after it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_engine::event::News;
use millrace_engine::limits::Limits;
use millrace_pagecache::disk::{Left, VisibleRuns};
use tokio::sync::mpsc::UnboundedReceiver;

use super::Running;
use crate::relay::UpgradeWish;
use crate::service::Notify;
use crate::service::inherited::Inherited;
use crate::upgrade::Gate;
use crate::upgrade::following::Successor;
use crate::upgrade::predecessor::{Predecessor, Taken};
use crate::upgrade::successor::Handover;

/// How often a program that is replaced looks whether one before it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// For how long an idle connection has one more request here; after that a client finds the new program.
const IDLE: Duration = Duration::from_secs(5);

/// What a relay begins with, besides its configuration.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    /// Sockets that are open already.
    pub(crate) inherited: Inherited,
    /// What the program before gives, and what is waited for before anything is done with it.
    pub(crate) taken: Option<(Taken, Gate)>,
}

/// What a program that takes over has of the one before.
pub(super) struct Before {
    pub(super) left: Option<Left>,
    pub(super) arrived: VisibleRuns,
    pub(super) owns_admin_file: bool,
    pub(super) peer_id: Option<[u8; 20]>,
    pub(super) gate: Gate,
    /// Whether it is there to be told what becomes of contents.
    pub(super) listens: bool,
}

impl Before {
    /// Sockets, and the rest of what there is.
    pub(super) fn of(beginning: Beginning) -> (Inherited, Before) {
        match beginning.taken {
            None => {
                let (gate, arrived) = (Gate::open(), VisibleRuns::new());
                let before = Before {
                    left: None,
                    arrived,
                    owns_admin_file: false,
                    peer_id: None,
                    gate,
                    listens: false,
                };
                (beginning.inherited, before)
            }
            Some((taken, gate)) => {
                let Taken { inherited, left, arrived, owns_admin_file, peer_id } = taken;
                let (left, peer_id) = (Some(left), Some(peer_id));
                (inherited, Before { left, arrived, owns_admin_file, peer_id, gate, listens: true })
            }
        }
    }
}

impl Running {
    /// What a program that follows is given.
    pub(crate) fn handover(&self, notify: Arc<Notify>, program: PathBuf) -> Handover {
        Handover { relay: Arc::clone(&self.relay), kept: Arc::clone(&self.kept), notify, program }
    }

    /// Wishes for an upgrade, for the one who makes them.
    pub(crate) fn upgrades(&mut self) -> Option<UnboundedReceiver<UpgradeWish>> {
        self.upgrades.take()
    }

    /// Has what was the program before's alone until it said `Go`, and tells it from now on what becomes of the contents that its readers
    /// wait for.
    ///
    /// # Errors
    /// No thread, no descriptor.
    pub(crate) fn serve_predecessor(&mut self, predecessor: &Predecessor) -> io::Result<()> {
        self.admin_file = self.kept.admin_file();
        let Some(mailbox) = self.predecessor.take() else { return Ok(()) };
        // Behind the shards and the control thread.
        let number = u32::try_from(self.relay.config.cores.len() + 1).unwrap_or(u32::MAX);
        self.teller = Some(predecessor.serve(Arc::clone(&self.relay), mailbox, number)?);
        Ok(())
    }

    /// Another program is the relay now: finishes what runs, and ends when that is done or the time of an upgrade is over. Waits for
    /// it.
    pub(crate) fn retire(self, successor: Successor) -> io::Result<()> {
        let Running { relay, shards, control, ingest, admin_file, kept, upgrades, teller, .. } = self;
        drop((kept, upgrades));
        if let Some(file) = admin_file {
            file.leave();
        }
        let drain_timeout = relay.config.upgrade.drain;
        let limits = Limits { drain_timeout, drain_idle: IDLE, ..relay.config.limits.clone() };
        let limits = Arc::new(limits);
        relay.shards.broadcast(|| News::Limits(Arc::clone(&limits)));
        relay.shards.broadcast(|| News::Drain);
        // After that, so that connections close with the answers of those whom it sends to the new program.
        relay.ingest.leave_to(successor.demands()?);
        let hurried = Arc::clone(&relay);
        let following = successor.follow(Arc::clone(&relay), move || hurried.hurry())?;
        for shard in shards {
            let _ = shard.join();
        }
        // The readers of a program before this one wait for what comes through here.
        while teller.as_ref().is_some_and(|teller| !teller.is_finished()) && !relay.stop.is_wished() {
            std::thread::sleep(LOOK_EVERY);
        }
        following.end();
        relay.ingest.stop();
        let _ = ingest.join();
        let _ = control.join();
        Ok(())
    }
}
