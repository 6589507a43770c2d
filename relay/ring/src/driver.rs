//! The loop of a shard: reap everything, handle each, submit once.
//!
//! Events go to the engine one by one, and the operations it answers with are carried out before the next. Requests gather in the
//! submission queue and go to the kernel together, with the wait.

mod begin;
mod completion;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::Fd;
use io_uring::{cqueue, opcode};
use millrace_engine::counters::Counters;
use millrace_engine::event::{Event, News, Sent};
use millrace_engine::ids::{ConnId, Now, ShardId};
use millrace_engine::limits::IDLE_NS_MAX;
use millrace_engine::op::{Op, Ops};
use millrace_engine::shard::Shard;
use millrace_send::clock;
use millrace_send::cold::Waiting;
use millrace_send::disk::Disk;
use millrace_send::socket::reset_on_close;
use millrace_send::{Mailbox, Outcome, Outward, Residency, Sender, Setup};
use socket2::SockRef;

use crate::buffers::{Buffers, GROUP};
use crate::listeners::Listeners;
use crate::reads::Reads;
use crate::reservation::Reservation;
use crate::ring::Ring;
use crate::table::Table;
use crate::token::{Kind, Token};
use crate::zero_copy::{self, ZeroCopies};

/// Runs a shard on the calling thread until it is drained, on a ring reserved for as many connections as it has slots.
///
/// # Errors
/// The CPU cannot be had, there is no memory left, or the ring became unusable.
///
/// # Panics
/// When the kernel breaks the contract of io_uring, or the engine that of its operations.
pub fn run(setup: Setup, mut reservation: Reservation, outward: impl FnMut(Outward)) -> io::Result<()> {
    debug_assert!(reservation.suffices(&setup), "the ring is too small for the shard");
    // Before this thread is bound to a CPU, so that they go where there is room.
    let disk = Disk::start()?;
    if let Some(core) = setup.core {
        clock::pin(core)?;
    }
    let (uring, buffers) = reservation.take();
    let mut driver = Driver {
        buffers,
        ring: Ring::new(uring),
        table: Table::new(setup.connections_max),
        listeners: Listeners::new(setup.listeners),
        reads: Reads::new(),
        zero_copies: ZeroCopies::new(),
        disk: Threads { threads: disk, polling: false },
        mailbox: Watched { mailbox: setup.mailbox, polling: false },
        id: setup.id,
        shard: setup.shard,
        sender: setup.sender,
        counters: setup.counters,
        outward,
        ops: Ops::new(),
        batch: Ops::new(),
        now: clock::now(),
    };
    driver.ring.enable()?;
    if zero_copy::is_known(&mut driver.ring)? {
        driver.sender.offer_zero_copy();
    }
    driver.turn_until_drained()?;
    driver.tear_down()
}

struct Watched {
    mailbox: Mailbox,
    /// Whether its poll is in flight.
    polling: bool,
}

struct Threads {
    threads: Disk,
    /// Whether the poll for what they report is in flight.
    polling: bool,
}

struct Driver<'r, F> {
    ring: Ring<'r>,
    buffers: Buffers,
    table: Table,
    listeners: Listeners,
    reads: Reads,
    zero_copies: ZeroCopies,
    disk: Threads,
    mailbox: Watched,
    id: ShardId,
    shard: Shard,
    sender: Sender,
    counters: Arc<Counters>,
    outward: F,
    ops: Ops,
    /// Empty: kept for its allocation, in which operations lie while they are carried out.
    batch: Ops,
    now: Now,
}

