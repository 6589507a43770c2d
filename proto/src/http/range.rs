//! Range requests (RFC 9110 §14): from a `Range` value and a length to at most sixteen disjoint ranges.
//!
//! A `Range` we do not like is ignored, as §14.2 allows, and the whole file is the answer: that holds for unknown units,
//! broken syntax, more than [`SPECS_MAX`] ranges, and more than [`RANGES_MAX`] after coalescing. Because ranges that
//! overlap or touch are coalesced, an answer never carries a byte twice.

use super::trim_ows;

/// Most range-specs that a `Range` field may hold before it is ignored.
pub const SPECS_MAX: usize = 64;

/// Most ranges that are answered in parts; with more than these after coalescing the field is ignored.
pub const RANGES_MAX: usize = 16;

/// Bytes `start..end` of a file; never empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte (`last-pos` of the standard plus one).
    pub end: u64,
}

impl ByteRange {
    /// Bytes in the range.
    #[must_use]
    pub fn byte_count(&self) -> u64 {
        self.end - self.start
    }
}

/// Several disjoint, non-adjacent ranges of one file, in the order in which they were first asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet {
    ranges: [ByteRange; RANGES_MAX],
    count: usize,
}

impl RangeSet {
    /// The ranges.
    #[must_use]
    pub fn as_slice(&self) -> &[ByteRange] {
        &self.ranges[..self.count]
    }
}

/// What a `Range` field asks of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// The field is ignored: answer 200 with the whole file.
    Whole,
    /// Answer 206 with this.
    Single(ByteRange),
    /// Answer 206 with these, in parts (RFC 9110 §15.3.7.2).
    Several(Box<RangeSet>),
    /// Answer 416 with `Content-Range: bytes */length`.
    Unsatisfiable,
}

impl Ranges {
    /// The ranges to answer with 206.
    #[must_use]
    pub fn as_slice(&self) -> &[ByteRange] {
        match self {
            Ranges::Single(range) => std::slice::from_ref(range),
            Ranges::Several(set) => set.as_slice(),
            Ranges::Whole | Ranges::Unsatisfiable => &[],
        }
    }
}

/// Decides what a `Range` field value asks of a file of `length` bytes.
///
/// The caller applies it to `GET` only, once `If-Range` and the other conditions hold (RFC 9110 §14.2).
#[must_use]
pub fn select(value: &[u8], length: u64) -> Ranges {
    let Some((_, specs)) = value.split_at_checked(6).filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes="))
    else {
        return Ranges::Whole;
    };
    // Nearly every request is for one, and needs no table of them.
    if memchr::memchr(b',', specs).is_some() {
        return select_several(specs, length);
    }
    match Spec::parse(trim_ows(specs)).map(|spec| spec.resolve(length)) {
        Some(Resolved::Range(range)) => Ranges::Single(range),
        Some(Resolved::Unsatisfiable) => Ranges::Unsatisfiable,
        Some(Resolved::Whole) | None => Ranges::Whole,
    }
}

#[inline(never)]
fn select_several(specs: &[u8], length: u64) -> Ranges {
    let mut wanted = [ByteRange::default(); SPECS_MAX];
    let mut wanted_count = 0;
    let mut spec_count = 0;
    // Empty list elements are skipped (RFC 9110 §5.6.1.2).
    for spec in specs.split(|&b| b == b',').map(trim_ows).filter(|spec| !spec.is_empty()) {
        spec_count += 1;
        match Spec::parse(spec).map(|spec| spec.resolve(length)) {
            Some(_) if spec_count > SPECS_MAX => return Ranges::Whole,
            Some(Resolved::Range(range)) => {
                wanted[wanted_count] = range;
                wanted_count += 1;
            }
            Some(Resolved::Unsatisfiable) => {}
            Some(Resolved::Whole) | None => return Ranges::Whole,
        }
    }
    match (spec_count, wanted_count) {
        (0, _) => Ranges::Whole,
        (_, 0) => Ranges::Unsatisfiable,
        _ => coalesce(&wanted[..wanted_count]).unwrap_or(Ranges::Whole),
    }
}

