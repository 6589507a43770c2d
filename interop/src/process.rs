//! A child process that cannot outlive its test: its output goes to a file, its end is waited for with a bound, and it is
//! killed when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::until;

/// Bytes of a log that a failure shows.
const TAIL_BYTES: usize = 6000;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both outputs in `log`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(command: &mut Command, log: PathBuf) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = File::options().create(true).append(true).open(&log).expect("a log file");
        let second = output.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(output).stderr(second);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Process { name, child, log }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether and how it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it is still running after `within`.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        until(&what, within, || self.ended())
    }

    /// Waits for a successful end.
    ///
    /// # Panics
    /// If it runs on or ends otherwise; its output is shown.
    #[track_caller]
    pub fn succeed(&mut self, within: Duration) {
        let status = self.wait(within);
        assert!(status.success(), "{}: {status}\n{}", self.name, self.output());
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// What it wrote, or the end of that.
    #[must_use]
    pub fn output(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} wrote:\n{}", self.name, self.output());
        }
    }
}

fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]).into_owned()
}

/// Runs `command` to its end, with a bound.
///
/// # Panics
/// If it cannot be started or runs longer than `within`.
#[must_use]
pub fn run(command: &mut Command, within: Duration) -> Finished {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    let out = drain(child.stdout.take());
    let err = drain(child.stderr.take());
    let deadline = std::time::Instant::now() + within;
    let status = loop {
        match child.try_wait().expect("a child of ours") {
            Some(status) => break status,
            None if std::time::Instant::now() > deadline => {
                child.kill().ok();
                child.wait().ok();
                panic!("{name} did not end within {within:?}");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| thread.join().expect("a reader");
    Finished { status, stdout: text(out), stderr: String::from_utf8_lossy(&text(err)).into_owned() }
}

/// Reads a pipe on a thread of its own, so that a child which fills it is not stuck.
fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).ok();
        }
        bytes
    })
}

/// A program that has ended, and all it wrote.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}