impl<F: FnMut(Outward)> Driver<'_, F> {
    fn turn_until_drained(&mut self) -> io::Result<()> {
        let mut reaped = Vec::new();
        // A connection that came while its accept was being cancelled is nobody's but ours (`listeners.rs`).
        while !(self.shard.is_drained() && self.listeners.is_closed()) {
            self.submit_standing_requests();
            self.begin_reads();
            self.begin_zero_copies();
            self.wait()?;
            self.now = clock::now();
            self.sender.begin_turn(self.now);
            self.reap(&mut reaped);
            // First, so that who was told of a content and asks for it finds that the shard knows it.
            let drains = self.read_mail();
            self.handle_all(&mut reaped);
            self.go_on_with_handshakes();
            if drains {
                self.drain();
            }
            self.admit_left();
            self.deliver(Event::Turn);
            self.send_postponed();
            let loop_ns = clock::now().monotonic_ns.saturating_sub(self.now.monotonic_ns);
            self.counters.loop_durations.record_ns(loop_ns);
        }
        Ok(())
    }

    /// Requests that are always in flight, unless they have just ended.
    fn submit_standing_requests(&mut self) {
        while let Some(accept) = self.listeners.next_due(self.now) {
            // SAFETY: a multishot accept names no memory.
            unsafe { self.ring.push(accept) };
        }
        if !std::mem::replace(&mut self.mailbox.polling, true) {
            let eventfd = Fd(self.mailbox.mailbox.as_fd().as_raw_fd());
            let poll = opcode::PollAdd::new(eventfd, POLLIN).multi(true).build();
            // SAFETY: a poll names no memory.
            unsafe { self.ring.push(poll.user_data(Token::new(Kind::Mailbox, 0, 0).user_data())) };
        }
        if !std::mem::replace(&mut self.disk.polling, true) {
            let eventfd = Fd(self.disk.threads.as_fd().as_raw_fd());
            let poll = opcode::PollAdd::new(eventfd, POLLIN).multi(true).build();
            // SAFETY: a poll names no memory.
            unsafe { self.ring.push(poll.user_data(Token::new(Kind::Disk, 0, 0).user_data())) };
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let deadlines = [self.shard.deadline_ns(), self.listeners.deadline_ns(), self.sender.deadline_ns()];
        let wait_ns = |deadline_ns: u64| deadline_ns.saturating_sub(self.now.monotonic_ns);
        let wait_ns = deadlines.into_iter().flatten().map(wait_ns).fold(IDLE_NS_MAX, u64::min);
        let timeout = Duration::from_nanos(wait_ns);
        if timeout.is_zero() {
            return self.ring.wait(Some(timeout));
        }
        let timeout = if self.mailbox.mailbox.may_sleep() { timeout } else { Duration::ZERO };
        let waited = self.ring.wait(Some(timeout));
        self.mailbox.mailbox.wake();
        waited
    }

    fn reap(&mut self, reaped: &mut Vec<cqueue::Entry>) {
        if self.ring.reap(reaped) {
            self.counters.ring_overflows.increment();
        }
    }

    fn handle_all(&mut self, reaped: &mut Vec<cqueue::Entry>) {
        for completion in reaped.drain(..) {
            self.handle_completion(&completion);
        }
    }

    /// Delivers all news but one, and says whether that is among them: a drain comes after what was accepted before it.
    fn read_mail(&mut self) -> bool {
        let mut drains = false;
        while let Some(news) = self.mailbox.mailbox.next() {
            match news {
                News::Drain => drains = true,
                news => self.deliver(Event::News(news)),
            }
        }
        drains
    }

    fn drain(&mut self) {
        self.close_listeners();
        self.deliver(Event::News(News::Drain));
    }

    /// Gives an event to the engine and carries out what it leads to.
    fn deliver(&mut self, event: Event<'_>) {
        self.shard.handle(self.now, event, &mut self.ops);
        self.carry_out();
    }

    /// Carries out operations, and those that their outcomes lead to, until there are none. Ends because a send is answered by at
    /// most one further send on a turn.
    fn carry_out(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        while !self.ops.is_empty() {
            std::mem::swap(&mut batch, &mut self.ops);
            for op in batch.drain(..) {
                self.carry_out_one(op);
            }
        }
        self.batch = batch;
    }

    fn carry_out_one(&mut self, op: Op) {
        match op {
            Op::Receive { conn } => {
                if self.table.receive(conn) {
                    self.arm_receive(conn);
                }
            }
            Op::PauseReceive { conn } => {
                if self.table.pause(conn) {
                    self.cancel(Token::of_connection(Kind::Receive, conn));
                }
            }
            Op::Send { conn, bytes_max } => self.send(conn, bytes_max, Residency::Ask),
            Op::Shutdown { conn } => {
                if let Some(socket) = self.table.socket(conn) {
                    if self.sender.is_encrypted(conn) {
                        let flushed = self.sender.shut_down_tls(conn, socket);
                        return self.flushed(conn, flushed);
                    }
                    // It fails where the peer was first to break the connection, which the receive reports.
                    let _ = SockRef::from(&socket).shutdown(std::net::Shutdown::Write);
                }
            }
            Op::Close { conn, reset } => self.close(conn, reset),
            Op::Demand { content, offset, bytes } => {
                (self.outward)(Outward::Demand { content, offset, bytes })
            }
            Op::Ask { conn, question } => (self.outward)(Outward::Ask { shard: self.id, conn, question }),
        }
    }

    fn send(&mut self, conn: ConnId, bytes_max: u64, residency: Residency) {
        // A connection that was closed while its bytes were brought in.
        let (Some(socket), Some(output)) = (self.table.socket(conn), self.shard.output(conn)) else { return };
        match self.sender.send(conn, socket, output, bytes_max, residency) {
            Outcome::Sent(sent) => self.answer_send(conn, sent),
            Outcome::Absent(absent) => self.sender.wait(Waiting { conn, bytes_max, absent }),
            Outcome::Lent | Outcome::Postponed => {}
        }
    }

    /// What has to be copied comes last in a loop, and no more of it than is good for the others.
    fn send_postponed(&mut self) {
        while let Some((conn, bytes_max)) = self.sender.next_postponed() {
            self.send(conn, bytes_max, Residency::Ask);
            self.carry_out();
        }
    }

    fn answer_send(&mut self, conn: ConnId, sent: Sent) {
        if matches!(sent, Sent::Bytes { blocked: true, .. }) && self.table.poll(conn) {
            self.arm_poll(conn);
        }
        self.shard.handle(self.now, Event::Sent { conn, outcome: sent }, &mut self.ops);
    }

    fn close(&mut self, conn: ConnId, reset: bool) {
        if let Some(socket) = self.table.socket(conn) {
            if reset {
                // A socket that takes no option any more is broken, and its close tells the peer nothing.
                let _ = reset_on_close(socket);
            } else if self.sender.is_encrypted(conn) {
                let _ = self.sender.shut_down_tls(conn, socket);
            }
        }
        self.sender.forget(conn);
        for token in self.table.close(conn).into_iter().flatten() {
            self.cancel(token);
        }
    }

    fn arm_receive(&mut self, conn: ConnId) {
        let Some(socket) = self.table.socket(conn) else { return };
        let receive = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP).build();
        // SAFETY: the kernel writes to provided buffers only, and `Buffers` keeps them while they are registered.
        unsafe { self.ring.push(receive.user_data(Token::of_connection(Kind::Receive, conn).user_data())) };
    }

    fn arm_poll(&mut self, conn: ConnId) {
        let Some(socket) = self.table.socket(conn) else { return };
        let poll = opcode::PollAdd::new(Fd(socket.as_raw_fd()), POLLOUT).build();
        // SAFETY: a poll names no memory.
        unsafe { self.ring.push(poll.user_data(Token::of_connection(Kind::Writable, conn).user_data())) };
    }

    fn cancel(&mut self, token: Token) {
        let cancel =
            opcode::AsyncCancel::new(token.user_data()).build().flags(io_uring::squeue::Flags::SKIP_SUCCESS);
        // The token's slot and generation, so that a trace shows what was cancelled.
        let Some(target) = Token::take_apart(token.user_data()) else { return };
        let own = Token::new(Kind::Cancel, target.slot, target.generation);
        // SAFETY: a cancellation names no memory.
        unsafe { self.ring.push(cancel.user_data(own.user_data())) };
    }

    fn close_listeners(&mut self) {
        for token in self.listeners.close() {
            self.cancel(token);
        }
    }

    /// Cancels what is in flight and waits for its end, so that all memory can be freed. Not for notifications, which may be as late as
    /// a slow reader: pages that were lent are the kernel's until then, and nobody writes to them any more.
    fn tear_down(mut self) -> io::Result<()> {
        self.close_listeners();
        self.reads.in_flight().into_iter().for_each(|token| self.cancel(token));
        self.table.open().into_iter().for_each(|conn| self.close(conn, false));
        self.cancel(Token::new(Kind::Mailbox, 0, 0));
        self.cancel(Token::new(Kind::Disk, 0, 0));
        let mut reaped = Vec::new();
        while self.is_in_flight() {
            self.ring.wait(None)?;
            self.reap(&mut reaped);
            self.handle_all(&mut reaped);
        }
        assert!(!self.is_in_flight() && self.table.is_empty(), "the ring ends with operations in flight");
        self.buffers.retire(self.ring.submitter())
    }

    fn is_in_flight(&self) -> bool {
        !(self.table.is_empty() && self.listeners.is_closed() && self.reads.is_idle())
            || self.mailbox.polling
            || self.disk.polling
    }
}

const POLLIN: u32 = libc::POLLIN.unsigned_abs() as u32;
const POLLOUT: u32 = libc::POLLOUT.unsigned_abs() as u32;
