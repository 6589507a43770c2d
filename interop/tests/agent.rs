//! The agent between a relay and a controller, all of them real but the controller: whatever becomes of one of the three, the relay comes
//! to what was signed last, and what the operator did stays.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use millrace_interop::agent::{self, Agent};
use millrace_interop::controller::{Controller, Manners, TOKEN};
use millrace_interop::origin::Origin;
use millrace_interop::pattern::Pattern;
use millrace_interop::relay::Relay;
use millrace_interop::scratch::Scratch;
use millrace_interop::{PATIENCE, until};
use millrace_proto::admin::ContentState;
use serde_json::{Value, json};

const LENGTH: u64 = 300_007;
const BYTES: Pattern = Pattern(41);
const ONE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaae";
const TWO: &str = "aaaaaaaaaaaaaaaaaaaaaaaaai";

struct World {
    agent: Agent,
    controller: Controller,
    relay: Relay,
    origin: Origin,
    scratch: Scratch,
}

impl World {
    fn new() -> Self {
        let scratch = Scratch::new();
        let origin = Origin::of_file("big.bin", LENGTH, BYTES, None);
        let relay = Relay::start(&scratch, &[]);
        let controller = Controller::start();
        let agent = Agent::start(&scratch, &controller, &relay.admin, "");
        World { agent, controller, relay, origin, scratch }
    }

    /// A content of the origin.
    fn content(&self, id: &str) -> Value {
        // Another request each, or the relay would take one for the other.
        json!({"id": id, "sources": [self.origin.url("/big.bin")], "name": format!("{id}.bin")})
    }

    fn has(&self, id: &str) -> bool {
        self.relay.get(&format!("/c/{id}.json")).status == 200
    }

    #[track_caller]
    fn until_it_has(&self, id: &str) {
        until(&format!("the relay to have {id}"), PATIENCE, || self.has(id).then_some(()));
    }

    /// Waits for a connection more than `before`.
    #[track_caller]
    fn until_it_connects(&self, before: usize) {
        until("the agent to connect", PATIENCE, || (self.controller.connections() > before).then_some(()));
    }

