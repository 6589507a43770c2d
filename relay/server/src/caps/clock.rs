//! The clock and the calendar on the wall, which schedules and windows go by.

use std::fmt;
use std::sync::Arc;

use jiff::{Timestamp, ToSpan, Unit, Zoned};
use millrace_proto::admin::caps::{CivilTime, Window};

/// Tells the local time. The zone is that of `TZ`, or else of the system.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Zoned + Send + Sync>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl Clock {
    /// The system's. Where it does not say which zone it is in, that is logged, and UTC is used.
    #[must_use]
    pub fn system() -> Self {
        if let Err(error) = jiff::tz::TimeZone::try_system() {
            tracing::warn!(%error, "the local time zone is not known: schedules and windows of caps go by UTC");
        }
        Clock(Arc::new(Zoned::now))
    }

    /// One that is told what to tell.
    pub fn simulated(now: impl Fn() -> Zoned + Send + Sync + 'static) -> Self {
        Clock(Arc::new(now))
    }

    /// The local time.
    #[must_use]
    pub fn now(&self) -> Zoned {
        (self.0)()
    }
}

/// Weekday and time of day.
#[must_use]
pub fn civil(now: &Zoned) -> CivilTime {
    let days = u8::try_from(now.weekday().to_monday_zero_offset()).unwrap_or(0);
    let second = i32::from(now.hour()) * 3_600 + i32::from(now.minute()) * 60 + i32::from(now.second());
    CivilTime::new(days, u32::try_from(second).unwrap_or(0))
}

/// When the clock on the wall shows `seconds` more, as RFC 3339. A time that the clock skips is told as the moment after.
#[must_use]
pub fn after(now: &Zoned, seconds: u32) -> String {
    let civil = now.datetime().checked_add(i64::from(seconds).seconds());
    let then = civil.and_then(|civil| civil.to_zoned(now.time_zone().clone()));
    then.map_or_else(|_| shown(now), |then| shown(&then))
}

/// Local time with its distance from UTC, to the second, as RFC 3339 has it.
#[must_use]
pub fn shown(time: &Zoned) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// Beginning and end of the window that `now` is in. Named windows are of the local calendar: the day on which the clock is put
/// forward has 23 hours. Windows of seconds are counted from 1970.
#[must_use]
pub fn window(now: &Zoned, window: Window) -> (Timestamp, Timestamp) {
    let (unit, length) = match window {
        Window::Seconds(seconds) => {
            let (second, length) = (now.timestamp().as_second(), i64::from(seconds.max(1)));
            let began = second.div_euclid(length) * length;
            let at = |second| Timestamp::from_second(second).unwrap_or(now.timestamp());
            return (at(began), at(began + length));
        }
        Window::Second => (Unit::Second, 1.second()),
        Window::Minute => (Unit::Minute, 1.minute()),
        Window::Hour => (Unit::Hour, 1.hour()),
        Window::Day => (Unit::Day, 1.day()),
        Window::Month => (Unit::Month, 1.month()),
    };
    let began = match unit {
        Unit::Month => now.first_of_month().and_then(|first| first.start_of_day()),
        Unit::Day => now.start_of_day(),
        unit => now.round(jiff::ZonedRound::new().smallest(unit).mode(jiff::RoundMode::Trunc)),
    };
    let began = began.unwrap_or_else(|_| now.clone());
    let ends = began.checked_add(length).map_or_else(|_| now.timestamp(), |ends| ends.timestamp());
    (began.timestamp(), ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use jiff::tz::TimeZone;

    /// Central Europe, as its rule is written without a database.
    fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[track_caller]
    fn check(now: &Zoned, of: Window, began: &str, ends: &str) {
        let (from, to) = window(now, of);
        let shown = |time: Timestamp| shown(&time.to_zoned(zone()));
        assert_eq!((shown(from), shown(to)), (began.to_owned(), ends.to_owned()), "{of}");
    }

    #[test]
    fn windows_are_those_of_the_local_calendar() {
        let now = date(2026, 11, 26).at(9, 41, 30, 500_000_000).to_zoned(zone()).unwrap();
        check(&now, Window::Second, "2026-11-26T09:41:30+01:00", "2026-11-26T09:41:31+01:00");
        check(&now, Window::Minute, "2026-11-26T09:41:00+01:00", "2026-11-26T09:42:00+01:00");
        check(&now, Window::Hour, "2026-11-26T09:00:00+01:00", "2026-11-26T10:00:00+01:00");
        check(&now, Window::Day, "2026-11-26T00:00:00+01:00", "2026-11-27T00:00:00+01:00");
        check(&now, Window::Month, "2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00");
        check(&now, Window::Seconds(7_200), "2026-11-26T09:00:00+01:00", "2026-11-26T11:00:00+01:00");
    }

    #[test]
    fn days_are_as_long_as_the_clock_makes_them() {
        let spring = date(2026, 3, 29).at(12, 0, 0, 0).to_zoned(zone()).unwrap();
        check(&spring, Window::Day, "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00");
        let (from, to) = window(&spring, Window::Day);
        assert_eq!(to.as_second() - from.as_second(), 23 * 3_600);
        check(&spring, Window::Month, "2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00");
        // Half past two comes twice in autumn: each time an hour of its own.
        let autumn = date(2026, 10, 25).at(0, 30, 0, 0).to_zoned(zone()).unwrap();
        let second = autumn.checked_add(3.hours()).unwrap();
        check(&second, Window::Hour, "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00");
    }

    #[test]
    fn schedules_go_by_the_clock_on_the_wall() {
        let saturday = date(2026, 3, 28).at(23, 0, 0, 0).to_zoned(zone()).unwrap();
        assert_eq!(civil(&saturday).to_string(), "Sat 23:00");
        // At two the clock is put to three.
        assert_eq!(after(&saturday, 3 * 3_600 + 1_800), "2026-03-29T03:30:00+02:00");
        assert_eq!(after(&saturday, 4 * 3_600), "2026-03-29T03:00:00+02:00");
        let later = saturday.checked_add(3.hours()).unwrap();
        assert_eq!(civil(&later).to_string(), "Sun 03:00");
    }
}
