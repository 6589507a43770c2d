//! Windows of time in which bytes are counted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::WINDOW_SECONDS_MAX;

/// A window of time. Named ones begin where clock and calendar on the wall say so; seconds are counted from 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// So many seconds, at least one.
    Seconds(u32),
    /// `second`
    Second,
    /// `minute`
    Minute,
    /// `hour`
    Hour,
    /// `day`
    Day,
    /// `month`
    Month,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Window::Seconds(seconds) => write!(f, "{seconds}"),
            Window::Second => f.write_str("second"),
            Window::Minute => f.write_str("minute"),
            Window::Hour => f.write_str("hour"),
            Window::Day => f.write_str("day"),
            Window::Month => f.write_str("month"),
        }
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("`{text}` is no window: write second, minute, hour, day, month, or a number of seconds")
        };
        match text {
            "second" => Ok(Window::Second),
            "minute" => Ok(Window::Minute),
            "hour" => Ok(Window::Hour),
            "day" => Ok(Window::Day),
            "month" => Ok(Window::Month),
            other => match other.parse() {
                Ok(seconds @ 1..=WINDOW_SECONDS_MAX) => Ok(Window::Seconds(seconds)),
                _ => Err(bad()),
            },
        }
    }
}

/// Names are strings, seconds are a number.
impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Window::Seconds(seconds) => serializer.serialize_u32(*seconds),
            named => serializer.collect_str(named),
        }
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected second, minute, hour, day, month, or a number of seconds")]
        enum NumberOrName {
            Number(u64),
            Name(String),
        }
        let text = match NumberOrName::deserialize(deserializer)? {
            NumberOrName::Number(seconds) => seconds.to_string(),
            NumberOrName::Name(name) => name,
        };
        text.parse().map_err(de::Error::custom)
    }
}
