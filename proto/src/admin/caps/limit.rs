//! A limit on a rate: bytes a second, or a share of the line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::units::Rate;

/// Bytes a second, written as a number or as `2Gbit/s`; or a percentage of `line_rate`, such as `40%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes a second; 0 is paused.
    Rate(Rate),
    /// A part of `line_rate`.
    Share(Share),
}

/// A part of a whole in thousandths of a percent, at most 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

const WHOLE: u32 = 100_000;
const DECIMALS: usize = 3;

impl Limit {
    /// Bytes a second, where the line carries `line_rate`; `None` for a share of a line whose rate is not known.
    #[must_use]
    pub fn bytes_per_second(self, line_rate: Option<Rate>) -> Option<u64> {
        match self {
            Limit::Rate(Rate(rate)) => Some(rate),
            Limit::Share(share) => line_rate.map(|line_rate| share.of(line_rate)),
        }
    }
}

impl Share {
    /// This part of `line_rate`, rounded down to whole bytes.
    #[must_use]
    pub fn of(self, line_rate: Rate) -> u64 {
        let part = u128::from(line_rate.0) * u128::from(self.0) / u128::from(WHOLE);
        u64::try_from(part).unwrap_or(line_rate.0)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thousandths = format!("{:03}", self.0 % 1_000);
        match thousandths.trim_end_matches('0') {
            "" => write!(f, "{}%", self.0 / 1_000),
            decimals => write!(f, "{}.{decimals}%", self.0 / 1_000),
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no percentage: write 0% to 100%, with up to three decimals");
        let number = text.strip_suffix('%').map(str::trim_end).ok_or_else(bad)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || whole.len() > 3 || decimals.len() > DECIMALS {
            return Err(bad());
        }
        let thousandths = format!("{whole}{decimals:0<DECIMALS$}").parse().map_err(|_| bad())?;
        if thousandths > WHOLE { Err(bad()) } else { Ok(Share(thousandths)) }
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            share if share.ends_with('%') => share.parse().map(Limit::Share),
            rate => {
                rate.parse().map(Limit::Rate).map_err(|error: crate::units::ParseUnitError| error.to_string())
            }
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Limit::Rate(rate) => rate.serialize(serializer),
            Limit::Share(share) => serializer.collect_str(share),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("null, bytes a second as a number or a string such as \"2Gbit/s\", or a percentage of line_rate such as \"40%\"")
            }

            fn visit_u64<E: de::Error>(self, rate: u64) -> Result<Limit, E> {
                Ok(Limit::Rate(Rate(rate)))
            }

            fn visit_i64<E: de::Error>(self, rate: i64) -> Result<Limit, E> {
                u64::try_from(rate)
                    .map(|rate| Limit::Rate(Rate(rate)))
                    .map_err(|_| E::custom("must not be negative: 0 pauses, null is unlimited"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Limit, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        let limit = text.parse::<Limit>().ok();
        assert_eq!(limit.and_then(|limit| limit.bytes_per_second(Some(Rate(1_000_000)))), expected, "{text}");
    }

    #[test]
    fn limits_are_rates_or_parts_of_the_line() {
        check("2Mbit/s", Some(250_000));
        check("0", Some(0));
        check("40%", Some(400_000));
        check("12.5 %", Some(125_000));
        check("0.001%", Some(10));
        check("100%", Some(1_000_000));
        check("000%", Some(0));
        for bad in ["100.001%", "101%", "%", "-1%", "1.%", ".5%", "1.0000%", "1e1%", "+4%", "fast", "", "4%%"]
        {
            check(bad, None);
        }
        assert_eq!(
            "33.3%".parse::<Share>().map(|share| share.of(Rate(u64::MAX))),
            Ok(u64::MAX / 1_000 * 333 + 204)
        );
    }

    #[test]
    fn shares_are_written_as_people_do() {
        for (text, canonical) in
            [("40%", "40%"), ("07.50%", "7.5%"), ("0.001%", "0.001%"), ("100.000%", "100%")]
        {
            assert_eq!(text.parse::<Share>().map(|share| share.to_string()), Ok(canonical.to_owned()));
        }
    }
}
