//! The listening sockets of a shard, each with one multishot accept.
//!
//! An accept that ends is armed again; where the reason is a want of descriptors or memory, after a rest, since the connection
//! that could not be accepted is still there and would fail again at once.
//!
//! The sockets may be shared with the program that takes over, which accepts on them while this one stops. The kernel wakes one of all accepts
//! that wait (they are exclusive waiters, `io_uring/net.c`), and an accept that is woken while it is being cancelled takes no
//! connection and wakes nobody else. So whoever cancels an accept looks afterwards what waits in the socket, and takes it: a connection whose
//! wake-up came here was there before the cancelled accept had left the socket's wait queue, which is before its last completion. One
//! that comes later wakes the others.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use millrace_engine::ids::Now;
use millrace_send::Front;
use socket2::SockRef;

use crate::token::{Kind, Token};

/// How long a listener rests after an error.
const REST_NS: u64 = 100_000_000;

#[derive(Debug)]
enum State {
    /// Waiting for its first turn, or for this time (monotonic ns).
    Resting {
        until_ns: u64,
    },
    Accepting,
    /// Cancelled, its last completion is to come.
    Closing,
    /// No accept is armed any more; from this time on (monotonic ns) what waits is taken, and then it is closed.
    Leaving {
        until_ns: u64,
    },
}

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    front: Front,
    state: State,
}

/// All listeners; the index of one is its slot in tokens. `None` was closed.
#[derive(Debug)]
pub(crate) struct Listeners(Vec<Option<Listener>>);

impl Listeners {
    /// Takes the listeners over; [`next_due`](Self::next_due) starts them.
    pub(crate) fn new(sockets: Vec<(OwnedFd, Front)>) -> Self {
        let state = || State::Resting { until_ns: 0 };
        Listeners(
            sockets
                .into_iter()
                .map(|(socket, front)| Some(Listener { socket, front, state: state() }))
                .collect(),
        )
    }

    /// What the connections of a listener speak.
    pub(crate) fn front(&self, slot: u32) -> Option<Front> {
        Some(self.0.get(slot as usize)?.as_ref()?.front)
    }

    /// The accept of a listener that has rested long enough, to be submitted. Call until there is none.
    pub(crate) fn next_due(&mut self, now: Now) -> Option<squeue::Entry> {
        let due =
            |state: &State| matches!(state, State::Resting { until_ns } if *until_ns <= now.monotonic_ns);
        let (listener, slot) = self
            .0
            .iter_mut()
            .zip(0..)
            .find_map(|(held, slot)| Some((held.as_mut().filter(|held| due(&held.state))?, slot)))?;
        listener.state = State::Accepting;
        Some(accept(listener.socket.as_raw_fd(), slot))
    }

    /// A connection that waited in a listener that is being closed. Call until there is none, for want of them or of descriptors.
    pub(crate) fn next_left(&mut self, now: Now) -> Option<(OwnedFd, Front)> {
        for held in &mut self.0 {
            let Some(Listener { socket, front, state: State::Leaving { until_ns } }) = held else { continue };
            while *until_ns <= now.monotonic_ns {
                match SockRef::from(&*socket).accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) {
                    Ok((accepted, _)) => return Some((accepted.into(), *front)),
                    Err(error) if is_harmless(&error) => {}
                    Err(error) if is_want_of_descriptors(&error) => *until_ns = now.monotonic_ns + REST_NS,
                    // Nothing waits.
                    Err(_) => {
                        *held = None;
                        break;
                    }
                }
            }
        }
        None
    }

    /// When [`next_due`](Self::next_due) or [`next_left`](Self::next_left) has something again, in monotonic ns.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        let rest = |listener: &Listener| match listener.state {
            State::Resting { until_ns } | State::Leaving { until_ns } => Some(until_ns),
            State::Accepting | State::Closing => None,
        };
        self.0.iter().flatten().filter_map(rest).min()
    }

    /// The accept of a listener has ended, with this error or for the kernel's own reasons.
    pub(crate) fn ended(&mut self, slot: u32, error: Option<&io::Error>, now: Now) {
        let Some(held) = self.0.get_mut(slot as usize) else { return };
        let Some(listener) = held else { return };
        match listener.state {
            State::Closing | State::Leaving { .. } => {
                listener.state = State::Leaving { until_ns: now.monotonic_ns };
            }
            State::Accepting | State::Resting { .. } => {
                let rest_ns = if error.is_none_or(is_harmless) { 0 } else { REST_NS };
                listener.state = State::Resting { until_ns: now.monotonic_ns + rest_ns };
            }
        }
    }

    /// Closes all listeners. Returns the accepts to cancel, after which [`next_left`](Self::next_left) closes them.
    pub(crate) fn close(&mut self) -> Vec<Token> {
        let mut cancelled = Vec::new();
        for (held, slot) in self.0.iter_mut().zip(0..) {
            match held {
                Some(Listener { state: state @ State::Accepting, .. }) => {
                    *state = State::Closing;
                    cancelled.push(Token::new(Kind::Accept, slot, 0));
                }
                // The connection that it could not take woke nobody else either.
                Some(Listener { state: state @ State::Resting { .. }, .. }) => {
                    *state = State::Leaving { until_ns: 0 };
                }
                Some(Listener { state: State::Closing | State::Leaving { .. }, .. }) | None => {}
            }
        }
        cancelled
    }

    /// Whether all are closed, hence nothing in flight.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// A connection that was reset before it was accepted is nobody's fault.
