//! SIGKILL at twenty moments of one pull, and a restart after each: nothing verified is lost, nothing wrong is served, and
//! the origin is charged for no more than what was in flight.

use std::process::Command;

use millrace_interop::clients::say;
use millrace_interop::http::{self, End};
use millrace_interop::origin::Origin;
use millrace_interop::pattern::sha256_of;
use millrace_interop::process::run;
use millrace_interop::relay::{Relay, program};
use millrace_interop::scratch::Scratch;
use millrace_interop::torrent::Tree;
use millrace_interop::{PATIENCE, until};
use millrace_proto::admin::ContentState;

const KILLS: u64 = 20;
const LENGTH: u64 = (160 << 20) + 4321;
const PIECE_BYTES: u32 = 1 << 20;
/// Most that a relay asks for at once on one connection (invariant 3).
const RANGE_BYTES: u64 = 4 << 20;

/// SplitMix64: where in its share of the pull each kill comes. The seed is fixed, so a failure can be seen again.
fn random(index: u64) -> u64 {
    let bytes = millrace_interop::pattern::Pattern(20).bytes(index * 8, 8);
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

fn killed_and_restarted(with_hashes: bool, flags: &[&str]) {
    let scratch = Scratch::new();
    let tree = Tree::file("killed.bin", LENGTH, PIECE_BYTES);
    let pattern = tree.pattern("");
    let origin = Origin::of_file("killed.bin", LENGTH, pattern, Some(60_000_000));
    let mut relay = Relay::start(&scratch, flags);
    let given = scratch.file("given.torrent", &tree.hybrid().to_bytes()).display().to_string();
    let url = origin.url("/killed.bin");
    let content = if with_hashes { relay.add(&[&url, "--metainfo", &given]) } else { relay.add(&[&url]) };
    let path = relay.path_of(&content);
    let mut most = LENGTH;
    for kill in 0..KILLS {
        // By what the relay has, not by time: each kill falls into its own twentieth, wherever the clock may be.
        let share = LENGTH / (KILLS + 1);
        let moment = kill * share + random(kill) % share;
        until("the pull to get on", PATIENCE, || {
            (relay.status(&content.id).have_bytes >= moment).then_some(())
        });
        most += origin.connections() * (RANGE_BYTES + u64::from(PIECE_BYTES));
        relay.kill();
        relay.restart();
        let status = relay.status(&content.id);
        assert_ne!(status.state, ContentState::Failed, "after kill {kill}: {:?}", status.error);
        let at = random(100 + kill) % (LENGTH - 70_000);
        if let Ok(answer) = http::range(relay.http, &path, at, 70_000) {
            assert_eq!(pattern.first_wrong(at, &answer.body), None, "after kill {kill}");
            assert!(
                answer.end == End::Cut || answer.body.len() == 70_000,
                "a clean short body after kill {kill}"
            );
        }
    }
    relay.wait_for(&content.id, ContentState::Complete, PATIENCE);
    let whole = http::get(relay.http, &path, &[]).expect("an answer");
    let file = scratch.file("whole", &whole.body);
    assert_eq!((whole.end, sha256_of(&file)), (End::Clean, pattern.sha256(LENGTH)));
    assert!(origin.sent() <= most, "the origin sent {} bytes, at most {most} are allowed", origin.sent());
    eprintln!(
        "the origin sent {:.3} × the size in {KILLS} kills, of {:.3} allowed",
        ratio(origin.sent()),
        ratio(most)
    );
}

fn ratio(sent: u64) -> f64 {
    sent as f64 / LENGTH as f64
}

#[test]
fn a_pull_with_known_hashes_survives_twenty_kills() {
    killed_and_restarted(true, &[]);
}

#[test]
fn a_pull_with_unknown_hashes_survives_twenty_kills() {
    killed_and_restarted(false, &[]);
}

#[test]
fn a_pull_that_is_written_through_io_uring_survives_twenty_kills() {
    let doctor = run(Command::new(program()).arg("doctor"), PATIENCE);
    let forbidden = doctor.text().contains("--ingest-io uring would not start here");
    if forbidden || std::env::var("MILLRACE_INTEROP_IO").is_ok_and(|io| io == "epoll") {
        say("skipped: a pull written through io_uring, which is forbidden here");
        return;
    }
    killed_and_restarted(false, &["--ingest-io", "uring"]);
}