    /// The cap on everything that is sent.
    fn egress(&self) -> Value {
        let shown = self.relay.command(&["caps", "show", "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        shown["egress"]["total"].clone()
    }
}

#[test]
fn a_relay_becomes_what_is_signed_and_the_operators_own_stays() {
    let world = World::new();
    let file = world.scratch.file("theirs.bin", b"the operator's");
    let theirs = world.relay.add(&[file.to_str().expect("a path"), "--pin"]);
    let mut one = world.content(ONE);
    one["pin"] = json!(true);
    world.controller.want(5, json!({"contents": [one], "caps": {"egress": {"total": 700_000_000}}}));
    let hello = world.controller.hear("hello", |message| message["type"] == "hello");
    assert!(hello["sequence"].is_null() && hello["protocol"] == 1 && hello["relay"] == "relay-1", "{hello}");
    // Reports come by themselves when something has changed: the pull is over, and its origin was reached.
    let message = world.controller.hear("the end of the pull", |message| {
        let contents = message["report"]["contents"].as_array();
        contents.is_some_and(|contents| {
            contents.iter().any(|content| content["id"] == ONE && content["state"] == "complete")
        })
    });
    let report = &message["report"];
    assert!(report["machine"]["cores"].as_u64() >= Some(1), "{report}");
    let origins = &report["origins"];
    assert!(origins[0]["connect_ms"].is_u64() && origins[0]["error"].is_null(), "{origins}");
    world.controller.hear_converged(5);
    let status = world.relay.wait_for(ONE, ContentState::Complete, PATIENCE);
    assert!(status.pinned);
    let egress = world.egress();
    assert_eq!((&egress["value"], &egress["layer"]), (&json!(700_000_000), &json!("controller")), "{egress}");
    // Nothing is desired any more: what the agent did is undone, what the operator did is not.
    world.controller.want(6, json!({}));
    world.controller.hear_converged(6);
    assert!(!world.has(ONE) && world.has(&theirs.id));
    assert!(world.relay.status(&theirs.id).pinned);
    assert!(world.egress()["value"].is_null());
}

#[test]
fn what_does_not_count_is_refused_and_changes_nothing() {
    let world = World::new();
    let controller = &world.controller;
    let good = controller.document(7, json!({"contents": [world.content(ONE)]}));
    controller.want(7, json!({"contents": [world.content(ONE)]}));
    controller.hear_converged(7);
    let check = |document: &str, expected: &str| {
        controller.say_document(document);
        assert_eq!(controller.hear_refused(), expected);
    };
    check(&controller.document(6, json!({})), "older");
    check(&controller.document(7, json!({})), "changed");
    check(&controller.document(8, json!({"relay": "relay-2"})), "other_relay");
    check(&controller.document(8, json!({"expires_at": 1})), "expired");
    check(&controller.document(8, json!({"speed": 1})), "unusable");
    check(&Controller::start_as(2, false).document(8, json!({})), "unknown_key");
    let (signed, _) = good.rsplit_once('.').expect("a document");
    let (_, signature) = controller
        .document(8, json!({}))
        .rsplit_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .expect("one");
    check(&format!("{signed}.{signature}"), "bad_signature");
    // {"alg":"none"} and nothing behind it.
    check("eyJhbGciOiJub25lIn0.e30.", "unsigned");
    check("garbage", "malformed");
    for garbage in ["", "{", "[]", r#"{"type":"unknown"}"#, r#"{"type":"state"}"#] {
        controller.say(garbage);
        assert_eq!(controller.hear_refused(), "malformed");
    }
    controller.say_bytes(&[0xff; 100]);
    assert_eq!(controller.hear_refused(), "malformed");
    let report = controller.hear_converged(7);
    assert_eq!(report["obstacles"], json!([]));
    assert!(world.has(ONE));
    // What the relay refuses is told, and nothing is pulled under caps that are not in force.
    let caps = json!({"egress": {"total": "40%"}});
    controller.want(8, json!({"contents": [world.content(ONE), world.content(TWO)], "caps": caps}));
    let message = controller.hear("what the relay refuses", |message| {
        message["report"]["obstacles"].to_string().contains("line_rate")
    });
    assert_eq!(message["report"]["converged"], false);
    assert!(world.has(ONE) && !world.has(TWO));
    // And it still listens, to another key once that is named by the one before.
    let other = Controller::start_as(2, false);
    let (old, new) = (controller.public_key(), other.public_key());
    controller.want(9, json!({"contents": [world.content(ONE)], "keys": [old, new]}));
    controller.hear_converged(9);
    controller.say_document(&other.document(10, json!({"contents": [world.content(ONE)], "keys": [new]})));
    controller.hear_converged(10);
    check(&controller.document(11, json!({})), "unknown_key");
    controller.say_document(&other.document(11, json!({})));
    controller.hear_converged(11);
    assert!(!world.has(ONE));
}

#[test]
fn relay_and_agent_may_be_restarted_in_any_order() {
    let mut world = World::new();
    world.controller.want(1, json!({"contents": [world.content(ONE)]}));
    world.controller.hear_converged(1);
    // The relay is away when the next state comes.
    world.relay.kill();
    world.controller.want(2, json!({"contents": [world.content(ONE), world.content(TWO)]}));
    let away = world.controller.hear("a report without a relay", |message| {
        message["report"]["sequence"] == 2 && message["report"]["relay"].is_null()
    });
    assert_eq!(away["report"]["converged"], false);
    world.relay.restart();
    world.controller.hear_converged(2);
    assert!(world.has(ONE) && world.has(TWO));
    // The agent is away, and the operator removes what it added.
    world.agent.kill();
    world.relay.order("remove", ONE);
    world.agent.restart();
    world.until_it_has(ONE);
    let hello = world
        .controller
        .hear("hello again", |message| message["type"] == "hello" && message["sequence"] == 2);
    assert_eq!(hello["keys"].as_array().map(Vec::len), Some(1));
    // Both are, and the relay has lost everything.
    world.agent.kill();
    world.relay.kill();
    fs::remove_dir_all(&world.relay.store).expect("its store");
    world.controller.want(3, json!({"contents": [world.content(TWO)]}));
    world.agent.restart();
    world.relay.restart();
    world.controller.hear_converged(3);
    assert!(world.has(TWO) && !world.has(ONE));
    // What it added before it was killed is still its own to remove.
    world.agent.kill();
    world.controller.want(4, json!({}));
    world.agent.restart();
    world.controller.hear_converged(4);
    assert!(!world.has(TWO));
}

#[test]
fn the_last_good_state_holds_while_there_is_no_controller() {
    let mut world = World::new();
    world.controller.want(3, json!({"contents": [world.content(ONE)]}));
    world.controller.hear_converged(3);
    world.relay.wait_for(ONE, ContentState::Complete, PATIENCE);
    world.controller.stop();
    world.relay.order("remove", ONE);
    world.until_it_has(ONE);
    world.agent.restart();
    world.relay.order("remove", ONE);
    world.until_it_has(ONE);
    let before = world.controller.connections();
    world.controller.restart();
    world.until_it_connects(before);
    // It refuses, answers garbage, or not at all; each time the agent comes back, and keeps the relay meanwhile.
    for manners in [Manners::Refusing(503), Manners::Garbage, Manners::Refusing(200), Manners::Mute] {
        let before = world.controller.connections();
        world.controller.behave(manners);
        world.controller.disconnect();
        world.relay.order("remove", ONE);
        world.until_it_has(ONE);
        world.controller.behave(Manners::Good);
        if manners == Manners::Mute {
            // The agent's patience for an answer is long; a controller that goes away ends it.
            world.controller.restart();
        }
        world.until_it_connects(before);
        world.controller.hear_converged(3);
    }
    // Another takes its place, whose documents nobody here has the key for.
    let stranger = Controller::start_as(2, false);
    world.controller.say_document(&stranger.document(9, json!({})));
    assert_eq!(world.controller.hear_refused(), "unknown_key");
    assert!(world.has(ONE));
    // Slow, in records of three bytes.
    world.controller.behave(Manners::Slow(3));
    world.controller.disconnect();
    world.controller.want(4, json!({}));
    world.controller.hear_converged(4);
    assert!(!world.has(ONE));
}

#[test]
fn an_origin_that_needs_a_grant_is_not_touched_without() {
    let scratch = Scratch::new();
    let length = 40_000_003;
    let (origin, free) =
        (Origin::of_file("big.bin", length, BYTES, None), Origin::of_file("big.bin", LENGTH, BYTES, None));
    let relay = Relay::start(&scratch, &[]);
    let controller = Controller::start();
    let mut agent = Agent::start(&scratch, &controller, &relay.admin, "");
    let contents = json!([
        {"id": ONE, "sources": [origin.url("/big.bin")], "name": "one.bin"},
        {"id": TWO, "sources": [free.url("/big.bin")], "name": "two.bin"},
    ]);
    let want = |sequence: u64, id: &str, bytes: u64| {
        let grants = json!([{"origin": origin.url(""), "id": id, "bytes": bytes}]);
        controller.want(sequence, json!({"contents": contents, "caps": {"origin": {"grants": grants}}}));
    };
    want(1, "none", 0);
    let message = controller.hear("what is lacking", |message| {
        message["report"]["obstacles"].to_string().contains("needs a grant")
    });
    assert_eq!(message["report"]["obstacles"][0]["content"], ONE, "{message}");
    // What needs none is pulled and served meanwhile.
    relay.wait_for(TWO, ContentState::Complete, PATIENCE);
    controller.hear("another report", |message| message["type"] == "report");
    assert_eq!(origin.connections(), 0);
    // Part of it, to the byte; not one more after a restart of either.
    want(2, "part", 10_000_000);
    controller.hear_converged(2);
    let used =
        |message: &Value, bytes: u64| message["report"]["relay"]["caps"]["origin_grants"][0]["used"] == bytes;
    controller.hear("the grant to be used up", |message| used(message, 10_000_000));
    agent.restart();
    controller.hear("the grant to be used up still", |message| used(message, 10_000_000));
    assert!(origin.sent() <= 10_000_000 + (64 << 10), "{}", origin.sent());
    assert!(relay.status(ONE).error.is_some_and(|error| error.contains("is used up")));
    want(3, "the rest", 40_000_000);
    relay.wait_for(ONE, ContentState::Complete, PATIENCE);
    controller.hear_converged(3);
}

#[test]
fn enrolment_makes_a_key_once_and_keeps_it() {
    let scratch = Scratch::new();
    let mut controller = Controller::start();
    let configuration =
        millrace_interop::controller::configuration(&controller, &scratch, &scratch.join("admin.sock"), "");
    let configuration = configuration.to_str().expect("a path");
    let check = |arguments: &[&str], status: i32, said: &str| {
        let finished = agent::command(&[arguments, &["--config", configuration]].concat());
        assert_eq!(finished.status.code(), Some(status), "{arguments:?}: {}", finished.stderr);
        let all = finished.text() + &finished.stderr;
        assert!(all.contains(said) && all.lines().count() == 1, "{all}");
    };
    let url = controller.url();
    check(&["run"], 1, "millrace-agent enroll");
    check(&["enroll", "http://localhost", TOKEN], 2, "https://");
    check(&["enroll", &url], 2, "<TOKEN>");
    check(&["enroll", &url, "wrong"], 1, "the token is not known");
    let key = scratch.join("agent/key.pk8");
    let mode = fs::metadata(&key).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let made = fs::read(&key).expect("a key");
    controller.stop();
    check(&["enroll", &url, TOKEN], 1, "does not answer");
    controller.restart();
    check(&["enroll", &url, TOKEN], 0, "enrolled as `relay-1`");
    assert_eq!(fs::read(&key).expect("a key"), made);
    check(&["enroll", &url, TOKEN], 1, "enrolled already");
    // Nobody else's certificate is taken.
    let other = Scratch::new();
    let stranger = Controller::start();
    let mixed = format!("state = {:?}\nca-file = {:?}\n", other.join("agent"), controller.ca_file(&other));
    let mixed = other.file("agent.toml", mixed.as_bytes());
    let finished =
        agent::command(&["enroll", &stranger.url(), TOKEN, "--config", mixed.to_str().expect("a path")]);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stderr.contains("certificate"), "{}", finished.stderr);
}

#[test]
fn the_way_out_may_lead_through_a_proxy_and_ask_for_a_certificate() {
    let scratch = Scratch::new();
    let proxy = millrace_interop::proxy::Proxy::start();
    let relay = Relay::start(&scratch, &[]);
    let controller = Controller::start_as(1, true);
    let (certificate, key) = controller.client_files(&scratch);
    let more =
        format!("client-certificate = {certificate:?}\nclient-key = {key:?}\nproxy = {:?}", proxy.url());
    let _agent = Agent::start(&scratch, &controller, &relay.admin, &more);
    controller.want(1, json!({}));
    controller.hear_converged(1);
    assert!(proxy.tunnels() >= 2, "enrolment goes through it as well");
    // Without the certificate there is no way in.
    let bare = Scratch::new();
    let configuration = millrace_interop::controller::configuration(&controller, &bare, &relay.admin, "");
    let refused = agent::command(&[
        "enroll",
        &controller.url(),
        TOKEN,
        "--config",
        configuration.to_str().expect("a path"),
    ]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
}

#[test]
fn it_ends_when_it_is_told_to() {
    let mut world = World::new();
    world.controller.want(1, json!({}));
    world.controller.hear_converged(1);
    // The shell's own: not every system has a program of that name.
    let kill = format!("kill {}", world.agent.process().id());
    let signal = std::process::Command::new("sh").args(["-c", &kill]).status();
    assert!(signal.expect("kill").success());
    world.agent.process().succeed(Duration::from_secs(30));
    assert!(world.agent.log().contains("connected"), "{}", world.agent.log());
}

#[test]
fn a_controller_is_told_what_it_does_wrong() {
    let scratch = Scratch::new();
    let controller = Controller::start();
    let configuration =
        millrace_interop::controller::configuration(&controller, &scratch, &scratch.join("admin.sock"), "");
    let configuration = configuration.to_str().expect("a path");
    let check = |token: &[&str]| {
        let url = controller.url();
        let finished =
            agent::command(&[&["check-controller", &url, "--config", configuration], token].concat());
        (finished.status.code(), finished.text())
    };
    let (status, said) = check(&[]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("not run") && said.ends_with("0 failed, 1 not run\n"), "{said}");
    controller.want(3, json!({}));
    let (status, said) = check(&["--token", TOKEN]);
    assert_eq!((status, said.contains("FAILED")), (Some(0), false), "{said}");
    assert!(said.lines().count() > 12 && said.ends_with("0 failed, 0 not run\n"), "{said}");
    // The same controller, which has a box already: the token is for another key.
    let (status, said) = check(&["--token", TOKEN]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("FAILED   enrolment with the token"), "{said}");
    // One that signs for somebody else.
    let liar = Controller::start_as(3, false);
    liar.want(3, json!({"relay": "another"}));
    let scratch = Scratch::new();
    let configuration =
        millrace_interop::controller::configuration(&liar, &scratch, &scratch.join("admin.sock"), "");
    let configuration = configuration.to_str().expect("a path");
    let finished =
        agent::command(&["check-controller", &liar.url(), "--config", configuration, "--token", TOKEN]);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.text().contains("for relay `another`"), "{}", finished.text());
}
