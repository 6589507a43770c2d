//! The two programs that tests start, and what they said.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The relay program: `MILLRACE_RELAY`, or the one of this profile and target folder, which cargo alone knows to be fresh.
pub(crate) fn relay() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("MILLRACE_RELAY") {
            return path.into();
        }
        let folder = Path::new(env!("CARGO_BIN_EXE_millrace-perf")).parent().unwrap();
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // As `cargo test --workspace` does, or dependencies would have other features and be built again.
        command.args(["build", "--quiet", "--workspace", "--tests"]);
        // What cargo tells a test about its package, build scripts take for theirs, and run again.
        let told = std::env::vars_os().map(|(name, _)| name);
        for name in told
            .filter(|name| name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR")
        {
            command.env_remove(name);
        }
        command.args(folder.ends_with("release").then_some("--release"));
        command.arg("--target-dir").arg(folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(command.status().unwrap().success(), "the relay does not build");
        folder.join("millrace-relay")
    })
}

pub(crate) fn perf(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace-perf"));
    command.args(arguments).stdin(Stdio::null());
    command
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
