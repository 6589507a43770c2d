//! HTTP/1.1 as a strict file server needs it: RFC 9112 syntax, RFC 9110 ranges and conditions, response heads.
//!
//! Parsing a request and writing a response head allocate nothing: requests borrow from the receive buffer, heads are
//! written into a buffer of the caller. A buffer of 4 KiB holds any head written here with ordinary names and links.

pub mod conditional;
pub mod date;
mod framing;
pub mod media_type;
pub mod multipart;
pub mod problem;
pub mod range;
pub mod request;
pub mod response;
pub mod target;

/// Strips the optional whitespace of RFC 9110 §5.6.3 (space and tab, nothing else) from both ends.
fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The decimal number `digits`, or `None` when it is not 1*DIGIT or exceeds 64 bits.
fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
