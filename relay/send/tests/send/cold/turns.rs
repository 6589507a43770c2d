//! Who goes first: what is copied out of buffers takes turns, and nothing is sent from pages that are still on their way.

use std::io::Read as _;
use std::net::TcpStream;
use std::thread::JoinHandle;

use millrace_send::cold::COPY_BYTES_MAX;

use super::*;

/// An extent on its way out of a buffer.
struct Copy {
    output: Output,
    socket: TcpStream,
    reader: JoinHandle<Vec<u8>>,
}

impl Copy {
    /// All that came.
    fn received(self) -> Vec<u8> {
        drop(self.socket);
        self.reader.join().unwrap()
    }
}

impl Scene {
    /// Reads an extent past the page cache for a connection.
    #[track_caller]
    fn stage(&mut self, conn: ConnId, offset: u64) -> Copy {
        self.direct_read(conn, offset, BUDGET);
        let read = self.bench.sender.next_read().unwrap();
        assert!(matches!(self.bench.sender.finish(run(read), true), Resumed::Send { .. }));
        let (socket, mut reader) = tcp_pair(None);
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).unwrap();
            received
        });
        Copy { output: self.output(offset, BUDGET), socket, reader }
    }

    /// Sends to a connection until its turn is over; how many bytes.
    #[track_caller]
    fn send_turn(&mut self, conn: ConnId, copy: &mut Copy) -> u64 {
        let (socket, mut sent) = (copy.socket.as_fd(), 0);
        while !copy.output.is_empty() {
            match self.bench.sender.send(conn, socket, &copy.output, BUDGET, Residency::Ask) {
                Outcome::Sent(Sent::Bytes { bytes, blocked }) => {
                    sent += bytes;
                    copy.output.consume(bytes);
                    if blocked {
                        poll(&mut [PollFd::new(socket, PollFlags::POLLOUT)], PollTimeout::NONE).unwrap();
                    }
                }
                Outcome::Postponed => break,
                other => panic!("{other:?}"),
            }
        }
        sent
    }
}

#[test]
fn what_is_copied_takes_turns_and_what_is_in_memory_does_not_wait_for_it() {
    let Some(mut scene) = Scene::new(SendPath::Reference, 4) else { return };
    let [one, other, gone, late] = [1, 2, 3, 4].map(|slot| ConnId::new(slot, 0));
    let mut first = scene.stage(one, 0);
    let mut second = scene.stage(other, 1 << 20);
    let mut third = scene.stage(gone, BUFFER);
    let mut fourth = scene.stage(late, 2 * BUFFER);
    scene.stored.read_into_memory(0);
    scene.bench.sender.begin_turn(START);
    assert!(scene.send_turn(one, &mut first) >= COPY_BYTES_MAX);
    assert_eq!((scene.send_turn(other, &mut second), scene.send_turn(gone, &mut third)), (0, 0));
    assert_eq!(scene.bench.sender.deadline_ns(), Some(0), "the next loop comes at once");
    assert!(scene.bench.sender.next_postponed().is_none(), "not in this loop");
    let in_memory = scene.output(2 * BUFFER - 16_384, 16_384);
    let (resident, _reader) = tcp_pair(None);
    let now = scene.bench.sender.send(conn(), resident.as_fd(), &in_memory, BUDGET, Residency::Ask);
    assert!(matches!(now, Outcome::Sent(Sent::Bytes { bytes: 16_384, .. })), "{now:?}");
    scene.bench.sender.forget(gone);
    scene.bench.sender.begin_turn(START);
    assert_eq!(scene.send_turn(late, &mut fourth), 0, "nobody passes those who wait");
    let mut order = Vec::new();
    while !(first.output.is_empty() && second.output.is_empty() && fourth.output.is_empty()) {
        while let Some((conn, bytes_max)) = scene.bench.sender.next_postponed() {
            assert_eq!(bytes_max, BUDGET);
            let copy = if conn == one {
                &mut first
            } else if conn == other {
                &mut second
            } else {
                &mut fourth
            };
            assert!(scene.send_turn(conn, copy) > 0);
            order.push(conn);
        }
        scene.bench.sender.begin_turn(START);
    }
    order.retain(|conn| *conn != one);
    assert_eq!((order.first(), order.contains(&gone)), (Some(&other), false), "{order:?}");
    for (copy, offset) in [(first, 0), (second, 1 << 20), (fourth, 2 * BUFFER)] {
        let expected = scene.stored.model(&scene.output(offset, BUDGET));
        assert!(copy.received() == expected);
    }
    assert!(third.received().is_empty());
}

#[test]
fn bytes_that_are_on_their_way_are_not_there_yet() {
    let Some(mut scene) = Scene::new(SendPath::Reference, 0) else { return };
    let [one, other] = [1, 2].map(|slot| ConnId::new(slot, 0));
    let (socket, _reader) = tcp_pair(None);
    let output = scene.output(0, 100_000);
    let ask = |scene: &mut Scene, conn| {
        scene.bench.sender.send(conn, socket.as_fd(), &output, 100_000, Residency::Ask)
    };
    let Outcome::Absent(absent) = ask(&mut scene, one) else { panic!("it is absent") };
    scene.bench.sender.wait(Waiting { conn: one, bytes_max: 100_000, absent });
    let Some(Read::BringIn(waiting)) = scene.bench.sender.next_read() else { panic!("a read") };
    // As the kernel has it from here on: all pages are there, though none has arrived.
    scene.stored.read_into_memory(0);
    assert!(matches!(ask(&mut scene, other), Outcome::Absent(_)));
    let elsewhere = scene.output(BUFFER, 1_000);
    let sent = scene.bench.sender.send(other, socket.as_fd(), &elsewhere, 1_000, Residency::Ask);
    assert!(matches!(sent, Outcome::Sent(Sent::Bytes { bytes: 1_000, .. })), "{sent:?}");
    let resumed = scene.bench.sender.finish(Finished::BringIn(waiting, Ok(true)), true);
    assert!(matches!(resumed, Resumed::Send { .. }));
    assert!(matches!(ask(&mut scene, other), Outcome::Sent(Sent::Bytes { .. })));
}
