//! The runtime of the ingest thread, behind one function so that it can be replaced.
//!
//! Files are written by `pwrite` into the page cache, which rarely waits for a disk; syncing and hashing go to blocking threads. Writing
//! through io_uring costs more here: `examples/ingest_writes.rs` measures it.

use std::future::Future;
use std::io;
use std::thread::{Builder, JoinHandle};

use tokio::task::LocalSet;

/// Starts a thread that runs `main` and the tasks it spawns locally, until `main` is over.
///
/// # Errors
/// No thread, or no runtime.
pub(super) fn spawn<F>(name: &str, main: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = ()> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name(format!("{name}-blocking"))
        .build()?;
    Builder::new().name(name.to_owned()).spawn(move || LocalSet::new().block_on(&runtime, main()))
}
