//! The listening sockets of a shard. One that fails for want of descriptors rests for a while, since the connection that could not be
//! accepted is still there and would fail again at once.

use std::io;
use std::os::fd::OwnedFd;

use millrace_engine::ids::Now;
use millrace_send::Front;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use socket2::{SockAddr, SockRef};

use crate::token::Token;

/// How long a listener rests.
const REST_NS: u64 = 100_000_000;

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    front: Front,
    /// Monotonic ns until which nothing is accepted.
    resting_until_ns: Option<u64>,
}

/// All listeners; the index of one is in its token.
#[derive(Debug)]
pub(crate) struct Listeners(Vec<Listener>);

impl Listeners {
    /// Registers the listeners.
    pub(crate) fn new(epoll: &Epoll, sockets: Vec<(OwnedFd, Front)>) -> io::Result<Self> {
        let mut listeners = Vec::with_capacity(sockets.len());
        for ((socket, front), index) in sockets.into_iter().zip(0..) {
            SockRef::from(&socket).set_nonblocking(true)?;
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, Token::Listener(index).data()))?;
            listeners.push(Listener { socket, front, resting_until_ns: None });
        }
        Ok(Listeners(listeners))
    }

    /// The next connection of a listener, non-blocking and closed on exec; none when there is none.
    pub(crate) fn accept(&self, index: u32) -> Option<io::Result<(OwnedFd, SockAddr, Front)>> {
        let listener = self.0.get(index as usize)?;
        match SockRef::from(&listener.socket).accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
            Ok((socket, peer)) => Some(Ok((socket.into(), peer, listener.front))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Takes the listener out of what is waited for, for a while.
    pub(crate) fn rest(&mut self, epoll: &Epoll, index: u32, now: Now) -> io::Result<()> {
        let Some(listener) = self.0.get_mut(index as usize) else { return Ok(()) };
        listener.resting_until_ns = Some(now.monotonic_ns + REST_NS);
        epoll.modify(
            &listener.socket,
            &mut EpollEvent::new(EpollFlags::empty(), Token::Listener(index).data()),
        )?;
        Ok(())
    }

    /// Lets those accept again that have rested.
    pub(crate) fn wake(&mut self, epoll: &Epoll, now: Now) -> io::Result<()> {
        for (listener, index) in self.0.iter_mut().zip(0..) {
            if listener.resting_until_ns.is_some_and(|until| until <= now.monotonic_ns) {
                listener.resting_until_ns = None;
                let mut event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Listener(index).data());
                epoll.modify(&listener.socket, &mut event)?;
            }
        }
        Ok(())
    }

    /// When one has rested, in monotonic ns.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.0.iter().filter_map(|listener| listener.resting_until_ns).min()
    }

    /// Closes all listeners: peers that try are refused, or reach the process that took over.
    pub(crate) fn close(&mut self) {
        self.0.clear();
    }
}
