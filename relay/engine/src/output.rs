//! What a connection still has to send: one queue, one cursor.
//!
//! Bytes made on the spot lie in a scratch buffer; what comes out of the store is only named. A back end looks at the
//! [`parts`](Output::parts), sends what it can, and the engine [consumes](Output::consume) as many bytes as went out.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_proto::peer::message::{BLOCK_HEAD_BYTES, block_head};

/// What follows the end of a content in its last block.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// A run of bytes to send, as a back end sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// Bytes made on the spot. They change after the send: the kernel must own a copy.
    Bytes(&'a [u8]),
    /// The head of a BitTorrent block, or what is left of it. `bytes` equals the tail of the header table's entry for `index` and
    /// `begin` when `length` is 16 KiB, so a back end that has the table can send it by reference.
    BlockHead {
        /// What is left of the 13 bytes.
        bytes: &'a [u8],
        /// Piece index.
        index: u32,
        /// Offset in the piece.
        begin: u32,
        /// Bytes of the block that follows.
        length: u32,
    },
    /// Bytes of [`Output::content`], which are visible and will not change.
    Extent {
        /// First byte, in the content's linear space.
        offset: u64,
        /// How many, at least 1.
        bytes: u64,
    },
}

#[derive(Debug)]
enum Segment {
    /// A range of `scratch`.
    Scratch(Range<usize>),
    /// Bytes shared with others, such as a document's body.
    Shared(Arc<[u8]>, Range<usize>),
    BlockHead {
        head: [u8; BLOCK_HEAD_BYTES],
        sent: u8,
        index: u32,
        begin: u32,
        length: u32,
    },
    Extent {
        offset: u64,
        bytes: u64,
    },
    /// So many zeros.
    Zeros(usize),
}

impl Segment {
    fn bytes(&self) -> u64 {
        match self {
            Segment::Scratch(range) | Segment::Shared(_, range) => range.len() as u64,
            Segment::BlockHead { sent, .. } => BLOCK_HEAD_BYTES as u64 - u64::from(*sent),
            Segment::Extent { bytes, .. } => *bytes,
            Segment::Zeros(bytes) => *bytes as u64,
        }
    }

    /// Drops the first `count` bytes, which is less than all.
    fn advance(&mut self, count: u64) {
        match self {
            Segment::Scratch(range) | Segment::Shared(_, range) => {
                range.start += usize::try_from(count).unwrap_or(usize::MAX).min(range.len());
            }
            Segment::BlockHead { sent, .. } => *sent += u8::try_from(count).unwrap_or(u8::MAX),
            Segment::Extent { offset, bytes } => {
                *offset += count;
                *bytes -= count;
            }
            Segment::Zeros(bytes) => *bytes -= usize::try_from(count).unwrap_or(usize::MAX).min(*bytes),
        }
    }
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Output {
    content: Option<Arc<Content>>,
    segments: VecDeque<Segment>,
    scratch: Vec<u8>,
    bytes: u64,
}

impl Output {
    /// The content that extents are of. Fixed while any extent is queued.
    #[must_use]
    pub fn content(&self) -> Option<&Arc<Content>> {
        self.content.as_ref()
    }

    /// Names the content of the extents to come.
    pub fn lease(&mut self, content: &Arc<Content>) {
        if !self.content.as_ref().is_some_and(|held| Arc::ptr_eq(held, content)) {
            let extents = self.segments.iter().filter(|segment| matches!(segment, Segment::Extent { .. }));
            debug_assert_eq!(extents.count(), 0, "extents of two contents in one output");
            self.content = Some(Arc::clone(content));
        }
    }

    /// Lets go of the content.
    pub fn release(&mut self) {
        debug_assert!(self.is_empty(), "a lease is released with bytes still queued");
        self.content = None;
    }

    /// Bytes queued.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Segments queued.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Whether everything went out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Appends a copy of `bytes`.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = self.scratch.len();
        self.scratch.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        if let Some(Segment::Scratch(range)) = self.segments.back_mut()
            && range.end == start
        {
            range.end = self.scratch.len();
            return;
        }
        self.segments.push_back(Segment::Scratch(start..self.scratch.len()));
    }

    /// Appends shared bytes without copying them.
    pub fn push_shared(&mut self, bytes: &Arc<[u8]>) {
        if !bytes.is_empty() {
            self.bytes += bytes.len() as u64;
            self.segments.push_back(Segment::Shared(Arc::clone(bytes), 0..bytes.len()));
        }
    }

    /// Appends visible bytes of the leased content.
    pub fn push_extent(&mut self, offset: u64, bytes: u64) {
        debug_assert!(self.content.is_some(), "an extent without a lease");
        if bytes > 0 {
            self.bytes += bytes;
            self.segments.push_back(Segment::Extent { offset, bytes });
        }
    }

