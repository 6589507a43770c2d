//! The decoder: one loop over tokens, with the open lists and dictionaries on a heap-allocated stack.

use super::{Dict, Error, List, Value};

/// What a decoder accepts; every bound is checked before memory is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Length of the input, in bytes.
    pub bytes: usize,
    /// Levels of lists and dictionaries inside each other.
    pub depth: usize,
    /// Values in all; each costs up to about 60 bytes of memory.
    pub items: usize,
}

impl Limits {
    /// For .torrent files: 64 MiB, and room for several hundred thousand files.
    pub const METAINFO: Self = Self { bytes: 64 << 20, depth: 128, items: 4 << 20 };
    /// For messages of peers and trackers: 2 MiB, flat structures.
    pub const MESSAGE: Self = Self { bytes: 2 << 20, depth: 16, items: 1 << 16 };
}

/// Decodes exactly one value; the order of dictionary keys does not matter.
///
/// # Errors
/// Anything but one well-formed value within [`Limits::METAINFO`], duplicate keys and trailing data included.
pub fn decode(input: &[u8]) -> Result<Value<'_>, Error> {
    Decoder::new(Limits::METAINFO).decode(input)
}

/// Like [`decode`], and refuses dictionaries whose keys are not sorted: what it accepts, the encoder reproduces.
///
/// # Errors
/// As [`decode`], and [`Error::UnsortedKey`].
pub fn decode_canonical(input: &[u8]) -> Result<Value<'_>, Error> {
    Decoder::new(Limits::METAINFO).canonical().decode(input)
}

/// Decodes one value of a message and returns it with the bytes after it (BEP 9 puts the metadata there).
///
/// # Errors
/// Anything but a well-formed value within [`Limits::MESSAGE`] at the front of `input`.
pub fn decode_prefix(input: &[u8]) -> Result<(Value<'_>, &[u8]), Error> {
    Decoder::new(Limits::MESSAGE).decode_prefix(input)
}

/// A decoder with limits of the caller's choice.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    limits: Limits,
    canonical: bool,
}

impl Decoder {
    /// A decoder that accepts keys in any order.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, canonical: false }
    }

    /// Refuse unsorted keys from here on.
    #[must_use]
    pub fn canonical(self) -> Self {
        Self { canonical: true, ..self }
    }

    /// Decodes exactly one value.
    ///
    /// # Errors
    /// Malformed input, input beyond the limits, and [`Error::Trailing`] data.
    pub fn decode(self, input: &[u8]) -> Result<Value<'_>, Error> {
        let (value, rest) = self.decode_prefix(input)?;
        if rest.is_empty() { Ok(value) } else { Err(Error::Trailing { at: input.len() - rest.len() }) }
    }

    /// Decodes one value and returns it with the bytes that follow it.
    ///
    /// # Errors
    /// Malformed input, and input beyond the limits.
    pub fn decode_prefix(self, input: &[u8]) -> Result<(Value<'_>, &[u8]), Error> {
        if input.len() > self.limits.bytes {
            return Err(Error::TooLong { limit: self.limits.bytes });
        }
        let mut scanner = Scanner { input, at: 0 };
        let mut open: Vec<Frame<'_>> = Vec::new();
        let mut items = 0;
        loop {
            if let Some(Frame { content: Content::Dict { entries, key }, .. }) = open.last_mut()
                && key.is_none()
                && scanner.peek()? != b'e'
            {
                *key = Some(scanner.key(entries.last().map(|(last, _)| *last), self.canonical)?);
            }
            items += 1;
            if items > self.limits.items {
                return Err(Error::TooManyItems { limit: self.limits.items });
            }
            let start = scanner.at;
            let value = match scanner.peek()? {
                b'i' => Value::Int(scanner.int()?),
                b'0'..=b'9' => Value::Bytes(scanner.bytes()?),
                token @ (b'l' | b'd') => {
                    if open.len() == self.limits.depth {
                        return Err(Error::TooDeep { limit: self.limits.depth });
                    }
                    scanner.at += 1;
                    open.push(Frame::new(start, token));
                    continue;
                }
                b'e' => {
                    let frame = open.pop().ok_or(Error::Syntax { at: start })?;
                    scanner.at += 1;
                    frame.close(&scanner)?
                }
                _ => return Err(Error::Syntax { at: start }),
            };
            match open.last_mut() {
                Some(frame) => frame.push(value),
                None => return Ok((value, scanner.rest())),
            }
        }
    }
}

