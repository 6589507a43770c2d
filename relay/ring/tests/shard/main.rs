//! A real shard over a real ring, with clients on loopback: the right bytes, whatever the clients do, and a clean end.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helper functions too")]

mod leaving;
mod support;
mod zero_copy;

use std::io::{BufReader, Read, Write};
use std::time::{Duration, Instant};

use millrace_engine::counters::Reason;
use millrace_engine::event::News;
use millrace_engine::limits::Limits;

use support::{LENGTH, bytes, check, check_answer, check_with, make_cold, read_head};

#[test]
fn ranges_of_every_size_on_one_connection() {
    check("ranges_of_every_size_on_one_connection", 16, |relay| {
        let mut client = relay.connect();
        for (first, last) in [(0, 0), (1, 16_384), (4_095, 70_000), (0, LENGTH - 1), (LENGTH - 1, LENGTH - 1)]
        {
            relay.check(&mut client, first, last);
        }
    });
}

#[test]
fn pipelined_requests_far_beyond_the_provided_buffers_are_answered_in_order() {
    check("pipelined_requests_far_beyond_the_provided_buffers_are_answered_in_order", 16, |relay| {
        const REQUESTS: u64 = 8_000;
        let mut writer = relay.connect();
        let mut reader = BufReader::new(writer.try_clone().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // 600 KiB of requests, while 16 connections share 256 KiB of buffers: the engine pauses the receive again and again.
                for number in 0..REQUESTS {
                    writer.write_all(relay.request(&format!("{number}-{}", number + 9)).as_bytes()).unwrap();
                }
            });
            for number in 0..REQUESTS {
                check_answer(&mut reader, number, number + 9);
            }
        });
    });
}

#[test]
fn two_hundred_clients_at_a_time() {
    check("two_hundred_clients_at_a_time", 256, |relay| {
        let mut clients: Vec<_> = (0..200).map(|_| relay.connect()).collect();
        for (client, number) in clients.iter_mut().zip(0..) {
            client.write_all(relay.request(&format!("{number}-{}", number + 200_000)).as_bytes()).unwrap();
        }
        for (client, number) in clients.iter_mut().zip(0..) {
            check_answer(client, number, number + 200_000);
        }
        assert_eq!(relay.counters.accepted_http.value(), 200);
    });
}

#[test]
fn clients_that_reset_in_the_middle_of_an_answer_leave_nothing_behind() {
    check("clients_that_reset_in_the_middle_of_an_answer_leave_nothing_behind", 4, |relay| {
        for _ in 0..40 {
            let mut client = relay.connect();
            client.write_all(relay.request(&format!("0-{}", LENGTH - 1)).as_bytes()).unwrap();
            let _ = read_head(&mut client);
            // Unread bytes make the close a reset.
            drop(client);
            // There are four slots: the next connection waits for its turn to be accepted into one.
            let mut other = loop {
                let mut other = relay.connect();
                other.write_all(relay.request("5-5").as_bytes()).unwrap();
                if other.peek(&mut [0]).is_ok_and(|bytes| bytes > 0) {
                    break other;
                }
            };
            check_answer(&mut other, 5, 5);
        }
    });
}

#[test]
fn a_full_table_turns_connections_away_at_once() {
    check("a_full_table_turns_connections_away_at_once", 2, |relay| {
        let mut clients: Vec<_> = (0..2).map(|_| relay.connect()).collect();
        for client in &mut clients {
            relay.check(client, 0, 10);
        }
        let mut third = relay.connect();
        assert_eq!(third.read(&mut [0]).unwrap_or(0), 0, "closed without an answer");
        assert_eq!(relay.counters.closed[Reason::TooManyConnections as usize].value(), 1);
        relay.check(&mut clients[0], 20, 30);
    });
}

#[test]
fn bytes_that_are_not_in_memory_are_read_first_with_fewer_buffers_than_clients() {
    check("bytes_that_are_not_in_memory_are_read_first_with_fewer_buffers_than_clients", 64, |relay| {
        let is_cold = make_cold(relay);
        let mut clients: Vec<_> = (0..50).map(|_| relay.connect()).collect();
        for (client, number) in clients.iter_mut().zip(0..) {
            let first = number * 50_000;
            client.write_all(relay.request(&format!("{first}-{}", first + 99_999)).as_bytes()).unwrap();
        }
        for (client, number) in clients.iter_mut().zip(0..) {
            check_answer(client, number * 50_000, number * 50_000 + 99_999);
        }
        if is_cold {
            assert!(relay.counters.read_direct.value() > 0);
        }
    });
}

#[test]
fn clients_that_leave_while_their_bytes_are_read_hold_nobody_up() {
    check("clients_that_leave_while_their_bytes_are_read_hold_nobody_up", 64, |relay| {
        make_cold(relay);
        for number in 0..30 {
            let mut client = relay.connect();
            let first = number * 100_000;
            client.write_all(relay.request(&format!("{first}-{}", first + 99_999)).as_bytes()).unwrap();
            // The request arrives before the reset does.
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        relay.check(&mut relay.connect(), 1, LENGTH - 2);
    });
}

#[test]
fn a_shard_that_nobody_talks_to_turns_all_the_same() {
    check("a_shard_that_nobody_talks_to_turns_all_the_same", 16, |relay| {
        let started = Instant::now();
        // More than the news at the start can be the reason for.
        while relay.counters.loops.value() < 5 {
            assert!(started.elapsed() < Duration::from_secs(60), "{} loops", relay.counters.loops.value());
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn a_drain_lets_a_running_answer_finish() {
    check("a_drain_lets_a_running_answer_finish", 16, |relay| {
        let mut client = relay.connect();
        client.write_all(relay.request(&format!("0-{}", LENGTH - 1)).as_bytes()).unwrap();
        let head = read_head(&mut client);
        assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
        relay.postbox.post(News::Drain);
        let mut body = Vec::new();
        client.read_to_end(&mut body).unwrap();
        assert!(body == bytes(0..LENGTH), "{} bytes", body.len());
    });
}

#[test]
fn a_client_that_stays_silent_is_closed_while_its_receive_is_in_flight() {
    let limits = Limits { connections_max: 1, head_timeout: Duration::ZERO, ..Limits::default() };
    check_with("a_client_that_stays_silent_is_closed_while_its_receive_is_in_flight", &limits, |relay| {
        let mut silent = relay.connect();
        let mut answer = Vec::new();
        silent.read_to_end(&mut answer).unwrap();
        drop(silent);
        assert_eq!(relay.counters.closed[Reason::SlowHead as usize].value(), 1);
    });
}
