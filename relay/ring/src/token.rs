//! What travels as `user_data` of a request and comes back with its completions.
//!
//! Never an address: a token names a kind of operation, a slot and the slot's generation, so a late completion for an earlier
//! user of a slot is recognised, and a corrupted one cannot be dereferenced.

use millrace_engine::ids::ConnId;

const KIND_BITS: u32 = 8;
const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 32;

const _: () = assert!(KIND_BITS + SLOT_BITS + GENERATION_BITS == u64::BITS);
const _: () = assert!(KIND_BITS == u8::BITS, "the kind is one byte");
const _: () = assert!(GENERATION_BITS == u32::BITS, "a generation is what ConnId counts");
const _: () = assert!(1 << SLOT_BITS == ConnId::SLOTS_MAX, "every connection slot fits");

/// The kinds of requests this back end makes. 0 is none of them, so that a zeroed completion is never taken for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Multishot accept; the slot is the index of the listener.
    Accept = 1,
    /// Multishot receive on a connection.
    Receive = 2,
    /// One-shot poll for a connection that takes bytes again.
    Writable = 3,
    /// Multishot poll of the mailbox.
    Mailbox = 4,
    /// Multishot poll of the disk threads.
    Disk = 5,
    /// A read past the page cache; the slot is one of those of [`Reads`](crate::reads::Reads).
    Read = 6,
    /// A zero-copy send; the slot is one of those of [`ZeroCopies`](crate::zero_copy::ZeroCopies).
    SendZeroCopy = 7,
    /// A cancellation. Carries nothing the kernel writes to; only failures complete.
    Cancel = 8,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Accept,
        Kind::Receive,
        Kind::Writable,
        Kind::Mailbox,
        Kind::Disk,
        Kind::Read,
        Kind::SendZeroCopy,
        Kind::Cancel,
    ];
}

/// A token: kind (8 bits), slot (24), generation (32), from the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token(u64);

/// A token taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) kind: Kind,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Parts {
    /// What the token of an operation on a connection consists of.
    pub(crate) fn of_connection(kind: Kind, conn: ConnId) -> Self {
        Parts { kind, slot: conn.slot(), generation: conn.generation() }
    }
}

impl Token {
    /// # Panics
    /// When `slot` does not fit 24 bits: tables are bounded by [`ConnId::SLOTS_MAX`].
    pub(crate) fn new(kind: Kind, slot: u32, generation: u32) -> Self {
        assert!(slot < 1 << SLOT_BITS, "slot {slot} does not fit a token");
        let kind = u64::from(kind as u8) << (SLOT_BITS + GENERATION_BITS);
        Token(kind | u64::from(slot) << GENERATION_BITS | u64::from(generation))
    }

    /// The token of an operation on a connection.
    pub(crate) fn of_connection(kind: Kind, conn: ConnId) -> Self {
        Token::new(kind, conn.slot(), conn.generation())
    }

    /// What goes into a request.
    pub(crate) fn user_data(self) -> u64 {
        self.0
    }

    /// Takes the `user_data` of a completion apart: the only place that does. `None` for what no request of ours carried.
    pub(crate) fn take_apart(user_data: u64) -> Option<Parts> {
        let [kind, slot_high, slot_middle, slot_low, generation @ ..] = user_data.to_be_bytes();
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind)?;
        Some(Parts {
            kind,
            slot: u32::from_be_bytes([0, slot_high, slot_middle, slot_low]),
            generation: u32::from_be_bytes(generation),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: Kind, slot: u32, generation: u32) {
        let token = Token::new(kind, slot, generation);
        assert_eq!(Token::take_apart(token.user_data()), Some(Parts { kind, slot, generation }));
    }

    #[test]
    fn what_goes_in_comes_out() {
        for kind in Kind::ALL {
            for slot in [0, 1, 0x00ab_cdef, ConnId::SLOTS_MAX - 1] {
                for generation in [0, 1, 0x1234_5678, u32::MAX] {
                    check(kind, slot, generation);
                }
            }
        }
    }

    #[test]
    fn no_two_operations_share_a_token() {
        let conn = ConnId::new(7, 3);
        let tokens = [
            Token::of_connection(Kind::Receive, conn),
            Token::of_connection(Kind::Writable, conn),
            Token::of_connection(Kind::Receive, ConnId::new(7, 4)),
            Token::of_connection(Kind::Receive, ConnId::new(8, 3)),
        ];
        for (at, token) in tokens.iter().enumerate() {
            assert!(!tokens[at + 1..].contains(token));
        }
    }

    #[test]
    fn a_kind_that_is_not_ours_is_not_taken_apart() {
        assert_eq!(Token::take_apart(0), None);
        assert_eq!(Token::take_apart(u64::MAX), None);
        assert_eq!(Token::take_apart(9 << 56), None);
    }

    #[test]
    #[should_panic(expected = "does not fit a token")]
    fn a_slot_too_large_never_becomes_another_ones_token() {
        let _ = Token::new(Kind::Read, 1 << 24, 0);
    }
}