    /// Appends zeros, 16 KiB at most.
    fn push_zeros(&mut self, bytes: u64) {
        debug_assert!(bytes <= ZEROS.len() as u64, "{bytes} zeros are more than there are");
        let bytes = usize::try_from(bytes).map_or(ZEROS.len(), |bytes| bytes.min(ZEROS.len()));
        if bytes > 0 {
            self.bytes += bytes as u64;
            self.segments.push_back(Segment::Zeros(bytes));
        }
    }

    /// Appends a BitTorrent block: its head, then `length` bytes at `offset` of the leased content. Where the content ends
    /// less than 16 KiB before the block does, zeros follow.
    pub fn push_block(&mut self, index: u32, begin: u32, length: u32, offset: u64) {
        let head = block_head(index, begin, length);
        self.bytes += BLOCK_HEAD_BYTES as u64;
        self.segments.push_back(Segment::BlockHead { head, sent: 0, index, begin, length });
        let content_bytes = self.content.as_ref().map_or(u64::MAX, |content| content.layout().length());
        let stored = u64::from(length).min(content_bytes.saturating_sub(offset));
        self.push_extent(offset, stored);
        self.push_zeros(u64::from(length) - stored);
    }

    /// The queue from the cursor on.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.segments.iter().map(|segment| match segment {
            Segment::Scratch(range) => Part::Bytes(&self.scratch[range.clone()]),
            Segment::Shared(bytes, range) => Part::Bytes(&bytes[range.clone()]),
            Segment::BlockHead { head, sent, index, begin, length } => Part::BlockHead {
                bytes: &head[usize::from(*sent)..],
                index: *index,
                begin: *begin,
                length: *length,
            },
            Segment::Extent { offset, bytes } => Part::Extent { offset: *offset, bytes: *bytes },
            Segment::Zeros(bytes) => Part::Bytes(&ZEROS[..*bytes]),
        })
    }

    /// Moves the cursor over `count` bytes that went out. Returns how many of them were bytes of the content.
    ///
    /// # Panics
    /// When more is consumed than was queued: the back end miscounted.
    pub fn consume(&mut self, mut count: u64) -> u64 {
        assert!(count <= self.bytes, "{count} bytes sent of {} queued", self.bytes);
        self.bytes -= count;
        let mut payload = 0;
        while count > 0 {
            let Some(front) = self.segments.front_mut() else { break };
            let take = front.bytes().min(count);
            if matches!(front, Segment::Extent { .. }) {
                payload += take;
            }
            if take == front.bytes() {
                self.segments.pop_front();
            } else {
                front.advance(take);
            }
            count -= take;
        }
        if self.segments.is_empty() {
            self.scratch.clear();
        }
        payload
    }

    /// Gives back the room of an empty queue, for a connection that may be idle for long.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            self.segments = VecDeque::new();
            self.scratch = Vec::new();
        }
    }

    /// Bytes of heap that it holds.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.segments.capacity() * size_of::<Segment>() + self.scratch.capacity()
    }

    /// Forgets everything, sent or not.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.scratch.clear();
        self.bytes = 0;
        self.content = None;
    }
}

#[cfg(test)]
mod tests {
    use millrace_pagecache::layout::Layout;
    use millrace_pagecache::new_content::NewContent;
    use millrace_proto::id::ContentId;

    use super::*;

    #[test]
    fn zeros_follow_the_end_of_a_content_however_little_is_sent_at_a_time() {
        let new = NewContent::single_of_length(ContentId([7; 16]), "file", 100, 1 << 14, "\"tag\"").unwrap();
        let layout = Layout::single("file", 100, 1 << 14).unwrap();
        let content = Content::simulated(new, layout, Box::new(|_, buffer| buffer.fill(1)));
        let mut output = Output::default();
        output.lease(&content);
        output.push_block(0, 90, 9000, 90);
        let mut sent = Vec::new();
        let mut payload = 0;
        while !output.is_empty() {
            let left = output.bytes();
            let mut now = Vec::new();
            for part in output.parts() {
                match part {
                    Part::Bytes(bytes) | Part::BlockHead { bytes, .. } => now.extend_from_slice(bytes),
                    Part::Extent { bytes, .. } => now.extend((0..bytes).map(|_| 1)),
                }
            }
            assert_eq!(now.len() as u64, left);
            now.truncate(7);
            payload += output.consume(now.len() as u64);
            sent.extend(now);
        }
        let expected = [&block_head(0, 90, 9000)[..], &[1; 10], &[0; 8990]].concat();
        assert_eq!((sent, payload), (expected, 10));
    }
}
