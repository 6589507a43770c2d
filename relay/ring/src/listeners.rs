//! The listening sockets of a shard, each with one multishot accept.
//!
//! An accept that ends is armed again; where the reason is a want of descriptors or memory, after a rest, since the connection
//! that could not be accepted is still there and would fail again at once.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use millrace_engine::ids::Now;
use millrace_send::Front;

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

    /// When [`next_due`](Self::next_due) has something again, in monotonic ns.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        let rest = |listener: &Listener| match listener.state {
            State::Resting { until_ns } => Some(until_ns),
            State::Accepting | State::Closing => None,
        };
        self.0.iter().flatten().filter_map(rest).min()
    }

    /// The accept of a listener has ended, with this error or for the kernel's own reasons.
    pub(crate) fn ended(&mut self, slot: u32, error: Option<&io::Error>, now: Now) {
        let Some(held) = self.0.get_mut(slot as usize) else { return };
        let Some(listener) = held else { return };
        match listener.state {
            State::Closing => *held = None,
            State::Accepting | State::Resting { .. } => {
                // A connection that was reset before it was accepted is nobody's fault.
                let harmless = error.is_none_or(|error| error.raw_os_error() == Some(libc::ECONNABORTED));
                let rest_ns = if harmless { 0 } else { REST_NS };
                listener.state = State::Resting { until_ns: now.monotonic_ns + rest_ns };
            }
        }
    }

    /// Closes all listeners. Returns the accepts to cancel, after which they are closed.
    pub(crate) fn close(&mut self) -> Vec<Token> {
        let mut cancelled = Vec::new();
        for (held, slot) in self.0.iter_mut().zip(0..) {
            match held {
                Some(Listener { state: state @ State::Accepting, .. }) => {
                    *state = State::Closing;
                    cancelled.push(Token::new(Kind::Accept, slot, 0));
                }
                Some(Listener { state: State::Resting { .. }, .. }) => *held = None,
                Some(Listener { state: State::Closing, .. }) | None => {}
            }
        }
        cancelled
    }

    /// Whether all are closed, hence nothing in flight.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

fn accept(socket: RawFd, slot: u32) -> squeue::Entry {
    let request =
        opcode::AcceptMulti::new(Fd(socket)).flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).build();
    request.user_data(Token::new(Kind::Accept, slot, 0).user_data())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn at(ms: u64) -> Now {
        Now { monotonic_ns: ms * 1_000_000, unix_s: 0 }
    }

    #[track_caller]
    fn check(listeners: &mut Listeners, now: Now, due: usize) {
        assert_eq!(std::iter::from_fn(|| listeners.next_due(now)).count(), due);
    }

    fn two() -> Listeners {
        let (one, other) = UnixStream::pair().unwrap();
        Listeners::new(vec![(one.into(), Front::Http), (other.into(), Front::BitTorrent)])
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
    fn closing_waits_for_the_accepts_that_are_in_flight() {
        let mut listeners = two();
        assert!(listeners.next_due(at(0)).is_some());
        assert_eq!(listeners.close(), [Token::new(Kind::Accept, 0, 0)]);
        assert!(!listeners.is_closed());
        check(&mut listeners, at(10_000), 0);
        listeners.ended(0, Some(&io::Error::from_raw_os_error(libc::ECANCELED)), at(10_000));
        assert!(listeners.is_closed());
    }
}
