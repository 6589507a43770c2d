//! What `serve` does when another program is to take over, and after that.

use std::sync::Arc;

use anyhow::anyhow;
use tokio::sync::mpsc::UnboundedReceiver;

use super::signals::Signals;
use crate::relay::{Relay, UpgradeWish};
use crate::run::Failure;
use crate::start::Running;
use crate::upgrade::following::Successor;
use crate::upgrade::successor::Handover;

/// Why a relay does not go on.
pub(super) enum Ended {
    /// Somebody wants it to stop, or it cannot do what it was started for.
    Stops(anyhow::Result<()>),
    /// Another program is the relay.
    Replaced(Successor),
}

/// The next wish for an upgrade.
pub(super) async fn wish(upgrades: &mut Option<UnboundedReceiver<UpgradeWish>>) -> UpgradeWish {
    match upgrades {
        Some(upgrades) => match upgrades.recv().await {
            Some(wish) => wish,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Makes an upgrade, and tells who wished for it what came of it.
pub(super) async fn upgrade(handover: Handover, relay: &Relay, wish: UpgradeWish) -> Option<Successor> {
    let made = tokio::task::spawn_blocking(move || handover.run()).await;
    // Nobody may be waiting for the word any more.
    match made {
        Ok(Ok(successor)) => {
            // Before the answer: who has that and connects speaks to the new program.
            relay.replaced.send_replace(true);
            let (version, process) = (successor.version.clone(), successor.process());
            tracing::info!(
                version,
                process,
                "upgrade: another program is the relay now; this one finishes what runs"
            );
            let _ = wish.send(Ok((version, process)));
            Some(successor)
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "upgrade: not made, everything goes on as before");
            let _ = wish.send(Err(error.to_string()));
            None
        }
        // A panic is a bug, which its thread has reported.
        Err(error) => {
            let _ = wish.send(Err(error.to_string()));
            None
        }
    }
}

/// Finishes what runs, beside the program that is the relay now.
pub(super) fn retire(
    runtime: &tokio::runtime::Runtime,
    running: Running,
    successor: Successor,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let relay = Arc::clone(running.relay());
    let retired = std::thread::spawn(move || running.retire(successor));
    let retired = runtime.block_on(async {
        let mut finished = tokio::task::spawn_blocking(move || retired.join());
        tokio::select! {
            finished = &mut finished => Some(finished),
            () = signals.any() => {
                relay.hurry();
                tokio::select! {
                    finished = &mut finished => Some(finished),
                    () = signals.any() => None,
                }
            }
        }
    });
    match retired {
        Some(Ok(Ok(Err(error)))) => Err(anyhow!("the new program cannot be followed: {error}").into()),
        Some(_) => Ok(()),
        None => {
            tracing::warn!("a second signal: ending at once");
            std::process::exit(1);
        }
    }
}
