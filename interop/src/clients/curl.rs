//! curl.

use std::path::Path;
use std::process::Command;

use crate::PATIENCE;
use crate::process::run;

/// What curl got.
#[derive(Debug)]
pub struct Transfer {
    /// Its exit status; 0 is success, 18 a body that ended early, 56 a reset.
    pub exit: i32,
    /// Status code of the last answer.
    pub status: u16,
    /// The heads of all answers, one after the other.
    pub heads: String,
    /// The body.
    pub body: Vec<u8>,
    /// What it said on standard error with `--verbose`.
    pub said: String,
}

impl Transfer {
    /// A field of the last head, by its name in lower case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let field =
            |line: &'_ str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        let line = self.heads.lines().rfind(|line| field(line))?;
        line.split_once(':').map(|(_, value)| value.trim())
    }
}

/// Whether there is curl.
#[must_use]
pub fn is_installed() -> bool {
    super::is_installed("curl", &["--version"], "apt install curl")
}

/// Runs curl with these arguments; `scratch` holds the heads.
///
/// # Panics
/// If it takes too long.
#[must_use]
pub fn curl(scratch: &Path, arguments: &[&str]) -> Transfer {
    let thread = format!("{:?}", std::thread::current().id());
    let heads = scratch.join(format!("curl-heads-{}", thread.replace(|c: char| !c.is_ascii_digit(), "")));
    let mut command = Command::new("curl");
    command.args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--dump-header"]).arg(&heads);
    let finished = run(command.args(arguments), PATIENCE);
    let heads =
        std::fs::read(&heads).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let line = heads.lines().rfind(|line| line.starts_with("HTTP/"));
    let status = line.and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    Transfer {
        exit: finished.status.code().unwrap_or(-1),
        status: status.unwrap_or(0),
        heads,
        body: finished.stdout,
        said: finished.stderr,
    }
}
