//! Answering: what a peer asked for goes into the output in batches, each when the one before is out.
//!
//! So a peer that does not read holds at most one batch, and one that reads fast gets runs of blocks long enough that
//! the cost of a batch does not matter.

use std::collections::VecDeque;

use millrace_pagecache::layout::PieceIndex;
use millrace_proto::peer::message::{Block, HashSpan, Message};

use super::extensions;
use super::hashes;
use super::peer::Peer;
use crate::counters::Reason;
use crate::session::{Context, End, Step};

/// Blocks of one batch.
const BATCH_BLOCKS_MAX: u64 = 50;

/// Questions for metadata and hashes that may wait; more are rejected.
const ASKS_MAX: usize = 64;

/// A question whose answer is made on the spot, and is much longer than the question: one goes into each batch.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    /// A piece of the info dictionary (BEP 9).
    Metadata(u32),
    /// Hashes (BEP 52).
    Hashes(HashSpan),
}

/// Questions in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Asks(VecDeque<Ask>);

impl Asks {
    /// Appends a question. False when too many wait.
    #[must_use]
    pub(super) fn push(&mut self, ask: Ask) -> bool {
        let fits = self.0.len() < ASKS_MAX;
        if fits {
            self.0.push_back(ask);
        }
        fits
    }

    /// Gives back the room of an empty queue.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.0 = VecDeque::new();
        }
    }

    /// Bytes of heap that it holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Ask>()
    }

    /// Whether nothing was asked.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Peer {
    /// Queues the next batch when the output is empty.
    pub(super) fn refill(&mut self, cx: &mut Context<'_>) -> Step {
        if !cx.output.is_empty() {
            self.note_output(cx);
            return Ok(());
        }
        self.outbox.clear();
        match self.asks.0.pop_front() {
            Some(Ask::Metadata(piece)) => extensions::send_metadata(self, cx, piece),
            Some(Ask::Hashes(span)) => self.send_hashes(cx, &span),
            None => {}
        }
        self.queue_blocks(cx)?;
        self.note_output(cx);
        Ok(())
    }

    fn queue_blocks(&mut self, cx: &mut Context<'_>) -> Step {
        let full_bytes = cx.output.bytes() + cx.shared.limits.turn_bytes;
        let mut blocks = 0;
        while blocks < BATCH_BLOCKS_MAX && cx.output.bytes() < full_bytes {
            let Some(block) = self.requests.pop() else { break };
            let offset =
                self.content.layout().piece_range(PieceIndex(block.index)).start + u64::from(block.begin);
            let end = (offset + u64::from(block.length)).min(self.content.layout().length());
            // A piece that is had is visible, unless the disk has failed since it was asked for.
            if self.content.visible_until(offset, end) == end {
                cx.output.push_block(block.index, block.begin, block.length, offset);
                blocks += 1;
            } else {
                self.lose(cx, block)?;
            }
        }
        cx.shared.counters.blocks.add(blocks);
        Ok(())
    }

    /// Without BEP 6 there is no word for a request that was taken and cannot be answered.
    fn lose(&mut self, cx: &mut Context<'_>, block: Block) -> Step {
        self.reject(cx, block);
        if self.fast { Ok(()) } else { Err(End::AfterOutput(Reason::ContentLost)) }
    }

    pub(super) fn handle_hash_request(&mut self, cx: &mut Context<'_>, span: HashSpan) {
        if !self.asks.push(Ask::Hashes(span)) {
            self.outbox.push(cx.output, &Message::HashReject(span));
        }
    }

    fn send_hashes(&mut self, cx: &mut Context<'_>, span: &HashSpan) {
        match hashes::answer(cx.shared, &self.content, span) {
            Some(hashes) => {
                let message = Message::Hashes { span: *span, hashes: hashes.as_flattened() };
                self.outbox.push_long(cx.output, &message);
            }
            None => self.outbox.push(cx.output, &Message::HashReject(*span)),
        }
    }
}
