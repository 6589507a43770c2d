//! What operators get wrong, and machines: one clear line on standard error, an exit status that says so, nothing lost.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use millrace_interop::PATIENCE;
use millrace_interop::clients::skip;
use millrace_interop::http;
use millrace_interop::origin::Origin;
use millrace_interop::pattern::Pattern;
use millrace_interop::process::{Finished, run};
use millrace_interop::relay::{Relay, free_address, program};
use millrace_interop::scratch::Scratch;
use millrace_interop::until;
use millrace_proto::admin::ContentState;

const PROMPT: Duration = Duration::from_secs(30);

fn relay(arguments: &[&str]) -> Finished {
    run(Command::new(program()).args(arguments).env_remove("MILLRACE_ADMIN"), PROMPT)
}

/// `serve` on free ports and a store in `scratch`, so that only what a test adds can be wrong.
fn serve(scratch: &Scratch, more: &[&str]) -> Finished {
    let store = scratch.join("store").display().to_string();
    let (http, bittorrent) = (free_address().to_string(), free_address().to_string());
    let base = ["serve", "--store", &store, "--http", &http, "--bt", &bittorrent, "--metrics", "off"];
    // What is given twice must not be: a flag of the test replaces the one above.
    let kept: Vec<&str> =
        base[1..].chunks(2).filter(|pair| !more.contains(&pair[0])).flatten().copied().collect();
    relay(&[&base[..1], &kept, more].concat())
}

/// Exit status `exit`, and one line that has each of `parts`.
#[track_caller]
fn check(finished: &Finished, exit: i32, parts: &[&str]) {
    assert_eq!(finished.status.code(), Some(exit), "{}", finished.stderr);
    let errors: Vec<&str> = finished.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = errors.last().copied().unwrap_or_default();
    for part in parts {
        assert!(
            last.to_lowercase().contains(&part.to_lowercase()),
            "`{last}` lacks `{part}`:\n{}",
            finished.stderr
        );
    }
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

/// As [`check`], with nothing beside that one line.
#[track_caller]
fn check_one_line(finished: &Finished, exit: i32, parts: &[&str]) {
    check(finished, exit, parts);
    assert_eq!(finished.stderr.trim_end().lines().count(), 1, "{}", finished.stderr);
}

#[test]
fn bad_arguments() {
    let scratch = Scratch::new();
    check_one_line(&serve(&scratch, &["--egress", "fast"]), 2, &["--egress", "fast"]);
    check_one_line(&serve(&scratch, &["--capacity", "lots"]), 2, &["--capacity", "lots"]);
    check_one_line(&serve(&scratch, &["--http", "8080"]), 2, &["--http", "8080"]);
    check_one_line(&serve(&scratch, &["--io", "magic"]), 2, &["--io", "magic"]);
    assert_eq!(relay(&["serve", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(relay(&["no-such-command"]).status.code(), Some(2));
    assert_eq!(relay(&["add"]).status.code(), Some(2));
}

#[test]
fn a_bad_configuration_names_file_line_and_key() {
    let scratch = Scratch::new();
    let file =
        scratch.file("relay.toml", b"# limits\negress = \"1Gbit/s\"\nspeeed = 3\n").display().to_string();
    check_one_line(&serve(&scratch, &["--config", &file]), 2, &["relay.toml:3", "speeed"]);
    let absent = scratch.join("absent.toml").display().to_string();
    check_one_line(&serve(&scratch, &["--config", &absent]), 2, &["absent.toml"]);
}

#[test]
fn an_occupied_port() {
    let scratch = Scratch::new();
    for flag in ["--http", "--bt"] {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("its address");
        let port = address.port().to_string();
        check(&serve(&scratch, &[flag, &address.to_string()]), 1, &[&port, "in use"]);
    }
}

#[test]
fn an_unreadable_store() {
    let scratch = Scratch::new();
    let file = scratch.file("not-a-folder", b"x").display().to_string();
    check(&serve(&scratch, &["--store", &file]), 1, &["not-a-folder"]);
    let locked = scratch.folder("locked");
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).expect("our folder");
    if std::fs::read_dir(&locked).is_ok() {
        // Root may read everything: then somebody else has to try.
        if let Some(finished) = serve_as_nobody(&scratch, &locked) {
            check(&finished, 1, &["locked"]);
        }
    } else {
        check(&serve(&scratch, &["--store", &locked.display().to_string()]), 1, &["locked"]);
    }
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o700)).expect("our folder");
}

/// `serve` as an ordinary user, where this machine can.
fn serve_as_nobody(scratch: &Scratch, store: &Path) -> Option<Finished> {
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).expect("our folder");
    let copy = scratch.join("millrace-relay");
    std::fs::copy(program(), &copy).expect("room for a copy");
    let (http, bittorrent) = (free_address().to_string(), free_address().to_string());
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .arg("serve")
        .arg("--store")
        .arg(store);
    command.args(["--metrics", "off", "--http", &http, "--bt", &bittorrent]);
    if Command::new("setpriv").arg("--version").output().is_err() {
        skip("setpriv is not installed (apt install util-linux)");
        return None;
    }
    Some(run(&mut command, PROMPT))
}

