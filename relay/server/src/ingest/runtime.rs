//! The runtime of the ingest thread and its way to write files: plain tokio and `pwrite`, or tokio-uring and its ring. Everything that
//! is tokio-uring's is here, so that it can be replaced.
//!
//! `pwrite` goes into the page cache, which rarely waits for a disk; syncing and hashing go to blocking threads in either way. What
//! each way costs, `examples/ingest_writes.rs` and `examples/ingest_pull.rs` measure.

use std::fs::File;
use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use bytes::Bytes;
use tokio::task::LocalSet;

/// How ingest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// `pwrite`, on the ingest thread.
    #[default]
    Pwrite,
    /// Through an io_uring of the ingest thread.
    Uring,
}

/// Starts a thread that runs `main` and the tasks it spawns locally, until `main` is over. What is still being written then is over
/// when the thread is.
///
/// # Errors
/// No thread, no runtime, or no ring where one is asked for.
pub(super) fn spawn<F>(
    way: Way,
    name: &str,
    main: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = ()> + 'static,
{
    match way {
        Way::Pwrite => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .thread_name(format!("{name}-blocking"))
                .build()?;
            Builder::new().name(name.to_owned()).spawn(move || LocalSet::new().block_on(&runtime, main()))
        }
        Way::Uring => spawn_with_ring(name, main),
    }
}

fn spawn_with_ring<F>(name: &str, main: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = ()> + 'static,
{
    let (sender, opened) = mpsc::channel();
    // The ring belongs to the thread that opens it. Its completion queue of 512 holds every write there can be: one a request.
    let thread = Builder::new().name(name.to_owned()).spawn(move || {
        let (runtime, outcome) = match tokio_uring::Runtime::new(&tokio_uring::builder()) {
            Ok(runtime) => (Some(runtime), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // Whoever starts the thread waits for this.
        let _ = sender.send(outcome);
        if let Some(runtime) = runtime {
            runtime.block_on(main());
        }
    })?;
    opened.recv().map_err(io::Error::other)??;
    Ok(thread)
}

/// Writes all of `bytes` to `file` at `at`, on a thread of [`Way::Uring`]. The ring owns bytes and file until it is done with them;
/// when the future is dropped, what the kernel has been given still happens.
///
/// # Errors
/// What the disk says, as `pwrite` would.
pub(super) async fn write_all_at(file: &File, bytes: Bytes, at: u64) -> io::Result<()> {
    let file = tokio_uring::fs::File::from_std(file.try_clone()?);
    let mut bytes = bytes;
    loop {
        // It goes on after a short write, and gives up when interrupted.
        let (result, whole) = file.write_all_at(bytes, at).await;
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => bytes = whole,
            result => return result,
        }
    }
}
