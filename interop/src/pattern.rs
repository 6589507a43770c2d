//! File content as a pure function of seed and position, so that any range of any answer can be checked without keeping
//! the file.

use sha2::{Digest, Sha256};

const WORD: u64 = 8;
const STEP: usize = 1 << 18;

/// An endless file that its seed decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern(pub u64);

impl Pattern {
    /// The bytes at `offset`, as many as `bytes` holds.
    pub fn fill(self, offset: u64, bytes: &mut [u8]) {
        let skip = usize::try_from(offset % WORD).expect("less than 8");
        let mut word = offset / WORD;
        let (head, body) = bytes.split_at_mut(bytes.len().min((8 - skip) % 8));
        if !head.is_empty() {
            head.copy_from_slice(&self.word(word)[skip..skip + head.len()]);
            word += 1;
        }
        for chunk in body.chunks_mut(8) {
            chunk.copy_from_slice(&self.word(word)[..chunk.len()]);
            word += 1;
        }
    }

    /// SplitMix64, which is short and has no weak positions.
    fn word(self, index: u64) -> [u8; 8] {
        let mut z = self.0.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }

    /// `count` bytes from `offset`.
    #[must_use]
    pub fn bytes(self, offset: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.fill(offset, &mut bytes);
        bytes
    }

    /// Position of the first of `bytes` that is not what lies at `offset` and after.
    #[must_use]
    pub fn first_wrong(self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let mut expected = vec![0; STEP.min(bytes.len())];
        let mut at = offset;
        for chunk in bytes.chunks(STEP) {
            let expected = &mut expected[..chunk.len()];
            self.fill(at, expected);
            if expected != chunk {
                let wrong = expected.iter().zip(chunk).take_while(|(left, right)| left == right).count();
                return Some(at + wrong as u64);
            }
            at += chunk.len() as u64;
        }
        None
    }

    /// SHA-256 of the first `length` bytes, in hexadecimal.
    #[must_use]
    pub fn sha256(self, length: u64) -> String {
        let mut hash = Sha256::new();
        self.for_each(length, |chunk| hash.update(chunk));
        hexadecimal(&hash.finalize())
    }

    /// Hands out the first `length` bytes in order.
    pub fn for_each(self, length: u64, mut take: impl FnMut(&[u8])) {
        let mut buffer = vec![0; STEP];
        let mut at = 0;
        while at < length {
            let count = usize::try_from(length - at).map_or(STEP, |left| left.min(STEP));
            self.fill(at, &mut buffer[..count]);
            take(&buffer[..count]);
            at += count as u64;
        }
    }
}

/// SHA-256 of a file, in hexadecimal.
#[must_use]
pub fn sha256_of(path: &std::path::Path) -> String {
    let mut file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut hash = Sha256::new();
    let mut buffer = vec![0; STEP];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).expect("a readable download") {
            0 => return hexadecimal(&hash.finalize()),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_is_a_part_of_the_whole() {
        let whole = Pattern(7).bytes(0, 100);
        for start in 0..40 {
            for end in start..60 {
                let part = Pattern(7).bytes(start as u64, end - start);
                assert_eq!(part, whole[start..end], "{start}..{end}");
            }
        }
        assert_ne!(Pattern(8).bytes(0, 100), whole);
    }

    #[test]
    fn the_first_wrong_byte_is_found() {
        let mut bytes = Pattern(1).bytes(5, 2 * STEP + 3);
        assert_eq!(Pattern(1).first_wrong(5, &bytes), None);
        bytes[STEP + 9] ^= 1;
        assert_eq!(Pattern(1).first_wrong(5, &bytes), Some(5 + STEP as u64 + 9));
    }
}
