//! Bytes that are not in memory: read past the page cache or brought into it, they are the right ones, however they lie to the blocks of the
//! device, and whatever becomes of the reads and of those who wait for them.

mod lent;
mod turns;

use std::io::{self, Write};
use std::os::fd::AsFd;

use millrace_engine::event::Sent;
use millrace_engine::ids::{ConnId, Now};
use millrace_engine::output::Output;
use millrace_send::cold::{BUFFER_BYTES, Finished, Read, Resumed, Waiting};
use millrace_send::{Absent, Outcome, Residency, SendPath, Way};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::support::{Bench, Random, Stored, conn, receive, tcp_pair};

const PATHS: [SendPath; 2] = [SendPath::Reference, SendPath::Sendfile];
const BLOCK: u64 = 4096;
const BUFFER: u64 = BUFFER_BYTES as u64;
const BUDGET: u64 = 1 << 20;
const START: Now = Now { monotonic_ns: 0, unix_s: 0 };
const FILE_BYTES: u64 = 3 * BUFFER + 777;

/// A content of one file that is not in memory, and a sender that knows that the kernel tells so.
struct Scene {
    stored: Stored,
    bench: Bench,
    /// The ways that reads went since the start.
    ways: Vec<Way>,
}

impl Scene {
    /// None, and said so, where files cannot be dropped from memory.
    fn new(path: SendPath, buffers: usize) -> Option<Self> {
        Scene::with(path, buffers, Stored::new(1 << 18, &[(FILE_BYTES, false)]))
    }

    fn with(path: SendPath, buffers: usize, stored: Stored) -> Option<Self> {
        let mut bench = Bench::new(path);
        bench.sender = bench.sender.reading_directly(buffers);
        let mut scene = Scene { stored, bench, ways: Vec::new() };
        if !scene.stored.drop_from_memory(0) {
            writeln!(io::stderr(), "skipped: the page cache cannot be dropped here").ok();
            return None;
        }
        // A first read into the page cache shows that it can be seen there.
        scene.check_extent(1, 1);
        assert_eq!(std::mem::take(&mut scene.ways), [Way::BringIn]);
        // Sockets, closed though they are, hold on to pages for a moment.
        assert!((0..10_000).any(|_| scene.stored.drop_from_memory(0)), "it could be dropped before");
        Some(scene)
    }

    fn output(&self, offset: u64, bytes: u64) -> Output {
        let mut output = Output::default();
        output.lease(&self.stored.content);
        output.push_extent(offset, bytes);
        output
    }

    #[track_caller]
    fn check_extent(&mut self, offset: u64, bytes: u64) {
        let output = self.output(offset, bytes);
        self.check(output);
    }

