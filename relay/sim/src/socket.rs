//! A model of one TCP connection, seen from both ends.

use std::collections::VecDeque;

/// How the relay ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its side is shut down (FIN): the peer reads to a clean end.
    Finished,
    /// It was reset: the peer cannot take what arrived for a whole.
    Reset,
}

/// One connection.
#[derive(Debug)]
pub struct Socket {
    /// Bytes the relay sent and the peer has not read.
    pub(crate) outbound: VecDeque<u8>,
    /// Bytes the peer sent and the relay has not received.
    pub(crate) inbound: VecDeque<u8>,
    /// Most bytes that `outbound` holds.
    pub(crate) room: usize,
    /// The relay takes what arrives.
    pub(crate) receiving: bool,
    /// The relay found it full and waits to hear that there is room.
    pub(crate) blocked: bool,
    /// The peer has shut its side down; told once.
    pub(crate) peer_finished: Option<Told>,
    /// The peer has reset the connection; told once.
    pub(crate) peer_reset: bool,
    /// How the relay ended it, if it did.
    pub(crate) ended: Option<Ended>,
    /// The relay has closed it: its slot may be used again.
    pub(crate) closed: bool,
}

/// Whether the relay knows of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    No,
    Yes,
}

impl Socket {
    pub(crate) fn new(room: usize) -> Self {
        Socket {
            outbound: VecDeque::new(),
            inbound: VecDeque::new(),
            room,
            receiving: false,
            blocked: false,
            peer_finished: None,
            peer_reset: false,
            ended: None,
            closed: false,
        }
    }

    /// Bytes that the relay may still queue.
    pub(crate) fn free(&self) -> usize {
        self.room.saturating_sub(self.outbound.len())
    }
}
