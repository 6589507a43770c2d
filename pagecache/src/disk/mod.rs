//! The store on a disk: folders of contents, their files and mappings, and state that survives a crash.
//!
//! `<store>/lock`, `version` and `contents/<id>/` with `data/` (laid out as the torrent lays it out), `state`, `arrived`,
//! `content.json` and `metainfo.torrent`.

mod creation;
mod description;
mod durable;
mod error;
#[cfg(test)]
mod faults;
mod files;
mod import;
mod journal;
mod left;
mod load;
#[expect(unsafe_code, reason = "cachestat and FICLONE: the one place of the crate")]
mod mapping;
mod open_file;
mod opening;
pub mod residency;
mod room;
mod share;
mod spare;
mod state_file;
mod store;
mod verify;

pub use durable::replace as replace_file;
pub use error::StoreError;
pub(crate) use files::FileSet;
pub use import::Imported;
pub use left::{Left, VisibleRuns};
pub use mapping::Mapped;
pub use open_file::{OpenFile, Stamp};
pub use store::{Interrupted, Options, Problem, Store};
pub use verify::{Report, verify};