/// One range-spec (RFC 9110 §14.1.2). Numbers beyond 64 bits are the largest number: no file reaches that far.
enum Spec {
    Int { first: u64, last: Option<u64> },
    Suffix { bytes: u64 },
}

enum Resolved {
    Range(ByteRange),
    Unsatisfiable,
    /// All of an empty file, which no range can express.
    Whole,
}

impl Spec {
    fn parse(spec: &[u8]) -> Option<Self> {
        let dash = spec.iter().position(|&b| b == b'-')?;
        let (first, last) = (&spec[..dash], &spec[dash + 1..]);
        match (first.is_empty(), last.is_empty()) {
            (true, _) => Some(Self::Suffix { bytes: position(last)? }),
            (false, true) => Some(Self::Int { first: position(first)?, last: None }),
            (false, false) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Self::Int { first, last: Some(last) })
            }
        }
    }

    fn resolve(self, length: u64) -> Resolved {
        match self {
            Self::Suffix { bytes: 0 } => Resolved::Unsatisfiable,
            Self::Suffix { .. } if length == 0 => Resolved::Whole,
            Self::Suffix { bytes } => {
                Resolved::Range(ByteRange { start: length.saturating_sub(bytes), end: length })
            }
            Self::Int { first, .. } if first >= length => Resolved::Unsatisfiable,
            Self::Int { first, last } => {
                let end = last.map_or(length, |last| last.saturating_add(1).min(length));
                Resolved::Range(ByteRange { start: first, end })
            }
        }
    }
}

/// 1*DIGIT, saturating.
fn position(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        // Below this nothing overflows, and saying so costs less than looking after each digit.
        if number < u64::MAX / 10 {
            Some(number * 10 + digit)
        } else {
            Some(number.saturating_mul(10).saturating_add(digit))
        }
    })
}