#[test]
fn no_relay_to_talk_to() {
    let scratch = Scratch::new();
    let socket = scratch.join("nobody.sock").display().to_string();
    for command in
        [&["status"][..], &["add", "http://127.0.0.1:1/f"], &["remove", "aaaaaaaaaaaaaaaaaaaaaaaaaa"]]
    {
        check_one_line(&relay(&[command, &["--admin", &socket]].concat()), 1, &["nobody.sock"]);
    }
}

#[test]
fn bad_requests_to_a_running_relay_change_nothing() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch, &[]);
    let torn = scratch.file("torn.torrent", b"d4:infod6:lengthi5e").display().to_string();
    check_one_line(&relay.command(&["add", &torn]), 1, &["torrent", "malformed"]);
    let garbage = scratch.file("garbage.torrent", &Pattern(9).bytes(0, 5000)).display().to_string();
    check_one_line(&relay.command(&["add", &garbage]), 1, &["torrent", "malformed"]);
    let absent = scratch.join("absent.iso").display().to_string();
    check_one_line(&relay.command(&["add", &absent]), 1, &["absent.iso"]);
    let nobody = format!("http://{}/file", free_address());
    check_one_line(&relay.command(&["add", &nobody]), 1, &[]);
    check_one_line(
        &relay.command(&["remove", "aaaaaaaaaaaaaaaaaaaaaaaaaa"]),
        1,
        &["aaaaaaaaaaaaaaaaaaaaaaaaaa"],
    );
    check_one_line(&relay.command(&["status", "not-an-id"]), 2, &["not-an-id"]);
    let index = relay.get("/index.json").text();
    assert!(index.contains("\"contents\":[]"), "{index}");
}

/// A small file system of its own, gone when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).expect("a folder");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "none"]).arg(path);
        let mounted = command.output().is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: a small disk cannot be mounted (needs root)");
            use std::io::Write as _;
            writeln!(std::io::stderr(), "skipped: a full disk (mounting one needs root)").ok();
        }
        mounted.then_some(SmallDisk(path))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.0).status().ok();
    }
}

#[test]
fn a_full_disk_fails_the_pull_and_loses_nothing() {
    let scratch = Scratch::new();
    let store = scratch.join("store");
    let Some(_disk) = SmallDisk::mount(&store, "24m") else { return };
    let origin = Origin::of_file("small", 8 << 20, Pattern(1), None);
    let big = Origin::of_file("big", 64 << 20, Pattern(2), None);
    let mut relay = Relay::start(&scratch, &[]);
    let small = relay.add(&[&origin.url("/small")]);
    relay.wait_for(&small.id, ContentState::Complete, PATIENCE);
    let refused = relay.command(&["add", "--json", &big.url("/big")]);
    if refused.status.success() {
        let content: millrace_proto::admin::ContentStatus =
            serde_json::from_slice(&refused.stdout).expect("JSON");
        let error = until("the full disk in status", PATIENCE, || relay.status(&content.id).error);
        let says = error.to_lowercase();
        assert!(says.contains("space") || says.contains("full") || says.contains("room"), "`{error}`");
    } else {
        check_one_line(&refused, 1, &[]);
    }
    for _ in 0..2 {
        let answer = http::get(relay.http, &relay.path_of(&small), &[]).expect("an answer");
        assert_eq!(
            (answer.status, answer.body.len(), Pattern(1).first_wrong(0, &answer.body)),
            (200, 8 << 20, None)
        );
        // And again after a restart on the full disk.
        relay.restart();
    }
    drop(relay);
}
