//! What an epoll event is about, in the 64 bits that the kernel hands back.

use millrace_engine::ids::ConnId;

/// Slots from here on are not connections.
const MAILBOX: u32 = u32::MAX;
const DISK: u32 = u32::MAX - 1;
const LISTENERS: u32 = ConnId::SLOTS_MAX;

/// Where readiness was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// A connection, perhaps one that is closed already.
    Connection(ConnId),
    /// The listener of this index.
    Listener(u32),
    Mailbox,
    /// The disk thread.
    Disk,
}

impl Token {
    /// As epoll carries it: generation and slot.
    pub(crate) fn data(self) -> u64 {
        let (generation, slot) = match self {
            Token::Connection(conn) => (conn.generation(), conn.slot()),
            Token::Listener(index) => (0, LISTENERS + index),
            Token::Mailbox => (0, MAILBOX),
            Token::Disk => (0, DISK),
        };
        u64::from(generation) << 32 | u64::from(slot)
    }

    /// The reverse of [`data`](Token::data).
    pub(crate) fn of(data: u64) -> Self {
        let low = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
        match low(data) {
            MAILBOX => Token::Mailbox,
            DISK => Token::Disk,
            slot if slot >= LISTENERS => Token::Listener(slot - LISTENERS),
            slot => Token::Connection(ConnId::new(slot, low(data >> 32))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        let last = ConnId::new(ConnId::SLOTS_MAX - 1, u32::MAX);
        for token in [
            Token::Connection(ConnId::new(0, 0)),
            Token::Connection(last),
            Token::Listener(0),
            Token::Listener(9),
            Token::Mailbox,
            Token::Disk,
        ] {
            assert_eq!(Token::of(token.data()), token);
        }
    }
}
