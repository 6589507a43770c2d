//! Taking files out of memory before a run, and keeping them out during it where no limit on memory does.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;

use super::disk;

/// Share of a file that may be left in memory for it to count as cold.
pub(crate) const RESIDENT_MAX: f64 = 0.02;

/// How often the page cache is told to let go.
const ATTEMPTS: u32 = 8;

/// Between two times that pages are dropped.
const DROP_EVERY: Duration = Duration::from_millis(50);

/// Takes files out of memory; the largest share of one that stayed, or `None` where `fincore` is not installed.
///
/// # Errors
/// Those of the file system.
pub(crate) fn cool(files: &[PathBuf]) -> anyhow::Result<Option<f64>> {
    let mut left = None;
    for attempt in 0..ATTEMPTS {
        for file in files {
            disk::drop_from_cache(file).with_context(|| file.display().to_string())?;
        }
        let shares: Option<Vec<f64>> = files.iter().map(|file| disk::resident_share(file)).collect();
        left = shares.map(|shares| shares.into_iter().fold(0.0, f64::max));
        if left.is_none_or(|share| share <= RESIDENT_MAX) {
            break;
        }
        // Pages on their way between the lists of the kernel cannot be dropped just now.
        std::thread::sleep(DROP_EVERY * attempt);
    }
    Ok(left)
}

/// Drops the pages of files again and again while it lives.
pub(crate) struct Behind {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Behind {
    pub(crate) fn start(files: Vec<PathBuf>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                // What cannot be dropped now can be the next time.
                files.iter().for_each(|file| drop(disk::drop_from_cache(file)));
                std::thread::sleep(DROP_EVERY);
            }
        });
        Behind { over, thread: Some(thread) }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // It cannot panic.
        self.thread.take().map(JoinHandle::join);
    }
}
