//! The listening sockets of a shard. One that fails for want of descriptors rests for a while, since the connection that could not be
//! accepted is still there and would fail again at once.
//!
//! They are non-blocking already (`millrace_send::socket`), as they are for every program that shares them: the flag is the open file's. Who is
//! told of a connection and comes too late finds none.

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
    ///
    /// # Errors
    /// The epoll instance is broken.
    pub(crate) fn close(&mut self, epoll: &Epoll) -> io::Result<()> {
        for Listener { socket, .. } in self.0.drain(..) {
            // Closing would not do where another process has the socket too: it would go on waking this one.
            epoll.delete(&socket)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use millrace_send::socket::make_listener;
    use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};

    use super::*;

    #[test]
    fn a_socket_that_another_program_has_too_holds_nobody_up_and_wakes_nobody_after_it_was_closed() {
        let socket = make_listener("127.0.0.1:0".parse().unwrap(), false, None).unwrap();
        let address = SockRef::from(&socket).local_addr().unwrap().as_socket().unwrap();
        let program = |socket| {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
            let listeners = Listeners::new(&epoll, vec![(socket, Front::Http)]).unwrap();
            (epoll, listeners)
        };
        let is_woken = |epoll: &Epoll| epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO) == Ok(1);
        let (old_epoll, mut old) = program(socket.try_clone().unwrap());
        let (new_epoll, new) = program(socket);
        let _client = TcpStream::connect(address).unwrap();
        assert!(is_woken(&old_epoll) && is_woken(&new_epoll));
        assert!(new.accept(0).is_some());
        assert!(old.accept(0).is_none(), "it comes too late, and does not wait");
        old.close(&old_epoll).unwrap();
        let _next = TcpStream::connect(address).unwrap();
        assert!(is_woken(&new_epoll) && !is_woken(&old_epoll));
    }
}