/// Joins what overlaps or touches, which is something; `None` when more than [`RANGES_MAX`] are left.
///
/// Parts keep the order in which they were asked for, as RFC 9110 §15.3.7.2 asks: a client put the part it needs first.
fn coalesce(wanted: &[ByteRange]) -> Option<Ranges> {
    let mut ordered = [(ByteRange::default(), 0usize); SPECS_MAX];
    let ordered = &mut ordered[..wanted.len()];
    for (place, (slot, range)) in ordered.iter_mut().zip(wanted).enumerate() {
        *slot = (*range, place);
    }
    ordered.sort_unstable_by_key(|(range, place)| (range.start, *place));

    let mut merged = 0;
    for index in 1..ordered.len() {
        let (range, place) = ordered[index];
        let (last, last_place) = &mut ordered[merged];
        if range.start <= last.end {
            last.end = last.end.max(range.end);
            *last_place = place.min(*last_place);
        } else {
            merged += 1;
            ordered[merged] = (range, place);
        }
    }
    let count = merged + 1;
    let joined = &mut ordered[..count];
    joined.sort_unstable_by_key(|(_, place)| *place);
    if let [(range, _)] = joined {
        return Some(Ranges::Single(*range));
    }
    let mut set = RangeSet { ranges: [ByteRange::default(); RANGES_MAX], count };
    for (slot, (range, _)) in set.ranges.get_mut(..count)?.iter_mut().zip(joined) {
        *slot = *range;
    }
    Some(Ranges::Several(Box::new(set)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Expects the ranges as `first-last` pairs, `200` or `416`.
    fn check(value: &str, length: u64, expected: &str) {
        let actual = match select(value.as_bytes(), length) {
            Ranges::Whole => "200".to_owned(),
            Ranges::Unsatisfiable => "416".to_owned(),
            partial => {
                let texts =
                    partial.as_slice().iter().map(|range| format!("{}-{}", range.start, range.end - 1));
                texts.collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(actual, expected, "{value} of {length}");
    }

    #[test]
    fn single_open_and_suffix_ranges() {
        check("bytes=0-0", 10, "0-0");
        check("bytes=0-9", 10, "0-9");
        check("bytes=3-", 10, "3-9");
        check("bytes=3-100", 10, "3-9");
        check("bytes=-3", 10, "7-9");
        check("bytes=-30", 10, "0-9");
        check("Bytes= 1-2 ,", 10, "1-2");
    }

    #[test]
    fn several_ranges_keep_their_order_and_are_joined() {
        check("bytes=0-0,-1", 10, "0-0 9-9");
        check("bytes=8-9, 0-1", 10, "8-9 0-1");
        check("bytes=0-4,5-9", 10, "0-9");
        check("bytes=0-4,4-6", 10, "0-6");
        check("bytes=7-7,0-0,2-3,1-1", 10, "7-7 0-3");
        check("bytes=0-9,2-3", 10, "0-9");
        check("bytes=0-0,10-11", 10, "0-0");
    }

    #[test]
    fn what_lies_outside_is_unsatisfiable() {
        check("bytes=10-", 10, "416");
        check("bytes=10-12,20-", 10, "416");
        check("bytes=-0", 10, "416");
        check("bytes=0-", 0, "416");
        check("bytes=-5", 0, "200");
    }

    #[test]
    fn what_is_invalid_is_ignored() {
        for value in
            ["bytes", "bytes=", "bytes=,", "bytes=-", "bytes=2-1", "bytes=a-b", "bytes=1", "bytes=+1-2"]
        {
            check(value, 10, "200");
        }
        for value in
            ["items=0-1", "bytes =0-1", "bytes=0-1-2", "bytes=0 -1", "bytes=0-1;2-3", "", "bytes=--1"]
        {
            check(value, 10, "200");
        }
        check("bytes=0-1,x", 10, "200");
    }

    #[test]
    fn numbers_beyond_64_bits_saturate() {
        let huge = "9".repeat(40);
        check(&format!("bytes=1-{huge}"), 10, "1-9");
        check(&format!("bytes={huge}-"), 10, "416");
        check(&format!("bytes=-{huge}"), 10, "0-9");
        check(&format!("bytes=1-{}", u64::MAX), u64::MAX, &format!("1-{}", u64::MAX - 1));
        check("bytes=18446744073709551614-", u64::MAX, "18446744073709551614-18446744073709551614");
    }

    #[test]
    fn absurdly_many_ranges_are_ignored() {
        let disjoint = |count: u64| {
            let specs: Vec<_> = (0..count).map(|n| format!("{0}-{0}", n * 2)).collect();
            format!("bytes={}", specs.join(","))
        };
        check(&disjoint(17), 1000, "200");
        assert_eq!(select(disjoint(16).as_bytes(), 1000).as_slice().len(), 16);
        check(&disjoint(10_000), 100_000, "200");
        check(&format!("bytes={}", "0-1,".repeat(64)), 10, "0-1");
        check(&format!("bytes={}", "0-1,".repeat(65)), 10, "200");
        check(&format!("bytes={}", "50-,".repeat(65)), 10, "200");
    }

    proptest! {
        #[test]
        fn the_union_is_exactly_what_was_asked(
            length in 1u64..64,
            specs in prop::collection::vec((0u64..80, 0u64..20), 1..20),
        ) {
            let text: Vec<_> = specs.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
            let asked = |byte: u64| specs.iter().any(|(first, more)| (*first..=first + more).contains(&byte));
            match select(format!("bytes={}", text.join(", ")).as_bytes(), length) {
                Ranges::Whole => {
                    let runs = (0..length).filter(|&b| asked(b) && (b == 0 || !asked(b - 1))).count();
                    prop_assert!(runs > RANGES_MAX);
                }
                Ranges::Unsatisfiable => prop_assert!(!(0..length).any(asked)),
                partial => for byte in 0..length + 90 {
                    let hits = partial.as_slice().iter().filter(|r| (r.start..r.end).contains(&byte)).count();
                    prop_assert_eq!(hits, usize::from(byte < length && asked(byte)));
                },
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(tail in "[-0-9, a]{0,40}", length: u64) {
            let ranges = select(format!("bytes={tail}").as_bytes(), length);
            prop_assert!(ranges.as_slice().iter().all(|r| r.start < r.end && r.end <= length));
        }
    }
}
