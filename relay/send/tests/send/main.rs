//! The send path on the real kernel: whatever mixture of parts, however small the socket, both ways of sending put exactly the bytes of
//! the output on the wire.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod cold;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use millrace_engine::event::Sent;
use millrace_engine::ids::Now;
use millrace_engine::output::Output;
use millrace_send::{Outcome, Residency, SendPath};
use support::{Bench, Random, Stored, conn, receive, send_all, tcp_pair};

const KIB: u64 = 1024;

const PATHS: [SendPath; 2] = [SendPath::Reference, SendPath::Sendfile];

/// Sends `output` through a TCP connection in turns of `bytes_max`, to a reader who takes `read_bytes` at a time, and compares.
fn check(
    path: SendPath,
    stored: &Stored,
    build: impl Fn(&mut Output),
    bytes_max: u64,
    sndbuf: Option<usize>,
) {
    let mut bench = Bench::new(path);
    bench
        .headers
        .cover(stored.content.layout().piece_bytes(), stored.content.layout().piece_count() / 2)
        .unwrap();
    let mut output = Output::default();
    output.lease(&stored.content);
    build(&mut output);
    let expected = stored.model(&output);
    let (socket, reader) = tcp_pair(sndbuf);
    let total = expected.len();
    let reader = std::thread::spawn(move || receive(reader, total));
    send_all(&mut bench, &socket, &mut output, bytes_max);
    let received = reader.join().unwrap();
    assert_eq!(received.len(), expected.len(), "{path}");
    let differs = received.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{path}: first byte that differs");
    let counters = &bench.counters;
    let counted = [&counters.sent_reference_bytes, &counters.sent_sendfile_bytes, &counters.sent_copy_bytes];
    assert_eq!(counted.iter().map(|counter| counter.value()).sum::<u64>(), total as u64);
}

/// Pieces of 64 KiB; a large file, a small one that ends in the middle of a page, padding, one that fills it up, a gap at the end.
fn stored() -> Stored {
    Stored::new(
        64 * 1024,
        &[
            (3_000_000, false),
            (70, false),
            (1, true),
            (5_000, false),
            (60_458, true),
            (200_000, false),
            (131_072, true),
        ],
    )
}

#[test]
fn http_answers_of_every_size() {
    let stored = stored();
    let length = stored.content.layout().length();
    for path in PATHS {
        for (offset, bytes) in [
            (0, 1),
            (1, 16 * KIB),
            (4_095, 63 * KIB),
            (7, 64 * KIB),
            (2_999_990, 200),
            (123, 2_000_000),
            (0, length),
        ] {
            let build = |output: &mut Output| {
                output.push_bytes(b"HTTP/1.1 206 Partial Content\r\n\r\n");
                output.push_extent(offset, bytes);
            };
            check(path, &stored, build, 1 << 20, None);
        }
    }
}

#[test]
fn batches_of_blocks_with_and_without_a_table() {
    let stored = stored();
    for path in PATHS {
        for sndbuf in [None, Some(4096)] {
            let build = |output: &mut Output| {
                output.push_bytes(b"unchoke");
                for block in 0..120_u32 {
                    let (index, begin) = (block % 50, (block / 50) * 16 * 1024);
                    let offset = u64::from(index) * 64 * KIB + u64::from(begin);
                    output.push_block(index, begin, if block % 9 == 8 { 16_000 } else { 16 * 1024 }, offset);
                    if block % 31 == 0 {
                        output.push_bytes(&[0; 4]);
                    }
                }
            };
            check(path, &stored, build, 1 << 20, sndbuf);
        }
    }
}

