//! Where results go: to the terminal, and to the files that were asked for.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::cli::ReportArgs;

/// The name of standard output.
const STDOUT: &str = "-";

impl ReportArgs {
    /// Whether the files can be there in the end; to be asked before hours of measuring.
    ///
    /// # Errors
    /// The first flag whose file cannot be written.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (flag, path) in [("--json", &self.json), ("--html", &self.html), ("--svg", &self.svg)] {
            let Some(path) = path.as_deref().filter(|path| flag != "--json" || *path != Path::new(STDOUT))
            else {
                continue;
            };
            let folder = match path.parent() {
                Some(folder) if folder != Path::new("") => folder,
                _ => Path::new("."),
            };
            let target = if path.exists() { path } else { folder };
            let is_fit = if path.exists() { path.is_file() || is_device(path) } else { folder.is_dir() };
            if !is_fit || nix::unistd::access(target, nix::unistd::AccessFlags::W_OK).is_err() {
                bail!("{flag} {}: cannot be written", path.display());
            }
        }
        Ok(())
    }

    /// Writes `report` as JSON, and what the functions make of it as text, page and picture, each where it is wanted.
    ///
    /// # Errors
    /// Those of the files, and a picture of nothing.
    pub(crate) fn write(
        &self,
        report: &impl Serialize,
        text: impl FnOnce() -> String,
        page: impl FnOnce() -> String,
        picture: impl FnOnce() -> Option<String>,
    ) -> anyhow::Result<()> {
        let put = |path: &Path, text: String| {
            fs::write(path, text).with_context(|| format!("writing {}", path.display()))
        };
        if let Some(path) = &self.html {
            put(path, page())?;
        }
        if let Some(path) = &self.svg {
            put(path, picture().context("--svg: nothing was measured that could be drawn")?)?;
        }
        let mut json_to_stdout = None;
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(report)? + "\n";
            if path == Path::new(STDOUT) {
                json_to_stdout = Some(json);
            } else {
                put(path, json)?;
            }
        }
        let text = json_to_stdout.unwrap_or_else(text);
        std::io::stdout().write_all(text.as_bytes()).context("standard output")
    }
}

/// Such as `/dev/null`.
fn is_device(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| !metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::scratch::Scratch;

    #[test]
    fn files_that_cannot_be_written_are_told_before_anything_is_measured() {
        let folder = Scratch::create(None).unwrap();
        let check = |path: &Path| ReportArgs { html: Some(path.to_owned()), ..ReportArgs::default() }.check();
        assert!(check(&folder.path().join("new.html")).is_ok());
        assert!(check(Path::new("/dev/null")).is_ok());
        for path in [folder.path().to_owned(), folder.path().join("absent/new.html")] {
            let error = check(&path).unwrap_err().to_string();
            assert!(error.starts_with("--html "), "{error}");
        }
        let stdout = ReportArgs { json: Some(STDOUT.into()), ..ReportArgs::default() };
        assert!(stdout.check().is_ok());
    }
}
