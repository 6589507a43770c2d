//! Content bytes as a pure function of a seed and their position.

use crate::random::mix;

/// Fills `buffer` with what the content of this seed holds at `offset`.
pub fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    let mut at = offset;
    let mut rest = buffer;
    while !rest.is_empty() {
        let word = mix(seed ^ (at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
        let skip = usize::try_from(at % 8).unwrap_or(0);
        let count = rest.len().min(8 - skip);
        let (now, later) = rest.split_at_mut(count);
        now.copy_from_slice(&word[skip..skip + count]);
        rest = later;
        at += count as u64;
    }
}

/// What the content of this seed holds in `count` bytes from `offset` on.
#[must_use]
pub fn read(seed: u64, offset: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    fill(seed, offset, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_slice_is_the_slice_of_the_whole() {
        let whole = read(7, 0, 100);
        for (start, end) in [(0, 1), (3, 20), (8, 16), (15, 100), (99, 100)] {
            assert_eq!(read(7, start as u64, end - start), whole[start..end]);
        }
        assert_ne!(read(8, 0, 100), whole);
    }
}