#[test]
fn every_mixture_in_turns_of_every_size() {
    let stored = stored();
    let length = stored.content.layout().length();
    for seed in 0..24 {
        let path = PATHS[usize::try_from(seed % 2).unwrap()];
        let mut random = Random(seed);
        let sndbuf = [None, Some(2048), Some(65_536)][usize::try_from(random.below(3)).unwrap()];
        // Turns of odd sizes leave heads, extents and shared bytes sent in part.
        let bytes_max = [1 + random.below(40), 1 + random.below(5_000), 1 << 20]
            [usize::try_from(random.below(3)).unwrap()];
        let parts = if bytes_max < 100 { 6 } else { 60 };
        let span = if bytes_max < 100 { 300 } else { 90_000 };
        let build = |output: &mut Output| {
            let mut random = Random(seed + 1_000);
            for _ in 0..parts {
                let offset = random.below(length - 1);
                let bytes = (1 + random.below(span)).min(length - offset);
                match random.below(5) {
                    0 => output.push_bytes(&vec![
                        random.byte();
                        usize::try_from(1 + random.below(9_000).min(bytes)).unwrap()
                    ]),
                    1 => output.push_shared(&vec![random.byte(); usize::try_from(bytes).unwrap()].into()),
                    2 => output.push_extent(offset, bytes),
                    _ => {
                        let block = offset / (16 * KIB);
                        let begin = u32::try_from(block % 4 * 16 * KIB).unwrap();
                        let whole = (16 * KIB).min(length - block * 16 * KIB);
                        output.push_block(
                            u32::try_from(block / 4).unwrap(),
                            begin,
                            u32::try_from(whole).unwrap(),
                            block * 16 * KIB,
                        );
                    }
                }
            }
        };
        check(path, &stored, build, bytes_max, sndbuf);
    }
}

