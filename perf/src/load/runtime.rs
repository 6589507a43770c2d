//! Where load runs: one thread pinned to each core, with a glommio executor (io_uring), or where that is forbidden a current-thread
//! tokio runtime (epoll). This is the one module that knows either; what is above it uses [`Runtime`] and [`Socket`].

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::time::TimeValLike as _;
use nix::time::ClockId;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::task::LocalSet;

/// Memory that glommio registers for disk I/O, of which there is none: as little as it takes.
const IO_MEMORY_BYTES: usize = 64 * 1024;

/// Operations that a ring takes at a time; more wait in user space.
const RING_DEPTH: usize = 1024;

/// How often [`spin`] goes round between two looks at the clock, which is a system call.
const ROUNDS_A_LOOK: usize = 16;

/// CPU time of all threads of this process in which they spun and found nothing to do.
static SPUN_NS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Calls that this thread made on sockets.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// What drives the load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Runtime {
    /// glommio over io_uring.
    #[default]
    Uring,
    /// tokio over epoll.
    Epoll,
    /// tokio over epoll, which looks for events again and again and never sleeps. What is measured is then the server alone: it does
    /// not pay for waking the thread that takes its bytes, as no machine behind a network card makes it pay.
    Spinning,
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Runtime::Uring => "io_uring (glommio)",
            Runtime::Epoll => "epoll (tokio)",
            Runtime::Spinning => "epoll (tokio), spinning",
        })
    }
}

/// io_uring where an executor can be made here, and else epoll with the reason.
pub(crate) fn choose() -> (Runtime, Option<String>) {
    // glommio panics where the kernel refuses a ring, so the kernel is asked first.
    if let Err(error) = io_uring::IoUring::new(1) {
        return (Runtime::Epoll, Some(error.to_string()));
    }
    // On a thread of its own, so that nothing of a failed attempt stays with this one.
    match std::thread::spawn(|| executor(Placement::Unbound).map(drop)).join() {
        Ok(Ok(())) => (Runtime::Uring, None),
        Ok(Err(error)) => (Runtime::Epoll, Some(error.to_string())),
        Err(_) => (Runtime::Epoll, Some("glommio cannot start here".into())),
    }
}

fn executor(placement: Placement) -> io::Result<LocalExecutor> {
    LocalExecutorBuilder::new(placement)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .make()
        .map_err(|error| io::Error::other(error.to_string()))
}

/// Keeps the calling thread, and what it starts from now on, on these cores.
///
/// # Errors
/// A core that does not exist or may not be used.
pub(crate) fn pin_to(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}

impl Runtime {
    /// Runs what `make` returns on a thread pinned to `core`.
    pub(crate) fn start<F, Fut, T>(self, core: usize, make: F) -> JoinHandle<io::Result<T>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        std::thread::spawn(move || match self {
            Runtime::Uring => Ok(executor(Placement::Fixed(core))?.run(make())),
            Runtime::Epoll | Runtime::Spinning => {
                pin_to(&[core])?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let tasks = LocalSet::new();
                if self == Runtime::Spinning {
                    tasks.spawn_local(spin());
                }
                Ok(tasks.block_on(&runtime, make()))
            }
        })
    }

    /// Runs a future beside the caller, on the same thread.
    pub(crate) fn spawn(self, future: impl Future<Output = ()> + 'static) -> Task {
        match self {
            Runtime::Uring => Task::Uring(glommio::spawn_local(future)),
            Runtime::Epoll | Runtime::Spinning => Task::Epoll(tokio::task::spawn_local(future)),
        }
    }

    /// Waits.
    pub(crate) async fn sleep(self, time: Duration) {
        match self {
            Runtime::Uring => glommio::timer::sleep(time).await,
            Runtime::Epoll | Runtime::Spinning => tokio::time::sleep(time).await,
        }
    }

    /// Opens a TCP connection.
    ///
    /// # Errors
    /// Those of the socket, and `TimedOut`.
    pub(crate) async fn connect(self, to: SocketAddr, within: Duration) -> io::Result<Socket> {
        match self {
            Runtime::Uring => {
                let stream = glommio::net::TcpStream::connect_timeout(to, within).await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Uring(stream))
            }
            Runtime::Epoll | Runtime::Spinning => {
                let connecting = tokio::net::TcpStream::connect(to);
                let stream =
                    tokio::time::timeout(within, connecting).await.map_err(|_| io::ErrorKind::TimedOut)??;
                stream.set_nodelay(true)?;
                Ok(Socket::Epoll(stream))
            }
        }
    }
}

