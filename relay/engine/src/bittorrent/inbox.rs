//! Cutting what arrives into messages. Whole frames are read where they lie; only the beginning of a frame whose rest is still to
//! come is kept, so an idle peer holds next to nothing.

use millrace_proto::peer::frame::{Frame, FrameLimits, next_frame};
use millrace_proto::peer::message::Message;

/// A buffer of up to this many bytes is kept for the next frame: requests are cut in two at the end of almost every receive.
const KEPT_BYTES: usize = 64;

/// The beginning of a frame.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    partial: Vec<u8>,
    /// The frame in `partial` was whole, and has been handed out.
    taken: bool,
}

/// What there is to read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A message.
    Message(Message<'a>),
    /// Everything was read; the beginning of a frame is kept.
    Nothing,
    /// The stream has lost its sense.
    Invalid,
}

impl Inbox {
    /// Bytes of heap that it holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// The next message of what was kept and `data`, which is moved past what was read. `limits` bound what is kept.
    pub(super) fn next<'a, 'd: 'a>(&'a mut self, data: &mut &'d [u8], limits: &FrameLimits) -> Next<'a> {
        if self.taken {
            self.taken = false;
            self.partial.clear();
            if self.partial.capacity() > KEPT_BYTES {
                self.partial = Vec::new();
            }
        }
        if self.partial.is_empty() {
            return match next_frame(data, limits) {
                Frame::Whole { consumed, message } => {
                    *data = &data[consumed..];
                    Next::Message(message)
                }
                Frame::NeedMore(missing) => {
                    if !data.is_empty() {
                        self.partial.reserve_exact((data.len() + missing).max(KEPT_BYTES));
                        self.partial.extend_from_slice(data);
                        *data = &[];
                    }
                    Next::Nothing
                }
                Frame::Invalid(_) => Next::Invalid,
            };
        }
        while let Frame::NeedMore(missing) = next_frame(&self.partial, limits) {
            let (now, later) = data.split_at(missing.min(data.len()));
            self.partial.extend_from_slice(now);
            *data = later;
            if now.len() < missing {
                return Next::Nothing;
            }
        }
        self.taken = true;
        match next_frame(&self.partial, limits) {
            Frame::Whole { message, .. } => Next::Message(message),
            Frame::NeedMore(_) | Frame::Invalid(_) => Next::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FrameLimits = FrameLimits {
        bitfield_bytes_max: 200,
        block_bytes_max: 0,
        extended_bytes_max: 1024,
        hashes_max: 0,
        unknown_bytes_max: 16,
    };

    fn stream() -> Vec<u8> {
        let mut out = [0; 512];
        let mut stream = Vec::new();
        for message in [
            Message::KeepAlive,
            Message::Bitfield(&[7; 200]),
            Message::Interested,
            Message::Have(9),
            Message::Extended { id: 0, payload: b"de" },
        ] {
            let bytes = message.encode(&mut out).unwrap();
            stream.extend_from_slice(&out[..bytes]);
        }
        stream
    }

    /// Everything read, as text, when the stream comes in slices of `slice_bytes`.
    fn check(stream: &[u8], slice_bytes: usize) -> (Vec<String>, Inbox) {
        let (mut inbox, mut read) = (Inbox::default(), Vec::new());
        for mut slice in stream.chunks(slice_bytes) {
            loop {
                match inbox.next(&mut slice, &LIMITS) {
                    Next::Message(message) => read.push(format!("{message:?}")),
                    Next::Nothing => break,
                    Next::Invalid => return (vec!["invalid".into()], inbox),
                }
            }
            assert!(slice.is_empty());
        }
        (read, inbox)
    }

    #[test]
    fn slicing_does_not_matter_and_nothing_is_left() {
        let whole = check(&stream(), usize::MAX).0;
        assert_eq!(whole.len(), 5);
        for slice_bytes in 1..40 {
            let (read, inbox) = check(&stream(), slice_bytes);
            assert_eq!(read, whole, "slices of {slice_bytes}");
            assert!(inbox.partial.is_empty() && inbox.partial.capacity() <= KEPT_BYTES);
        }
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let (read, inbox) = check(&[0, 1, 0, 0, 20, 1, 2, 3], 1);
        assert_eq!(read, ["invalid"]);
        assert!(inbox.partial.len() <= 5);
    }
}
