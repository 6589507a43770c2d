//! The real program under a service manager: what it is told, the watchdog, and reloads.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

#[path = "support/supervised.rs"]
mod supervised;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use supervised::{Folder, PATIENCE, Supervised, ask};

/// The port that the relay says it serves HTTP on.
fn http(relay: &mut Supervised) -> u16 {
    let mut port = None;
    relay.until("it says where it serves", |relay| {
        let log = relay.log();
        port =
            log.split("http=127.0.0.1:").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        port.is_some()
    });
    port.unwrap()
}

fn reload(relay: &Supervised) -> String {
    relay.signal(Signal::SIGHUP);
    let said = relay.notification("RELOADING=1\nMONOTONIC_USEC=");
    assert!(!said.iter().any(|said| said.starts_with("READY")), "{said:?}");
    relay.notification("READY=1\n").pop().unwrap()
}

#[test]
fn a_reload_changes_what_can_change_names_the_rest_and_refuses_what_is_wrong() {
    let folder = Folder::new("reload");
    folder.configure("http = \"127.0.0.1:0\"\negress = 1000000");
    let mut relay = Supervised::start(&folder, &[], &[]);
    let port = http(&mut relay);
    let mut open = TcpStream::connect(("127.0.0.1", port)).unwrap();

    folder.configure("http = \"127.0.0.1:1\"\negress = 2000000");
    assert!(reload(&relay).contains("STATUS=Serving 0 contents"));
    assert!(relay.admin("/v1/caps").contains("2000000"));
    relay.until("the log says what was done", |relay| relay.log().contains("reloaded changed=egress"));
    let needs_a_restart = |relay: &mut Supervised| {
        relay.log().lines().any(|line| line.contains("needs a restart") && line.contains("keys=http"))
    };
    relay.until("the log names what was not", needs_a_restart);

    folder.configure("http = \"127.0.0.1:0\"\negress = 3000000\nspeed = 1");
    let refused = reload(&relay);
    assert!(
        refused.contains("Reload refused") && refused.contains("relay.toml:6") && refused.contains("`speed`")
    );
    assert!(relay.admin("/v1/caps").contains("2000000"), "what was in force stays");

    // Nobody was disconnected.
    open.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(ask(&mut open, "/healthz").starts_with("HTTP/1.1 200"));
    drop(open);
    relay.signal(Signal::SIGTERM);
    relay.notification("STOPPING=1\n");
    assert_eq!(relay.exit_status(), Some(0));
}

#[test]
fn a_cap_that_was_set_meanwhile_stays_where_the_file_did_not_change_it() {
    let folder = Folder::new("caps");
    folder.configure("http = \"127.0.0.1:0\"\negress = 1000000");
    let relay = Supervised::start(&folder, &[], &[]);
    let mut admin = std::os::unix::net::UnixStream::connect(folder.path("admin.sock")).unwrap();
    let document = r#"{"egress":{"total":7000000}}"#;
    let head = format!(
        "PUT /v1/caps HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        document.len()
    );
    admin.write_all(format!("{head}{document}").as_bytes()).unwrap();
    let mut answer = String::new();
    admin.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    folder.configure("http = \"127.0.0.1:0\"\negress = 1000000\nlog-level = \"warn\"");
    reload(&relay);
    assert!(relay.admin("/v1/caps").contains("7000000"));
}

#[test]
fn limits_origins_and_log_levels_change_in_place() {
    let folder = Folder::new("limits");
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    folder.configure("http = \"127.0.0.1:0\"");
    let mut relay = Supervised::start(&folder, &[], &[]);
    let port = http(&mut relay);
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    assert!(ask(connect(), "/pull/late/file").starts_with("HTTP/1.1 404"));

    let address = origin.local_addr().unwrap();
    folder.configure(&format!(
        "http = \"127.0.0.1:0\"\nlog-level = \"error\"\n[limits]\nconnections-per-address = 1\n[origins.late]\nurl = \"http://{address}/\""
    ));
    reload(&relay);
    // One that the shard has not yet closed would count.
    let none = "millrace_connections{protocol=\"http\",state=\"open\"} 0";
    relay.until("nobody is connected", |relay| relay.admin("/metrics").contains(none));
    // The origin is asked, whatever comes of it.
    let mut asking = connect();
    asking.write_all(b"GET /pull/late/file HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (_asked, _) = origin.accept().unwrap();
    // The shard took the news before that request, so this is one connection too many.
    let mut refused = connect();
    let _ = refused.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0, "closed or reset, and not answered");

    folder.configure("http = \"127.0.0.1:0\"\nlog-level = \"info\"");
    assert!(!relay.log().contains("reloaded"), "at that level nothing is said of a reload that went well");
    reload(&relay);
    relay.until("it logs again", |relay| relay.log().contains("reloaded changed="));
}

#[test]
fn a_machine_without_certificates_is_administrated_like_any_other() {
    let folder = Folder::new("certificates");
    folder.configure("http = \"127.0.0.1:0\"");
    let none = [("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")];
    let relay = Supervised::start(&folder, &none, &[]);
    assert!(relay.admin("/v1/status").starts_with("HTTP/1.1 200"));
    let mut status = Command::new(env!("CARGO_BIN_EXE_millrace-relay"));
    let status = status.args(["status", "--admin", &folder.path("admin.sock")]).envs(none).output().unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
}

/// A thread that is traced, and let go however the test ends: its process would never end otherwise.
struct Held(Pid);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

#[test]
fn the_watchdog_is_fed_while_every_shard_turns() {
    let folder = Folder::new("watchdog");
    folder.configure("http = \"127.0.0.1:0\"");
    let relay = Supervised::start(&folder, &[("WATCHDOG_USEC", "6000000")], &[]);
    relay.notification("WATCHDOG=1");
    let threads = std::fs::read_dir(format!("/proc/{}/task", relay.child.id())).unwrap();
    let is_shard = |thread: &PathBuf| std::fs::read_to_string(thread.join("comm")).unwrap() == "shard-0\n";
    let shard = threads.map(|thread| thread.unwrap().path()).find(is_shard).unwrap();
    let shard = Pid::from_raw(shard.file_name().unwrap().to_str().unwrap().parse().unwrap());
    // One thread alone is stopped by who traces it.
    if let Err(error) = ptrace::seize(shard, ptrace::Options::empty()) {
        let _ =
            writeln!(std::io::stderr(), "skipped: a stuck shard (a thread cannot be traced here: {error})");
        assert!(std::env::var_os("MILLRACE_REQUIRE_CLIENTS").is_none(), "and it was to be tested");
        return;
    }
    let held = Held(shard);
    ptrace::interrupt(shard).unwrap();
    waitpid(shard, Some(WaitPidFlag::__WALL)).unwrap();
    relay.notification("STATUS=Stuck: shard 0");
    // It is said at every look, and that is all that is said.
    for _ in 0..2 {
        assert_eq!(relay.notification("STATUS=Stuck: shard 0").len(), 1);
    }
    drop(held);
    relay.notification("WATCHDOG=1");
    relay.notification("STATUS=Serving");
}
