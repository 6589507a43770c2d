//! Which blocks a leecher asks for: piece after piece of those the peer has, over and over, each piece from its first block to its last.

use millrace_proto::peer::bitfield;
use millrace_proto::peer::message::{BLOCK_BYTES, Block};

use super::Order;
use crate::payload::Sequence;

/// The pieces of one torrent as one peer offers them, and where asking has got to.
pub(super) struct Blocks {
    piece_bytes: u32,
    length: u64,
    piece_count: u32,
    /// What the peer has, as in a `bitfield` message.
    offered: Vec<u8>,
    available_count: u32,
    /// Sequential: nothing. Random: where pieces come from.
    random: Option<Sequence>,
    /// Where every piece is asked for once: those that were.
    taken: Option<Vec<u8>>,
    /// Asked for and refused.
    refused: Vec<Block>,
    piece: u32,
    begin: u32,
}

impl Blocks {
    /// For the leecher `number` of `leechers`; nothing is offered yet.
    pub(super) fn new(
        piece_bytes: u32,
        length: u64,
        order: Order,
        seed: u64,
        number: usize,
        leechers: usize,
    ) -> Self {
        let piece_bytes = piece_bytes.max(1);
        let piece_count = u32::try_from(length.div_ceil(piece_bytes.into())).unwrap_or(u32::MAX);
        let share = u64::from(piece_count) * number as u64 / leechers.max(1) as u64;
        let mut random = (order == Order::Random).then(|| Sequence::new(seed, number as u64));
        let piece = match &mut random {
            Some(random) => random.next_below(piece_count.into()),
            None => share,
        };
        Blocks {
            piece_bytes,
            length,
            piece_count,
            offered: vec![0; bitfield::bytes(piece_count) as usize],
            available_count: 0,
            random,
            taken: None,
            refused: Vec::new(),
            piece: u32::try_from(piece).unwrap_or(0),
            begin: 0,
        }
    }

    /// Every piece is asked for once, instead of over and over.
    #[must_use]
    pub(super) fn once(mut self) -> Self {
        self.taken = Some(vec![0; self.offered.len()]);
        self
    }

    /// Length of the torrent's bitfield.
    pub(super) fn bitfield_bytes(&self) -> u32 {
        bitfield::bytes(self.piece_count)
    }

    /// A new connection: nothing is offered again, and a piece that was begun is begun anew.
    pub(super) fn reset(&mut self) {
        self.offered.fill(0);
        self.available_count = 0;
        self.begin = 0;
        self.refused.clear();
        if let Some(taken) = &mut self.taken {
            taken.fill(0);
        }
    }

    /// The peer has a piece; `false` when there is no such piece.
    pub(super) fn offer(&mut self, piece: u32) -> bool {
        if piece >= self.piece_count {
            return false;
        }
        if !bitfield::contains(&self.offered, piece) {
            bitfield::insert(&mut self.offered, piece);
            self.available_count += u32::from(self.is_available(piece));
        }
        true
    }

    /// Whether a piece is offered and still to be asked for.
    fn is_available(&self, piece: u32) -> bool {
        let is_taken = self.taken.as_ref().is_some_and(|taken| bitfield::contains(taken, piece));
        bitfield::contains(&self.offered, piece) && !is_taken
    }

    /// The peer has every piece.
    pub(super) fn offer_all(&mut self) {
        for piece in 0..self.piece_count {
            self.offer(piece);
        }
    }

    /// The peer has these; `false` for a bitfield of another length or with spare bits.
    pub(super) fn offer_bits(&mut self, bits: &[u8]) -> bool {
        let fits = bitfield::check(bits, self.piece_count).is_ok();
        if fits {
            (0..self.piece_count).filter(|piece| bitfield::contains(bits, *piece)).for_each(|piece| {
                self.offer(piece);
            });
        }
        fits
    }

    /// The peer will not answer this one: it is asked for again.
    pub(super) fn refuse(&mut self, block: Block) {
        self.refused.push(block);
    }

