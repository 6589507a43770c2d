//! The connections of a shard: which slot holds which socket, and what the kernel is doing for it.
//!
//! Pure bookkeeping: methods say what has to be asked of the kernel, the driver asks. A socket that is closed stays in its slot until
//! the terminal completion of everything in flight for it has come; only then is its descriptor closed and the slot used again, so
//! no completion ever meets a stranger.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use millrace_engine::ids::ConnId;

use crate::token::{Kind, Parts, Token};

/// What the kernel does about a connection's incoming bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    /// Nothing: they stay in the socket.
    Paused,
    /// A multishot receive is in flight.
    Armed,
    /// It is being cancelled, and may still deliver what it had received.
    Cancelling {
        /// The engine wants bytes again: once it has ended another one starts.
        again: bool,
    },
    /// The peer's end, or an error: there is nothing more to come.
    Finished,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    receiving: Receiving,
    /// Whether a poll for writability is in flight.
    polling: bool,
    /// Whether a zero-copy send has not been answered. It is not waited for its notification, which no longer needs the socket.
    sending: bool,
}

impl Connection {
    fn is_receiving(&self) -> bool {
        matches!(self.receiving, Receiving::Armed | Receiving::Cancelling { .. })
    }

    fn is_in_flight(&self) -> bool {
        self.is_receiving() || self.polling || self.sending
    }
}

#[derive(Debug)]
enum State {
    Free,
    Open(Connection),
    /// Closed by the engine, waiting for terminal completions.
    Closing(Connection),
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    state: State,
}

/// The connection that a completion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The engine knows it: deliver.
    Open(ConnId),
    /// The engine has closed it: nothing of it is delivered any more.
    Closing(ConnId),
}

