//! Transmission, the daemon, asked by its own remote control. As it comes it prefers encryption, of which it then offers RC4 alone.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, run};
use crate::relay::{free_address, network_address};
use crate::until;

use super::{Job, Leecher, PROMPT};

/// Whether there is Transmission.
#[must_use]
pub fn is_installed() -> bool {
    let install = "apt install transmission-daemon transmission-cli";
    if network_address().is_none() {
        super::skip("Transmission refuses peers on loopback, and this machine has no other address");
        return false;
    }
    super::is_installed("transmission-daemon", &["--version"], install)
        && super::is_installed("transmission-remote", &["--version"], install)
}

/// Downloads into `folder`.
///
/// # Panics
/// If the daemon does not take the job.
#[must_use]
pub fn start(job: &Job, folder: &Path) -> Leecher {
    let home = folder.with_extension("transmission");
    std::fs::create_dir_all(&home).expect("a folder for its settings");
    let control = free_address();
    let settings = serde_json::json!({
        "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false,
        "port-forwarding-enabled": false, "peer-port": free_address().port(), "encryption": 1,
        "rpc-bind-address": "127.0.0.1", "rpc-port": control.port(), "rpc-authentication-required": false,
        "rpc-whitelist-enabled": false, "rpc-host-whitelist-enabled": false,
        "download-dir": folder, "incomplete-dir-enabled": false, "preallocation": 0,
        "ratio-limit-enabled": false, "message-level": 4,
    });
    std::fs::write(home.join("settings.json"), settings.to_string()).expect("its settings");
    let mut command = Command::new("transmission-daemon");
    command.args(["--foreground", "--log-info", "--config-dir"]).arg(&home).env("HOME", &home);
    let mut process = Process::spawn(&mut command, home.join("log"));
    let remote = move |arguments: &[&str]| {
        let mut command = Command::new("transmission-remote");
        run(command.arg(format!("127.0.0.1:{}", control.port())).args(arguments), Duration::from_secs(20))
    };
    let source = job.as_argument();
    until("transmission-daemon to take the job", PROMPT, || {
        assert!(process.ended().is_none(), "transmission-daemon ended: {}", process.output());
        let answer = remote(&["--add", &source]);
        let text = answer.text() + &answer.stderr;
        assert!(!text.contains("corrupt"), "{source}: {text}");
        text.contains("success").then_some(())
    });
    let done = move || remote(&["--torrent", "all", "--info"]).text().contains("Percent Done: 100%");
    Leecher { name: "Transmission", process, done: Some(Box::new(done)), folder: folder.to_owned() }
}