    /// The next block to ask for; `None` while nothing is offered that was not taken.
    pub(super) fn next(&mut self) -> Option<Block> {
        if let Some(block) = self.refused.pop() {
            return Some(block);
        }
        if self.available_count == 0 {
            return None;
        }
        while !self.is_available(self.piece) {
            self.piece = (self.piece + 1) % self.piece_count;
            self.begin = 0;
        }
        let piece_bytes = self.bytes_of(self.piece);
        let block =
            Block { index: self.piece, begin: self.begin, length: BLOCK_BYTES.min(piece_bytes - self.begin) };
        self.begin += block.length;
        if self.begin >= piece_bytes {
            self.begin = 0;
            if let Some(taken) = &mut self.taken {
                bitfield::insert(taken, self.piece);
                self.available_count -= 1;
            }
            self.piece = match &mut self.random {
                Some(random) => u32::try_from(random.next_below(self.piece_count.into())).unwrap_or(0),
                None => (self.piece + 1) % self.piece_count,
            };
        }
        Some(block)
    }

    /// Where a block stands in the content.
    pub(super) fn position(&self, block: Block) -> u64 {
        u64::from(block.index) * u64::from(self.piece_bytes) + u64::from(block.begin)
    }

    fn bytes_of(&self, piece: u32) -> u32 {
        let left = self.length.saturating_sub(u64::from(piece) * u64::from(self.piece_bytes));
        u32::try_from(left).map_or(self.piece_bytes, |left| left.min(self.piece_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(order: Order) -> Blocks {
        // Three pieces of 40,000 bytes, the last one of 10,000.
        Blocks::new(40_000, 90_000, order, 1, 0, 1)
    }

    #[test]
    fn a_sequential_leecher_asks_for_every_byte_once_a_round() {
        let mut blocks = blocks(Order::Sequential);
        assert_eq!(blocks.next(), None, "nothing is offered");
        blocks.offer_all();
        let mut expected = 0;
        for _ in 0..7 {
            let block = blocks.next().unwrap();
            assert_eq!(blocks.position(block), expected);
            expected += u64::from(block.length);
        }
        assert_eq!(expected, 90_000);
        assert_eq!(blocks.next(), Some(Block { index: 0, begin: 0, length: BLOCK_BYTES }));
    }

    #[test]
    fn only_what_is_offered_is_asked_for() {
        for order in [Order::Sequential, Order::Random] {
            let mut blocks = blocks(order);
            assert!(!blocks.offer(3), "there is no fourth piece");
            assert!(!blocks.offer_bits(&[0xff]) && !blocks.offer_bits(&[0, 0]));
            assert_eq!(blocks.next(), None);
            assert!(blocks.offer_bits(&[0b0010_0000]) && blocks.offer(0));
            let asked: Vec<_> = (0..40).map(|_| blocks.next().unwrap().index).collect();
            assert!(asked.contains(&0) && asked.contains(&2) && !asked.contains(&1));
            blocks.reset();
            assert_eq!(blocks.next(), None);
        }
    }

    #[test]
    fn once_is_once_and_what_was_refused_comes_again() {
        for order in [Order::Sequential, Order::Random] {
            let mut blocks = blocks(order).once();
            blocks.offer(1);
            let mut asked: Vec<_> = std::iter::from_fn(|| blocks.next()).collect();
            assert_eq!(asked.len(), 3);
            blocks.offer_all();
            blocks.refuse(asked[0]);
            asked.extend(std::iter::from_fn(|| blocks.next()));
            assert_eq!(asked.iter().filter(|block| **block == asked[0]).count(), 2);
            let bytes: u64 = asked.iter().skip(1).map(|block| u64::from(block.length)).sum();
            assert_eq!(bytes, 90_000);
        }
    }

    #[test]
    fn random_pieces_are_asked_for_once_as_well() {
        let mut blocks = Blocks::new(BLOCK_BYTES, 50 * u64::from(BLOCK_BYTES), Order::Random, 1, 0, 1).once();
        blocks.offer_all();
        let mut pieces: Vec<u32> = std::iter::from_fn(|| blocks.next()).map(|block| block.index).collect();
        pieces.sort_unstable();
        assert!(pieces.into_iter().eq(0..50));
    }

    #[test]
    fn leechers_begin_in_different_places() {
        let begin = |number| {
            let mut blocks = Blocks::new(1 << 20, 64 << 20, Order::Sequential, 1, number, 4);
            blocks.offer_all();
            blocks.next().unwrap().index
        };
        assert_eq!([begin(0), begin(1), begin(3)], [0, 16, 48]);
    }
}
