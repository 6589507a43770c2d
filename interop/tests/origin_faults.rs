//! Origins that misbehave, seen from the client: right bytes or a reset, never a clean short body, and `status` names what
//! is wrong.

use std::time::Duration;

use millrace_interop::http::{self, Answer, End};
use millrace_interop::origin::{Fault, Origin};
use millrace_interop::pattern::Pattern;
use millrace_interop::relay::Relay;
use millrace_interop::scratch::Scratch;
use millrace_interop::{PATIENCE, until};
use millrace_proto::admin::{ContentState, ContentStatus};

/// More than eight connections have under way at once (8 × 4 MiB), so that a change comes between two ranges.
const LENGTH: u64 = 80_000_003;
const BYTES: Pattern = Pattern(77);

struct Faulty {
    relay: Relay,
    origin: Origin,
    _scratch: Scratch,
}

impl Faulty {
    fn new() -> Self {
        let scratch = Scratch::new();
        let origin = Origin::of_file("faulty.bin", LENGTH, BYTES, None);
        let relay = Relay::start(&scratch, &[]);
        Faulty { relay, origin, _scratch: scratch }
    }

    fn add(&self) -> ContentStatus {
        self.relay.add(&[&self.origin.url("/faulty.bin")])
    }

    /// The whole file by a client: whatever of it comes must be right, and a clean end means all of it.
    #[track_caller]
    fn read(&self, content: &ContentStatus, pattern: Pattern) -> Option<Answer> {
        let answer = http::get(self.relay.http, &self.relay.path_of(content), &[]).ok()?;
        if answer.status == 200 {
            assert_eq!(pattern.first_wrong(0, &answer.body), None);
            let whole = answer.body.len() as u64 == LENGTH;
            assert!(whole || answer.end == End::Cut, "a clean body of {} bytes", answer.body.len());
        }
        Some(answer)
    }

    #[track_caller]
    fn completes(&self, content: &ContentStatus) {
        let answer = self.read(content, BYTES).expect("an answer");
        assert_eq!((answer.status, answer.end, answer.body.len() as u64), (200, End::Clean, LENGTH));
        self.relay.wait_for(&content.id, ContentState::Complete, PATIENCE);
    }
}

#[test]
fn resets_in_the_middle_of_bodies_are_got_over() {
    let faulty = Faulty::new();
    let content = faulty.add();
    faulty.origin.misbehave(Fault::Reset { after: 100_000 }, 5);
    faulty.completes(&content);
}

#[test]
fn bodies_shorter_than_announced_are_got_over() {
    let faulty = Faulty::new();
    let content = faulty.add();
    faulty.origin.misbehave(Fault::Short { missing: 70_001 }, 5);
    faulty.completes(&content);
}

#[test]
fn a_few_server_errors_are_got_over() {
    let faulty = Faulty::new();
    let content = faulty.add();
    faulty.origin.misbehave(Fault::Status(500), 3);
    faulty.completes(&content);
}

#[test]
fn ignored_ranges_are_read_once_in_order() {
    let faulty = Faulty::new();
    faulty.origin.misbehave(Fault::IgnoredRange, u32::MAX);
    let content = faulty.add();
    faulty.completes(&content);
    // One body in order, and at most what was under way when the relay found out.
    assert!(faulty.origin.sent() < 2 * LENGTH, "the origin sent {}", faulty.origin.sent());
}

#[test]
fn no_length_is_served_as_it_comes() {
    let faulty = Faulty::new();
    faulty.origin.misbehave(Fault::NoLength, u32::MAX);
    let content = faulty.add();
    faulty.completes(&content);
    assert_eq!(faulty.relay.status(&content.id).length, Some(LENGTH));
}

#[test]
fn a_cut_body_without_length_is_never_a_clean_end() {
    let faulty = Faulty::new();
    faulty.origin.misbehave(Fault::NoLengthCut { after: 5_000_000 }, u32::MAX);
    let content = faulty.add();
    if let Some(answer) = faulty.read(&content, BYTES) {
        assert!(answer.status >= 500 || answer.end == End::Cut, "{} and {:?}", answer.status, answer.end);
    }
    names_the_error(&faulty, &content.id);
}

#[test]
fn errors_without_end_fail_the_reader_and_are_named() {
    let faulty = Faulty::new();
    faulty.origin.hold_at(LENGTH / 2);
    let content = faulty.add();
    faulty.origin.misbehave(Fault::Status(500), u32::MAX);
    faulty.origin.release();
    names_the_error(&faulty, &content.id);
}

#[test]
fn another_etag_in_the_middle_starts_a_new_content_and_mixes_nothing() {
    let faulty = Faulty::new();
    faulty.origin.hold_at(LENGTH / 2);
    let content = faulty.add();
    until("half of it", PATIENCE, || (faulty.relay.status(&content.id).have_bytes > 1_000_000).then_some(()));
    faulty.origin.change();
    let answer = std::thread::scope(|scope| {
        let reader = scope.spawn(|| faulty.read(&content, BYTES));
        faulty.origin.release();
        reader.join().expect("a reader")
    });
    if let Some(answer) = answer {
        assert!(
            answer.status >= 500 || answer.end == End::Cut,
            "the old version cannot be whole: {}",
            answer.status
        );
    }
    names_the_error(&faulty, &content.id);
    let next = until("the new version", PATIENCE, || {
        let index: millrace_proto::admin::Index =
            serde_json::from_slice(&faulty.relay.get("/index.json").body).ok()?;
        index.contents.into_iter().find(|other| other.supersedes.as_ref() == Some(&content.id))
    });
    faulty.relay.wait_for(&next.id, ContentState::Complete, PATIENCE);
    let answer = faulty.read(&next, Origin::changed(BYTES, 1)).expect("an answer");
    assert_eq!((answer.status, answer.end), (200, End::Clean));
}

/// `status` says what is wrong, in the answer and on the command line.
#[track_caller]
fn names_the_error(faulty: &Faulty, id: &str) {
    let error = until("an error in status", Duration::from_secs(30), || faulty.relay.status(id).error);
    assert!(!error.is_empty() && !error.contains('\n'), "`{error}`");
    let shown = faulty.relay.command(&["status", id]);
    assert!(shown.status.success() && !shown.stdout.is_empty(), "{}", shown.stderr);
}
