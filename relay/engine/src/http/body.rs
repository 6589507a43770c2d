//! The body of a file answer: a cursor over the ranges that were asked for, which queues what is visible and parks for the rest.

use std::sync::Arc;

use millrace_pagecache::content::{Content, State};
use millrace_proto::http::multipart::{Boundary, Multipart};
use millrace_proto::http::range::{ByteRange, RangeSet};

use crate::session::Context;

use super::route::Place;

/// Most bytes queued at a time: enough that a refill costs nothing, little enough that a look at what is visible stays cheap.
const QUEUE_BYTES_MAX: u64 = 16 << 20;

/// What a fill came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// There is something to send.
    Queued,
    /// The next bytes are on their way; the connection is parked.
    Parked,
    /// The next bytes will not come.
    Lost,
    /// All is sent.
    Finished,
}

/// What the body consists of.
#[derive(Debug)]
pub(super) enum Parts {
    /// One range, or the whole.
    Single(ByteRange),
    /// Several (RFC 9110 §14.6).
    Multi(Box<Multi>),
    /// All that there will be; in chunks, or to the end of the connection for HTTP/1.0.
    Growing {
        /// Whether in chunks.
        chunked: bool,
    },
}

/// A `multipart/byteranges` body.
#[derive(Debug)]
pub(super) struct Multi {
    ranges: Box<RangeSet>,
    length: u64,
    media_type: &'static str,
    boundary: Boundary,
    /// Parts whose head is queued.
    begun: usize,
}

impl Parts {
    pub(super) fn single(range: ByteRange) -> Self {
        Parts::Single(range)
    }

    pub(super) fn multi(
        ranges: Box<RangeSet>,
        length: u64,
        media_type: &'static str,
        boundary: Boundary,
    ) -> Self {
        Parts::Multi(Box::new(Multi { ranges, length, media_type, boundary, begun: 0 }))
    }
}

impl Multi {
    fn format(&self) -> Multipart<'_> {
        Multipart {
            ranges: &self.ranges,
            length: self.length,
            media_type: self.media_type,
            boundary: self.boundary,
        }
    }

    /// The `Content-Type` of the answer.
    pub(super) fn content_type(&self) -> String {
        self.format().content_type().to_string()
    }
}

/// What is left of a body.
#[derive(Debug)]
pub(super) struct Body {
    place: Place,
    /// Where the file begins in the content.
    base: u64,
    parts: Parts,
    /// Next byte of the file to queue, and the end of the range it is in.
    position: u64,
    end: u64,
    /// The closing bytes (delimiter or last chunk) are queued.
    closed: bool,
}

impl Body {
    pub(super) fn new(place: Place, base: u64, parts: Parts) -> Self {
        let first = match &parts {
            Parts::Single(range) => *range,
            Parts::Multi(multi) => multi.ranges.as_slice()[0],
            Parts::Growing { .. } => ByteRange { start: 0, end: u64::MAX },
        };
        Body { place, base, parts, position: first.start, end: first.end, closed: false }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn content(&self) -> &Arc<Content> {
        &self.place.content
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Whether the reader can tell its end from the bytes.
    pub(super) fn is_framed(&self) -> bool {
        !matches!(self.parts, Parts::Growing { chunked: false })
    }

    /// Bytes of the whole body; not meaningful for a growing one.
    pub(super) fn content_length(&self) -> u64 {
        match &self.parts {
            Parts::Single(range) => range.byte_count(),
            Parts::Multi(multi) => multi.format().content_length(),
            Parts::Growing { .. } => 0,
        }
    }

    /// Which bytes of the content come next; `None` when no byte of it is left.
    pub(super) fn next_bytes(&self) -> Option<(u64, u64)> {
        let end = match self.parts {
            Parts::Growing { .. } => self.content().length().unwrap_or(u64::MAX),
            _ => self.base + self.end,
        };
        let offset = self.base + self.position;
        (offset < end).then_some((offset, end))
    }

    /// Queues more, behind nothing but the head.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) -> Fill {
        let before = cx.output.bytes();
        loop {
            self.begin_part(cx);
            let Some((offset, end)) = self.next_bytes() else {
                if self.next_part() {
                    continue;
                }
                return self.finish(cx, before);
            };
            let end = end.min(offset + QUEUE_BYTES_MAX);
            let mut visible = self.content().visible_until(offset, end);
            if visible == offset {
                if cx.output.bytes() > before {
                    return Fill::Queued;
                }
                if matches!(self.content().state(), State::Failed | State::Removed) {
                    return Fill::Lost;
                }
                visible = cx.park(self.content(), offset, end);
                if visible == offset {
                    cx.shared.counters.parked.increment();
                    return Fill::Parked;
                }
            }
            self.queue(cx, offset, visible - offset);
            if cx.output.bytes() - before >= QUEUE_BYTES_MAX {
                return Fill::Queued;
            }
        }
    }

    fn queue(&mut self, cx: &mut Context<'_>, offset: u64, bytes: u64) {
        self.position += bytes;
        if let Parts::Growing { chunked: true } = self.parts {
            // RFC 9112 §7.1: the size in hexadecimal, then the bytes.
            cx.output.push_bytes(format!("{bytes:x}\r\n").as_bytes());
            cx.output.push_extent(offset, bytes);
            cx.output.push_bytes(b"\r\n");
        } else {
            cx.output.push_extent(offset, bytes);
        }
    }

    /// Queues the head of the part that the cursor is in, once.
    fn begin_part(&mut self, cx: &mut Context<'_>) {
        let Parts::Multi(multi) = &mut self.parts else { return };
        let current = multi.ranges.as_slice().iter().position(|range| range.end == self.end);
        if let Some(index) = current.filter(|index| *index >= multi.begun && !self.closed) {
            let mut head = [0; 512];
            let bytes = multi.format().write_part_head(index, &mut head).unwrap_or(0);
            cx.output.push_bytes(&head[..bytes]);
            multi.begun = index + 1;
        }
    }

    /// Moves to the next range. False when there is none.
    fn next_part(&mut self) -> bool {
        let Parts::Multi(multi) = &self.parts else { return false };
        match multi.ranges.as_slice().get(multi.begun) {
            Some(range) => {
                (self.position, self.end) = (range.start, range.end);
                true
            }
            None => false,
        }
    }

    fn finish(&mut self, cx: &mut Context<'_>, before: u64) -> Fill {
        if !self.closed {
            self.closed = true;
            match &self.parts {
                Parts::Multi(multi) => {
                    let mut closing = [0; 128];
                    let bytes = multi.format().write_closing(&mut closing).unwrap_or(0);
                    cx.output.push_bytes(&closing[..bytes]);
                }
                Parts::Growing { chunked: true } => cx.output.push_bytes(b"0\r\n\r\n"),
                _ => {}
            }
        }
        if cx.output.bytes() > before { Fill::Queued } else { Fill::Finished }
    }
}