fn is_harmless(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECONNABORTED)
}

/// The connection is still there.
pub(crate) fn is_want_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

fn accept(socket: RawFd, slot: u32) -> squeue::Entry {
    let request =
        opcode::AcceptMulti::new(Fd(socket)).flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).build();
    request.user_data(Token::new(Kind::Accept, slot, 0).user_data())
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};

    use millrace_send::socket::make_listener;

    use super::*;

    fn at(ms: u64) -> Now {
        Now { monotonic_ns: ms * 1_000_000, unix_s: 0 }
    }

    #[track_caller]
    fn check(listeners: &mut Listeners, now: Now, due: usize) {
        assert_eq!(std::iter::from_fn(|| listeners.next_due(now)).count(), due);
    }

    fn two() -> Listeners {
        let listener = || make_listener("127.0.0.1:0".parse().unwrap(), false, None).unwrap();
        Listeners::new(vec![(listener(), Front::Http), (listener(), Front::BitTorrent)])
    }

    fn address(listeners: &Listeners, slot: usize) -> SocketAddr {
        let socket = &listeners.0[slot].as_ref().unwrap().socket;
        SockRef::from(socket).local_addr().unwrap().as_socket().unwrap()
    }

    #[test]
    fn a_listener_rests_after_a_want_of_descriptors_and_not_after_an_aborted_connection() {
        let mut listeners = two();
        check(&mut listeners, at(1_000), 2);
        listeners.ended(0, Some(&io::Error::from_raw_os_error(libc::EMFILE)), at(1_000));
        listeners.ended(1, Some(&io::Error::from_raw_os_error(libc::ECONNABORTED)), at(1_000));
        check(&mut listeners, at(1_000), 1);
        assert_eq!(listeners.deadline_ns(), Some(1_100_000_000));
        check(&mut listeners, at(1_100), 1);
        assert_eq!(listeners.deadline_ns(), None);
    }

    #[test]
    fn closing_waits_for_the_accepts_that_are_in_flight_and_takes_what_waits_then() {
        let mut listeners = two();
        assert!(listeners.next_due(at(0)).is_some());
        let _clients = [0, 1].map(|slot| TcpStream::connect(address(&listeners, slot)).unwrap());
        assert_eq!(listeners.close(), [Token::new(Kind::Accept, 0, 0)]);
        check(&mut listeners, at(10_000), 0);
        let left = |listeners: &mut Listeners| listeners.next_left(at(10_000)).map(|(_, front)| front);
        // The other one had no accept to be waited for.
        assert_eq!([left(&mut listeners), left(&mut listeners)], [Some(Front::BitTorrent), None]);
        assert!(!listeners.is_closed());
        listeners.ended(0, Some(&io::Error::from_raw_os_error(libc::ECANCELED)), at(10_000));
        assert_eq!([left(&mut listeners), left(&mut listeners)], [Some(Front::Http), None]);
        assert!(listeners.is_closed());
    }
}
