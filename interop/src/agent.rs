//! The agent program as an operator runs it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::controller::{Controller, TOKEN, configuration};
use crate::process::{Finished, Process, run};
use crate::relay;
use crate::scratch::Scratch;

/// How long any one command may take on a busy machine.
const PROMPT: Duration = Duration::from_secs(60);

/// An agent that is enrolled.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    configuration: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Enrols and starts an agent of `controller` for the relay behind `admin`.
    ///
    /// # Panics
    /// If it is not enrolled.
    #[must_use]
    #[track_caller]
    pub fn start(scratch: &Scratch, controller: &Controller, admin: &Path, more: &str) -> Self {
        let configuration = configuration(controller, scratch, admin, more);
        let mut agent = Agent { process: None, configuration, log: scratch.join("agent.log") };
        let enrolled = agent.command(&["enroll", &controller.url(), TOKEN]);
        assert!(enrolled.status.success(), "{}", enrolled.stderr);
        agent.restart();
        agent
    }

    /// Runs a command with this agent's configuration.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Finished {
        command(&[arguments, &["--config", self.configuration.to_str().expect("a path")]].concat())
    }

    /// SIGKILL, if it is running.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills it if it is running, and starts it.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = bare();
        command.args(["run", "--config"]).arg(&self.configuration);
        self.process = Some(Process::spawn(&mut command, self.log.clone()));
    }

    /// Its process, while it runs.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a running agent")
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Runs a command of the program.
#[must_use]
pub fn command(arguments: &[&str]) -> Finished {
    run(bare().args(arguments), PROMPT)
}

/// The program, without the proxy of whoever runs the tests, which is not the way to loopback.
fn bare() -> Command {
    let mut command = Command::new(program());
    for name in ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}

/// The agent program, which is built with the relay.
#[must_use]
pub fn program() -> PathBuf {
    relay::program().with_file_name("millrace-agent")
}
