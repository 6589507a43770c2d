//! Windows under a clock that is set by hand, beside a change to summer time.

use super::*;
use jiff::civil::date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};
use millrace_proto::admin::caps::{Layer, Source};

fn noon() -> Zoned {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    date(2026, 3, 28).at(12, 0, 0, 0).to_zoned(zone).unwrap()
}

fn caps(caps: &[(Window, u64)]) -> Vec<EffectiveVolume> {
    let source = Some(Source { layer: Layer::Local, schedule: None });
    let cap = |value| Cap { value: Some(value), source };
    caps.iter().map(|(window, bytes)| EffectiveVolume { window: *window, bytes: cap(*bytes) }).collect()
}

fn capped(limits: &[(Window, u64)]) -> Windows {
    let mut windows = Windows::new(&noon());
    windows.set_caps(&caps(limits), &noon());
    windows
}

const MB: u64 = 1_000_000;

#[test]
fn no_more_is_granted_than_every_window_has_left() {
    let mut windows = capped(&[(Window::Day, 10 * MB), (Window::Hour, 4 * MB)]);
    assert_eq!(windows.reserve(3 * MB), 3 * MB);
    assert_eq!(windows.reserve(3 * MB), MB, "the hour has no more");
    assert_eq!(
        (windows.reserve(1), windows.used_up().map(|counted| counted.window)),
        (0, Some(Window::Hour))
    );
    // Half of it comes, the rest does not.
    windows.receive(2 * MB);
    windows.release(4 * MB);
    assert!(windows.used_up().is_none());
    assert_eq!(windows.reserve(u64::MAX), 2 * MB);
    windows.receive(2 * MB);
    windows.release(2 * MB);
    let later = noon().checked_add(1.hour()).unwrap();
    windows.look(&later);
    assert_eq!(windows.reserve(u64::MAX), 4 * MB);
    windows.receive(4 * MB);
    windows.release(4 * MB);
    windows.look(&later.checked_add(1.hour()).unwrap());
    assert_eq!(windows.reserve(u64::MAX), 2 * MB, "the day has no more");
    windows.receive(2 * MB);
    let used_up = windows.used_up().map(|counted| (counted.window, counted.ends));
    let midnight = noon().checked_add(12.hours()).unwrap().timestamp();
    assert_eq!(used_up, Some((Window::Day, midnight)));
    assert!(windows.is_reached());
}

#[test]
fn a_window_begins_anew_at_its_end_and_not_because_the_clock_was_put_back() {
    let mut windows = capped(&[(Window::Day, 10 * MB)]);
    windows.receive(10 * MB);
    let at = |hours: i64| noon().checked_add(SignedDuration::from_hours(hours)).unwrap();
    windows.look(&at(-48));
    assert_eq!(windows.reserve(1), 0);
    windows.look(&at(-36));
    assert_eq!(windows.reserve(1), 1, "the day that it was put back to is over");
    // A leap into the future and back does not hold for ever.
    let mut windows = capped(&[(Window::Day, 10 * MB)]);
    windows.look(&at(24 * 400));
    windows.receive(10 * MB);
    windows.look(&at(0));
    assert_eq!(windows.reserve(1), 0);
    windows.look(&at(24));
    assert_eq!(windows.reserve(1), 1);
    // The day on which the clock is put forward has 23 hours.
    let mut windows = capped(&[(Window::Day, 10 * MB)]);
    windows.look(&at(12));
    windows.receive(10 * MB);
    windows.look(&at(12 + 23).checked_sub(1.second()).unwrap());
    assert_eq!(windows.reserve(1), 0);
    windows.look(&at(12 + 23));
    assert_eq!(windows.reserve(1), 1);
}

#[test]
fn what_came_before_a_cap_counts() {
    let mut windows = Windows::new(&noon());
    windows.receive(7 * MB);
    assert_eq!(windows.reserve(u64::MAX), u64::MAX);
    windows.release(u64::MAX);
    windows.set_caps(&caps(&[(Window::Month, 10 * MB), (Window::Seconds(90), 5 * MB)]), &noon());
    assert_eq!(windows.reserve(u64::MAX), 3 * MB);
    windows.release(3 * MB);
    windows.set_caps(&[], &noon());
    assert!(!windows.is_capped() && windows.counted().len() == NAMED.len());
}

#[test]
fn a_restart_forgets_only_what_is_over() {
    let began = |windows: &Windows, of| {
        windows.counted().iter().find(|counted| counted.window == of).map(|counted| counted.began).unwrap()
    };
    let before = capped(&[]);
    let mut windows = Windows::new(&noon().checked_add(2.hours()).unwrap());
    for window in [Window::Day, Window::Hour, Window::Seconds(86_400 * 7)] {
        let began = if window == Window::Hour { began(&before, window) } else { noon().timestamp() };
        windows.restore(window, began, 5 * MB, &noon().checked_add(2.hours()).unwrap());
    }
    let used = |of| windows.counted().iter().find(|counted| counted.window == of).map(|counted| counted.used);
    assert_eq!((used(Window::Day), used(Window::Hour)), (Some(5 * MB), Some(0)));
    assert_eq!(used(Window::Seconds(86_400 * 7)), Some(5 * MB));
}

#[test]
fn the_last_tenth_comes_slower_and_slower_but_comes() {
    let mut windows = capped(&[(Window::Day, 1_000 * MB)]);
    windows.receive(899 * MB);
    assert_eq!(windows.slow_rate(), None);
    windows.receive(41 * MB);
    assert_eq!(windows.slow_rate(), Some(MB));
    windows.receive(59 * MB);
    assert_eq!(windows.slow_rate(), Some(SLOW_RATE_MIN));
    // A second is a second.
    let mut windows = capped(&[(Window::Second, 1_000 * MB)]);
    windows.receive(950 * MB);
    assert_eq!(windows.slow_rate(), Some(50 * MB));
}

#[test]
fn small_caps_can_be_reached() {
    let mut windows = capped(&[(Window::Day, 100)]);
    assert!(windows.used_up().is_none());
    assert_eq!(windows.reserve(1_000), 100);
    let mut zero = capped(&[(Window::Day, 0)]);
    assert!(zero.used_up().is_some() && zero.reserve(5) == 0);
    // A few bytes that are left of much are not worth a request.
    let mut much = capped(&[(Window::Day, 10 * MB)]);
    much.receive(10 * MB - 1_000);
    assert!(much.used_up().is_some());
}
