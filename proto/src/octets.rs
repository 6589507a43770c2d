//! Reading and writing big-endian fields in fixed buffers, for the wire formats that are not bencoded.
//!
//! Nothing here allocates: the writer fills what the caller lends it and says how much it used.

use std::fmt;

/// The caller's buffer is smaller than the encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the buffer is smaller than the encoding")]
pub struct NoRoom;

/// Takes `N` bytes off the front of `rest`, or leaves it alone and returns `None`.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

pub(crate) fn take_u8(rest: &mut &[u8]) -> Option<u8> {
    take::<1>(rest).map(|[byte]| byte)
}

pub(crate) fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    take(rest).map(u16::from_be_bytes)
}

pub(crate) fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_be_bytes)
}

pub(crate) fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_be_bytes)
}

/// Appends to a borrowed slice; the first write that does not fit fails, and so does the encoding.
pub(crate) struct Writer<'a> {
    buffer: &'a mut [u8],
    used: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, used: 0 }
    }

    /// Bytes written so far.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let room = self.buffer.get_mut(self.used..).unwrap_or_default();
        room.get_mut(..bytes.len()).ok_or(NoRoom)?.copy_from_slice(bytes);
        self.used += bytes.len();
        Ok(())
    }

    /// Formats straight into the buffer.
    pub(crate) fn text(&mut self, text: fmt::Arguments<'_>) -> Result<(), NoRoom> {
        fmt::Write::write_fmt(self, text).map_err(|_| NoRoom)
    }

    pub(crate) fn u8(&mut self, value: u8) -> Result<(), NoRoom> {
        self.bytes(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> Result<(), NoRoom> {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> Result<(), NoRoom> {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> Result<(), NoRoom> {
        self.bytes(&value.to_be_bytes())
    }
}

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes()).map_err(|_| fmt::Error)
    }
}
