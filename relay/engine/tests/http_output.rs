//! What an answer puts into the output of its connection: how many segments on the wire it costs is decided here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use millrace_engine::counters::Counters;
use millrace_engine::event::{Event, News};
use millrace_engine::ids::{ConnId, Now, Protocol, ShardId};
use millrace_engine::ledger::Ledger;
use millrace_engine::limits::Limits;
use millrace_engine::op::Ops;
use millrace_engine::output::Part;
use millrace_engine::shard::{Config, Identity, Shard};
use millrace_pagecache::content::Content;
use millrace_pagecache::layout::Layout;
use millrace_pagecache::new_content::{NewContent, Shape};
use millrace_proto::id::ContentId;

const ID: ContentId = ContentId([7; 16]);

/// Asks a shard that has a content of 1,000,000 bytes, all there. Returns the parts that wait to be sent, heads as their first line.
#[track_caller]
fn check(requests: &str, expected: &[&str]) {
    let config = Config {
        limits: Arc::new(Limits::default()),
        ledger: Arc::new(Ledger::default()),
        counters: Arc::new(Counters::default()),
        identity: Identity { peer_id: [0; 20], agent: "test".into(), port: 6881 },
        seed: 1,
    };
    let mut shard = Shard::new(ShardId(0), config);
    let mut ops = Ops::new();
    let now = Now { monotonic_ns: 0, unix_s: 1_000_000_000 };
    let layout = Layout::single("file.bin", 1_000_000, 1 << 18).unwrap();
    let new = NewContent::new(ID, "file.bin", Shape::Imported(layout.clone()), "\"tag\"");
    let content = Content::simulated(new, layout, Box::new(|_, _| {}));
    let conn = ConnId::new(0, 0);
    let peer = "192.0.2.1:1000".parse().unwrap();
    shard.handle(now, Event::News(News::Put(content)), &mut ops);
    shard.handle(now, Event::Accepted { conn, protocol: Protocol::Http, peer }, &mut ops);
    shard.handle(now, Event::Received { conn, data: requests.as_bytes() }, &mut ops);
    let parts = shard.output(conn).unwrap().parts().map(|part| match part {
        Part::Bytes(bytes) => std::str::from_utf8(bytes).unwrap().lines().next().unwrap().to_owned(),
        Part::Extent { offset, bytes } => format!("{bytes} bytes at {offset}"),
        Part::BlockHead { .. } => panic!("not HTTP"),
    });
    assert_eq!(parts.collect::<Vec<_>>(), expected);
}

#[test]
fn a_head_goes_out_with_the_first_bytes_of_its_body() {
    let range = format!("GET /c/{ID}/file.bin HTTP/1.1\r\nHost: x\r\nRange: bytes=5-14\r\n\r\n");
    check(&range, &["HTTP/1.1 206 Partial Content", "10 bytes at 5"]);
    // The second answer waits for the end of the first.
    check(&range.repeat(2), &["HTTP/1.1 206 Partial Content", "10 bytes at 5"]);
    let whole = format!("GET /c/{ID}/file.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    check(&whole, &["HTTP/1.1 200 OK", "1000000 bytes at 0"]);
    check(&whole.replace("GET", "HEAD"), &["HTTP/1.1 200 OK"]);
}
