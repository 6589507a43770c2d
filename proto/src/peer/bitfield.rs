//! The bitfield of BEP 3: one bit a piece, the first piece in the highest bit of the first byte.

use super::message::Message;

/// Why bytes are not the bitfield of a content with so many pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// Not one bit a piece, rounded up to bytes.
    #[error("the bitfield has another length than the content has pieces")]
    Length,
    /// A bit behind the last piece is set.
    #[error("the bitfield has spare bits set")]
    SpareBits,
}

/// Length in bytes of a bitfield for this many pieces.
#[must_use]
pub fn bytes(piece_count: u32) -> u32 {
    piece_count.div_ceil(8)
}

/// Checks length and spare bits (BEP 3: wrong ones are reason to drop the connection).
///
/// # Errors
/// As [`BitfieldError`] says.
pub fn check(bits: &[u8], piece_count: u32) -> Result<(), BitfieldError> {
    if u32::try_from(bits.len()) != Ok(bytes(piece_count)) {
        return Err(BitfieldError::Length);
    }
    let used_in_last = piece_count % 8;
    let spare_mask = if used_in_last == 0 { 0 } else { 0xff_u8 >> used_in_last };
    match bits.last() {
        Some(last) if last & spare_mask != 0 => Err(BitfieldError::SpareBits),
        _ => Ok(()),
    }
}

/// Whether the piece is in the bitfield; `false` beyond its end.
#[must_use]
pub fn contains(bits: &[u8], piece: u32) -> bool {
    usize::try_from(piece / 8).ok().and_then(|at| bits.get(at)).is_some_and(|byte| byte & mask(piece) != 0)
}

/// Sets the bit of a piece; returns `false`, and sets nothing, beyond the end.
pub fn insert(bits: &mut [u8], piece: u32) -> bool {
    match usize::try_from(piece / 8).ok().and_then(|at| bits.get_mut(at)) {
        Some(byte) => {
            *byte |= mask(piece);
            true
        }
        None => false,
    }
}

/// How to announce these pieces to a peer: with BEP 6 all and none have short forms of their own.
///
/// `bits` must pass [`check`]. `None` means that nothing has to be sent (BEP 3: an empty bitfield may be left out).
#[must_use]
pub fn announcement(bits: &[u8], piece_count: u32, fast: bool) -> Option<Message<'_>> {
    let have: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
    match (have, fast) {
        (0, true) => Some(Message::HaveNone),
        (0, false) => None,
        (all, true) if all == piece_count => Some(Message::HaveAll),
        _ => Some(Message::Bitfield(bits)),
    }
}

fn mask(piece: u32) -> u8 {
    0x80 >> (piece % 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_and_spare_bits_are_checked() {
        assert_eq!(check(&[0xff, 0xc0], 10), Ok(()));
        assert_eq!(check(&[0xff, 0xe0], 10), Err(BitfieldError::SpareBits));
        assert_eq!(check(&[0xff], 10), Err(BitfieldError::Length));
        assert_eq!(check(&[0xff, 0, 0], 10), Err(BitfieldError::Length));
        assert_eq!(check(&[0xff, 0xff], 16), Ok(()));
        assert_eq!(check(&[], 0), Ok(()));
    }

    #[test]
    fn the_first_piece_is_the_highest_bit() {
        let mut bits = [0; 2];
        assert!(insert(&mut bits, 0) && insert(&mut bits, 9) && !insert(&mut bits, 16));
        assert_eq!(bits, [0x80, 0x40]);
        assert!(contains(&bits, 9) && !contains(&bits, 1) && !contains(&bits, u32::MAX));
    }

    #[test]
    fn all_and_none_use_the_fast_forms() {
        assert_eq!(announcement(&[0xff, 0xc0], 10, true), Some(Message::HaveAll));
        assert_eq!(announcement(&[0xff, 0xc0], 10, false), Some(Message::Bitfield(&[0xff, 0xc0])));
        assert_eq!(announcement(&[0, 0], 10, true), Some(Message::HaveNone));
        assert_eq!(announcement(&[0, 0], 10, false), None);
    }
}
