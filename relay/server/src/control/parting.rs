//! A door that closes behind an upgrade without anybody in it: once another program is the relay nobody is let in any more, and who was let in
//! before has a first request answered. axum by itself closes a connection that has said nothing when it is told to stop, and a client that
//! has just written its request would lose it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};

/// Who connected before an upgrade and says nothing for so long after it is let go; and so long answers take at most.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The listener of a door.
#[derive(Debug)]
pub(super) struct Parting<L> {
    listener: L,
    replaced: watch::Receiver<bool>,
    /// As long as somebody may come. Every connection that has said nothing has one more.
    open: Option<mpsc::Sender<Infallible>>,
}

impl<L> Parting<L> {
    /// The listener, and what comes about when it is time to let go who is in: all have said something, or had the time to.
    pub(super) fn new(
        listener: L,
        replaced: watch::Receiver<bool>,
    ) -> (Self, impl Future<Output = ()> + Send + use<L>) {
        let (open, mut all_heard) = mpsc::channel(1);
        let mut left = replaced.clone();
        let heard = async move {
            until_replaced(&mut left).await;
            let _ = tokio::time::timeout(PATIENCE, all_heard.recv()).await;
        };
        (Parting { listener, replaced, open: Some(open) }, heard)
    }
}

/// Waits until another program is the relay, or this one has ended.
pub(super) async fn until_replaced(replaced: &mut watch::Receiver<bool>) {
    drop(replaced.wait_for(|replaced| *replaced).await);
}

impl<L: Listener> Listener for Parting<L> {
    type Io = Visitor<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        tokio::select! {
            // Looked at first: who connects after the upgrade was made speaks to the new program.
            biased;
            () = until_replaced(&mut self.replaced) => {}
            (io, address) = self.listener.accept() => return (Visitor { io, unheard: self.open.clone() }, address),
        }
        self.open = None;
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Visitor<Io> {
    io: Io,
    /// Until it says something.
    unheard: Option<mpsc::Sender<Infallible>>,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Visitor<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if read.is_ready() {
            self.unheard = None;
        }
        read
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Visitor<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    #[test]
    fn who_was_let_in_is_answered_and_nobody_else_is_let_in() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (replace, replaced) = watch::channel(false);
            let (listener, heard) = Parting::new(listener, replaced);
            let router = Router::new().route("/", get(async || "here"));
            let server = tokio::spawn(async move {
                axum::serve(listener, router).with_graceful_shutdown(heard).await.unwrap();
            });
            let mut idle = TcpStream::connect(address).await.unwrap();
            idle.write_all(REQUEST).await.unwrap();
            idle.read_exact(&mut [0]).await.unwrap();
            // Accepted in this order, so the silent one is in when the idle one of after it has its answer.
            let mut silent = TcpStream::connect(address).await.unwrap();
            let mut after = TcpStream::connect(address).await.unwrap();
            after.write_all(REQUEST).await.unwrap();
            after.read_exact(&mut [0]).await.unwrap();
            replace.send_replace(true);
            let mut late = TcpStream::connect(address).await.unwrap();
            late.write_all(REQUEST).await.unwrap();
            let mut answer = String::new();
            tokio::task::yield_now().await;
            silent.write_all(REQUEST).await.unwrap();
            silent.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
            idle.read_to_end(&mut Vec::new()).await.unwrap();
            server.await.unwrap();
            // Nobody has the socket any more, so the kernel refuses who waited there.
            assert_eq!(late.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        });
    }
}
