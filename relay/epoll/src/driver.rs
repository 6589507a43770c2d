//! The loop of a shard: wait, hand each event to the engine and carry out what it answers, then let it hand out turns.

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::sync::Arc;

use millrace_engine::counters::{Counters, Reason};
use millrace_engine::event::{Event, News, Sent};
use millrace_engine::ids::{ConnId, Now, ShardId};
use millrace_engine::limits::IDLE_NS_MAX;
use millrace_engine::op::{Op, Ops};
use millrace_engine::shard::Shard;
use millrace_send::cold::{Resumed, Waiting};
use millrace_send::disk::Disk;
use millrace_send::socket::{peer_address, reset_on_close, tune_accepted};
use millrace_send::{Front, Mailbox, Outcome, Outward, Residency, Sender, Setup, clock};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::SockRef;

use crate::listeners::Listeners;
use crate::table::{Receiving, Table};
use crate::token::Token;

/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 512;

/// Bytes received from one connection in one loop. What is left is received in the next, after everybody else's.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Connections accepted from one listener in one loop.
const ACCEPTS_MAX: usize = 64;

/// What a connection is registered for, once.
const CONNECTION_EVENTS: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT).union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLET);

/// Runs a shard on the calling thread until it is drained.
///
/// # Errors
/// The CPU cannot be had, there are no descriptors or threads left at the start, or epoll became unusable.
///
/// # Panics
/// When the engine breaks the contract of its operations.
pub fn run(setup: Setup, outward: impl FnMut(Outward)) -> io::Result<()> {
    let disk = Disk::start()?;
    if let Some(core) = setup.core {
        clock::pin(core)?;
    }
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&setup.mailbox, EpollEvent::new(EpollFlags::EPOLLIN, Token::Mailbox.data()))?;
    epoll.add(&disk, EpollEvent::new(EpollFlags::EPOLLIN, Token::Disk.data()))?;
    let now = clock::now();
    let driver = Driver {
        listeners: Listeners::new(&epoll, setup.listeners)?,
        epoll,
        table: Table::new(setup.connections_max),
        disk,
        mailbox: setup.mailbox,
        id: setup.id,
        shard: setup.shard,
        sender: setup.sender,
        counters: setup.counters,
        outward,
        to_receive: Vec::new(),
        to_receive_next: Vec::new(),
        buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
        ops: Ops::new(),
        batch: Ops::new(),
        now,
    };
    driver.turn_until_drained()
}

struct Driver<F> {
    epoll: Epoll,
    table: Table,
    listeners: Listeners,
    disk: Disk,
    mailbox: Mailbox,
    id: ShardId,
    shard: Shard,
    sender: Sender,
    counters: Arc<Counters>,
    outward: F,
    /// Connections with bytes that are wanted.
    to_receive: Vec<ConnId>,
    /// Empty: kept for its allocation.
    to_receive_next: Vec<ConnId>,
    /// Where bytes are received, one connection after the other.
    buffer: Box<[u8]>,
    ops: Ops,
    /// Empty: kept for its allocation, in which operations lie while they are carried out.
    batch: Ops,
    now: Now,
}

impl<F: FnMut(Outward)> Driver<F> {
    fn turn_until_drained(mut self) -> io::Result<()> {
        let mut events = vec![EpollEvent::empty(); EVENTS_MAX];
        while !self.shard.is_drained() {
            self.begin_reads();
            let count = self.wait(&mut events)?;
            self.now = clock::now();
            self.sender.begin_turn(self.now);
            // First, so that who was told of a content and asks for it finds that the shard knows it.
            let drains = self.read_mail();
            for event in &events[..count] {
                self.handle_readiness(event)?;
            }
            self.receive_all();
            self.go_on_with_handshakes();
            if drains {
                self.drain()?;
            }
            self.deliver(Event::Turn);
            self.send_postponed();
            self.listeners.wake(&self.epoll, self.now)?;
            let loop_ns = clock::now().monotonic_ns.saturating_sub(self.now.monotonic_ns);
            self.counters.loop_durations.record_ns(loop_ns);
        }
        Ok(())
    }

    /// Waits for readiness, news or a deadline. Returns how many events there are.
    fn wait(&mut self, events: &mut [EpollEvent]) -> io::Result<usize> {
        let timeout = self.timeout();
        let waited = if timeout == EpollTimeout::ZERO || !self.mailbox.may_sleep() {
            self.epoll.wait(events, EpollTimeout::ZERO)
        } else {
            self.epoll.wait(events, timeout)
        };
        self.mailbox.wake();
        match waited {
            Err(Errno::EINTR) => Ok(0),
            waited => Ok(waited?),
        }
    }

    fn timeout(&self) -> EpollTimeout {
        if !self.to_receive.is_empty() {
            return EpollTimeout::ZERO;
        }
        let deadlines = [self.shard.deadline_ns(), self.listeners.deadline_ns(), self.sender.deadline_ns()];
        let wait_ns = |deadline_ns: u64| deadline_ns.saturating_sub(self.now.monotonic_ns);
        let wait_ns = deadlines.into_iter().flatten().map(wait_ns).fold(IDLE_NS_MAX, u64::min);
        // Rounded up: a wait that ends before the deadline would be repeated until it comes.
        let wait_ms = wait_ns.div_ceil(1_000_000);
        EpollTimeout::try_from(wait_ms).unwrap_or(EpollTimeout::MAX)
    }

