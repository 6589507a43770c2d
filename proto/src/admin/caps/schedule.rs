//! Caps that hold at certain hours of certain days, by the clock on the wall.
//!
//! Only weekday and time of day decide. Where the clock is put forward, the hours it skips do not happen, and an entry that began within
//! them is in force from the first moment after; where it is put back, what happens twice counts twice.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{ContentCaps, Egress, Origin, null_is_default};
use crate::id::ContentId;

const DAY_S: u32 = 86_400;
const WEEK_S: u32 = 7 * DAY_S;
const DAY_MINUTES: u16 = 24 * 60;

/// Caps that hold besides those of the document while the entry is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleEntry {
    /// Days on which it begins.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub days: Days,
    /// When it begins.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub from: TimeOfDay,
    /// When it ends: on the next day where this is not later than `from`.
    #[serde(default = "TimeOfDay::end_of_day")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub to: TimeOfDay,
    /// What may be sent meanwhile.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Egress>))]
    pub egress: Egress,
    /// What may be taken from origins meanwhile.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Origin>))]
    pub origin: Origin,
    /// What holds for single contents meanwhile.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, ContentCaps>>))]
    pub contents: BTreeMap<ContentId, ContentCaps>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ScheduleEntry {
    /// Whether it is in force.
    #[must_use]
    pub fn is_in_force(&self, now: CivilTime) -> bool {
        let (from, to) = (self.from.second(), self.to.second());
        let (today, yesterday) = (self.days.contains(now.day()), self.days.contains((now.day() + 6) % 7));
        let second = now.second();
        if from < to {
            return today && (from..to).contains(&second);
        }
        (today && second >= from) || (yesterday && second < to)
    }

    /// Seconds of the week at which it may begin or end.
    fn boundaries(&self) -> impl Iterator<Item = u32> {
        let (from, to) = (self.from.second(), self.to.second());
        let end = if from < to { to } else { to + DAY_S };
        let days = (0..7u8).filter(|day| self.days.contains(*day)).map(|day| u32::from(day) * DAY_S);
        days.flat_map(move |day| [(day + from) % WEEK_S, (day + end) % WEEK_S])
    }
}

/// Seconds by the clock on the wall until another set of `entries` is in force than at `now`; `None` if that never happens.
#[must_use]
pub fn next_change(entries: &[&ScheduleEntry], now: CivilTime) -> Option<u32> {
    let in_force = |at: CivilTime| entries.iter().map(move |entry| entry.is_in_force(at));
    let ahead = |boundary: u32| match (boundary + WEEK_S - now.second_of_week) % WEEK_S {
        0 => WEEK_S,
        seconds => seconds,
    };
    let mut changes: Vec<u32> = entries.iter().flat_map(|entry| entry.boundaries()).map(ahead).collect();
    changes.sort_unstable();
    changes.dedup();
    changes.into_iter().find(|seconds| !in_force(now).eq(in_force(now.after(*seconds))))
}

/// Weekday and time of day where the relay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CivilTime {
    /// Seconds since the last Monday, 00:00.
    second_of_week: u32,
}

impl CivilTime {
    /// `second` of the day `days` after Monday; both are taken modulo a week and a day.
    #[must_use]
    pub fn new(days: u8, second: u32) -> Self {
        CivilTime { second_of_week: u32::from(days % 7) * DAY_S + second % DAY_S }
    }

    /// `seconds` later by the clock on the wall.
    #[must_use]
    pub fn after(self, seconds: u32) -> Self {
        CivilTime { second_of_week: (self.second_of_week + seconds % WEEK_S) % WEEK_S }
    }

    /// Days since Monday.
    #[must_use]
    pub fn day(self) -> u8 {
        u8::try_from(self.second_of_week / DAY_S).unwrap_or(0)
    }

    /// Seconds since midnight.
    #[must_use]
    pub fn second(self) -> u32 {
        self.second_of_week % DAY_S
    }
}

/// `Fri 18:00`
impl fmt::Display for CivilTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES[usize::from(self.day())];
        let (initial, rest) = name.split_at(1);
        let minute = self.second() / 60;
        write!(f, "{}{rest} {:02}:{:02}", initial.to_ascii_uppercase(), minute / 60, minute % 60)
    }
}

/// A set of weekdays: a bit each, Monday the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(u8);

const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Default for Days {
    fn default() -> Self {
        Days(0x7f)
    }
}

impl Days {
    /// Whether the day so many days after Monday is one of them.
    #[must_use]
    pub fn contains(self, day: u8) -> bool {
        self.0 >> (day % 7) & 1 == 1
    }
}

impl FromStr for Days {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let day = |name: &str| {
            NAMES.iter().position(|known| name.trim().eq_ignore_ascii_case(known)).ok_or_else(|| {
                format!("`{text}` are no days: write days or ranges of mon, tue, wed, thu, fri, sat, sun, such as \"mon-fri\" or \"sat,sun\"")
            })
        };
        let mut days = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (day(first)?, day(last)?);
            let length = (last + 7 - first) % 7;
            (first..=first + length).for_each(|day| days |= 1 << (day % 7));
        }
        Ok(Days(days))
    }
}

/// Runs of three days and more as ranges, such as `mon-wed,sun`.
impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut day, mut comma) = (0, "");
        while day < 7 {
            let run = (day..7).take_while(|day| self.contains(*day)).count();
            let index = usize::from(day);
            match run {
                0 => {}
                1 | 2 => write!(f, "{comma}{}", NAMES[index])?,
                _ => write!(f, "{comma}{}-{}", NAMES[index], NAMES[index + run - 1])?,
            }
            comma = if run > 0 { "," } else { comma };
            day += if run > 2 { u8::try_from(run).unwrap_or(7) } else { 1 };
        }
        Ok(())
    }
}

/// Minutes since midnight, from 00:00 to 24:00.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    fn end_of_day() -> Self {
        TimeOfDay(DAY_MINUTES)
    }

    fn second(self) -> u32 {
        u32::from(self.0) * 60
    }

    /// Whether no day has this as a beginning.
    pub(super) fn is_end_of_day(self) -> bool {
        self.0 == DAY_MINUTES
    }
}

impl FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let two = |part: &str| {
            let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse::<u16>().ok()).flatten()
        };
        let parts = text.split_once(':').and_then(|(hour, minute)| Some((two(hour)?, two(minute)?)));
        match parts {
            Some((hour @ 0..=23, minute @ 0..=59)) => Ok(TimeOfDay(hour * 60 + minute)),
            Some((24, 0)) => Ok(TimeOfDay(DAY_MINUTES)),
            _ => Err(format!("`{text}` is no time of day: write 00:00 to 24:00")),
        }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

macro_rules! serde_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

serde_text!(Days);
serde_text!(TimeOfDay);
