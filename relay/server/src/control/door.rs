//! The listener of the admin socket: a bounded number of connections, each with the name of who made it, and none that holds on to
//! an answer without reading it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use super::access::Peer;

/// Connections at one time. More wait in the listener's queue.
pub(super) const CONNECTIONS_MAX: usize = 128;

/// A connection whose other end takes nothing for so long is closed.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// Rest after the kernel gave no connection, as when descriptors are short.
const REST: Duration = Duration::from_millis(200);

/// The listener.
#[derive(Debug)]
pub(super) struct Door {
    listener: UnixListener,
    slots: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new(listener: UnixListener) -> Self {
        Door { listener, slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    async fn connection(&self) -> io::Result<(Connection, Peer)> {
        // The semaphore is never closed.
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = self.listener.accept().await?;
        let peer = Peer::of(&stream)?;
        Ok((Connection { stream, stalled: None, _slot: slot }, peer))
    }
}

impl axum::serve::Listener for Door {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Connection, Peer) {
        loop {
            match self.connection().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the admin socket was lost");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A connection, which takes one of the places.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// Runs while the other end takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    _slot: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED_AFTER)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::serve::Listener;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Time that goes by as soon as nothing else happens.
    fn run<F: Future>(test: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        run(async {
            let folder = std::env::temp_dir().join(format!("millrace-door-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let path = folder.join("door.sock");
            let _ = std::fs::remove_file(&path);
            let mut door = Door::new(UnixListener::bind(&path).unwrap());
            let mut clients = Vec::new();
            let mut connections = Vec::new();
            for _ in 0..CONNECTIONS_MAX {
                clients.push(UnixStream::connect(&path).await.unwrap());
                connections.push(door.accept().await);
            }
            assert_eq!(connections[0].1.uid(), nix::unistd::geteuid());
            clients.push(UnixStream::connect(&path).await.unwrap());
            assert_eq!(door.slots.available_permits(), 0);
            connections.pop();
            connections.push(door.accept().await);
            std::fs::remove_dir_all(folder).unwrap();
        });
    }

    #[test]
    fn who_reads_nothing_is_let_go() {
        run(async {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let slots = Arc::new(Semaphore::new(1));
            let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
            let mut connection = Connection { stream: ours, stalled: None, _slot: slot };
            connection.stalled = Some(Box::pin(tokio::time::sleep(Duration::ZERO)));
            let mut filled = false;
            let error = loop {
                match connection.write(&[0; 65536]).await {
                    Ok(_) => {
                        filled = true;
                        connection.stalled = Some(Box::pin(tokio::time::sleep(Duration::ZERO)));
                    }
                    Err(error) => break error,
                }
            };
            assert!(filled);
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }
}
