//! Bytes of files that lie in buffers and wait to be sent, each for one connection.
//!
//! They can be read again at any time, so a buffer may be taken from a connection whose reader is slow.

use std::sync::Arc;

use millrace_engine::ids::ConnId;
use millrace_pagecache::OpenFile;

use super::buffer::Buffer;

/// What one buffer holds.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) conn: ConnId,
    pub(crate) file: Arc<OpenFile>,
    /// First byte, in the file.
    pub(crate) offset: u64,
    /// Where that byte is in the buffer.
    pub(crate) skip: usize,
    /// How many are of use.
    pub(crate) bytes: usize,
    /// How many have not been sent.
    pub(crate) left: u64,
    /// Shared with the sends that refer to it.
    pub(crate) buffer: Arc<Buffer>,
    /// When some were sent last, in monotonic nanoseconds.
    pub(crate) used_ns: u64,
}

impl Staged {
    /// Whether a send refers to the buffer, so that nothing may be read into it.
    pub(super) fn is_lent(&self) -> bool {
        Arc::strong_count(&self.buffer) > 1
    }
}

/// All that is staged, as one connection sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StagedFor<'a> {
    pub(crate) conn: ConnId,
    pub(crate) all: &'a [Staged],
}

impl<'a> StagedFor<'a> {
    /// The bytes of `file` from `offset` on that are at hand, at least one, and the place of their buffer.
    pub(crate) fn find(self, file: &Arc<OpenFile>, offset: u64) -> Option<(usize, &'a [u8])> {
        self.all.iter().enumerate().filter(|(_, staged)| staged.conn == self.conn).find_map(
            |(place, staged)| {
                let into = offset.checked_sub(staged.offset).and_then(|into| usize::try_from(into).ok())?;
                let bytes = staged.buffer.bytes().get(staged.skip + into..staged.skip + staged.bytes)?;
                (Arc::ptr_eq(&staged.file, file) && !bytes.is_empty()).then_some((place, bytes))
            },
        )
    }
}
