//! Taking in the bytes of a content: thrown away by the kernel, uncopied, or read and compared with what they must be.

use std::io;

use super::runtime::Socket;
use crate::payload::Payload;

/// Bytes taken at a time.
pub(super) const BUFFER_BYTES: usize = 1 << 20;

/// Bytes read at a time where they are checked: what fits the second-level cache.
const CHECKED_BYTES: usize = 128 * 1024;

/// Bytes of a content on their way: where the next one stands, and how many are to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) position: u64,
    pub(super) left: usize,
}

impl Body {
    /// Bytes that came along with a head.
    ///
    /// # Errors
    /// More than were to come, or other bytes than they must be.
    pub(super) fn take(&mut self, bytes: &[u8], verify: Option<Payload>) -> io::Result<()> {
        if bytes.len() > self.left {
            return Err(io::Error::other("more bytes arrived than were announced"));
        }
        if let Some(wrong) = verify.and_then(|payload| payload.first_difference(self.position, bytes)) {
            return Err(io::Error::other(format!("the byte at {wrong} is not what it must be")));
        }
        self.position += bytes.len() as u64;
        self.left -= bytes.len();
        Ok(())
    }

    /// Takes what has arrived, once; `None` when nothing has.
    ///
    /// # Errors
    /// Those of the socket, its end, and wrong bytes.
    pub(super) fn receive(
        &mut self,
        socket: &Socket,
        buffer: &mut [u8],
        verify: Option<Payload>,
    ) -> io::Result<Option<usize>> {
        let most = self.left.min(if verify.is_some() { CHECKED_BYTES } else { buffer.len() });
        let buffer = &mut buffer[..most];
        let taken = if verify.is_some() { socket.try_read(buffer)? } else { socket.try_discard(buffer)? };
        match taken {
            Some(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed within an answer")),
            Some(bytes) if verify.is_some() => self.take(&buffer[..bytes], verify).map(|()| Some(bytes)),
            Some(bytes) => {
                self.position += bytes as u64;
                self.left -= bytes;
                Ok(Some(bytes))
            }
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_behind_a_head_are_checked_and_counted() {
        let payload = Payload::new(3);
        let mut bytes = [0; 20];
        payload.fill(100, &mut bytes);
        let mut body = Body { position: 100, left: 30 };
        body.take(&bytes, Some(payload)).unwrap();
        assert_eq!(body, Body { position: 120, left: 10 });
        assert!(body.take(&bytes, None).is_err(), "twenty bytes where ten are left");
        let error = body.take(&bytes[..5], Some(payload)).unwrap_err().to_string();
        assert!(error.contains("120"), "{error}");
    }
}
