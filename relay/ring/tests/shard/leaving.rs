//! A shard that stops accepting on a socket that another program has too.

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use millrace_engine::event::News;
use millrace_engine::limits::Limits;
use millrace_send::SendPath;
use millrace_send::socket::make_listener;

use crate::support::{Relay, check_answer, reserve_or_skip};

/// The kernel tells nobody else of a connection whose wake-up came to an accept that was then cancelled.
#[test]
fn a_connection_that_came_while_the_accept_was_being_cancelled_is_served() {
    let limits = Limits { connections_max: 8, ..Limits::default() };
    let name = "a_connection_that_came_while_the_accept_was_being_cancelled_is_served";
    let Some(reservation) = reserve_or_skip(name, &limits) else { return };
    let socket = make_listener("127.0.0.1:0".parse().unwrap(), true, None).unwrap();
    let another_program = socket.try_clone().unwrap();
    // A question stops the shard where it is, until it is let go.
    let ((stopped, stops), (let_go, goes)) = (channel(), channel());
    let mut relay = Relay::start_on(socket, SendPath::Sendfile, &limits, reservation, move |_| {
        stopped.send(()).unwrap();
        goes.recv().unwrap();
    });
    let question = b"GET /about HTTP/1.1\r\nHost: relay\r\n\r\n";
    let mut askers: Vec<TcpStream> = Vec::new();
    for _ in 0..2 {
        let mut asker = relay.connect();
        relay.check(&mut asker, 0, 10);
        askers.push(asker);
    }
    let mut first = askers.remove(0);
    first.write_all(question).unwrap();
    stops.recv().unwrap();
    // Both are there when the next loop begins, which first hears that it is to drain, then stops at the question, and then cancels.
    askers[0].write_all(question).unwrap();
    relay.postbox.post(News::Drain);
    let_go.send(()).unwrap();
    stops.recv().unwrap();
    let mut client = relay.connect();
    client.write_all(relay.request("5-9").as_bytes()).unwrap();
    let_go.send(()).unwrap();
    check_answer(&mut client, 5, 9);
    // Nobody will answer them.
    for asker in [&first, &askers[0]] {
        socket2::SockRef::from(asker).set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop((client, first, askers));
    relay.end();
    drop(another_program);
}