/// CPU time in which spinning threads of this process found nothing to do. That is not what taking the bytes costs.
pub(crate) fn spun() -> Duration {
    Duration::from_nanos(SPUN_NS.load(Ordering::Relaxed))
}

/// Keeps the thread from ever waiting in epoll, as there is always this to do.
async fn spin() {
    let used = || ClockId::CLOCK_THREAD_CPUTIME_ID.now().map_or(0, |time| time.num_nanoseconds());
    let (mut looked, mut calls) = (used(), 0);
    loop {
        for _ in 0..ROUNDS_A_LOOK {
            yield_now().await;
        }
        let (now, calls_now) = (used(), CALLS.get());
        if calls_now == calls {
            SPUN_NS.fetch_add(u64::try_from(now - looked).unwrap_or(0), Ordering::Relaxed);
        }
        (looked, calls) = (now, calls_now);
    }
}

/// Lets the other tasks of the thread have a turn.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// A future that runs beside its maker.
pub(crate) enum Task {
    Uring(glommio::Task<()>),
    Epoll(tokio::task::JoinHandle<()>),
}

impl Task {
    /// Ends it where it waits; returns once it is gone.
    pub(crate) async fn cancel(self) {
        match self {
            Task::Uring(task) => {
                task.cancel().await;
            }
            Task::Epoll(task) => {
                task.abort();
                // Cancelled is what it was told to be.
                let _ = task.await;
            }
        }
    }
}

/// A TCP connection. glommio's sockets stay blocking, so every call here carries `MSG_DONTWAIT`.
#[derive(Debug)]
pub(crate) enum Socket {
    Uring(glommio::net::TcpStream),
    Epoll(tokio::net::TcpStream),
}

impl Socket {
    /// Sends all of it.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Uring(stream) => glommio_write_all(stream, bytes).await,
            Socket::Epoll(stream) => tokio_write_all(stream, bytes).await,
        }
    }

    /// Waits until something has arrived, or the peer has closed.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            // The ring's own readiness is not offered by glommio; receiving one byte with MSG_PEEK waits for the same and takes nothing.
            Socket::Uring(stream) => stream.peek(&mut [0]).await.map(drop).map_err(io::Error::from),
            Socket::Epoll(stream) => stream.readable().await,
        }
    }

    /// Reads what is there; `None` when nothing is, `Some(0)` when the peer has closed.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.receive(buffer, MsgFlags::MSG_DONTWAIT)
    }

    /// Throws away what is there, at most as many bytes as `scratch` is long, and leaves `scratch` alone: the kernel copies nothing.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn try_discard(&self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        self.receive(scratch, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC)
    }

    fn receive(&self, buffer: &mut [u8], flags: MsgFlags) -> io::Result<Option<usize>> {
        let taken = match self {
            Socket::Uring(stream) => receive(stream.as_raw_fd(), buffer, flags),
            Socket::Epoll(stream) => {
                stream.try_io(Interest::READABLE, || receive(stream.as_raw_fd(), buffer, flags))
            }
        };
        match taken {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn receive(fd: RawFd, buffer: &mut [u8], flags: MsgFlags) -> io::Result<usize> {
    CALLS.set(CALLS.get() + 1);
    loop {
        match recv(fd, buffer, flags) {
            Err(Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

async fn glommio_write_all(stream: &mut glommio::net::TcpStream, bytes: &[u8]) -> io::Result<()> {
    use futures_util::AsyncWriteExt as _;
    stream.write_all(bytes).await
}

async fn tokio_write_all(stream: &mut tokio::net::TcpStream, bytes: &[u8]) -> io::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    stream.write_all(bytes).await
}