#[test]
fn the_pipe_is_empty_after_a_short_send_and_nobody_gets_the_rest() {
    let stored = stored();
    let mut bench = Bench::new(SendPath::Reference);
    let (full, _slow_reader) = tcp_pair(Some(4096));
    let mut output = Output::default();
    output.lease(&stored.content);
    output.push_extent(0, 2_500_000);
    // Filled until it refuses: the batch that hits the end of the room is short.
    loop {
        match bench.send(&full, &output, 1 << 20) {
            Outcome::Sent(Sent::Bytes { bytes, blocked }) => {
                output.consume(bytes);
                if blocked {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let mut small = Output::default();
    small.lease(&stored.content);
    small.push_extent(1_000_000, 100_000);
    let expected = stored.model(&small);
    let (socket, reader) = tcp_pair(None);
    let reader = std::thread::spawn(move || receive(reader, 100_000));
    send_all(&mut bench, &socket, &mut small, 1 << 20);
    assert!(reader.join().unwrap() == expected, "another client's bytes were in the pipe");
}

#[test]
fn a_parked_reader_gets_the_right_bytes_though_the_file_is_gone() {
    for path in PATHS {
        let stored = stored();
        let mut bench = Bench::new(path);
        let (socket, mut reader) = tcp_pair(None);
        let mut output = Output::default();
        output.lease(&stored.content);
        output.push_extent(10, 2_900_000);
        let expected = stored.model(&output);
        let mut queued = 0;
        loop {
            match bench.send(&socket, &output, 1 << 20) {
                Outcome::Sent(Sent::Bytes { bytes, blocked }) => {
                    queued += usize::try_from(bytes).unwrap();
                    output.consume(bytes);
                    if blocked || output.is_empty() {
                        break;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        drop(output);
        stored.remove();
        for second in [10, 20] {
            bench.begin_turn(Now { monotonic_ns: second * 1_000_000_000, unix_s: 0 });
        }
        drop(bench);
        drop(socket);
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), queued);
        assert!(received[..] == expected[..queued], "{path}: bytes in flight changed when their file went");
    }
}

#[test]
fn a_file_changed_under_us_is_unreadable_and_the_socket_stays_usable() {
    for path in PATHS {
        let stored = stored();
        let mut bench = Bench::new(path);
        let (socket, mut reader) = tcp_pair(None);
        let mut output = Output::default();
        output.lease(&stored.content);
        output.push_bytes(b"head");
        output.push_extent(0, 500_000);
        stored.truncate(0, 100_000);
        // The head goes out, since nothing is wrong with it; the body does not follow.
        let Outcome::Sent(Sent::Bytes { bytes: 4, blocked: false }) = bench.send(&socket, &output, 1 << 20)
        else {
            panic!("{path}: the head is sent")
        };
        output.consume(4);
        assert!(matches!(bench.send(&socket, &output, 1 << 20), Outcome::Sent(Sent::Unreadable)), "{path}");
        let mut head = [0; 4];
        reader.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"head");
    }
}

#[test]
fn a_file_written_by_its_owner_is_not_sent_any_more() {
    for path in PATHS {
        let stored = stored();
        let mut bench = Bench::new(path);
        let (socket, _reader) = tcp_pair(None);
        let mut output = Output::default();
        output.lease(&stored.content);
        output.push_extent(0, 500_000);
        let Outcome::Sent(Sent::Bytes { bytes, .. }) = bench.send(&socket, &output, 10_000) else {
            panic!("{path}: nothing is wrong yet")
        };
        output.consume(bytes);
        // The bytes are as they were, but nobody can know that. It is asked once a loop.
        stored.touch(0);
        bench.begin_turn(Now { monotonic_ns: 1, unix_s: 0 });
        assert!(matches!(bench.send(&socket, &output, 10_000), Outcome::Sent(Sent::Unreadable)), "{path}");
    }
}

#[test]
fn a_reader_that_went_away_is_broken_not_a_signal() {
    let stored = stored();
    for path in PATHS {
        for bytes in [1_000, 1_000_000] {
            let mut bench = Bench::new(path);
            let (socket, reader) = tcp_pair(None);
            socket2::SockRef::from(&reader).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(reader);
            let mut output = Output::default();
            output.lease(&stored.content);
            output.push_extent(0, bytes);
            // The reset has arrived when reading fails.
            let mut socket = socket;
            let _ = socket.read(&mut [0]);
            assert!(
                matches!(bench.send(&socket, &output, 1 << 20), Outcome::Sent(Sent::Broken)),
                "{path}, {bytes} bytes"
            );
        }
    }
}

#[test]
fn what_is_not_in_memory_is_said_to_be_absent_and_can_be_brought_in() {
    let stored = stored();
    for path in PATHS {
        if !stored.drop_from_memory(0) {
            writeln!(std::io::stderr(), "skipped: the page cache cannot be dropped here").ok();
            return;
        }
        let mut bench = Bench::new(path);
        let (socket, reader) = tcp_pair(None);
        let mut output = Output::default();
        output.lease(&stored.content);
        output.push_bytes(b"head");
        output.push_extent(8_000, 300_000);
        let expected = stored.model(&output);
        let ask = |bench: &mut Bench, socket: &TcpStream, output: &Output| {
            bench.sender.send(conn(), std::os::fd::AsFd::as_fd(socket), output, 1 << 20, Residency::Ask)
        };
        let Outcome::Absent(absent) = ask(&mut bench, &socket, &output) else { panic!("{path}: absent") };
        assert_eq!((absent.offset, absent.bytes), (8_000, 300_000));
        absent.bring_in(&mut vec![0; 65_536]).unwrap();
        let reader = std::thread::spawn(move || receive(reader, 300_004));
        while !output.is_empty() {
            match ask(&mut bench, &socket, &output) {
                Outcome::Sent(Sent::Bytes { bytes, .. }) => _ = output.consume(bytes),
                other => panic!("{path}: {other:?}"),
            }
        }
        assert!(reader.join().unwrap() == expected);
    }
}

#[test]
fn what_was_in_memory_is_asked_about_again_after_a_second() {
    let stored = stored();
    for path in PATHS {
        let mut bench = Bench::new(path);
        let mut output = Output::default();
        output.lease(&stored.content);
        output.push_extent(0, 10_000);
        let ask = |bench: &mut Bench, output: &Output| {
            let (socket, _reader) = tcp_pair(None);
            bench.sender.send(conn(), std::os::fd::AsFd::as_fd(&socket), output, 1_000, Residency::Ask)
        };
        stored.read_into_memory(0);
        bench.begin_turn(Now { monotonic_ns: 1_000_000_000, unix_s: 0 });
        let sent = ask(&mut bench, &output);
        assert!(matches!(sent, Outcome::Sent(Sent::Bytes { bytes: 1_000, .. })), "{path}: {sent:?}");
        output.consume(1_000);
        // Pages stay while sockets, closed though they are, hold on to them.
        if !(0..10_000).any(|_| stored.drop_from_memory(0)) {
            writeln!(std::io::stderr(), "skipped: the page cache cannot be dropped here").ok();
            return;
        }
        let sent = ask(&mut bench, &output);
        assert!(matches!(sent, Outcome::Sent(_)), "{path}: it was there a moment ago: {sent:?}");
        assert!((0..10_000).any(|_| stored.drop_from_memory(0)), "{path}: it could be dropped before");
        bench.begin_turn(Now { monotonic_ns: 2_100_000_000, unix_s: 0 });
        let Outcome::Absent(absent) = ask(&mut bench, &output) else { panic!("{path}: absent") };
        assert_eq!((absent.offset, absent.bytes), (1_000, 1_000));
    }
}