/// How a receive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiveEnd {
    /// More bytes may come: it was cancelled, ran out of buffers, or the kernel ended it for reasons of its own.
    Interrupted,
    /// The peer's end, or a broken socket.
    Final,
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
        let slots = (0..connections_max).map(|_| Slot { generation: 0, state: State::Free }).collect();
        Table { slots, free: (0..connections_max).rev().collect() }
    }

    /// Puts a socket into a free slot; gives it back when there is none.
    pub(crate) fn insert(&mut self, socket: OwnedFd) -> Result<ConnId, OwnedFd> {
        let Some(number) = self.free.pop() else { return Err(socket) };
        let slot = &mut self.slots[number as usize];
        let receiving = Receiving::Paused;
        slot.state = State::Open(Connection { socket, receiving, polling: false, sending: false });
        Ok(ConnId::new(number, slot.generation))
    }

    /// The socket of an open connection.
    pub(crate) fn socket(&self, conn: ConnId) -> Option<BorrowedFd<'_>> {
        match self.slots.get(conn.index()) {
            Some(Slot { generation, state: State::Open(open) }) if *generation == conn.generation() => {
                Some(open.socket.as_fd())
            }
            _ => None,
        }
    }

    fn open_mut(&mut self, conn: ConnId) -> Option<&mut Connection> {
        match self.slots.get_mut(conn.index()) {
            Some(Slot { generation, state: State::Open(open) }) if *generation == conn.generation() => {
                Some(open)
            }
            _ => None,
        }
    }

    /// The engine wants bytes. Returns whether a receive has to be armed.
    pub(crate) fn receive(&mut self, conn: ConnId) -> bool {
        let Some(open) = self.open_mut(conn) else { return false };
        match open.receiving {
            Receiving::Paused => {
                open.receiving = Receiving::Armed;
                true
            }
            Receiving::Cancelling { .. } => {
                open.receiving = Receiving::Cancelling { again: true };
                false
            }
            Receiving::Armed | Receiving::Finished => false,
        }
    }

    /// The engine wants no bytes. Returns whether the receive has to be cancelled.
    pub(crate) fn pause(&mut self, conn: ConnId) -> bool {
        let Some(open) = self.open_mut(conn) else { return false };
        let armed = open.receiving == Receiving::Armed;
        if open.is_receiving() {
            open.receiving = Receiving::Cancelling { again: false };
        }
        armed
    }

    /// A send was blocked. Returns whether a poll has to be armed.
    pub(crate) fn poll(&mut self, conn: ConnId) -> bool {
        self.open_mut(conn).is_some_and(|open| !std::mem::replace(&mut open.polling, true))
    }

    /// A zero-copy send begins. Returns its socket, none where the connection is closed.
    pub(crate) fn send(&mut self, conn: ConnId) -> Option<BorrowedFd<'_>> {
        let open = self.open_mut(conn)?;
        open.sending = true;
        Some(open.socket.as_fd())
    }

    /// The zero-copy send of a connection was answered.
    pub(crate) fn send_answered(&mut self, whose: Whose) {
        self.in_flight_mut(whose).sending = false;
        self.settle(whose);
    }

    /// The connection that a completion of this token is about.
    ///
    /// # Panics
    /// When there is none: a slot is not used again before its last completion, so the kernel has completed something twice.
    pub(crate) fn whose(&self, token: Parts) -> Whose {
        let conn = ConnId::new(token.slot, token.generation);
        match self.slots.get(conn.index()) {
            Some(Slot { generation, state: State::Open(_) }) if *generation == token.generation => {
                Whose::Open(conn)
            }
            Some(Slot { generation, state: State::Closing(_) }) if *generation == token.generation => {
                Whose::Closing(conn)
            }
            _ => panic!("the kernel completed {:?} for {conn:?}, which has nothing in flight", token.kind),
        }
    }

    /// The receive of a connection has come to its end. Returns whether to arm another.
    pub(crate) fn receive_ended(&mut self, whose: Whose, end: ReceiveEnd) -> bool {
        let connection = self.in_flight_mut(whose);
        let wanted = matches!(connection.receiving, Receiving::Armed | Receiving::Cancelling { again: true });
        let again = wanted && end == ReceiveEnd::Interrupted && matches!(whose, Whose::Open(_));
        connection.receiving = match end {
            _ if again => Receiving::Armed,
            ReceiveEnd::Interrupted => Receiving::Paused,
            ReceiveEnd::Final => Receiving::Finished,
        };
        self.settle(whose);
        again
    }

    /// The poll of a connection has come to its end.
    pub(crate) fn poll_ended(&mut self, whose: Whose) {
        self.in_flight_mut(whose).polling = false;
        self.settle(whose);
    }

    /// The engine is done with a connection. Returns what has to be cancelled; where nothing is in flight the socket is closed already. A
    /// send needs no cancelling: it never waits for its socket.
    pub(crate) fn close(&mut self, conn: ConnId) -> [Option<Token>; 2] {
        if self.open_mut(conn).is_none() {
            return [None; 2];
        }
        let slot = &mut self.slots[conn.index()];
        let State::Open(connection) = std::mem::replace(&mut slot.state, State::Free) else {
            return [None; 2];
        };
        let receive = connection.is_receiving().then(|| Token::of_connection(Kind::Receive, conn));
        let poll = connection.polling.then(|| Token::of_connection(Kind::Writable, conn));
        slot.state = State::Closing(connection);
        self.settle(Whose::Closing(conn));
        [receive, poll]
    }

    /// Whether every slot is free, hence nothing in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Connections the engine has not closed, for an end that comes without it.
    pub(crate) fn open(&self) -> Vec<ConnId> {
        let open = self.slots.iter().zip(0..).filter(|(slot, _)| matches!(slot.state, State::Open(_)));
        open.map(|(slot, number)| ConnId::new(number, slot.generation)).collect()
    }

    fn in_flight_mut(&mut self, whose: Whose) -> &mut Connection {
        let (Whose::Open(conn) | Whose::Closing(conn)) = whose;
        match &mut self.slots[conn.index()].state {
            State::Open(connection) | State::Closing(connection) => connection,
            State::Free => panic!("{conn:?} was looked up, and its slot is free"),
        }
    }

    /// Closes the descriptor and frees the slot of a closed connection once nothing is in flight for it.
    fn settle(&mut self, whose: Whose) {
        let Whose::Closing(conn) = whose else { return };
        let slot = &mut self.slots[conn.index()];
        if matches!(&slot.state, State::Closing(connection) if !connection.is_in_flight()) {
            slot.state = State::Free;
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(conn.slot());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    struct Scene {
        table: Table,
        conn: ConnId,
        peer: UnixStream,
    }

    fn scene() -> Scene {
        let mut table = Table::new(1);
        let (ours, peer) = UnixStream::pair().unwrap();
        peer.set_nonblocking(true).unwrap();
        let conn = table.insert(ours.into()).unwrap();
        Scene { table, conn, peer }
    }

    impl Scene {
        fn whose(&self, kind: Kind) -> Whose {
            self.table.whose(Token::take_apart(Token::of_connection(kind, self.conn).user_data()).unwrap())
        }

        /// Ends the receive; returns whether another one is to be armed.
        fn receive_ends(&mut self, end: ReceiveEnd) -> bool {
            let whose = self.whose(Kind::Receive);
            self.table.receive_ended(whose, end)
        }

        #[track_caller]
        fn check_descriptor(&mut self, open: bool) {
            let end = self.peer.read(&mut [0]).ok();
            assert_eq!(
                end,
                if open { None } else { Some(0) },
                "the peer sees the end when the descriptor is closed"
            );
        }
    }

    #[test]
    fn a_socket_is_closed_only_after_its_last_completion() {
        let mut scene = scene();
        assert!(scene.table.receive(scene.conn));
        assert!(scene.table.poll(scene.conn));
        let cancelled = scene.table.close(scene.conn);
        assert_eq!(cancelled.iter().flatten().count(), 2);
        assert!(scene.table.socket(scene.conn).is_none(), "no operation finds it any more");
        assert_eq!(scene.whose(Kind::Receive), Whose::Closing(scene.conn));
        assert!(!scene.receive_ends(ReceiveEnd::Interrupted));
        scene.check_descriptor(true);
        let whose = scene.whose(Kind::Writable);
        scene.table.poll_ended(whose);
        scene.check_descriptor(false);
        assert!(scene.table.is_empty());
    }

    #[test]
    fn a_socket_with_nothing_in_flight_is_closed_at_once_and_its_slot_gets_a_new_generation() {
        let mut scene = scene();
        let other = UnixStream::pair().unwrap().0;
        let Err(other) = scene.table.insert(other.into()) else { panic!("the table is full") };
        assert_eq!(scene.table.close(scene.conn), [None; 2]);
        scene.check_descriptor(false);
        let next = scene.table.insert(other).unwrap();
        assert_eq!(next, ConnId::new(scene.conn.slot(), scene.conn.generation() + 1));
        assert!(scene.table.socket(scene.conn).is_none());
        assert_eq!(scene.table.close(scene.conn), [None; 2], "a stale id closes nothing");
        assert!(scene.table.socket(next).is_some());
    }

    #[test]
    fn a_socket_is_kept_for_a_zero_copy_send_until_that_is_answered() {
        let mut scene = scene();
        assert!(scene.table.send(scene.conn).is_some());
        assert_eq!(scene.table.close(scene.conn), [None; 2], "it ends by itself");
        scene.check_descriptor(true);
        let whose = scene.whose(Kind::SendZeroCopy);
        scene.table.send_answered(whose);
        scene.check_descriptor(false);
        assert!(scene.table.send(scene.conn).is_none());
    }

    #[test]
    fn a_receive_wanted_while_the_old_one_is_cancelled_starts_when_that_has_ended() {
        let mut scene = scene();
        assert!(scene.table.receive(scene.conn));
        assert!(!scene.table.receive(scene.conn), "one at a time");
        assert!(scene.table.pause(scene.conn));
        assert!(!scene.table.pause(scene.conn), "one cancellation is enough");
        assert!(!scene.table.receive(scene.conn), "the old one is still in flight");
        assert!(scene.receive_ends(ReceiveEnd::Interrupted));
        assert!(scene.table.pause(scene.conn));
        assert!(!scene.receive_ends(ReceiveEnd::Interrupted));
        assert!(scene.table.receive(scene.conn));
    }

    #[test]
    fn after_the_end_of_the_stream_nothing_is_received() {
        let mut scene = scene();
        assert!(scene.table.receive(scene.conn));
        assert!(!scene.receive_ends(ReceiveEnd::Final));
        assert!(!scene.table.receive(scene.conn));
        assert_eq!(scene.table.close(scene.conn), [None; 2]);
    }

    #[test]
    #[should_panic(expected = "nothing in flight")]
    fn a_completion_too_many_is_a_breach_of_contract() {
        let mut scene = scene();
        scene.table.close(scene.conn);
        let _ = scene.whose(Kind::Receive);
    }
}
