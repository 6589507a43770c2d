//! New programs that do not come up: whatever they do, the running one goes on with everything.

use std::thread::JoinHandle;

use millrace_interop::origin::{Origin, Resource};
use millrace_interop::{PATIENCE, until};
use millrace_proto::admin::{ContentState, ContentStatus};

use crate::replaceable::{Replaceable, copy};
use crate::{BYTES, HELD, LENGTH, parked, path_of};

/// A program that says hello, takes everything, and then does this.
fn takes_everything(then: &str) -> String {
    format!(
        r#"exec python3 -c '
import socket
line = socket.socket(fileno=0)
line.recv(65536)
line.send(b"""{{"say": "hello", "protocol": 1, "version": "2"}}""")
while b"all" not in line.recv(262144): pass
{then}
'"#
    )
}

/// A program that hands over in another way than the running one knows.
const OTHER_PROTOCOL: &str = r#"exec python3 -c '
import socket
line = socket.socket(fileno=0)
line.recv(65536)
line.send(b"""{"say": "hello", "protocol": 1000, "version": "9.8"}""")
line.recv(65536)
'"#;

/// A relay in the middle of a pull, with readers who wait for it.
struct Scene {
    relay: Replaceable,
    origin: Origin,
    content: ContentStatus,
    readers: Vec<JoinHandle<()>>,
}

impl Scene {
    /// There is room for one of the two files of its origin.
    fn start(configuration: &str) -> Self {
        let resource = |name: &str| Resource { path: format!("/{name}"), length: LENGTH, pattern: BYTES };
        let origin = Origin::start(vec![resource("file"), resource("later")], None);
        let relay = Replaceable::start(&format!("capacity = {}\n{configuration}", LENGTH + LENGTH / 2));
        origin.hold_at(HELD);
        let content = relay.add(&origin.url("/file"));
        until("the origin to be held", PATIENCE, || (origin.sent() == HELD).then_some(()));
        let readers = parked(&relay, &path_of(&content));
        Scene { relay, origin, content, readers }
    }

    #[track_caller]
    fn refused(&self, words: &str) {
        let said = self.relay.upgrade().expect_err("there is no program that could take over");
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
        assert_eq!(self.relay.status(&self.content.id).state, ContentState::Pulling);
    }

    /// The pull, its readers, and eviction.
    fn goes_on(mut self) -> Replaceable {
        assert!(self.relay.first.ended().is_none());
        self.origin.release();
        self.readers.into_iter().for_each(|reader| reader.join().unwrap());
        self.relay.complete(&self.content.id);
        assert!(self.origin.sent() <= LENGTH + HELD, "{} bytes for {LENGTH}", self.origin.sent());
        // There is no room for it beside the other.
        let later = self.relay.add(&self.origin.url("/later"));
        self.relay.complete(&later.id);
        self.relay
    }
}

#[test]
fn a_new_program_that_hangs_is_not_waited_for() {
    let scene = Scene::start("[limits]\nupgrade-timeout = 1");
    scene.relay.replace("exec sleep 600");
    scene.refused("not ready within 1 s");
    scene.relay.replace(&takes_everything("line.recv(1)"));
    scene.refused("not ready within 1 s");
    scene.goes_on();
}

#[test]
fn a_new_program_that_does_not_come_up_changes_nothing() {
    let scene = Scene::start("");
    scene.relay.replace("exit 3");
    scene.refused("exit status: 3");
    scene.relay.replace(OTHER_PROTOCOL);
    scene.refused("(version 9.8) takes over in another way: restart the relay instead");
    let fails = r#"line.send(b"""{"say": "failed", "why": "the moon is not full"}""")"#;
    scene.relay.replace(&takes_everything(fails));
    scene.refused("the moon is not full");
    std::fs::remove_file(scene.relay.scratch.join("millrace-relay")).unwrap();
    scene.refused("does not start");
    copy(&scene.relay.scratch);
    let file = scene.relay.scratch.join("relay.toml");
    let configuration = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("nonsense = 1\n{configuration}")).unwrap();
    scene.refused("relay.toml:1");
    // Later than that: when it has everything but the pulls.
    let certificates = scene.relay.scratch.file("no.pem", b"-----BEGIN CERTIFICATE-----\nno\n");
    std::fs::write(&file, format!("origin-ca = {certificates:?}\n{configuration}")).unwrap();
    scene.refused("no.pem");
    std::fs::write(&file, configuration).unwrap();
    // It can be upgraded after all.
    scene.goes_on().upgrade().unwrap();
}
