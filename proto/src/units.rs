//! Sizes and rates as people write them: `512KiB`, `10MB`, `2Gbit/s`; plain numbers are bytes, or bytes per second.
//!
//! Prefixes `k K M G T P E` are powers of 1000, with an `i` powers of 1024. Bytes are `B` (or nothing), bits are `bit`
//! and count an eighth. Everything is computed in integers; what does not fit 64 bits is an error.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// Text that is no size or rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseUnitError {
    /// Not a number followed by a known unit.
    #[error("not a number with a unit such as 512KiB, 10MB or 2Gbit/s")]
    Syntax,
    /// More than 64 bits of bytes.
    #[error("more than 18446744073709551615 bytes")]
    Overflow,
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// A number of bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

impl FromStr for Size {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        bytes(text.trim()).map(Self)
    }
}

impl FromStr for Rate {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        let text = text.trim();
        bytes(text.strip_suffix("/s").unwrap_or(text)).map(Self)
    }
}

/// Parses `digits[.digits] [prefix[i]] [B|bit]`.
fn bytes(text: &str) -> Result<u64, ParseUnitError> {
    let unit_start = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_start);
    let (unit, bits) = match unit.trim_start() {
        unit if unit.ends_with("bit") => (&unit[..unit.len() - 3], 8),
        unit => (unit.strip_suffix('B').unwrap_or(unit), 1),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // "1.5" bytes are no bytes, and a fraction needs digits on both sides.
    if whole.is_empty()
        || fraction.contains('.')
        || (number.contains('.') && (fraction.is_empty() || unit.is_empty()))
    {
        return Err(ParseUnitError::Syntax);
    }
    let multiplier = multiplier(unit).ok_or(ParseUnitError::Syntax)?;
    // 18 decimals are finer than one byte of the largest prefix, and leave room in 128 bits.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10u128.pow(u32::try_from(fraction.len()).unwrap_or(18));
    let whole: u128 = whole.parse().map_err(|_| ParseUnitError::Overflow)?;
    let fraction: u128 =
        if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| ParseUnitError::Syntax)? };
    let total =
        whole.checked_mul(multiplier).and_then(|bytes| bytes.checked_add(fraction * multiplier / scale));
    total.and_then(|units| u64::try_from(units / bits).ok()).ok_or(ParseUnitError::Overflow)
}

fn multiplier(prefix: &str) -> Option<u128> {
    let (letter, base) = match prefix.strip_suffix('i') {
        Some(letter) => (letter, 1024u128),
        None => (prefix, 1000),
    };
    let power = match letter {
        "" if base == 1000 => 0,
        "k" | "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return None,
    };
    Some(base.pow(power))
}

/// For people: powers of 1024 and one decimal, such as `1.5 GiB`; below 1 KiB exact.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        human(f, self.0, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
    }
}

/// For people: powers of 1000 and one decimal, such as `50.0 MB/s`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        human(f, self.0, 1000, ["B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s", "EB/s"])
    }
}

fn human(f: &mut fmt::Formatter<'_>, bytes: u64, base: u64, units: [&str; 7]) -> fmt::Result {
    let mut divisor = 1;
    let mut unit = 0;
    // Rounding to the next unit is decided in tenths, so that nothing is ever written as 1024.0.
    while unit + 1 < units.len() && tenths(bytes, divisor) >= u128::from(base) * 10 {
        divisor *= base;
        unit += 1;
    }
    match unit {
        0 => write!(f, "{bytes} {}", units[0]),
        _ => {
            let tenths = tenths(bytes, divisor);
            write!(f, "{}.{} {}", tenths / 10, tenths % 10, units[unit])
        }
    }
}

/// `bytes / divisor` in tenths, rounded to the nearest.
fn tenths(bytes: u64, divisor: u64) -> u128 {
    (u128::from(bytes) * 10 + u128::from(divisor / 2)) / u128::from(divisor)
}

macro_rules! serde_number {
    ($name:ident) => {
        /// Written as a plain number, which no reader can misunderstand.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u64(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct NumberOrText;
                impl Visitor<'_> for NumberOrText {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a number, or a string such as \"512KiB\", \"10MB\" or \"2Gbit/s\"")
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        Ok($name(number))
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        u64::try_from(number).map($name).map_err(|_| E::custom("must not be negative"))
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(NumberOrText)
            }
        }
    };
}

serde_number!(Size);
serde_number!(Rate);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(text.parse().ok(), expected.map(Rate), "{text}");
    }

    #[test]
    fn what_the_manual_names_is_understood() {
        check("512KiB", Some(512 << 10));
        check("10MB", Some(10_000_000));
        check("2Gbit/s", Some(250_000_000));
        check("100", Some(100));
        check("1.5 GiB", Some(3 << 29));
        check("0.1kB/s", Some(100));
        check("7bit", Some(0));
        check("16EiB", None);
        check("18446744073709551615", Some(u64::MAX));
        assert_eq!("18446744073709551616".parse::<Size>(), Err(ParseUnitError::Overflow));
        assert_eq!("99999999999999999999999999999999999999E".parse::<Size>(), Err(ParseUnitError::Overflow));
        assert_eq!("10MB/s".parse::<Size>(), Err(ParseUnitError::Syntax));
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "", "MB", "-1", "+1", "1.5", "1.MB", ".5MB", "1.2.3MB", "1XB", "1iB", "1mb", "10 M B", "1MBB",
            "1e3",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn people_read_one_decimal() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (3 << 29, "1.5 GiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(Rate(50_000_000).to_string(), "50.0 MB/s");
        assert_eq!(Rate(999_950).to_string(), "1.0 MB/s");
    }

    #[test]
    fn json_takes_numbers_and_text() {
        assert_eq!(
            serde_json::from_str::<Vec<Rate>>(r#"[5, "2kB/s"]"#).ok(),
            Some(vec![Rate(5), Rate(2000)])
        );
        assert!(serde_json::from_str::<Size>("-1").is_err());
        assert!(serde_json::from_str::<Size>("1.5").is_err());
        assert_eq!(serde_json::to_string(&Size(7)).ok().as_deref(), Some("7"));
    }

    proptest! {
        #[test]
        fn displayed_sizes_parse_back_within_their_precision(bytes: u64) {
            if let Ok(Size(back)) = Size(bytes).to_string().parse() {
                prop_assert!(back.abs_diff(bytes) <= bytes / 20 + 1);
            } else {
                // Only what rounds up to 16 EiB exceeds 64 bits.
                prop_assert!(bytes > u64::MAX / 100 * 99);
            }
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "[0-9.]{0,45}[a-zA-Z/é ]{0,6}") {
            let _ = (text.parse::<Size>(), text.parse::<Rate>());
        }
    }
}
