//! The connections of a shard: which slot holds which socket, and what epoll has said about it.
//!
//! Edge-triggered readiness is told once, so it is kept here until a receive finds the socket empty.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use millrace_engine::ids::ConnId;

/// What becomes of a connection's incoming bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiving {
    /// They stay in the kernel.
    Paused,
    /// The engine wants them.
    Wanted,
    /// The peer's end was delivered: there is nothing more to come.
    Finished,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    pub(crate) receiving: Receiving,
    /// There may be bytes, or the end, in the socket.
    pub(crate) readable: bool,
    /// The peer will send no more: the end follows the bytes that are there, and no further event tells of it.
    pub(crate) half_closed: bool,
    /// The engine was told that the socket is full.
    pub(crate) blocked: bool,
    /// In the driver's list of those to receive from.
    pub(crate) listed: bool,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    open: Option<Connection>,
}

/// All slots of a shard.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Box<[Slot]>,
    free: Vec<u32>,
}

impl Table {
    /// A table of `connections_max` free slots, at most [`ConnId::SLOTS_MAX`].
    pub(crate) fn new(connections_max: u32) -> Self {
        let slots = (0..connections_max).map(|_| Slot::default()).collect();
        Table { slots, free: (0..connections_max).rev().collect() }
    }

    /// Puts a socket into a free slot; gives it back when there is none.
    pub(crate) fn insert(&mut self, socket: OwnedFd) -> Result<ConnId, OwnedFd> {
        let Some(number) = self.free.pop() else { return Err(socket) };
        let slot = &mut self.slots[number as usize];
        slot.open = Some(Connection {
            socket,
            receiving: Receiving::Paused,
            readable: false,
            half_closed: false,
            blocked: false,
            listed: false,
        });
        Ok(ConnId::new(number, slot.generation))
    }

    /// The connection, unless it is closed.
    pub(crate) fn open(&self, conn: ConnId) -> Option<&Connection> {
        self.slots.get(conn.index()).filter(|slot| slot.generation == conn.generation())?.open.as_ref()
    }

    /// The connection, unless it is closed.
    pub(crate) fn open_mut(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.slots.get_mut(conn.index()).filter(|slot| slot.generation == conn.generation())?.open.as_mut()
    }

    /// Frees the slot. Dropping the connection closes its socket, which also takes it out of epoll.
    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<Connection> {
        let slot = self.slots.get_mut(conn.index()).filter(|slot| slot.generation == conn.generation())?;
        let removed = slot.open.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(conn.slot());
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn socket() -> OwnedFd {
        UnixStream::pair().unwrap().0.into()
    }

    #[test]
    fn a_slot_used_again_is_another_connection() {
        let mut table = Table::new(1);
        let first = table.insert(socket()).unwrap();
        assert!(table.insert(socket()).is_err(), "the table is full");
        assert!(table.remove(first).is_some());
        assert!(table.remove(first).is_none());
        let second = table.insert(socket()).unwrap();
        assert_eq!(second.slot(), first.slot());
        assert!(table.open(first).is_none() && table.open_mut(first).is_none());
        assert!(table.open(second).is_some());
    }
}
