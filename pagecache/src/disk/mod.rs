//! The store on a disk: folders of contents, their files and mappings, and state that survives a crash.

mod files;
#[expect(unsafe_code, reason = "mmap'd pointers, cachestat and FICLONE: the one place of the crate")]
mod mapping;
mod open_file;
pub mod residency;

pub(crate) use files::FileSet;
pub use mapping::Mapped;
pub use open_file::{OpenFile, Stamp};
