//! Zero-copy sends, with a back end that says what a test wants it to: of a card that honours them, of one that does not, of a kernel that
//! refuses.

use std::io::Write as _;
use std::net::TcpStream;

use millrace_send::cold::COPY_BYTES_MAX;
use millrace_send::zero_copy::{ZERO_COPY_BYTES_MIN, ZeroCopySend};

use super::*;

/// Small enough for any socket to take it at once.
const BYTES: u64 = ZERO_COPY_BYTES_MIN;

fn other(slot: u32) -> ConnId {
    ConnId::new(slot, 0)
}

/// A connection and what it is to be sent.
struct Reader {
    conn: ConnId,
    output: Output,
    socket: TcpStream,
    reader: TcpStream,
    expected: Vec<u8>,
}

impl Scene {
    /// A sender that offers zero-copy sends.
    fn lending(buffers: usize) -> Option<Self> {
        let mut scene = Scene::new(SendPath::Reference, buffers)?;
        scene.bench.sender.offer_zero_copy();
        scene.bench.sender.begin_turn(START);
        Some(scene)
    }

    /// Has bytes read for a connection, with a head before them.
    #[track_caller]
    fn read_for(&mut self, conn: ConnId, offset: u64, bytes: u64) -> Reader {
        self.direct_read(conn, offset, bytes);
        let read = self.bench.sender.next_read().unwrap();
        assert!(matches!(self.bench.sender.finish(run(read), true), Resumed::Send { .. }));
        let mut output = Output::default();
        output.lease(&self.stored.content);
        output.push_bytes(b"head");
        output.push_extent(offset, bytes);
        let expected = self.stored.model(&output);
        let (socket, reader) = tcp_pair(None);
        Reader { conn, output, socket, reader, expected }
    }

    fn send_to(&mut self, to: &Reader) -> Outcome {
        let socket = to.socket.as_fd();
        self.bench.sender.send(to.conn, socket, &to.output, BUDGET, Residency::Ask)
    }

    /// Makes a zero-copy send and puts its bytes into the socket, as a card would; the kernel has not let go yet.
    #[track_caller]
    fn lend_to(&mut self, to: &mut Reader) -> ZeroCopySend {
        let outcome = self.send_to(to);
        assert!(matches!(outcome, Outcome::Lent), "{outcome:?}");
        let mut send = self.bench.sender.next_zero_copy().unwrap();
        assert!(send.conn() == to.conn && self.bench.sender.next_zero_copy().is_none());
        let taken = (&to.socket).write(send.bytes()).unwrap();
        let sent = self.bench.sender.answer_zero_copy(&mut send, Ok(taken));
        let Sent::Bytes { bytes, .. } = sent else { panic!("{sent:?}") };
        to.output.consume(bytes);
        send
    }

