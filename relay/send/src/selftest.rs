//! Which send path this host allows, found out at start.

use crate::outcome::SendPath;

/// What [`probe`] found, for the log and for `doctor`.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The way to send.
    pub path: SendPath,
    /// Why, in one sentence for an operator.
    pub reason: String,
    /// Bytes a pipe of ours holds; 0 when there is none.
    pub pipe_bytes: usize,
}

/// Sends a page by reference through a pipe and looks whether it was copied on the way.
#[must_use]
pub fn probe() -> Probe;
