//! The shared, mapped piece store of a Millrace relay.
//!
//! The pure part (layout, visibility, waiting, hashes, what is occupied, eviction and [`content::Content`] over them) does
//! no I/O, so a simulation runs it over a function of the offset; [`disk`] adds files, mappings and crash-safe state.
#![deny(unsafe_code)]

mod bits;
pub mod catalogue;
pub mod content;
pub mod disk;
pub mod eviction;
pub mod hashes;
pub mod layout;
pub mod new_content;
pub mod occupied;
mod sync;
mod twins;
pub mod visible;
pub mod waiting;

pub use content::{Content, State};
pub use disk::{OpenFile, Options, Store, StoreError};
pub use hashes::{PieceHash, Verdict};
pub use layout::{BLOCK_BYTES, FileIndex, Layout, PieceIndex};
pub use new_content::NewContent;
