//! Reads past the page cache that are in flight: file and buffer belong to the record of the read until its completion.

use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use millrace_send::cold::DirectRead;

use crate::records::Records;
use crate::token::{Kind, Parts, Token};

/// All of a shard. There are as many as buffers at most.
#[derive(Debug)]
pub(crate) struct Reads(Records<DirectRead>);

impl Reads {
    /// None yet.
    pub(crate) fn new() -> Self {
        Reads(Records::new(Kind::Read))
    }

    /// Makes the request of a read. What it names stays in place until [`ended`](Self::ended); if this is dropped before, it leaks
    /// what the kernel may write to.
    pub(crate) fn begin(&mut self, mut read: DirectRead) -> squeue::Entry {
        let bytes = u32::try_from(read.bytes()).unwrap_or(0);
        let request = opcode::Read::new(Fd(read.descriptor()), read.start().as_ptr(), bytes)
            .offset(read.offset())
            .build();
        request.user_data(self.0.insert(read).user_data())
    }

    /// A read has ended.
    ///
    /// # Panics
    /// When no such read is in flight: the kernel has completed something twice.
    pub(crate) fn ended(&mut self, token: Parts) -> DirectRead {
        self.0.take(token)
    }

    /// The tokens of what is in flight.
    pub(crate) fn in_flight(&self) -> Vec<Token> {
        self.0.in_flight()
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        if !self.is_idle() {
            // The loop ended in a panic or an error, and the kernel may still write to the buffers.
            self.0.leak();
        }
    }
}
