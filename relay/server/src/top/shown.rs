//! What `top` shows of a relay that was made up: everything has its place at 80x24 and at 200x60, and nothing panics at any size.

use std::time::{Duration, Instant};

use millrace_proto::admin::{ContentStatus, RelayStatus};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::Rect;
use serde_json::{Value, json};

use super::gather::Sample;
use super::journal::{Journal, Line};
use super::view::{Action, Order, View};
use super::{frame, text};

fn content(number: u64, state: &str, more: &Value) -> ContentStatus {
    let mut content = json!({
        "id": format!("{number:026}"), "name": format!("build-{number}.iso"), "length": 1_000_000, "have_bytes": 1_000_000,
        "state": state, "http_url": "http://relay/c/x", "torrent_url": null, "metalink_url": null, "magnet": null,
        "infohash_v1": null, "infohash_v2": null, "sha256": null, "error": null,
        "rates": {"pull": 0, "http": number * 1_000_000, "bittorrent": 0},
    });
    for (key, value) in more.as_object().unwrap() {
        content[key] = value.clone();
    }
    serde_json::from_value(content).unwrap()
}

/// A relay of two shards after so many seconds, of which one shard was busy half the time and the other one none.
fn sample(start: Instant, seconds: u64) -> Sample {
    let status = json!({
        "version": "1.2.3", "state": "serving", "backend": {"name": "uring", "reason": ""},
        "addresses": {"http": "127.0.0.1:1", "bittorrent": "127.0.0.1:2", "metrics": null},
        "send_path": {"name": "reference", "reason": ""}, "ingest_io": {"name": "pwrite", "reason": ""},
        "store": {"path": "/s", "capacity": 1000, "used": 2048, "shared": 0, "free": 4096}, "shards": 2,
        "connections": {"http": 17, "bittorrent": 5},
        "totals": {"origin_bytes": 1000, "served": {"http": 3000, "bittorrent": 1500}},
        "rates": {"pull": 8_000_000, "http": 40_000_000, "bittorrent": 10_000_000},
        "egress_cap": 100_000_000, "uptime_s": 90_061 + seconds, "contents": 40,
        "counts": {"cap_waits": 30 * seconds, "requests": 7 * seconds, "refusals": 0, "hash_failures": 0},
        "shard_loads": [
            {"loops": 1000 * seconds, "busy_us": 500_000 * seconds, "connections": {"http": 9, "bittorrent": 3}, "unchoked": 2, "stuck": false},
            {"loops": 0, "busy_us": 0, "connections": {"http": 8, "bittorrent": 2}, "unchoked": 0, "stuck": true},
        ],
    });
    let status: RelayStatus = serde_json::from_value(status).unwrap();
    let mut contents: Vec<_> = (0..38).map(|number| content(number, "complete", &json!({}))).collect();
    let pulling = json!({
        "have_bytes": 250_000, "rates": {"pull": 8_000_000, "http": 0, "bittorrent": 0},
        "pull": {"rate": 8_000_000, "note": null, "origins": [
            {"url": "https://origin.example/pulled.iso", "speed": 4_000_000, "requests": 2, "error": null, "given_up": false},
            {"url": "https://mirror.example/pulled.iso", "speed": 0, "requests": 0, "error": "503", "given_up": false}]},
    });
    contents.push(content(98, "pulling", &pulling));
    contents.push(content(
        99,
        "failed",
        &json!({"name": "evil\u{1b}[2J", "rates": {"pull": 0, "http": 0, "bittorrent": 0}}),
    ));
    let held = |value: Value| json!({ "value": value, "layer": "local" });
    let egress = json!({"total": held(json!(100_000_000)), "http": held(Value::Null), "bittorrent": held(json!(12_500_000))});
    let caps = json!({"now": "x", "egress": egress, "origin": {"volume": [{"window": "day", "bytes": held(json!(1 << 30))}]}});
    Sample { time: 0.0, at: start + Duration::from_secs(seconds), status, contents, caps }
}

fn view() -> View {
    let (mut view, start) = (View::default(), Instant::now());
    view.note(sample(start, 0));
    view.note(sample(start, 2));
    view.happened(Line { text: "build-98.iso  queued → pulling".into(), is_bad: false });
    view
}

/// The lines of a frame, drawn as on a terminal of this size.
fn shown(view: &View, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| frame::draw(view, frame.area(), frame.buffer_mut())).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(width.into());
    lines.map(|line| line.iter().map(ratatui::buffer::Cell::symbol).collect()).collect()
}

#[track_caller]
fn check(lines: &[String], said: &[&str]) {
    for part in said {
        assert!(lines.iter().any(|line| line.contains(part)), "`{part}` is missing:\n{}", lines.join("\n"));
    }
}

const EVERYWHERE: &[&str] = &[
    "millrace-relay 1.2.3  serving  up 1 d 01:01  uring, reference",
    "40.0 MB/s",
    "10.0 MB/s",
    "7.0/s",
    "Caps  30 waits/s",
    "100.0 MB/s  50 %",
    "12.5 MB/s  80 %",
    "origin.volume",
    "1.0 GiB",
    "50 %     1000 loops/s   500.0 µs",
    "stuck",
    "Contents  1 of 40 by rate",
    "37.0 MB/s",
    "25 %   8.0 MB/s  build-98.iso",
    "build-98.iso  queued → pulling",
    "q quit",
];

