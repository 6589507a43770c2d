//! Signed URLs by the commands that operators have: keys are made, URLs signed, a key is changed while the relay runs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

#[path = "support/supervised.rs"]
mod supervised;

use std::net::SocketAddr;
use std::process::Command;

use nix::sys::signal::Signal;
use supervised::{Folder, Supervised, get};

/// Runs a command to its end: exit status, and what it said.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_millrace-relay")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn done(arguments: &[&str]) -> String {
    let (status, said, error) = run(arguments);
    assert_eq!((status, error.as_str()), (Some(0), ""), "{arguments:?}");
    said
}

/// What the relay says of a reload.
fn reload(relay: &Supervised) -> String {
    relay.signal(Signal::SIGHUP);
    relay.notification("READY=1\n").pop().unwrap()
}

/// Where it serves HTTP.
fn http(relay: &mut Supervised) -> SocketAddr {
    let mut address = None;
    relay.until("it says where it serves", |relay| {
        let log = relay.log();
        let said = log.split(" http=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        address = said;
        address.is_some()
    });
    address.unwrap()
}

#[test]
fn a_key_is_changed_step_by_step() {
    let folder = Folder::new("keys");
    let (keys, admin) = (folder.path("url-keys"), folder.path("admin.sock"));
    let [old, new] = ["2026-11", "2026-12"].map(|id| done(&["keys", "generate", "--id", id]));
    assert!(old.starts_with("2026-11 ") && old.len() == 8 + 43 && old[8..] != new[8..]);
    std::fs::write(&keys, format!("{old}\n")).unwrap();
    folder.configure(&format!("http = \"127.0.0.1:0\"\n[access]\nkeys = \"{keys}\""));
    let mut relay = Supervised::start(&folder, &[], &[]);
    let address = http(&mut relay);

    std::fs::write(folder.path("build.iso"), "the build").unwrap();
    let added = done(&["add", &folder.path("build.iso"), "--private", "--admin", &admin, "--json"]);
    let added: serde_json::Value = serde_json::from_str(&added).unwrap();
    let id = added["id"].as_str().unwrap();
    assert_eq!(done(&["access", id, "--admin", &admin]), "signed");
    let file = format!("/c/{id}/build.iso");
    let sign = |more: &[&str]| {
        let url = format!("http://relay.example{file}");
        let signed = done(&[&["sign", &url, "--key-file", &keys], more].concat());
        signed.strip_prefix("http://relay.example").unwrap().to_owned()
    };
    let by_old = sign(&["--expires", "1h"]);
    assert!(get(address, &file).starts_with("HTTP/1.1 404"));
    assert!(get(address, &by_old).ends_with("the build"));
    assert!(get(address, &sign(&["--network", "127.0.0.0/8"])).ends_with("the build"));
    assert!(get(address, &sign(&["--network", "10.0.0.0/8"])).contains("another network"));

    // Both hold, and the newer one signs.
    std::fs::write(&keys, format!("{old}\n{new}\n")).unwrap();
    assert!(reload(&relay).contains("Serving 1 content"));
    let by_new = sign(&[]);
    assert!(by_new.contains("key=2026-12"), "{by_new}");
    relay.until("the new key holds", |_| get(address, &by_new).ends_with("the build"));
    assert!(get(address, &by_old).ends_with("the build"));

    // A file with a mistake changes nothing.
    std::fs::write(&keys, format!("{new}\nshort AAAA\n")).unwrap();
    let refused = reload(&relay);
    assert!(refused.contains("Reload refused") && refused.contains("line 2") && !refused.contains("AAAA"));
    assert!(get(address, &by_old).ends_with("the build"));

    std::fs::write(&keys, format!("{new}\n")).unwrap();
    reload(&relay);
    relay.until("the old key does not", |_| get(address, &by_old).contains("does not hold here"));
    assert!(get(address, &by_new).ends_with("the build"));

    assert_eq!(done(&["access", id, "public", "--admin", &admin]), "public");
    relay.until("it is for everybody", |_| get(address, &file).ends_with("the build"));
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_status(), Some(0));
}

#[test]
fn mistakes_are_told_in_a_line() {
    let folder = Folder::new("mistakes");
    let (keys, none) = (folder.path("url-keys"), folder.path("none"));
    std::fs::write(&keys, done(&["keys", "generate"])).unwrap();
    std::fs::write(&none, "# no key\n").unwrap();
    let configured = |lines: &str| {
        folder.configure(lines);
        folder.path("relay.toml")
    };
    let serve = |lines: &str| {
        let config = configured(lines);
        run(&["serve", "--config", &config, "--check-config"])
    };
    let (status, shown, _) =
        serve(&format!("[access]\nkeys = \"{keys}\"\nrules = [\"deny 10.0.0.7\", \"allow all\"]"));
    assert_eq!(status, Some(0));
    assert!(shown.contains("rules = [\"deny 10.0.0.7/32\", \"allow all\"]"), "{shown}");
    for (lines, said) in [
        ("[access]\nkeys = \"/nowhere/url-keys\"".to_owned(), "access.keys: /nowhere/url-keys"),
        (format!("[access]\nkeys = \"{}\"", folder.path("relay.toml")), "line 1"),
        ("[access]\nrules = [\"deny everybody\"]".to_owned(), "relay.toml:5: access.rules"),
        ("[access]\ndefault = \"private\"".to_owned(), "relay.toml:5: access.default"),
    ] {
        let (status, _, error) = serve(&lines);
        assert!(status == Some(2) && error.contains(said) && error.lines().count() == 1, "{lines}: {error}");
    }
    let url = "http://relay/c/x/f";
    for (arguments, status, said) in [
        (vec!["sign", url, "--key-file", &none], 1, "has no key"),
        (vec!["sign", url, "--key-file", "/nowhere"], 1, "--key-file: /nowhere"),
        (vec!["sign", url, "--key-file", &keys, "--key", "other"], 1, "no key `other`"),
        (vec!["sign", url, "--key-file", &keys, "--expires", "1y"], 2, "--expires"),
        (vec!["sign", url, "--key-file", &keys, "--network", "x"], 2, "--network"),
        (vec!["sign", "relay/c/x/f", "--key-file", &keys], 2, "URL"),
        (vec!["sign", "http://relay/c/x?signature=a", "--key-file", &keys], 2, "URL"),
        (vec!["keys", "generate", "--id", "a b"], 2, "--id"),
        (vec!["add", "x", "--access", "signd"], 2, "--access"),
    ] {
        let (ended, _, error) = run(&arguments);
        assert!(ended == Some(status) && error.contains(said), "{arguments:?}: {ended:?} {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
