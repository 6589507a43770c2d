//! Taking over local files: by sharing their extents where the file system can, else by serving them where they are.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use millrace_proto::access::Access;
use millrace_proto::id::ContentId;
use millrace_proto::metainfo::{choose_piece_bytes, plan_files};

use super::error::StoreError;
use super::mapping::reflink;
use super::store::Store;
use crate::content::Content;
use crate::layout::{FileSpan, Layout};
use crate::new_content::{NewContent, Shape};

/// Folders within folders that are followed.
const DEPTH_MAX: usize = 64;

/// What an import did.
#[derive(Debug)]
pub struct Imported {
    /// The content: all of it visible, none of it hashed.
    pub content: Arc<Content>,
    /// Whether the store shares the extents of the files. If not, they are served where they are, and whoever changes
    /// them changes what is served until that is noticed.
    pub reflinked: bool,
    /// Symbolic links and special files within the folder, left out.
    pub skipped: Vec<PathBuf>,
}

/// What was found to import.
#[derive(Default)]
struct Found {
    /// Names below the folder, length, and where it is.
    files: Vec<(Vec<String>, u64, PathBuf)>,
    /// When the file that was changed last was changed, Unix seconds.
    modified: Option<u64>,
    skipped: Vec<PathBuf>,
}

impl Store {
    /// Imports a file or a folder under `name`. A folder becomes one content of several files, each beginning at a
    /// piece. From the beginning it is for those alone who have `access`.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for symbolic links, special files and names that are not UTF-8; errors that name the file
    /// that cannot be read; names of which no torrent can be made.
    pub fn import(
        &self,
        id: ContentId,
        path: &Path,
        name: &str,
        etag: &str,
        access: Access,
    ) -> Result<Imported, StoreError> {
        // Absolute, since a later start may have another working directory.
        let path = &std::path::absolute(path).map_err(StoreError::at(path))?;
        let mut found = Found::default();
        let metadata = fs::symlink_metadata(path).map_err(StoreError::at(path))?;
        if metadata.is_dir() {
            found.walk(path, &mut Vec::new())?;
        } else if metadata.is_file() {
            found.file(path, Vec::new(), &metadata)?;
        } else {
            let why = "neither a file nor a folder: name what it points to";
            return Err(StoreError::Refused { path: path.clone(), why });
        }
        let (layout, paths) = found.lay_out(name)?;
        let mut stored = NewContent::new(id, name, Shape::Imported(layout.clone()), etag);
        stored.last_modified = found.modified;
        stored.access = access.clone();
        match self.add_filled(stored, |data| share(&layout, &paths, data)) {
            Ok(content) => Ok(Imported { content, reflinked: true, skipped: found.skipped }),
            Err(StoreError::Io { source, .. }) if cannot_share(&source) => {
                let mut in_place = NewContent::imported(id, name, layout, paths, etag);
                in_place.last_modified = found.modified;
                in_place.access = access;
                let content = self.add(in_place)?;
                Ok(Imported { content, reflinked: false, skipped: found.skipped })
            }
            Err(error) => Err(error),
        }
    }
}

impl Found {
    fn walk(&mut self, folder: &Path, above: &mut Vec<String>) -> Result<(), StoreError> {
        if above.len() >= DEPTH_MAX {
            return Err(StoreError::Refused { path: folder.to_path_buf(), why: "folders nested too deeply" });
        }
        for entry in fs::read_dir(folder).map_err(StoreError::at(folder))? {
            let path = entry.map_err(StoreError::at(folder))?.path();
            let metadata = fs::symlink_metadata(&path).map_err(StoreError::at(&path))?;
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                return Err(StoreError::Refused { path, why: "the name is not UTF-8: rename it" });
            };
            above.push(name.to_owned());
            if metadata.is_dir() {
                self.walk(&path, above)?;
            } else if metadata.is_file() {
                self.file(&path, above.clone(), &metadata)?;
            } else {
                self.skipped.push(path);
            }
            above.pop();
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, names: Vec<String>, metadata: &fs::Metadata) -> Result<(), StoreError> {
        // Now, and not when the first reader asks, is the time to say that it cannot be read.
        File::open(path).map_err(StoreError::at(path))?;
        self.files.push((names, metadata.len(), path.to_path_buf()));
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        self.modified = self.modified.max(modified.map(|since| since.as_secs()));
        Ok(())
    }

    fn lay_out(&self, name: &str) -> Result<(Layout, Vec<PathBuf>), StoreError> {
        let total = self.files.iter().map(|file| file.1).fold(0, u64::saturating_add);
        let piece_bytes = choose_piece_bytes(total);
        let named: Vec<_> = self.files.iter().map(|(names, length, _)| (names.clone(), *length)).collect();
        let plan = plan_files(name, piece_bytes, &named)?;
        let sources: HashMap<&[String], &Path> =
            self.files.iter().map(|(names, _, path)| (names.as_slice(), path.as_path())).collect();
        let (mut spans, mut paths) = (Vec::new(), Vec::new());
        for file in plan.files {
            let below = file.path.get(1..).unwrap_or_default();
            let source = if file.padding { None } else { sources.get(below) };
            paths.push(source.map(|path| path.to_path_buf()).unwrap_or_default());
            let (offset, length, padding) = (file.offset, file.length, file.padding);
            spans.push(FileSpan { path: file.path, offset, length, padding });
        }
        Ok((Layout::new(piece_bytes, plan.length, spans)?, paths))
    }
}

/// Makes the data files below `data` share the extents of those at `paths`.
fn share(layout: &Layout, paths: &[PathBuf], data: &Path) -> Result<(), StoreError> {
    for (span, from) in layout.files().iter().zip(paths).filter(|(span, _)| !span.padding) {
        let to = data.join(span.path.iter().collect::<PathBuf>());
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(StoreError::at(folder))?;
        }
        let source = File::open(from).map_err(StoreError::at(from))?;
        let target =
            OpenOptions::new().write(true).create_new(true).open(&to).map_err(StoreError::at(&to))?;
        reflink(&source, &target).map_err(StoreError::at(from))?;
        target.sync_all().map_err(StoreError::at(&to))?;
        if target.metadata().map_err(StoreError::at(&to))?.len() != span.length {
            return Err(StoreError::Refused { path: from.clone(), why: "it changes while it is imported" });
        }
    }
    Ok(())
}

/// Whether the file systems cannot share extents, as opposed to a disk that fails.
fn cannot_share(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EXDEV | libc::EINVAL | libc::ENOSYS | libc::EPERM)
    )
}