#[test]
fn everything_has_its_place_at_80x24() {
    let lines = shown(&view(), 80, 24);
    check(&lines, EVERYWHERE);
    // Each panel begins where it should.
    for (line, title) in
        [(1, " Rates "), (8, " Shards "), (11, " Contents "), (17, " Pulls "), (19, " Events ")]
    {
        assert!(lines[line].contains(title), "{title}:\n{}", lines.join("\n"));
    }
}

#[test]
fn what_is_left_over_at_200x60_goes_to_the_contents() {
    let lines = shown(&view(), 200, 60);
    check(&lines, EVERYWHERE);
    check(
        &lines,
        &[
            "https://origin.example/pulled.iso 2 requests at 4.0 MB/s",
            "https://mirror.example/pulled.iso 503",
            "build-10.iso",
        ],
    );
    check(&lines, &["origin.volume.0.bytes", "■■■■■■■■■■           "]);
    assert!(!lines.concat().contains('\u{1b}'), "a name speaks to the terminal");
}

#[test]
fn the_list_is_sorted_and_scrolled() {
    let mut view = view();
    let first = |view: &View| view.contents()[0].name.clone();
    assert_eq!(first(&view), "build-37.iso");
    view.act(Action::Scroll(1));
    assert_eq!(first(&view), "build-36.iso");
    view.act(Action::Scroll(isize::MAX));
    assert_eq!((view.contents().len(), view.scrolled()), (1, 39));
    view.act(Action::Scroll(isize::MIN));
    view.act(Action::Sort);
    assert_eq!((view.order, first(&view)), (Order::Pull, "build-98.iso".into()));
    view.act(Action::Sort);
    view.act(Action::Sort);
    assert_eq!((view.order, first(&view)), (Order::Name, "build-0.iso".into()));
}

#[test]
fn what_stands_still_says_so_and_goes_on() {
    let (mut view, start) = (view(), Instant::now());
    view.act(Action::Pause);
    view.note(sample(start, 4000));
    check(&shown(&view, 80, 24), &["paused  millrace-relay", "up 1 d 01:01"]);
    view.act(Action::Pause);
    view.note(sample(start, 4000));
    check(&shown(&view, 80, 24), &["up 1 d 02:07"]);
    view.act(Action::Help);
    check(&shown(&view, 80, 24), &["Keys", "quit", "this help"]);
    view.act(Action::Close);
    assert!(!shown(&view, 80, 24).concat().contains("Keys"));
}

#[test]
fn a_relay_that_is_away_or_was_restarted_is_no_rate() {
    let mut view = view();
    view.lost("the relay behind /x does not answer".into());
    check(&shown(&view, 80, 24), &["the relay behind /x does not answer"]);
    let mut restarted = sample(Instant::now() + Duration::from_secs(9), 0);
    restarted.status.uptime_s = 1;
    view.note(restarted);
    check(&shown(&view, 80, 24), &["up 00:00:01", "Caps  0 waits/s"]);
    let mut empty = View::default();
    check(&shown(&empty, 80, 24), &["waiting for the relay"]);
    empty.lost("away".into());
    check(&shown(&empty, 80, 24), &["away"]);
}

#[test]
fn no_size_is_too_small() {
    let view = view();
    for (width, height) in [(1, 1), (2, 30), (20, 5), (79, 23), (300, 8), (500, 200)] {
        shown(&view, width, height);
    }
}

#[test]
fn a_printed_frame_is_text() {
    let printed = text(&view(), Rect::new(0, 0, 120, 40));
    assert!(printed.lines().all(|line| line.trim_end() == line) && !printed.contains('\u{1b}'));
    assert!(printed.contains("Contents  1 of 40 by rate"), "{printed}");
}

#[test]
fn what_happens_is_told_once() {
    let mut journal = Journal::default();
    let mut told = |state: &str, error: Value| {
        let content = content(1, state, &json!({ "error": error }));
        journal.line(millrace_proto::admin::Event::Content { content: Box::new(content) })
    };
    let good = |text: &str| Some(Line { text: text.to_owned(), is_bad: false });
    let bad = |text: &str| Some(Line { text: text.to_owned(), is_bad: true });
    assert_eq!(told("pulling", Value::Null), good("build-1.iso  pulling"));
    assert_eq!(told("pulling", Value::Null), None);
    assert_eq!(told("pulling", json!("503\u{7}")), bad("build-1.iso  503?"));
    assert_eq!(told("pulling", Value::Null), None);
    assert_eq!(told("failed", json!("gone")), bad("build-1.iso  pulling → failed  gone"));
    let removed = millrace_proto::admin::Event::Removed { id: format!("{:026}", 1) };
    assert_eq!(journal.line(removed), good("removed  build-1.iso"));
}
