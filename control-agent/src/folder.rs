//! The folder of the agent's state: files that are replaced as a whole, on the disk before anybody relies on them, and nobody else's
//! to read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Files that nobody else may read.
const MODE: u32 = 0o600;

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be used: {why}")]
pub(crate) struct FolderError {
    path: String,
    why: String,
}

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Folder(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The bytes of a file; `None` where there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, FolderError> {
        match std::fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.wrong(name, error)),
        }
    }

    /// A file of JSON; `None` where there is none.
    pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<T>, FolderError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| self.wrong(name, error))
    }

    /// Replaces a file. When this returns, a power cut leaves the new one; before, the old one.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        self.replace(name, bytes).map_err(|error| self.wrong(name, error))
    }

    /// As [`Folder::write`], of JSON.
    pub(crate) fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<(), FolderError> {
        let bytes = serde_json::to_vec(value).map_err(|error| self.wrong(name, error))?;
        self.write(name, &bytes)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if !self.0.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        }
        let new = self.path(&format!("{name}.new"));
        // What a crash left may have another mode.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new)?;
        file.write_all(bytes)?;
        self.give_away(&file)?;
        file.sync_all()?;
        std::fs::rename(&new, self.path(name))?;
        File::open(&self.0)?.sync_all()
    }

    /// Root may enrol for the service, which could not read root's files.
    fn give_away(&self, file: &File) -> io::Result<()> {
        let folder = std::fs::metadata(&self.0)?;
        if file.metadata()?.uid() == 0 && folder.uid() != 0 {
            std::os::unix::fs::fchown(file, Some(folder.uid()), Some(folder.gid()))?;
        }
        Ok(())
    }

    pub(crate) fn wrong(&self, name: &str, why: impl ToString) -> FolderError {
        FolderError { path: self.path(name).display().to_string(), why: why.to_string() }
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A folder that is gone when the test is.
    pub(crate) struct Scratch(pub(crate) Folder);

    impl Scratch {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("millrace-agent-{}-{number}", std::process::id()));
            Scratch(Folder::new(path))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn files_are_replaced_and_private() {
        let scratch = Scratch::new();
        let folder = &scratch.0;
        assert!(folder.read("a").expect("no file is no error").is_none());
        folder.write("a", b"one").expect("written");
        // As after a crash.
        std::fs::write(folder.path("a.new"), "half").expect("a file");
        folder.write("a", b"two").expect("written");
        assert_eq!(folder.read("a").expect("read").as_deref(), Some(b"two".as_slice()));
        let mode = std::fs::metadata(folder.path("a")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::metadata(folder).expect("a folder").permissions().mode() & 0o777, 0o700);
        assert!(!folder.path("a.new").exists());
        let error = folder.read_json::<u32>("a").expect_err("no JSON").to_string();
        assert!(error.contains("/a cannot be used"), "{error}");
    }
}
