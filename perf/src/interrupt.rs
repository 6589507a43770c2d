//! Ctrl-C and SIGTERM: noted, and looked at wherever something is waited for, so that everything that was started is ended in order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Somebody wants an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// Whether it has come; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt {
    came: Arc<AtomicBool>,
}

impl Interrupt {
    /// Notes both signals from now on; a second one ends the program at once.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn watch() -> io::Result<Self> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupt.came.clone())?;
            signal_hook::flag::register(signal, interrupt.came.clone())?;
        }
        Ok(interrupt)
    }

    /// One has come.
    #[cfg(test)]
    pub(crate) fn come(&self) {
        self.came.store(true, Ordering::Relaxed);
    }

    /// Fails once one has come.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.came.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }
}
