//! An upgrade without a drop: the running program starts the one that is on the disk now, gives it everything, and then only serves what it
//! was serving.
//!
//! The two speak over a pair of Unix sockets, one [`message::Message`] at a time; `docs/operators/upgrade.md` tells the operator's side.
//! The running program is the [`successor`] module's, the new one has [`predecessor`]; for what comes after they have [`following`] and
//! [`teller`]:
//!
//! ```text
//!  running program                                       new program
//!     starts it ──────────────────────────────────────────▶ reads its configuration
//!     Hello, descriptors, Store ──────────────────────────▶
//!     (admin changes refused, pulls rest)
//!     Content … All ──────────────────────────────────────▶ opens the store, starts its threads behind a gate
//!     ◀────────────────────────────────────────────── Ready
//!     (MAINPID=) Go ──────────────────────────────────────▶ opens the gate
//!     accepts nothing any more
//!     Demand: a reader of mine waits ─────────────────────▶
//!     ◀─────────────────────────── Bytes: these are visible
//!     ◀──────── Leaving: may its files lose their names?
//!     Left ───────────────────────────────────────────────▶
//! ```
//!
//! Until `Go` has been sent, whatever goes wrong on the new side ends the new program, and the running one takes everything back: nothing
//! that it has was changed.

pub(crate) mod following;
mod link;
mod message;
pub(crate) mod predecessor;
pub(crate) mod successor;
mod teller;

use std::sync::{Arc, OnceLock};

pub(crate) use message::Loose;

/// What the threads of a relay wait at before they do anything: open from the start, except in a program that takes over.
#[derive(Debug, Clone)]
pub struct Gate(Arc<OnceLock<()>>);

impl Gate {
    /// One that nobody waits at.
    #[must_use]
    pub fn open() -> Self {
        let gate = Gate::closed();
        gate.let_pass();
        gate
    }

    /// One that holds all up until [`Gate::let_pass`].
    #[must_use]
    pub(crate) fn closed() -> Self {
        Gate(Arc::default())
    }

    /// Opens it, for good.
    pub(crate) fn let_pass(&self) {
        let _ = self.0.set(());
    }

    /// Waits until it is open.
    pub(crate) fn pass(&self) {
        self.0.wait();
    }
}

impl Default for Gate {
    fn default() -> Self {
        Gate::open()
    }
}
