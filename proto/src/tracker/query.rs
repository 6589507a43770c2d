//! Query strings whose values are bytes, not text: trackers are told infohashes percent-encoded (BEP 3).

use std::fmt::Write as _;

/// The `key=value` pairs of a raw query string, as they stand, without decoding. A part without `=` has an empty value.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// Decodes a value that must be exactly `N` bytes. A `+` stands for itself: clients send infohashes with it.
pub(crate) fn decode_exactly<const N: usize>(value: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    let mut bytes = value.bytes();
    for slot in &mut out {
        *slot = match bytes.next()? {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            literal => literal,
        };
    }
    bytes.next().is_none().then_some(out)
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Appends a value, leaving only the unreserved characters of RFC 3986 §2.3 as they are.
pub(crate) fn encode_onto(out: &mut String, value: &[u8]) {
    for &byte in value {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_decode_to_their_exact_length_or_not_at_all() {
        assert_eq!(decode_exactly(""), Some([]));
        assert_eq!(decode_exactly("a%00+%fF"), Some([b'a', 0, b'+', 0xff]));
        for bad in ["abc", "abcde", "abc%", "abc%4", "abc%4g", "%61%62%63%64%65"] {
            assert_eq!(decode_exactly::<4>(bad), None, "{bad}");
        }
    }

    #[test]
    fn encoding_keeps_only_unreserved_characters() {
        let mut out = String::new();
        encode_onto(&mut out, b"aZ9-._~ +&=%\0\xff");
        assert_eq!(out, "aZ9-._~%20%2B%26%3D%25%00%FF");
    }
}
