//! The threads that wait for the disk in a shard's place. They bring absent bytes into the page cache, several sends at a time, so that
//! the disk has a queue to work on, and report through an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use millrace_engine::ids::ConnId;
use millrace_send::Absent;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Memory that bytes pass through on their way into the page cache: small enough for the CPU's cache.
const SCRATCH_BYTES: usize = 256 * 1024;

/// Bring-ins under way at a time: enough to keep a solid-state disk busy.
const THREADS: usize = 16;

/// A send that waits for its bytes. There is at most one for each connection.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) conn: ConnId,
    /// The budget the send was given.
    pub(crate) bytes_max: u64,
    pub(crate) absent: Absent,
}

/// A send that can go on, and what its connection and budget were.
#[derive(Debug)]
pub(crate) struct BroughtIn {
    pub(crate) conn: ConnId,
    pub(crate) bytes_max: u64,
    pub(crate) result: io::Result<()>,
}

/// The shard's end of the threads.
#[derive(Debug)]
pub(crate) struct Disk {
    /// None only while it is dropped.
    waiting: Option<Sender<Waiting>>,
    brought_in: Receiver<BroughtIn>,
    bell: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Disk {
    /// Starts the threads, named after the calling one.
    pub(crate) fn start() -> io::Result<Self> {
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (waiting, to_read) = mpsc::channel();
        let (report, brought_in) = mpsc::channel();
        let name = format!("{}-disk", thread::current().name().unwrap_or("shard"));
        let to_read = Arc::new(Mutex::new(to_read));
        let start = |_| {
            let (to_read, report, ring) = (Arc::clone(&to_read), report.clone(), Arc::clone(&bell));
            thread::Builder::new().name(name.clone()).spawn(move || read_all(&to_read, &report, &ring))
        };
        let threads = (0..THREADS).map(start).collect::<io::Result<_>>()?;
        Ok(Disk { waiting: Some(waiting), brought_in, bell, threads })
    }

    /// Brings in what a send waits for. The outcome comes as [`next`](Disk::next).
    pub(crate) fn bring_in(&self, waiting: Waiting) {
        // The thread ends only after this end is dropped.
        let sent = self.waiting.as_ref().map(|thread| thread.send(waiting));
        debug_assert!(matches!(sent, Some(Ok(()))), "the disk thread is gone");
    }

    /// The next outcome. Call until there is none whenever [`as_fd`](AsFd::as_fd) is readable.
    pub(crate) fn next(&self) -> Option<BroughtIn> {
        self.brought_in.try_recv().ok().or_else(|| {
            // Silenced first and looked at again after: an outcome in between rings anew.
            let _ = self.bell.read();
            self.brought_in.try_recv().ok()
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
        self.waiting = None;
        for thread in self.threads.drain(..) {
            // A panic over there has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

fn read_all(to_read: &Mutex<Receiver<Waiting>>, report: &Sender<BroughtIn>, bell: &EventFd) {
    let mut scratch = vec![0; SCRATCH_BYTES];
    loop {
        // Whoever has the lock waits for the next send; nothing else happens under it.
        let next = to_read.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Waiting { conn, bytes_max, absent }) = next else { return };
        let result = absent.bring_in(&mut scratch);
        if report.send(BroughtIn { conn, bytes_max, result }).is_err() || bell.write(1).is_err() {
            return;
        }
    }
}
