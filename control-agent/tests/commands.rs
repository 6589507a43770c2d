//! The commands and flags that the documents name exist, and answer as documented.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace-agent")).args(arguments).output().unwrap()
}

#[test]
fn what_the_documents_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut seen = 0;
    for document in ["README.md", "docs/operators/agent.md", "docs/control-protocol.md", "systemd/agent.toml"]
    {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for named in text.split("millrace-agent ").skip(1) {
            let line = named.split(['`', '\n', '#']).next().unwrap();
            let command = line.split_whitespace().next().unwrap_or_default();
            if !["run", "enroll", "check-controller"].contains(&command) {
                continue;
            }
            let help = String::from_utf8(run(&[command, "--help"]).stdout).unwrap();
            for flag in line.split_whitespace().filter(|word| word.starts_with("--")) {
                assert!(help.contains(flag), "{document}: {command} has no {flag}");
            }
            seen += 1;
        }
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn exit_statuses_tell_wrong_usage_from_failure() {
    for (arguments, status) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&[], 2),
        (&["frobnicate"], 2),
        (&["run", "--config", "/nonexistent/agent.toml"], 2),
        (&["check-controller", "http://controller.example"], 2),
    ] {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), usize::from(status != 0), "{said}");
    }
}
