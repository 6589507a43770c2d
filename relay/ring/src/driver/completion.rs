//! What each kind of completion means: the event it becomes, and what is armed again.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;
use millrace_engine::counters::Reason;
use millrace_engine::event::{Event, Sent};
use millrace_engine::ids::ConnId;
use millrace_send::cold::{Finished, Resumed};
use millrace_send::socket::{peer_address, tune_accepted};
use millrace_send::{Flushed, Front, Outward};
use socket2::SockRef;

use super::Driver;
use crate::listeners::is_want_of_descriptors;
use crate::table::{ReceiveEnd, Whose};
use crate::token::{Kind, Parts, Token};
use crate::zero_copy::{Completed, completed};

impl<F: FnMut(Outward)> Driver<'_, F> {
    /// Handles one completion, and carries out what it leads to.
    pub(super) fn handle_completion(&mut self, completion: &cqueue::Entry) {
        let token = Token::take_apart(completion.user_data());
        let token = token.expect("the kernel completed what nobody asked for");
        match token.kind {
            Kind::Accept => self.handle_accept(token, completion),
            Kind::Receive => self.handle_receive(token, completion),
            Kind::Writable => self.handle_writable(token),
            Kind::Mailbox => self.mailbox.polling = cqueue::more(completion.flags()),
            Kind::Disk => {
                self.disk.polling = cqueue::more(completion.flags());
                self.finish_reads_of_threads();
            }
            Kind::Read => self.handle_read(token, completion),
            Kind::SendZeroCopy => self.handle_zero_copy(token, completion),
            // What was to be cancelled had ended by itself.
            Kind::Cancel => {}
        }
    }

    fn handle_accept(&mut self, token: Parts, completion: &cqueue::Entry) {
        let front = self.listeners.front(token.slot);
        let accepted = result(completion);
        if !cqueue::more(completion.flags()) {
            self.listeners.ended(token.slot, accepted.as_ref().err(), self.now);
        }
        let socket = match accepted {
            Ok(_) => {
                // SAFETY: a successful accept gives a descriptor that this completion alone names, and it is handled once.
                unsafe { OwnedFd::from_raw_fd(completion.result()) }
            }
            Err(error) => {
                if is_want_of_descriptors(&error) {
                    self.counters.close(Reason::TooManyConnections);
                }
                return;
            }
        };
        if let Some(front) = front {
            self.admit(socket, front);
        }
    }

    /// Takes what waits in listeners that are being closed.
    pub(super) fn admit_left(&mut self) {
        while let Some((socket, front)) = self.listeners.next_left(self.now) {
            self.admit(socket, front);
        }
    }

    fn admit(&mut self, socket: OwnedFd, front: Front) {
        // A peer that is gone already has no address any more; dropping the socket closes it.
        let peer = SockRef::from(&socket).peer_addr().ok().and_then(|address| peer_address(&address));
        let (Some(peer), Ok(())) = (peer, tune_accepted(&socket)) else { return };
        match self.table.insert(socket) {
            Ok(conn) if front == Front::Https && !self.sender.begin_tls(conn, self.now) => {
                // Nothing is in flight for it.
                self.table.close(conn);
                self.counters.close(Reason::TooManyConnections);
            }
            Ok(conn) => self.deliver(Event::Accepted { conn, protocol: front.protocol(), peer }),
            Err(_closed) => self.counters.close(Reason::TooManyConnections),
        }
    }

    fn handle_receive(&mut self, token: Parts, completion: &cqueue::Entry) {
        let filled = self.buffers.take(completion);
        let whose = self.table.whose(token);
        let received = result(completion);
        if completion.result() == -libc::ENOBUFS {
            self.buffers.provide_more();
        }
        let end = match &received {
            Ok(1..) => ReceiveEnd::Interrupted,
            Err(error) if is_interruption(error) => ReceiveEnd::Interrupted,
            Ok(0) | Err(_) => ReceiveEnd::Final,
        };
        // Armed again before the bytes are delivered, so that an operation they lead to finds things as they will be. It is
        // submitted after this loop, when the buffers are back.
        if !cqueue::more(completion.flags()) && self.table.receive_ended(whose, end) {
            let (Whose::Open(conn) | Whose::Closing(conn)) = whose;
            self.arm_receive(conn);
        }
        if let Whose::Open(conn) = whose {
            let data = filled.as_ref().map_or(&[][..], |filled| self.buffers.bytes(filled));
            match received {
                Ok(_) if self.sender.is_encrypted(conn) => {
                    if let Some(socket) = self.table.socket(conn) {
                        let deliver = |event: Event<'_>| self.shard.handle(self.now, event, &mut self.ops);
                        let flushed = self.sender.received(conn, socket, data, deliver);
                        self.flushed(conn, flushed);
                    }
                }
                Ok(_) => self.shard.handle(self.now, Event::Received { conn, data }, &mut self.ops),
                Err(_) if end == ReceiveEnd::Interrupted => {}
                Err(_) => self.shard.handle(self.now, Event::Broken { conn }, &mut self.ops),
            }
        }
        if let Some(filled) = filled {
            self.buffers.give_back(filled);
        }
        self.carry_out();
    }

    fn handle_writable(&mut self, token: Parts) {
        let whose = self.table.whose(token);
        self.table.poll_ended(whose);
        if let Whose::Open(conn) = whose {
            if self.sender.is_encrypted(conn)
                && let Some(socket) = self.table.socket(conn)
            {
                let flushed = self.sender.flush(conn, socket);
                self.flushed(conn, flushed);
            }
            // An error or a hang-up is writable too: the send will tell.
            self.deliver(Event::Writable { conn });
        }
    }

    pub(super) fn go_on_with_handshakes(&mut self) {
        while let Some(conn) = self.sender.next_handshake() {
            if let Some(socket) = self.table.socket(conn) {
                let deliver = |event: Event<'_>| self.shard.handle(self.now, event, &mut self.ops);
                let flushed = self.sender.handshake(conn, socket, deliver);
                self.flushed(conn, flushed);
            }
            self.carry_out();
        }
        while let Some(conn) = self.sender.next_overdue_handshake(self.now) {
            self.deliver(Event::Broken { conn });
        }
    }

    /// What TLS itself has to say goes on when the socket takes it.
    pub(super) fn flushed(&mut self, conn: ConnId, flushed: Flushed) {
        if flushed == Flushed::Blocked && self.table.poll(conn) {
            self.arm_poll(conn);
        }
    }

    fn handle_read(&mut self, token: Parts, completion: &cqueue::Entry) {
        let read = self.reads.ended(token);
        let bytes = result(completion).map(|bytes| bytes as usize);
        self.finish_read(Finished::Direct(read, bytes));
    }

    fn handle_zero_copy(&mut self, token: Parts, completion: &cqueue::Entry) {
        match completed(completion) {
            Completed::Answered(result) => {
                let send = self.zero_copies.of(token);
                let (conn, sent) = (send.conn(), self.sender.answer_zero_copy(send, result));
                self.tell_sent(conn, sent);
            }
            Completed::Failed(error) => {
                let mut send = self.zero_copies.take(token);
                let (conn, sent) = (send.conn(), self.sender.answer_zero_copy(&mut send, Err(error)));
                self.sender.finish_zero_copy(send, true);
                self.tell_sent(conn, sent);
            }
            Completed::Released { copied } => {
                let send = self.zero_copies.take(token);
                self.sender.finish_zero_copy(send, copied);
            }
        }
    }

    /// Answers the send that a zero-copy send was made of, unless the connection is closed.
    fn tell_sent(&mut self, conn: ConnId, sent: Sent) {
        let whose = self.table.whose(Parts::of_connection(Kind::SendZeroCopy, conn));
        self.table.send_answered(whose);
        if let Whose::Open(conn) = whose {
            self.answer_send(conn, sent);
            self.carry_out();
        }
    }

    fn finish_reads_of_threads(&mut self) {
        while let Some(finished) = self.disk.threads.next() {
            self.finish_read(finished);
        }
    }

    /// Lets the send go on whose bytes have been read.
    fn finish_read(&mut self, finished: Finished) {
        let conn = finished.conn();
        // The connection may have been closed meanwhile.
        let is_open = self.table.socket(conn).is_some();
        match self.sender.finish(finished, is_open) {
            _ if !is_open => {}
            Resumed::Send { bytes_max, residency } => self.send(conn, bytes_max, residency),
            Resumed::Unreadable => self.answer_send(conn, Sent::Unreadable),
            Resumed::Waits => {}
        }
        self.carry_out();
    }
}

/// The result of a completion as system calls give it.
fn result(completion: &cqueue::Entry) -> io::Result<u32> {
    let code = completion.result();
    u32::try_from(code).map_err(|_| io::Error::from_raw_os_error(-code))
}

/// A receive that may go on: cancelled by us, out of buffers (which come back in the same loop), or out of luck.
fn is_interruption(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::ENOBUFS | libc::EINTR | libc::EAGAIN))
}
