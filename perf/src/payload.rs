//! Test content whose every byte follows from a seed and its position, so that what arrives can be checked anywhere, without the file.
//!
//! A word of eight bytes is a mix of seed and index (counter mode), cheap enough to check gigabytes a second, and with no
//! repetition that a compressor, a deduplicating disk or a mistaken offset could hide behind.

use std::io::Write;
use std::ops::Range;

use crate::interrupt::Interrupt;

const WORD_BYTES: usize = 8;

/// Bytes compared at a time: what stays in the first-level cache.
const COMPARED_BYTES: usize = 4096;

/// Bytes written at a time, about what a download from a network writes. The kernel keeps a file in memory in pieces of the size in which it was
/// written, and the larger they are, the less it costs to send it: in steps of 1 MiB no file comes to a relay.
const CHUNK_BYTES: usize = 64 << 10;

/// Spreads a number over 64 bits (the finaliser of SplitMix64): a bijection whose neighbours have nothing in common.
#[must_use]
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Numbers that follow from a seed alone: what is asked for, and in which order.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    key: u64,
    count: u64,
}

impl Sequence {
    /// The sequence of one `stream` (a connection, say) under a seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Sequence { key: mix(seed) ^ mix(stream.wrapping_add(1)).rotate_left(32), count: 0 }
    }

    /// The next number below `bound`; 0 when that is 0. The bias is far below what a test of millions could see.
    pub(crate) fn next_below(&mut self, bound: u64) -> u64 {
        self.count = self.count.wrapping_add(1);
        mix(self.key.wrapping_add(self.count)).checked_rem(bound).unwrap_or(0)
    }
}

/// The content of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Payload {
    key: u64,
}

impl Payload {
    pub(crate) fn new(seed: u64) -> Self {
        Payload { key: mix(seed) }
    }

    fn word(self, index: u64) -> [u8; WORD_BYTES] {
        mix(self.key ^ index).to_le_bytes()
    }

    /// Fills `buffer` with the bytes from `position` on.
    pub(crate) fn fill(self, position: u64, buffer: &mut [u8]) {
        let mut index = position / WORD_BYTES as u64;
        let within = usize::from(position.to_le_bytes()[0]) % WORD_BYTES;
        let (lead, rest) = buffer.split_at_mut(((WORD_BYTES - within) % WORD_BYTES).min(buffer.len()));
        if within > 0 {
            lead.copy_from_slice(&self.word(index)[within..within + lead.len()]);
            index += 1;
        }
        let mut words = rest.chunks_exact_mut(WORD_BYTES);
        for word in &mut words {
            word.copy_from_slice(&self.word(index));
            index += 1;
        }
        let tail = words.into_remainder();
        tail.copy_from_slice(&self.word(index)[..tail.len()]);
    }

    /// Position of the first byte of `received` that is not what stands at `position` and after it.
    pub(crate) fn first_difference(self, position: u64, received: &[u8]) -> Option<u64> {
        let mut expected = [0; COMPARED_BYTES];
        for (received, at) in received.chunks(COMPARED_BYTES).zip((position..).step_by(COMPARED_BYTES)) {
            let expected = &mut expected[..received.len()];
            self.fill(at, expected);
            if received != expected {
                let same = received.iter().zip(expected.iter()).take_while(|(got, expected)| got == expected);
                return Some(at + same.count() as u64);
            }
        }
        None
    }

    /// Writes this part of the content.
    ///
    /// # Errors
    /// Those of `to`, and Ctrl-C.
    pub(crate) fn write(
        self,
        to: &mut impl Write,
        part: Range<u64>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut position = part.start;
        while position < part.end {
            interrupt.check()?;
            let bytes =
                usize::try_from(part.end - position).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            self.fill(position, &mut chunk[..bytes]);
            to.write_all(&chunk[..bytes])?;
            position += bytes as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Interrupted;

    #[test]
    fn any_part_is_what_stands_in_the_whole() {
        let payload = Payload::new(7);
        let mut whole = Vec::new();
        payload.write(&mut whole, 0..5000, &Interrupt::default()).unwrap();
        for (start, bytes) in [(0, 5000), (1, 9), (7, 1), (3, 2), (8, 8), (4093, 907), (17, 0), (16, 3)] {
            let mut part = vec![0; bytes];
            payload.fill(start as u64, &mut part);
            assert_eq!(part, whole[start..start + bytes], "{bytes} from {start}");
            assert_eq!(payload.first_difference(start as u64, &part), None);
        }
        assert_ne!(Payload::new(8).first_difference(0, &whole), None);
    }

    #[test]
    fn nothing_more_is_written_once_somebody_wants_an_end() {
        let (interrupt, mut written) = (Interrupt::default(), Vec::new());
        interrupt.come();
        let error = Payload::new(7).write(&mut written, 0..u64::MAX, &interrupt).unwrap_err();
        assert!(error.is::<Interrupted>() && written.is_empty());
    }

    #[test]
    fn a_wrong_byte_is_named_by_its_position() {
        let payload = Payload::new(1);
        let mut part = vec![0; 9000];
        payload.fill(1003, &mut part);
        for wrong in [0, 4, 5, 12, 4095, 4096, 8999] {
            part[wrong] ^= 1;
            assert_eq!(payload.first_difference(1003, &part), Some(1003 + wrong as u64));
            part[wrong] ^= 1;
        }
        assert_eq!(payload.first_difference(1004, &part), Some(1004), "one byte late is found at once");
    }

    #[test]
    fn sequences_depend_on_seed_and_stream() {
        let take = |seed, stream| {
            let mut sequence = Sequence::new(seed, stream);
            (0..64).map(|_| sequence.next_below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(take(1, 2), take(1, 2));
        assert_ne!(take(1, 2), take(2, 1));
        assert_ne!(take(1, 2), take(1, 3));
        assert!(take(1, 2).iter().all(|number| *number < 1000));
        assert_eq!(Sequence::new(1, 1).next_below(0), 0);
    }
}