    /// Expects a send to be copied whole.
    #[track_caller]
    fn copy_to(&mut self, to: &mut Reader) {
        let outcome = self.send_to(to);
        let Outcome::Sent(Sent::Bytes { bytes, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(bytes, to.output.bytes());
        to.output.consume(bytes);
    }

    /// Bytes by the kernel's reports: not copied, and copied.
    fn counted(&self) -> (u64, u64) {
        let counters = &self.bench.counters;
        (counters.sent_zero_copy_bytes.value(), counters.sent_zero_copy_copied_bytes.value())
    }
}

/// Compares what came.
#[track_caller]
fn check_received(to: Reader) {
    assert!(to.output.is_empty());
    assert!(receive(to.reader, to.expected.len()) == to.expected);
}

#[test]
fn where_a_card_honours_them_sends_take_no_turns_and_the_first_copy_ends_it() {
    let Some(mut scene) = Scene::lending(4) else { return };
    let mut first = scene.read_for(conn(), BUFFER, BYTES);
    let lent = scene.lend_to(&mut first);
    let mut second = scene.read_for(conn(), BUFFER + BYTES, BYTES);
    scene.copy_to(&mut second);
    scene.bench.sender.finish_zero_copy(lent, false);
    assert_eq!(scene.counted(), (BYTES, 0));

    // Others have used up what this loop may copy.
    scene.bench.sender.begin_turn(START);
    for number in 0..=COPY_BYTES_MAX / BYTES {
        let mut copied = scene.read_for(other(1), number * BYTES, BYTES - 1);
        scene.copy_to(&mut copied);
    }
    let mut waiting = scene.read_for(other(1), 2 * BUFFER, BYTES - 1);
    assert!(matches!(scene.send_to(&waiting), Outcome::Postponed));
    let [mut third, mut fourth] = [2, 3].map(|number| scene.read_for(conn(), BUFFER + number * BYTES, BYTES));
    let [third_lent, fourth_lent] = [scene.lend_to(&mut third), scene.lend_to(&mut fourth)];
    scene.bench.sender.finish_zero_copy(third_lent, true);
    scene.bench.sender.finish_zero_copy(fourth_lent, false);
    assert_eq!(scene.counted(), (2 * BYTES, BYTES));

    scene.bench.sender.begin_turn(START);
    assert_eq!(scene.bench.sender.next_postponed(), Some((other(1), BUDGET)));
    scene.copy_to(&mut waiting);
    let mut fifth = scene.read_for(conn(), BUFFER + 4 * BYTES, BYTES);
    scene.copy_to(&mut fifth);
    [first, second, third, fourth, fifth, waiting].into_iter().for_each(check_received);
}

#[test]
fn reports_that_are_late_leave_half_of_the_buffers_to_others() {
    let Some(mut scene) = Scene::lending(4) else { return };
    let mut slow = [1, 2].map(|slot| scene.read_for(other(slot), u64::from(slot) * BYTES, BYTES));
    let lent = slow.each_mut().map(|to| scene.lend_to(to));
    // All was sent, and the connections are gone: what counts is what the kernel holds.
    scene.bench.sender.forget(other(1));
    for number in 0..4 {
        let mut quick = scene.read_for(other(3), BUFFER + number * BYTES, BYTES);
        scene.copy_to(&mut quick);
        check_received(quick);
    }
    for number in 0..2 {
        scene.direct_read(other(4), 2 * BUFFER + number * BYTES, BYTES);
    }
    let held = [(); 2].map(|()| scene.bench.sender.next_read().unwrap());
    scene.direct_read(other(5), 2 * BUFFER + 2 * BYTES, BYTES);
    assert!(scene.bench.sender.next_read().is_none(), "two are lent, two are being read into");
    for send in lent {
        scene.bench.sender.finish_zero_copy(send, true);
    }
    assert!(scene.bench.sender.next_read().is_some());
    drop(held);
    slow.into_iter().for_each(check_received);
}

#[test]
fn a_buffer_that_is_lent_is_not_taken_from_a_slow_reader_until_the_kernel_lets_go() {
    let Some(mut scene) = Scene::lending(2) else { return };
    let at = |ms: u64| Now { monotonic_ns: 1_000_000_000 + ms * 1_000_000, unix_s: 0 };
    scene.bench.sender.begin_turn(at(0));
    let slow = scene.read_for(other(1), 0, BYTES);
    assert!(matches!(scene.send_to(&slow), Outcome::Lent));
    let mut send = scene.bench.sender.next_zero_copy().unwrap();
    let sent = scene.bench.sender.answer_zero_copy(&mut send, Ok(1_000));
    assert_eq!(sent, Sent::Bytes { bytes: 1_004, blocked: true });
    scene.direct_read(other(2), BUFFER, BYTES);
    let _reading = scene.bench.sender.next_read().unwrap();
    scene.direct_read(other(3), 2 * BUFFER, BYTES);
    scene.bench.sender.begin_turn(at(1_000));
    assert!(scene.bench.sender.next_read().is_none());
    let deadline_ns = scene.bench.sender.deadline_ns();
    assert!(deadline_ns.is_none_or(|ns| ns > at(1_000).monotonic_ns), "nothing can be done about it");
    scene.bench.sender.finish_zero_copy(send, true);
    assert!(scene.bench.sender.next_read().is_some());
}

#[test]
fn a_kernel_that_refuses_is_asked_once_and_a_socket_that_was_full_again() {
    let Some(mut scene) = Scene::lending(2) else { return };
    let error = |code| Err(io::Error::from_raw_os_error(code));
    let mut to = scene.read_for(conn(), BUFFER, BYTES);
    assert!(matches!(scene.send_to(&to), Outcome::Lent));
    let mut send = scene.bench.sender.next_zero_copy().unwrap();
    let full = scene.bench.sender.answer_zero_copy(&mut send, error(libc::EAGAIN));
    assert_eq!(full, Sent::Bytes { bytes: 4, blocked: true });
    to.output.consume(4);
    // The kernel calls it copied: there was nothing that it could have spared.
    scene.bench.sender.finish_zero_copy(send, true);
    assert!(matches!(scene.send_to(&to), Outcome::Lent));
    let mut send = scene.bench.sender.next_zero_copy().unwrap();
    let refused = scene.bench.sender.answer_zero_copy(&mut send, error(libc::ENOMEM));
    assert_eq!(refused, Sent::Bytes { bytes: 0, blocked: false });
    scene.bench.sender.finish_zero_copy(send, true);
    scene.copy_to(&mut to);
    assert_eq!((scene.counted(), scene.bench.counters.zero_copy_refusals.value()), ((0, 0), 1));
    check_received(to);

    let to = scene.read_for(other(1), BUFFER + BYTES, BYTES);
    assert!(matches!(scene.send_to(&to), Outcome::Lent));
    let mut send = scene.bench.sender.next_zero_copy().unwrap();
    assert_eq!(scene.bench.sender.answer_zero_copy(&mut send, error(libc::EPIPE)), Sent::Broken);
}

#[test]
fn a_send_of_a_connection_that_is_closed_before_it_begins_never_begins() {
    let Some(mut scene) = Scene::lending(2) else { return };
    let gone = scene.read_for(other(1), 0, BYTES);
    assert!(matches!(scene.send_to(&gone), Outcome::Lent));
    scene.bench.sender.forget(other(1));
    assert!(scene.bench.sender.next_zero_copy().is_none());
    for number in 1..4 {
        let mut to = scene.read_for(other(2), number * BYTES, BYTES);
        let lent = scene.lend_to(&mut to);
        scene.bench.sender.finish_zero_copy(lent, false);
        check_received(to);
    }
}

#[test]
fn small_sends_are_copied_and_so_is_everything_where_none_are_offered() {
    let Some(mut scene) = Scene::lending(2) else { return };
    let mut small = scene.read_for(conn(), BUFFER, BYTES - 1);
    scene.copy_to(&mut small);
    let Some(mut scene) = Scene::new(SendPath::Reference, 2) else { return };
    let mut unoffered = scene.read_for(conn(), BUFFER, BYTES);
    scene.copy_to(&mut unoffered);
    [small, unoffered].into_iter().for_each(check_received);
    assert!(scene.bench.sender.next_zero_copy().is_none());
}
