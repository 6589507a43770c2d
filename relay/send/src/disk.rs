//! The threads that wait for the disk in a shard's place, several reads at a time, so that the disk has a queue to work on. They report
//! through an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::cold::{Finished, Read};

/// Memory that bytes pass through on their way into the page cache: small enough for the CPU's cache.
const SCRATCH_BYTES: usize = 256 * 1024;

/// Reads under way at a time: enough to keep a solid-state disk busy.
const THREADS: usize = 16;

/// The shard's end of the threads.
#[derive(Debug)]
pub struct Disk {
    /// None only while it is dropped.
    to_read: Option<Sender<Read>>,
    finished: Receiver<Finished>,
    bell: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Disk {
    /// Starts the threads, named after the calling one.
    ///
    /// # Errors
    /// The kernel gives no thread or no descriptor.
    pub fn start() -> io::Result<Self> {
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (to_read, reads) = mpsc::channel();
        let (report, finished) = mpsc::channel();
        let name = format!("{}-disk", thread::current().name().unwrap_or("shard"));
        let reads = Arc::new(Mutex::new(reads));
        let start = |_| {
            let (reads, report, bell) = (Arc::clone(&reads), report.clone(), Arc::clone(&bell));
            thread::Builder::new().name(name.clone()).spawn(move || read_all(&reads, &report, &bell))
        };
        let threads = (0..THREADS).map(start).collect::<io::Result<_>>()?;
        Ok(Disk { to_read: Some(to_read), finished, bell, threads })
    }

    /// Carries a read out. It comes back as [`next`](Disk::next).
    pub fn begin(&self, read: Read) {
        // The threads end only after this end is dropped.
        let sent = self.to_read.as_ref().map(|threads| threads.send(read));
        debug_assert!(matches!(sent, Some(Ok(()))), "the disk threads are gone");
    }

    /// The next read that ended. Call until there is none whenever [`as_fd`](AsFd::as_fd) is readable.
    pub fn next(&self) -> Option<Finished> {
        self.finished.try_recv().ok().or_else(|| {
            // Silenced first and looked at again after: one that ends in between rings anew.
            let _ = self.bell.read();
            self.finished.try_recv().ok()
        })
    }
}

impl AsFd for Disk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.to_read = None;
        for thread in self.threads.drain(..) {
            // A panic over there has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

fn read_all(reads: &Mutex<Receiver<Read>>, report: &Sender<Finished>, bell: &EventFd) {
    let mut scratch = vec![0; SCRATCH_BYTES];
    loop {
        // Whoever has the lock waits for the next read; nothing else happens under it.
        let next = reads.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let finished = match next {
            Ok(Read::BringIn(waiting)) => {
                let result = waiting.absent.bring_in(&mut scratch);
                Finished::BringIn(waiting, result)
            }
            Ok(Read::Direct(mut read)) => {
                let result = read.run();
                Finished::Direct(read, result)
            }
            Err(_) => return,
        };
        if report.send(finished).is_err() || bell.write(1).is_err() {
            return;
        }
    }
}
