//! Cleaning up after this program where it cannot do so itself, since it was killed: a shell of its own process group holds the other end of a
//! pipe, is told what there is to end and to remove, and does that when the pipe closes. See `guard.sh`.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What the shell does.
const SCRIPT: &str = include_str!("guard.sh");

/// Something that the guard knows of until this value goes.
#[derive(Debug)]
pub(crate) struct Guarded {
    /// What takes it back.
    last_words: Option<String>,
}

impl Guarded {
    /// A process group to be ended.
    pub(crate) fn group(leader: u32) -> Self {
        tell(&format!("group {leader}\n"));
        Guarded { last_words: Some(format!("ended {leader}\n")) }
    }

    /// A folder to be removed with all that is in it.
    pub(crate) fn folder(path: &Path) -> Self {
        // One that no line can hold stays, if it comes to that.
        let named = path.to_str().filter(|path| path.starts_with('/') && !path.contains('\n'));
        if let Some(path) = named {
            tell(&format!("folder {path}\n"));
        }
        Guarded { last_words: named.map(|path| format!("removed {path}\n")) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(words) = &self.last_words {
            tell(words);
        }
    }
}

/// Where there is no shell, nobody cleans up after a kill: no reason to measure nothing.
fn tell(line: &str) {
    static GUARD: OnceLock<Option<Mutex<Child>>> = OnceLock::new();
    let start = || {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "millrace-perf-guard"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C at the terminal is for us, and so is what ends our group.
        command.process_group(0).spawn().ok().map(Mutex::new)
    };
    if let Some(guard) = GUARD.get_or_init(start) {
        let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(input) = &mut guard.stdin {
            // A guard that somebody killed cannot be helped.
            let _ = input.write_all(line.as_bytes());
        }
    }
}
