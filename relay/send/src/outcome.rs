//! How sending is to be done, and how it ended.

use std::fmt;
use std::io;
use std::sync::Arc;

use millrace_engine::event::Sent;
use millrace_pagecache::OpenFile;

/// How bytes of a file get into a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendPath {
    /// Page references through a pipe: `vmsplice` from the mapping, then `splice`.
    Reference,
    /// `sendfile`, under `TCP_CORK` where it takes several calls.
    Sendfile,
}

impl SendPath {
    /// The name in the log, in metrics and in `doctor`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SendPath::Reference => "reference",
            SendPath::Sendfile => "sendfile",
        }
    }
}

impl fmt::Display for SendPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether to ask if pages are in memory before sending them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// Ask; where pages are missing the outcome is [`Outcome::Absent`].
    Ask,
    /// Send whatever the answer would be: the pages were just brought in, or cannot be asked about. Waits for the disk at worst.
    Assume,
}

/// How [`Sender::send`](crate::sender::Sender::send) ended.
#[derive(Debug)]
pub enum Outcome {
    /// The event for the shard.
    Sent(Sent),
    /// Nothing was sent: the next bytes are not in memory. They have to be read first: let the send
    /// [wait](crate::sender::Sender::wait).
    Absent(Absent),
    /// Nothing is to be told yet: a zero-copy send was made of it, which is the
    /// [next](crate::sender::Sender::next_zero_copy). Only where they are [offered](crate::sender::Sender::offer_zero_copy).
    Lent,
    /// Nothing was sent: its bytes have to be copied, and this loop has copied enough. It goes on when it is the
    /// [next](crate::sender::Sender::next_postponed).
    Postponed,
}

/// How absent bytes are to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Read into the page cache, for others who ask.
    BringIn,
    /// Read past the page cache, for this send alone.
    Direct,
}

/// Bytes of a file that have to be read from the disk first. Owns its file, so that another thread can read it.
#[derive(Debug, Clone)]
pub struct Absent {
    /// The file.
    pub file: Arc<OpenFile>,
    /// First byte, in the file.
    pub offset: u64,
    /// How many: about 1 MiB at most into the page cache, one [buffer](crate::cold::BUFFER_BYTES) past it.
    pub bytes: u64,
    /// How.
    pub way: Way,
}

impl Absent {
    /// Reads the bytes into the page cache and waits until they are there. `scratch` receives them on the way, its contents mean
    /// nothing; a few hundred KiB make it efficient. Returns whether the kernel says afterwards that they are there.
    ///
    /// # Errors
    /// What reading the file gave; [`io::ErrorKind::UnexpectedEof`] where the file is shorter than it was.
    pub fn bring_in(&self, scratch: &mut [u8]) -> io::Result<bool> {
        crate::residency::bring_in(self, scratch)
    }
}
