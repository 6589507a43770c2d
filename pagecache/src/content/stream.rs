//! Writing a content in order, each write visible at once.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::{Content, Placement};
use crate::visible::Lane;

/// A place in a content from which bytes are written and become visible as they are; see [`Content::stream`].
#[derive(Debug)]
pub struct Stream {
    content: Arc<Content>,
    /// `None` for growing contents, which have one writer and a frontier, and for ever after the lane was given back.
    lane: Option<Lane>,
    at: u64,
}

impl Content {
    /// Starts writing at `start`, which is the beginning of a block, or where an earlier stream stopped
    /// ([`Content::visible_until`] tells). `None` when `start` is neither, when 64 streams are open, or when hashes are
    /// known: then nothing is visible before it is verified.
    #[must_use]
    pub fn stream(self: &Arc<Self>, start: u64) -> Option<Stream> {
        if self.hashes_known {
            return None;
        }
        let lane = match self.visible.is_growing() {
            true if start == self.visible.bytes() => None,
            true => return None,
            false => Some(self.visible.open_lane(start)?),
        };
        Some(Stream { content: Arc::clone(self), lane, at: start })
    }
}

impl Content {
    /// Makes bytes visible that another process has written and vouches for. A run begins where a block does; what it has of its last
    /// block may be the beginning of it.
    pub fn follow(&self, run: Range<u64>) {
        if self.is_growing() {
            return self.visible.grow_to(run.end);
        }
        let from = self.visible.until(run.start, run.end);
        match self.visible.open_lane(from) {
            Some(mut lane) => {
                self.visible.advance(&mut lane, run.end);
                self.visible.close_lane(lane);
            }
            // Another run has come further in this block, or all lanes have begun one: whole blocks need none.
            None => self.visible.reveal(run),
        }
    }
}

impl Stream {
    /// Where the next byte goes.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Writes `bytes` and makes them visible. Wake [`Content::take_parked`] after this.
    ///
    /// # Errors
    /// As [`Content::write`]; nothing has become visible then.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let placement = self.place(bytes.len())?;
        placement.write(bytes)?;
        self.written(placement)
    }

    /// Says where the next `bytes` bytes are to be written.
    ///
    /// # Errors
    /// As [`Content::place`].
    pub fn place(&self, bytes: usize) -> io::Result<Placement> {
        self.content.place(self.at, bytes)
    }

    /// Makes the bytes of `placement`, which are there now, visible. Wake [`Content::take_parked`] after this.
    ///
    /// # Errors
    /// As [`Content::written`]; `InvalidInput` when these are not the next bytes. Nothing has become visible then.
    pub fn written(&mut self, placement: Placement) -> io::Result<()> {
        let range = placement.range();
        if range.start != self.at {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.content.written(placement)?;
        self.at = range.end;
        match &mut self.lane {
            Some(lane) => self.content.visible.advance(lane, self.at),
            None => self.content.visible.grow_to(self.at),
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            self.content.visible.close_lane(lane);
        }
    }
}
