//! libtorrent, by its Python binding and `scripts/leech.py`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Process;

use super::{Job, Leecher};

/// Whether there is libtorrent.
#[must_use]
pub fn is_installed() -> bool {
    super::is_installed(&python(), &["-c", "import libtorrent"], "pip install libtorrent")
}

/// Downloads into `folder`; `more` are options of `scripts/leech.py`.
#[must_use]
pub fn start(job: &Job, folder: &Path, more: &[&str]) -> Leecher {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/leech.py");
    let mut command = Command::new(python());
    command.arg(script).arg("--into").arg(folder).args(more).arg(job.as_argument());
    let log: PathBuf = folder.join("leech.log");
    let process = Process::spawn(&mut command, log);
    Leecher { name: "libtorrent", process, done: None, folder: folder.to_owned() }
}

/// The interpreter that has the binding: `MILLRACE_PYTHON`, or `python3`.
fn python() -> String {
    std::env::var("MILLRACE_PYTHON").unwrap_or_else(|_| "python3".into())
}
