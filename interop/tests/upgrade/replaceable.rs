//! A relay that can be replaced.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;

use millrace_interop::http;
use millrace_interop::process::{Process, run};
use millrace_interop::relay::{free_address, program};
use millrace_interop::scratch::Scratch;
use millrace_interop::{PATIENCE, until};
use millrace_proto::admin::{ContentState, ContentStatus, Upgraded};

/// A relay whose program lies in a folder of its own, so that it can be replaced there; all that came of it ends with this.
pub(crate) struct Replaceable {
    pub(crate) first: Process,
    pub(crate) scratch: Scratch,
    pub(crate) http: SocketAddr,
    pub(crate) metrics: SocketAddr,
    addresses: String,
    /// Processes that took over.
    followers: Mutex<Vec<u32>>,
}

impl Replaceable {
    pub(crate) fn start(configuration: &str) -> Self {
        let scratch = Scratch::new();
        copy(&scratch);
        let [http, bittorrent, metrics] = [free_address(), free_address(), free_address()];
        let addresses = format!(
            "store = {:?}\nadmin = {:?}\nhttp = \"{http}\"\nbt = \"{bittorrent}\"\nmetrics = \"{metrics}\"\n",
            scratch.join("store"),
            scratch.join("admin.sock"),
        );
        std::fs::write(scratch.join("relay.toml"), format!("{addresses}{configuration}\n")).unwrap();
        let mut command = Command::new(scratch.join("millrace-relay"));
        command.arg("serve").arg("--config").arg(scratch.join("relay.toml"));
        let mut first = Process::spawn(&mut command, scratch.join("log"));
        until("the relay to be ready", PATIENCE, || {
            assert!(first.ended().is_none(), "{}", first.output());
            http::get(http, "/readyz", &["Connection: close"]).ok().filter(|answer| answer.status == 200)
        });
        Replaceable { first, scratch, http, metrics, addresses, followers: Mutex::default() }
    }

    /// Writes another configuration, for the next program.
    pub(crate) fn configure(&self, configuration: &str) {
        let text = format!("{}{configuration}\n", self.addresses);
        std::fs::write(self.scratch.join("relay.toml"), text).unwrap();
    }

    /// Has the program replaced. The process that took over, or what the command says where it fails.
    pub(crate) fn upgrade(&self) -> Result<u32, String> {
        let mut command = Command::new(program());
        command.args(["upgrade", "--json", "--admin"]).arg(self.scratch.join("admin.sock"));
        let finished = run(&mut command, PATIENCE);
        if !finished.status.success() {
            assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
            return Err(finished.stderr);
        }
        let Upgraded { process, .. } = serde_json::from_slice(&finished.stdout).unwrap();
        self.followers.lock().unwrap().push(process);
        Ok(process)
    }

    /// Puts a script where the program is.
    pub(crate) fn replace(&self, script: &str) {
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >new && chmod 755 new && mv new millrace-relay";
        let mut shell = Command::new("sh");
        shell.args(["-c", write, "sh", script]).current_dir(self.scratch.path());
        let written = run(&mut shell, PATIENCE);
        assert!(written.status.success(), "{}", written.stderr);
    }

    pub(crate) fn add(&self, source: &str) -> ContentStatus {
        serde_json::from_slice(&self.order("add", source)).unwrap()
    }

    /// Has the running program do something with a content; what it says.
    pub(crate) fn order(&self, order: &str, content: &str) -> Vec<u8> {
        let mut command = Command::new(program());
        command.args([order, "--json", content, "--admin"]).arg(self.scratch.join("admin.sock"));
        let finished = run(&mut command, PATIENCE);
        assert!(finished.status.success(), "{}", finished.stderr);
        finished.stdout
    }

    pub(crate) fn status(&self, id: &str) -> ContentStatus {
        let answer = http::get(self.http, &format!("/c/{id}.json"), &["Connection: close"]).unwrap();
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
    }

    pub(crate) fn complete(&self, id: &str) {
        until("the pull to be complete", PATIENCE, || {
            let status = self.status(id);
            assert_ne!(status.state, ContentState::Failed, "{:?}", status.error);
            (status.state == ContentState::Complete).then_some(())
        });
    }

    /// Waits until a process that was replaced has ended.
    pub(crate) fn ended(&mut self, process: u32) {
        until("a replaced program to end", PATIENCE, || {
            let _ = self.first.ended();
            let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            // One whose parent waits no more for it is nobody's.
            (state.is_empty() || state.contains(") Z ")).then_some(())
        });
    }
}

impl Drop for Replaceable {
    fn drop(&mut self) {
        for process in self.followers.get_mut().unwrap().drain(..) {
            let _ = run(Command::new("kill").args(["-KILL", &process.to_string()]), PATIENCE);
        }
    }
}

/// Puts the program into a folder. Another process writes it: what this one has open to write when it starts a child, the child has as well,
/// and such a file cannot be executed.
pub(crate) fn copy(scratch: &Scratch) {
    let copied = run(Command::new("cp").arg(program()).arg(scratch.join("millrace-relay")), PATIENCE);
    assert!(copied.status.success(), "{}", copied.stderr);
}