/// A list or dictionary whose end has not been seen.
struct Frame<'a> {
    start: usize,
    content: Content<'a>,
}

enum Content<'a> {
    List(Vec<Value<'a>>),
    Dict { entries: Vec<(&'a [u8], Value<'a>)>, key: Option<&'a [u8]> },
}

impl<'a> Frame<'a> {
    fn new(start: usize, token: u8) -> Self {
        let content = if token == b'l' {
            Content::List(Vec::new())
        } else {
            Content::Dict { entries: Vec::new(), key: None }
        };
        Self { start, content }
    }

    fn push(&mut self, value: Value<'a>) {
        match &mut self.content {
            Content::List(items) => items.push(value),
            Content::Dict { entries, key } => entries.extend(key.take().map(|key| (key, value))),
        }
    }

    /// The finished value; `scanner` stands behind its `e`.
    fn close(self, scanner: &Scanner<'a>) -> Result<Value<'a>, Error> {
        let raw = &scanner.input[self.start..scanner.at];
        match self.content {
            Content::List(items) => Ok(Value::List(List { items, raw })),
            // An `e` in the place of a value.
            Content::Dict { key: Some(_), .. } => Err(Error::Syntax { at: scanner.at - 1 }),
            Content::Dict { mut entries, key: None } => {
                if !entries.is_sorted_by(|a, b| a.0 < b.0) {
                    entries.sort_by_key(|(key, _)| *key);
                    if entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                        return Err(Error::DuplicateKey { at: scanner.at });
                    }
                }
                Ok(Value::Dict(Dict { entries, raw }))
            }
        }
    }
}

/// A cursor over the input that reads one scalar at a time.
struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Result<u8, Error> {
        self.input.get(self.at).copied().ok_or(Error::Truncated)
    }

    fn rest(&self) -> &'a [u8] {
        &self.input[self.at..]
    }

    /// A dictionary key, which in canonical encoding sorts behind `last`.
    fn key(&mut self, last: Option<&[u8]>, canonical: bool) -> Result<&'a [u8], Error> {
        let at = self.at;
        if !self.peek()?.is_ascii_digit() {
            return Err(Error::Syntax { at });
        }
        let key = self.bytes()?;
        match last {
            Some(last) if last == key => Err(Error::DuplicateKey { at }),
            Some(last) if canonical && last > key => Err(Error::UnsortedKey { at }),
            _ => Ok(key),
        }
    }

    fn int(&mut self) -> Result<i64, Error> {
        let at = self.at;
        self.at += 1;
        let negative = self.peek()? == b'-';
        self.at += usize::from(negative);
        let magnitude = self.digits(b'e')?;
        match (negative, magnitude) {
            (true, 0) => Err(Error::Number { at }),
            (true, _) => 0i64.checked_sub_unsigned(magnitude).ok_or(Error::Number { at }),
            (false, _) => i64::try_from(magnitude).map_err(|_| Error::Number { at }),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let count = usize::try_from(self.digits(b':')?).map_err(|_| Error::Truncated)?;
        let bytes = self.rest().get(..count).ok_or(Error::Truncated)?;
        self.at += count;
        Ok(bytes)
    }

    /// A decimal number without leading zeros, and the `end` behind it.
    fn digits(&mut self, end: u8) -> Result<u64, Error> {
        let start = self.at;
        let mut number = 0u64;
        while self.peek()?.is_ascii_digit() {
            let digit = u64::from(self.peek()? - b'0');
            number = number
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(digit))
                .ok_or(Error::Number { at: start })?;
            self.at += 1;
        }
        let count = self.at - start;
        if count == 0 || self.peek()? != end {
            return Err(Error::Syntax { at: self.at });
        }
        if count > 1 && self.input[start] == b'0' {
            return Err(Error::Number { at: start });
        }
        self.at += 1;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes in both modes; the canonical outcome is given, the lenient one only where it differs.
    fn check(input: &[u8], canonical: Result<(), Error>, lenient: Option<Result<(), Error>>) {
        let shown = String::from_utf8_lossy(input);
        assert_eq!(decode_canonical(input).map(drop), canonical, "canonical {shown}");
        assert_eq!(decode(input).map(drop), lenient.unwrap_or(canonical), "lenient {shown}");
    }

    #[test]
    fn numbers_have_one_spelling() {
        for good in [
            &b"i0e"[..],
            b"i-1e",
            b"i9223372036854775807e",
            b"i-9223372036854775808e",
            b"0:",
            b"10:0123456789",
        ] {
            check(good, Ok(()), None);
        }
        check(b"i-0e", Err(Error::Number { at: 0 }), None);
        for bad in [&b"i01e"[..], b"i00e"] {
            check(bad, Err(Error::Number { at: 1 }), None);
        }
        check(b"i-01e", Err(Error::Number { at: 2 }), None);
        check(b"i9223372036854775808e", Err(Error::Number { at: 0 }), None);
        check(b"i-9223372036854775809e", Err(Error::Number { at: 0 }), None);
        check(b"i99999999999999999999e", Err(Error::Number { at: 1 }), None);
        check(b"01:a", Err(Error::Number { at: 0 }), None);
        check(b"i+1e", Err(Error::Syntax { at: 1 }), None);
        check(b"ie", Err(Error::Syntax { at: 1 }), None);
        check(b"i--1e", Err(Error::Syntax { at: 2 }), None);
    }

    #[test]
    fn truncation_is_noticed_everywhere() {
        let whole = b"d1:ali1e3:xyze1:bd0:i-5eee";
        check(whole, Ok(()), None);
        for cut in 0..whole.len() {
            check(&whole[..cut], Err(Error::Truncated), None);
        }
        check(b"18446744073709551615:", Err(Error::Truncated), None);
    }

    #[test]
    fn dictionaries_are_checked() {
        check(b"d1:a0:1:b0:e", Ok(()), None);
        check(b"d1:b0:1:a0:e", Err(Error::UnsortedKey { at: 6 }), Some(Ok(())));
        check(b"d1:a0:1:a0:e", Err(Error::DuplicateKey { at: 6 }), None);
        check(
            b"d1:a0:1:b0:1:a0:e",
            Err(Error::UnsortedKey { at: 11 }),
            Some(Err(Error::DuplicateKey { at: 17 })),
        );
        check(b"di1e0:e", Err(Error::Syntax { at: 1 }), None);
        check(b"d1:ae", Err(Error::Syntax { at: 4 }), None);
        check(b"e", Err(Error::Syntax { at: 0 }), None);
        check(b"i1ee", Err(Error::Trailing { at: 3 }), None);
    }

    #[test]
    fn unsorted_keys_are_found_and_raw_is_what_arrived() {
        let value = decode(b"d1:bd1:zi1e1:yi2ee1:a3:xyze").unwrap();
        let dict = value.as_dict().unwrap();
        assert_eq!(dict.get("a").and_then(Value::as_str), Some("xyz"));
        let inner = dict.get("b").and_then(Value::as_dict).unwrap();
        assert_eq!(inner.raw(), b"d1:zi1e1:yi2ee");
        assert_eq!(inner.get("y").and_then(Value::as_int), Some(2));
        assert_eq!(inner.get("x"), None);
    }

    #[test]
    fn limits_hold() {
        let deep = [vec![b'l'; 1 << 20], vec![b'e'; 1 << 20]].concat();
        check(&deep, Err(Error::TooDeep { limit: 128 }), None);
        check(&[vec![b'l'; 128], vec![b'e'; 128]].concat(), Ok(()), None);
        let small = Decoder::new(Limits { bytes: 8, depth: 1, items: 3 });
        assert_eq!(small.decode(b"l0:0:0:e"), Err(Error::TooManyItems { limit: 3 }));
        assert_eq!(small.decode(b"9:123456789"), Err(Error::TooLong { limit: 8 }));
    }

    #[test]
    fn a_prefix_leaves_the_rest() {
        let (value, rest) = decode_prefix(b"d5:piecei0eeDATA").unwrap();
        assert_eq!(value.as_dict().and_then(|dict| dict.get("piece")), Some(&Value::Int(0)));
        assert_eq!(rest, b"DATA");
    }
}