    fn handle_readiness(&mut self, event: &EpollEvent) -> io::Result<()> {
        match Token::of(event.data()) {
            Token::Connection(conn) => self.handle_connection(conn, event.events()),
            Token::Listener(index) => self.accept(index)?,
            Token::Disk => self.finish_reads(),
            // Awake is all that was wanted: `read_mail` comes in every loop.
            Token::Mailbox => {}
        }
        Ok(())
    }

    fn handle_connection(&mut self, conn: ConnId, ready: EpollFlags) {
        // Closed by an event that came before it in the same batch.
        let Some(open) = self.table.open_mut(conn) else { return };
        open.readable |=
            ready.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP);
        open.half_closed |= ready.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP);
        let is_received = open.receiving == Receiving::Wanted;
        if ready.contains(EpollFlags::EPOLLERR) && !is_received {
            // Nobody is going to receive the error.
            return self.deliver(Event::Broken { conn });
        }
        if ready.contains(EpollFlags::EPOLLERR) {
            open.readable = true;
        }
        let is_writable = ready.contains(EpollFlags::EPOLLOUT) && mem::take(&mut open.blocked);
        if ready.contains(EpollFlags::EPOLLOUT) && self.sender.is_encrypted(conn) {
            // Where it is still blocked, the next edge comes here again.
            let _ = self.sender.flush(conn, open.as_fd());
        }
        self.list(conn);
        if is_writable {
            self.deliver(Event::Writable { conn });
        }
    }

    fn accept(&mut self, index: u32) -> io::Result<()> {
        for _ in 0..ACCEPTS_MAX {
            let (socket, peer, front) = match self.listeners.accept(index) {
                None => break,
                Some(Ok(accepted)) => accepted,
                Some(Err(error)) if is_want_of_descriptors(&error) => {
                    self.counters.close(Reason::TooManyConnections);
                    return self.listeners.rest(&self.epoll, index, self.now);
                }
                // A connection that was reset before it was accepted.
                Some(Err(_)) => continue,
            };
            // A peer that is gone already; dropping the socket closes it.
            let (Some(peer), Ok(())) = (peer_address(&peer), tune_accepted(&socket)) else { continue };
            let conn = match self.table.insert(socket) {
                Ok(conn) => conn,
                Err(_full) => {
                    self.counters.close(Reason::TooManyConnections);
                    continue;
                }
            };
            let added = self.table.open(conn).map(|open| {
                self.epoll.add(open, EpollEvent::new(CONNECTION_EVENTS, Token::Connection(conn).data()))
            });
            if let Some(Err(_no_memory)) = added {
                self.table.remove(conn);
                self.counters.close(Reason::TooManyConnections);
                continue;
            }
            if front == Front::Https && !self.sender.begin_tls(conn, self.now) {
                self.table.remove(conn);
                self.counters.close(Reason::TooManyConnections);
                continue;
            }
            self.deliver(Event::Accepted { conn, protocol: front.protocol(), peer });
        }
        Ok(())
    }

    /// Puts a connection on the list of those to receive from, if there is something that is wanted.
    fn list(&mut self, conn: ConnId) {
        if let Some(open) = self.table.open_mut(conn)
            && open.readable
            && open.receiving == Receiving::Wanted
            && !mem::replace(&mut open.listed, true)
        {
            self.to_receive.push(conn);
        }
    }

    /// Receives once from each connection that has something. Those that have more are on the list again afterwards.
    fn receive_all(&mut self) {
        let mut listed = mem::replace(&mut self.to_receive, mem::take(&mut self.to_receive_next));
        for conn in listed.drain(..) {
            self.receive(conn);
            self.list(conn);
        }
        self.to_receive_next = listed;
    }

    fn receive(&mut self, conn: ConnId) {
        let Some(open) = self.table.open_mut(conn) else { return };
        open.listed = false;
        if open.receiving != Receiving::Wanted {
            return;
        }
        let mut buffer = mem::take(&mut self.buffer);
        let event = match io::Read::read(&mut &*SockRef::from(&*open), &mut buffer) {
            Ok(0) => {
                open.receiving = Receiving::Finished;
                Some(Event::Received { conn, data: &[] })
            }
            Ok(bytes) => {
                // A socket that gave less than was asked for is empty, and tells when there is more; unless it has ended.
                open.readable = bytes == buffer.len() || open.half_closed;
                Some(Event::Received { conn, data: &buffer[..bytes] })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                open.readable = false;
                None
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(_) => Some(Event::Broken { conn }),
        };
        match event {
            Some(Event::Received { data, .. }) if self.sender.is_encrypted(conn) => {
                if let Some(open) = self.table.open(conn) {
                    let deliver = |event: Event<'_>| self.shard.handle(self.now, event, &mut self.ops);
                    // An edge tells when a socket that is blocked takes bytes again.
                    let _ = self.sender.received(conn, open.as_fd(), data, deliver);
                }
            }
            Some(event) => self.shard.handle(self.now, event, &mut self.ops),
            None => {}
        }
        self.buffer = buffer;
        self.carry_out();
    }

    fn go_on_with_handshakes(&mut self) {
        while let Some(conn) = self.sender.next_handshake() {
            if let Some(open) = self.table.open(conn) {
                let deliver = |event: Event<'_>| self.shard.handle(self.now, event, &mut self.ops);
                let _ = self.sender.handshake(conn, open.as_fd(), deliver);
            }
            self.carry_out();
        }
        while let Some(conn) = self.sender.next_overdue_handshake(self.now) {
            self.deliver(Event::Broken { conn });
        }
    }

    fn begin_reads(&mut self) {
        while let Some(read) = self.sender.next_read() {
            self.disk.begin(read);
        }
    }

    /// Lets the sends go on whose bytes have been read.
    fn finish_reads(&mut self) {
        while let Some(finished) = self.disk.next() {
            let conn = finished.conn();
            // The connection may have been closed meanwhile.
            let is_open = self.table.open(conn).is_some();
            match self.sender.finish(finished, is_open) {
                _ if !is_open => {}
                Resumed::Send { bytes_max, residency } => self.send(conn, bytes_max, residency),
                Resumed::Unreadable => self.answer_send(conn, Sent::Unreadable),
                Resumed::Waits => {}
            }
            self.carry_out();
        }
    }

    /// Delivers all news but one, and says whether that is among them: a drain comes after what was accepted before it.
    fn read_mail(&mut self) -> bool {
        let mut drains = false;
        while let Some(news) = self.mailbox.next() {
            match news {
                News::Drain => drains = true,
                news => self.deliver(Event::News(news)),
            }
        }
        drains
    }

    fn drain(&mut self) -> io::Result<()> {
        self.listeners.close(&self.epoll)?;
        self.deliver(Event::News(News::Drain));
        Ok(())
    }

    /// Gives an event to the engine and carries out what it leads to.
    fn deliver(&mut self, event: Event<'_>) {
        self.shard.handle(self.now, event, &mut self.ops);
        self.carry_out();
    }

    /// Carries out operations, and those that their outcomes lead to, until there are none. It ends because the engine asks for a
    /// further send only in a turn.
    fn carry_out(&mut self) {
        let mut batch = mem::take(&mut self.batch);
        while !self.ops.is_empty() {
            mem::swap(&mut batch, &mut self.ops);
            for op in batch.drain(..) {
                self.carry_out_one(op);
            }
        }
        self.batch = batch;
    }

    fn carry_out_one(&mut self, op: Op) {
        match op {
            Op::Receive { conn } => {
                if let Some(open) =
                    self.table.open_mut(conn).filter(|open| open.receiving == Receiving::Paused)
                {
                    open.receiving = Receiving::Wanted;
                    self.list(conn);
                }
            }
            Op::PauseReceive { conn } => {
                if let Some(open) =
                    self.table.open_mut(conn).filter(|open| open.receiving == Receiving::Wanted)
                {
                    open.receiving = Receiving::Paused;
                }
            }
            Op::Send { conn, bytes_max } => self.send(conn, bytes_max, Residency::Ask),
            Op::Shutdown { conn } => {
                if let Some(open) = self.table.open(conn) {
                    if self.sender.is_encrypted(conn) {
                        let _ = self.sender.shut_down_tls(conn, open.as_fd());
                        return;
                    }
                    // It fails where the peer was first to break the connection, which receiving reports.
                    let _ = SockRef::from(open).shutdown(std::net::Shutdown::Write);
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
        let (Some(open), Some(output)) = (self.table.open(conn), self.shard.output(conn)) else { return };
        match self.sender.send(conn, open.as_fd(), output, bytes_max, residency) {
            Outcome::Sent(sent) => self.answer_send(conn, sent),
            Outcome::Absent(absent) => self.sender.wait(Waiting { conn, bytes_max, absent }),
            // Zero-copy sends are not offered here.
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

    fn answer_send(&mut self, conn: ConnId, outcome: Sent) {
        if let Some(open) = self.table.open_mut(conn) {
            open.blocked = matches!(outcome, Sent::Bytes { blocked: true, .. });
        }
        self.shard.handle(self.now, Event::Sent { conn, outcome }, &mut self.ops);
    }

    fn close(&mut self, conn: ConnId, reset: bool) {
        let Some(closed) = self.table.remove(conn) else { return };
        if !reset && self.sender.is_encrypted(conn) {
            let _ = self.sender.shut_down_tls(conn, closed.as_fd());
        }
        self.sender.forget(conn);
        if reset {
            // A socket that takes no option any more is broken, and its close tells the peer nothing.
            let _ = reset_on_close(&closed);
        }
    }
}

fn is_want_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
