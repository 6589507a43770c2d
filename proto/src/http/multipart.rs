//! `multipart/byteranges` (RFC 9110 §14.6): the heads between the parts, and the exact length of the whole body.
//!
//! The length is known before the first byte, so that the answer needs no chunks, and `HEAD` of the same would say the same.

use std::fmt;

use super::range::{ByteRange, RangeSet};
use super::response::{Cursor, HeadTooLong};

/// Bytes of a boundary.
const BOUNDARY_BYTES: usize = 32;

/// A boundary: 32 hexadecimal digits from 128 random bits, so that no file can be made to contain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary(u128);

impl Boundary {
    /// A boundary from random bits, which the caller draws anew for each answer.
    #[must_use]
    pub fn from_random(bits: u128) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A multipart body: for each range its part head and its bytes, and after the last one the closing delimiter.
#[derive(Debug, Clone, Copy)]
pub struct Multipart<'a> {
    /// The parts.
    pub ranges: &'a RangeSet,
    /// Length of the whole file in bytes.
    pub length: u64,
    /// Media type of the file, which each part repeats.
    pub media_type: &'a str,
    /// The delimiter.
    pub boundary: Boundary,
}

impl Multipart<'_> {
    /// The value of the answer's `Content-Type`.
    #[must_use]
    pub fn content_type(&self) -> impl fmt::Display {
        struct ContentType(Boundary);
        impl fmt::Display for ContentType {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "multipart/byteranges; boundary={}", self.0)
            }
        }
        ContentType(self.boundary)
    }

    /// Bytes of the whole body. Ranges are disjoint, so this is the length of the file plus the heads at most.
    #[must_use]
    pub fn content_length(&self) -> u64 {
        let parts = self.ranges.as_slice().iter().enumerate();
        let bytes = parts
            .map(|(index, range)| self.part_head_bytes(index, *range).saturating_add(range.byte_count()));
        bytes.fold(CLOSING_BYTES, u64::saturating_add)
    }

    /// Writes the head that goes before the bytes of the part `index`, and tells its length.
    ///
    /// # Errors
    /// [`HeadTooLong`] when `buffer` does not hold it; 256 bytes are enough for the media types of this crate.
    pub fn write_part_head(&self, index: usize, buffer: &mut [u8]) -> Result<usize, HeadTooLong> {
        let mut out = Cursor { buffer, length: 0, overflow: false };
        let Some(range) = self.ranges.as_slice().get(index).copied() else { return Ok(0) };
        out.format(format_args!(
            "{}--{}\r\nContent-Type: {}\r\nContent-Range: ",
            line_break_before(index),
            self.boundary,
            self.media_type,
        ));
        out.content_range(range, self.length);
        out.put(b"\r\n\r\n");
        if out.overflow { Err(HeadTooLong) } else { Ok(out.length) }
    }

    /// Writes the closing delimiter, which follows the last part, and tells its length.
    ///
    /// # Errors
    /// [`HeadTooLong`] when `buffer` is shorter than 40 bytes.
    pub fn write_closing(&self, buffer: &mut [u8]) -> Result<usize, HeadTooLong> {
        let mut out = Cursor { buffer, length: 0, overflow: false };
        out.format(format_args!("\r\n--{}--\r\n", self.boundary));
        if out.overflow { Err(HeadTooLong) } else { Ok(out.length) }
    }

    fn part_head_bytes(&self, index: usize, range: ByteRange) -> u64 {
        let texts = [
            line_break_before(index),
            "--\r\nContent-Type: \r\nContent-Range: bytes -/\r\n\r\n",
            self.media_type,
        ];
        let text_bytes = texts.iter().map(|text| text.len()).sum::<usize>() + BOUNDARY_BYTES;
        let numbers = [range.start, range.end.saturating_sub(1), self.length];
        numbers
            .iter()
            .map(|&number| decimal_digits(number))
            .fold(u64::try_from(text_bytes).unwrap_or(u64::MAX), u64::saturating_add)
    }
}

/// `CRLF -- boundary -- CRLF`
const CLOSING_BYTES: u64 = 2 + 2 + BOUNDARY_BYTES as u64 + 2 + 2;

/// The CRLF before a delimiter belongs to it (RFC 2046 §5.1.1); the first one begins the body.
fn line_break_before(index: usize) -> &'static str {
    if index == 0 { "" } else { "\r\n" }
}

fn decimal_digits(number: u64) -> u64 {
    u64::from(number.checked_ilog10().unwrap_or(0)) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::range::{Ranges, select};
    use proptest::prelude::*;

    fn body(multipart: &Multipart<'_>) -> String {
        let mut body = String::new();
        let mut buffer = [0; 256];
        for (index, range) in multipart.ranges.as_slice().iter().enumerate() {
            let length = multipart.write_part_head(index, &mut buffer).expect("fits");
            body += std::str::from_utf8(&buffer[..length]).expect("text");
            body.extend(std::iter::repeat_n('x', usize::try_from(range.byte_count()).expect("small")));
        }
        let length = multipart.write_closing(&mut buffer).expect("fits");
        body + std::str::from_utf8(&buffer[..length]).expect("text")
    }

    #[test]
    fn parts_are_delimited_as_the_standard_shows() {
        let Ranges::Several(ranges) = select(b"bytes=0-1,8-", 10) else { panic!("two ranges") };
        let multipart = Multipart {
            ranges: &ranges,
            length: 10,
            media_type: "text/plain",
            boundary: Boundary::from_random(1),
        };
        let delimiter = "--00000000000000000000000000000001";
        let expected = format!(
            "{delimiter}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\nxx\
             \r\n{delimiter}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\nxx\r\n{delimiter}--\r\n"
        );
        assert_eq!(body(&multipart), expected);
        assert!(
            format!("{}", multipart.content_type()).ends_with("; boundary=00000000000000000000000000000001")
        );
        assert_eq!(multipart.write_closing(&mut [0; 39]), Err(HeadTooLong));
    }

    proptest! {
        #[test]
        fn the_length_told_ahead_is_exact(
            length in 1u64..2000,
            starts in prop::collection::vec(0u64..2000, 1..16),
            bits: u128,
        ) {
            let specs: Vec<_> = starts.iter().map(|start| format!("{start}-{}", start + 3)).collect();
            if let Ranges::Several(ranges) = select(format!("bytes={}", specs.join(",")).as_bytes(), length) {
                let boundary = Boundary::from_random(bits);
                let multipart = Multipart { ranges: &ranges, length, media_type: "a/b", boundary };
                prop_assert_eq!(body(&multipart).len() as u64, multipart.content_length());
            }
        }
    }
}
