//! The README is true: its configuration is accepted, and its commands and flags exist.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    std::fs::read_to_string(path).expect("the README lies at the top")
}

/// The indented lines of the README, without their indent and their comments.
fn examples(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter_map(|line| line.strip_prefix("    "));
    code.map(|line| line.split_once(" #").map_or(line, |(code, _)| code).trim_end())
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace-relay"));
    command.args(arguments);
    command
}

fn help(command: &str) -> String {
    let output = program(&[command, "--help"]).output().unwrap();
    assert!(output.status.success(), "millrace-relay has no command {command}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn its_configuration_is_accepted() {
    let text = readme();
    let (_, rest) = text.split_once("<!-- config -->").unwrap();
    let (block, _) = rest.split_once("<!-- /config -->").unwrap();
    let config: String = block.lines().map(|line| line.trim_start().to_owned() + "\n").collect();
    let path = std::env::temp_dir().join(format!("millrace-readme-{}.toml", std::process::id()));
    std::fs::write(&path, config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_millrace-relay"))
        .args(["serve", "--check-config", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn its_commands_and_flags_exist() {
    let text = readme();
    let mut seen = 0;
    for line in examples(&text) {
        let Some(arguments) = line.strip_prefix("millrace-relay ") else { continue };
        let mut words = arguments.split_whitespace();
        let commands = words.next().unwrap();
        for command in commands.split('|') {
            let help = help(command);
            for flag in words.clone().filter(|word| word.starts_with("--")) {
                assert!(help.contains(flag), "{command} has no {flag}");
            }
            if let Some(setting) = words.clone().find(|word| word.contains('=')) {
                let output = program(&[command, "set", setting, "--admin", "/nowhere"]).output().unwrap();
                assert_eq!(output.status.code(), Some(1), "{command} does not understand {setting}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 12, "only {seen} commands were found in the README");
}

#[test]
fn its_two_commands_come_first() {
    let text = readme();
    let mut lines = examples(&text).filter(|line| !line.is_empty());
    assert_eq!(lines.next(), Some("cargo run --release -- demo"));
    assert_eq!(lines.next(), Some("cargo test --workspace"));
}