    /// Sends all of `output` and compares.
    #[track_caller]
    fn check(&mut self, mut output: Output) {
        let expected = self.stored.model(&output);
        let (socket, reader) = tcp_pair(None);
        let total = expected.len();
        let reader = std::thread::spawn(move || receive(reader, total));
        let mut residency = Residency::Ask;
        while !output.is_empty() {
            match self.bench.sender.send(conn(), socket.as_fd(), &output, 1 << 20, residency) {
                Outcome::Sent(Sent::Bytes { bytes, blocked }) => {
                    output.consume(bytes);
                    residency = Residency::Ask;
                    if blocked {
                        poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)
                            .unwrap();
                    }
                }
                Outcome::Absent(absent) => residency = self.read(absent),
                Outcome::Postponed => {
                    self.bench.sender.begin_turn(START);
                    assert_eq!(self.bench.sender.next_postponed(), Some((conn(), BUDGET)));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(reader.join().unwrap() == expected);
    }

    /// Reads what is absent, and returns how to go on.
    fn read(&mut self, absent: Absent) -> Residency {
        self.ways.push(absent.way);
        self.bench.sender.wait(Waiting { conn: conn(), bytes_max: 1 << 20, absent });
        let read = self.bench.sender.next_read().unwrap();
        let finished = run(read);
        match self.bench.sender.finish(finished, true) {
            Resumed::Send { residency, .. } => residency,
            other => panic!("{other:?}"),
        }
    }

    /// Asks for an extent and expects it to be read past the page cache.
    #[track_caller]
    fn direct_read(&mut self, conn: ConnId, offset: u64, bytes: u64) {
        let output = self.output(offset, bytes);
        let (socket, _reader) = tcp_pair(None);
        let sent = self.bench.sender.send(conn, socket.as_fd(), &output, 1 << 20, Residency::Ask);
        let Outcome::Absent(absent) = sent else { panic!("{sent:?}") };
        assert_eq!((absent.way, absent.offset, absent.bytes), (Way::Direct, offset, bytes));
        self.bench.sender.wait(Waiting { conn, bytes_max: 1 << 20, absent });
    }
}

/// Carries a read out.
fn run(read: Read) -> Finished {
    match read {
        Read::BringIn(waiting) => {
            let result = waiting.absent.bring_in(&mut [0; 65_536]);
            Finished::BringIn(waiting, result)
        }
        Read::Direct(mut read) => {
            let result = read.run();
            Finished::Direct(read, result)
        }
    }
}

/// A read past the page cache that ends with `result` instead.
#[track_caller]
fn fail(read: Option<Read>, result: io::Result<usize>) -> Finished {
    match read {
        Some(Read::Direct(read)) => Finished::Direct(read, result),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_direct(offset: u64, bytes: u64) {
    for path in PATHS {
        let Some(mut scene) = Scene::new(path, 2) else { return };
        scene.check_extent(offset, bytes);
        assert!(
            scene.ways.iter().all(|way| *way == Way::Direct),
            "{path}, {offset}+{bytes}: {:?}",
            scene.ways
        );
        assert!(scene.bench.counters.read_direct_bytes.value() >= bytes);
    }
}

#[test]
fn ranges_of_any_alignment_are_read_past_the_page_cache() {
    check_direct(0, 1 << 20);
    check_direct(BLOCK - 1, 20_000);
    check_direct(BLOCK, 16_384);
    check_direct(BLOCK + 1, 1 << 20);
    check_direct(BUFFER - 1, BUFFER + 20_000);
    check_direct(1, 2 * BUFFER);
    check_direct(123_456, FILE_BYTES - 123_456);
    check_direct(FILE_BYTES - 20_000, 20_000);
}

#[test]
fn random_ranges_and_blocks_of_several_files_are_the_right_bytes() {
    for path in PATHS {
        let files = [(700_001, false), (3_000, true), (BUFFER + 5, false), (10, false)];
        let Some(mut scene) = Scene::with(path, 3, Stored::new(1 << 18, &files)) else { return };
        let length: u64 = files.iter().map(|(bytes, _)| bytes).sum();
        let mut random = Random(7);
        for round in 0..60 {
            if round % 4 == 0 {
                [0, 2, 3].into_iter().for_each(|file| _ = scene.stored.drop_from_memory(file));
            }
            let mut output = scene.output(0, 0);
            let blocks = length / (16 << 10);
            for _ in 0..random.below(20) {
                let block = random.below(blocks);
                let (index, begin) = (block / 16, block % 16 * (16 << 10));
                output.push_block(
                    u32::try_from(index).unwrap(),
                    u32::try_from(begin).unwrap(),
                    16 << 10,
                    block * (16 << 10),
                );
            }
            let offset = random.below(length - 1);
            output.push_bytes(b"head");
            output.push_extent(offset, 1 + random.below(length - offset));
            scene.check(output);
        }
        assert!(scene.ways.contains(&Way::Direct) && scene.ways.contains(&Way::BringIn), "{path}");
    }
}

#[test]
fn what_is_asked_for_again_is_brought_into_the_page_cache() {
    let Some(mut scene) = Scene::new(SendPath::Reference, 2) else { return };
    scene.check_extent(BUFFER, 1 << 20);
    scene.check_extent(BUFFER, 1 << 20);
    assert_eq!(scene.ways, [Way::Direct, Way::BringIn]);
    scene.check_extent(BUFFER, 1 << 20);
    assert_eq!(scene.ways.len(), 2, "it is there");
}

#[test]
fn a_read_that_is_refused_goes_through_the_page_cache_and_so_does_every_one_after_it() {
    let Some(mut scene) = Scene::new(SendPath::Reference, 2) else { return };
    scene.direct_read(conn(), 4_000, 100_000);
    let refused = fail(scene.bench.sender.next_read(), Err(io::Error::from_raw_os_error(libc::EINVAL)));
    assert_eq!(scene.bench.sender.finish(refused, true), Resumed::Waits);
    let brought_in = run(scene.bench.sender.next_read().unwrap());
    assert!(matches!(brought_in, Finished::BringIn(_, Ok(true))));
    assert!(matches!(scene.bench.sender.finish(brought_in, true), Resumed::Send { .. }));
    scene.check_extent(BUFFER, 1 << 20);
    assert_eq!(scene.ways, [Way::BringIn]);
}

#[test]
fn a_read_that_fails_is_tried_through_the_page_cache_which_has_the_last_word() {
    for result in [Err(io::Error::from_raw_os_error(libc::EIO)), Ok(0), Ok(4_000)] {
        let Some(mut scene) = Scene::new(SendPath::Reference, 2) else { return };
        scene.direct_read(conn(), 4_000, 100_000);
        let failed = fail(scene.bench.sender.next_read(), result);
        assert_eq!(scene.bench.sender.finish(failed, true), Resumed::Waits);
        let Some(Read::BringIn(waiting)) = scene.bench.sender.next_read() else { panic!("once more") };
        let lost = Finished::BringIn(waiting, Err(io::Error::from_raw_os_error(libc::EIO)));
        assert_eq!(scene.bench.sender.finish(lost, true), Resumed::Unreadable);
    }
}

#[test]
fn a_short_read_gives_what_came_and_the_rest_is_read_next() {
    let Some(mut scene) = Scene::new(SendPath::Reference, 2) else { return };
    scene.direct_read(conn(), 5_000, 300_000);
    let Some(Read::Direct(mut read)) = scene.bench.sender.next_read() else { panic!("a read") };
    assert_eq!(read.run().unwrap(), read.bytes());
    let resumed = scene.bench.sender.finish(Finished::Direct(read, Ok(8_192)), true);
    assert_eq!(resumed, Resumed::Send { bytes_max: 1 << 20, residency: Residency::Ask });
    scene.check_extent(5_000, 300_000);
    assert_eq!(scene.ways.len(), 1, "the rest");
}

#[test]
fn a_closed_connection_leaves_its_buffer_to_others() {
    let Some(mut scene) = Scene::new(SendPath::Reference, 1) else { return };
    let [one, other, third] = [1, 2, 3].map(|slot| ConnId::new(slot, 0));
    scene.direct_read(one, 0, 100_000);
    scene.direct_read(other, 1 << 20, 100_000);
    let read = scene.bench.sender.next_read().unwrap();
    assert!(scene.bench.sender.next_read().is_none(), "there is one buffer");
    assert_eq!(scene.bench.counters.buffer_waits.value(), 0, "it was free when both were asked for");
    // Closed while it is read.
    scene.bench.sender.forget(one);
    assert_eq!(scene.bench.sender.finish(run(read), false), Resumed::Waits);
    let read = scene.bench.sender.next_read().unwrap();
    assert!(matches!(scene.bench.sender.finish(run(read), true), Resumed::Send { .. }));
    scene.direct_read(third, BUFFER, 100_000);
    assert!(scene.bench.sender.next_read().is_none(), "it holds what was read");
    assert_eq!(scene.bench.counters.buffer_waits.value(), 1);
    // Closed before it is sent.
    scene.bench.sender.forget(other);
    assert!(scene.bench.sender.next_read().is_some());
}

#[test]
fn a_slow_reader_gives_its_buffer_up_and_loses_nothing() {
    let Some(mut scene) = Scene::new(SendPath::Reference, 1) else { return };
    let at = |ms: u64| Now { monotonic_ns: 1_000_000_000 + ms * 1_000_000, unix_s: 0 };
    let other = ConnId::new(1, 0);
    scene.bench.sender.begin_turn(at(0));
    scene.direct_read(conn(), 100, 200_000);
    let read = scene.bench.sender.next_read().unwrap();
    assert!(matches!(scene.bench.sender.finish(run(read), true), Resumed::Send { .. }));
    scene.direct_read(other, 1 << 20, 100_000);
    scene.bench.sender.begin_turn(at(10));
    assert!(scene.bench.sender.next_read().is_none());
    let deadline_ns = scene.bench.sender.deadline_ns().unwrap();
    assert!(deadline_ns > at(10).monotonic_ns, "later");
    assert!(deadline_ns <= at(1_000).monotonic_ns, "within the second");
    scene.bench.sender.begin_turn(at(1_000));
    let read = scene.bench.sender.next_read().unwrap();
    assert!(matches!(scene.bench.sender.finish(run(read), true), Resumed::Send { .. }));
    scene.bench.sender.forget(other);
    scene.check_extent(100, 200_000);
    assert_eq!(scene.ways, [Way::BringIn], "asked for a second time");
}

#[test]
fn without_buffers_all_that_is_absent_is_brought_in() {
    let Some(mut scene) = Scene::new(SendPath::Reference, 0) else { return };
    scene.check_extent(0, FILE_BYTES);
    assert!(scene.ways.iter().all(|way| *way == Way::BringIn));
    assert_eq!(scene.bench.counters.read_direct.value(), 0);
}
