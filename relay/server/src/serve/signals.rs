//! Signals, while a relay serves.

use std::convert::Infallible;
use std::io::IsTerminal;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end a relay.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be waited for")?,
        })
    }

    pub(super) async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The signal that asks for a reload (SIGHUP). At a terminal it says that the terminal is gone, and ends the relay as it ends any program.
pub(super) struct Reloads(Option<Signal>);

impl Reloads {
    pub(super) fn new() -> anyhow::Result<Self> {
        if std::io::stderr().is_terminal() {
            return Ok(Reloads(None));
        }
        Ok(Reloads(Some(signal(SignalKind::hangup()).context("SIGHUP cannot be waited for")?)))
    }

    /// Reloads whenever it is asked for.
    pub(super) async fn run(&mut self, mut reload: impl FnMut()) -> Infallible {
        let Some(signal) = &mut self.0 else { return std::future::pending().await };
        while signal.recv().await.is_some() {
            reload();
        }
        std::future::pending().await
    }
}
