//! The blocks that a peer asked for and that are not yet on their way.

use std::collections::VecDeque;

use millrace_proto::peer::message::Block;

/// Requests in the order in which they came.
///
/// A block asked for twice is sent twice: with BEP 6 every request has exactly one answer, and what a peer may have queued
/// is bounded all the same.
#[derive(Debug)]
pub(super) struct Requests {
    queue: VecDeque<Block>,
    count_max: usize,
}

impl Requests {
    /// An empty queue for `count_max` requests. It allocates when the first one comes, and keeps what it has until it is
    /// [shrunk](Requests::shrink).
    pub(super) fn new(count_max: usize) -> Self {
        Requests { queue: VecDeque::new(), count_max }
    }

    /// Appends a request. False when the queue is full.
    #[must_use]
    pub(super) fn push(&mut self, block: Block) -> bool {
        let fits = self.queue.len() < self.count_max;
        if fits {
            self.queue.push_back(block);
        }
        fits
    }

    /// Takes the oldest request.
    pub(super) fn pop(&mut self) -> Option<Block> {
        self.queue.pop_front()
    }

    /// Takes a request back. False when it is not here: never made, answered, or on its way.
    #[must_use]
    pub(super) fn cancel(&mut self, block: Block) -> bool {
        let found = self.queue.iter().position(|queued| *queued == block);
        found.and_then(|at| self.queue.remove(at)).is_some()
    }

    /// Drops the requests that are not to be kept, each of which `dropped` hears of.
    pub(super) fn retain(&mut self, keep: impl Fn(&Block) -> bool, mut dropped: impl FnMut(Block)) {
        self.queue.retain(|block| {
            let kept = keep(block);
            if !kept {
                dropped(*block);
            }
            kept
        });
    }

    /// Gives back the room of an empty queue, for a peer that may be idle for long.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    /// Bytes of heap that it holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Block>()
    }

    /// Whether nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(begin: u32) -> Block {
        Block { index: 0, begin, length: 1 }
    }

    #[test]
    fn order_bound_and_cancel() {
        let mut requests = Requests::new(3);
        assert!(requests.push(block(0)) && requests.push(block(1)) && requests.push(block(2)));
        assert!(!requests.push(block(3)));
        assert!(requests.cancel(block(1)) && !requests.cancel(block(1)));
        assert_eq!((requests.pop(), requests.pop(), requests.pop()), (Some(block(0)), Some(block(2)), None));
    }

    #[test]
    fn what_is_dropped_is_said() {
        let mut requests = Requests::new(8);
        (0..4).for_each(|begin| assert!(requests.push(block(begin))));
        let mut dropped = Vec::new();
        requests.retain(|block| block.begin == 2, |block| dropped.push(block.begin));
        assert_eq!(dropped, [0, 1, 3]);
        assert!(!requests.is_empty() && requests.pop() == Some(block(2)) && requests.is_empty());
    }
}
