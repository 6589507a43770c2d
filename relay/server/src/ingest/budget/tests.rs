//! Requests, bytes and windows together, under a clock that is set by hand.

use std::sync::atomic::AtomicI64;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use millrace_proto::admin::caps::{Caps, CivilTime, Layers};
use serde_json::{Value, json};

use super::*;

/// A budget whose clock shows so many seconds since 1970, in UTC.
fn budget(at: &Arc<AtomicI64>) -> Arc<OriginBudget> {
    let at = Arc::clone(at);
    let now = move || Timestamp::from_second(at.load(Ordering::Relaxed)).unwrap().to_zoned(TimeZone::UTC);
    Arc::new(OriginBudget::new(Clock::simulated(now)))
}

fn set(budget: &OriginBudget, origin: Value) {
    let local = Caps::from_value(json!({ "origin": origin })).unwrap();
    let layers = Layers::new(local, Caps::default()).unwrap();
    budget.set(&layers.effective(CivilTime::new(0, 0)));
}

fn all(budget: &Arc<OriginBudget>) -> Vec<Grant> {
    std::iter::from_fn(|| budget.try_request()).collect()
}

#[test]
fn requests_are_capped_and_the_cap_moves() {
    let budget = budget(&Arc::default());
    assert_eq!(all(&budget).len(), REQUESTS_MAX);
    set(&budget, json!({"connections": 2}));
    let mut held = all(&budget);
    assert_eq!(held.len(), 2);
    set(&budget, json!({"connections": 3}));
    held.extend(all(&budget));
    assert_eq!(held.len(), 3);
    set(&budget, json!({"connections": 1}));
    held.truncate(1);
    assert!(budget.try_request().is_none());
    held.clear();
    assert_eq!(all(&budget).len(), 1);
    set(&budget, json!({"connections": 0}));
    assert!(budget.try_request().is_none());
    assert_eq!(budget.obstacle().unwrap().why, "origin.connections is 0");
    assert!(budget.waits(OriginCap::Connections) >= 4);
}

#[tokio::test]
async fn what_is_reserved_and_does_not_come_can_be_asked_for_again() {
    let at = Arc::new(AtomicI64::new(3_600));
    let budget = budget(&at);
    set(&budget, json!({"volume": [{"window": "day", "bytes": "10MB"}]}));
    let mut one = budget.try_request().unwrap();
    assert_eq!(one.reserve(8_000_000), 8_000_000);
    let mut other = budget.try_request().unwrap();
    assert_eq!(other.reserve(8_000_000), 2_000_000);
    assert!(budget.try_request().is_none());
    one.pay(100_000).await;
    drop(one);
    let mut third = budget.try_request().unwrap();
    assert_eq!(third.reserve(u64::MAX), 7_900_000);
    let wait = budget.obstacle().unwrap();
    assert_eq!(wait.why, "origin.volume.day of 9.5 MiB is used up, until 1970-01-02T00:00:00+00:00");
    assert_eq!(wait.until.as_deref(), Some("1970-01-02T00:00:00+00:00"));
    assert_eq!((budget.bytes_total(), budget.waits(OriginCap::Volume)), (100_000, 1));
    drop((other, third));
    // Raised, it goes on; so it does the next day.
    assert!(budget.obstacle().is_none());
    set(&budget, json!({"volume": [{"window": "day", "bytes": 0}]}));
    assert!(budget.try_request().is_none());
    set(&budget, json!({"volume": [{"window": "day", "bytes": 100_000}]}));
    assert!(budget.try_request().is_none());
    at.store(86_400, Ordering::Relaxed);
    assert!(budget.try_request().is_some());
}

#[tokio::test]
async fn who_waits_for_bytes_hears_of_a_change() {
    let budget = budget(&Arc::default());
    for paused in [json!({"bandwidth": 0}), json!({"bandwidth": 1})] {
        let mut grant = budget.try_request().unwrap();
        set(&budget, paused);
        let waits = budget.waits(OriginCap::Bandwidth);
        let change = async {
            while budget.waits(OriginCap::Bandwidth) == waits {
                tokio::task::yield_now().await;
            }
            set(&budget, json!({}));
        };
        // A byte a second would take days.
        tokio::join!(grant.pay(1_000_000), change);
    }
    assert_eq!(budget.bytes_total(), 2_000_000);
}

#[tokio::test]
async fn a_body_that_is_longer_than_asked_for_is_not_read_beyond_a_volume() {
    let budget = budget(&Arc::default());
    set(&budget, json!({"volume": [{"window": "hour", "bytes": 1_000}]}));
    let mut grant = budget.try_request().unwrap();
    assert_eq!(grant.reserve(600), 600);
    let change = async {
        while budget.waits(OriginCap::Volume) == 0 {
            tokio::task::yield_now().await;
        }
        let used = |budget: &OriginBudget| {
            budget.status().2.iter().find(|volume| volume.bytes.value.is_some()).map(|volume| volume.used)
        };
        assert_eq!(used(&budget), Some(1_200), "what arrived counts");
        set(&budget, json!({}));
    };
    tokio::join!(grant.pay(1_200), change);
}

#[tokio::test]
async fn the_count_outlives_the_process() {
    let folder = std::env::temp_dir().join(format!("mr-usage-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let at = Arc::new(AtomicI64::new(90_000));
    let open = |at: &Arc<AtomicI64>| {
        let at = Arc::clone(at);
        let now = move || Timestamp::from_second(at.load(Ordering::Relaxed)).unwrap().to_zoned(TimeZone::UTC);
        OriginBudget::open(folder.clone(), Clock::simulated(now)).map(Arc::new)
    };
    let first = open(&at).unwrap();
    let mut grant = first.try_request().unwrap();
    grant.pay(5_000).await;
    grant.reserve(1_000);
    OriginBudget::save(&folder, &first.unsaved().unwrap()).unwrap();
    assert!(first.unsaved().is_none());
    let used = |budget: &OriginBudget| {
        let windows = budget.status().2;
        windows.iter().map(|volume| (volume.window.to_string(), volume.used)).collect::<Vec<_>>()
    };
    let again = open(&at).unwrap();
    assert!(used(&again).iter().all(|(_, bytes)| *bytes == 6_000), "what was on its way may have come");
    at.store(90_000 + 3_600, Ordering::Relaxed);
    let later = open(&at).unwrap();
    let count =
        |window: &str| used(&later).into_iter().find(|(name, _)| name == window).map(|(_, bytes)| bytes);
    assert_eq!((count("hour"), count("day"), count("month")), (Some(0), Some(6_000), Some(6_000)));
    std::fs::write(folder.join("origin-usage.json"), "{").unwrap();
    let error = open(&at).unwrap_err().to_string();
    assert!(error.contains("origin-usage.json") && error.contains("remove it"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn an_origin_that_needs_a_grant_is_asked_for_what_that_allows() {
    let at = Arc::new(AtomicI64::new(100));
    let budget = budget(&at);
    let (here, there) = (Url::parse("https://h/a").unwrap(), Url::parse("https://i/a").unwrap());
    let grant = |id: &str, bytes: u64| json!({"grants": [{"origin": "https://h", "id": id, "bytes": bytes, "until": 200}]});
    let why = || budget.ungranted(&here).map(|wait| wait.why).unwrap_or_default();
    assert!(budget.is_granted(&here));
    set(&budget, grant("a", 0));
    assert_eq!(why(), "https://h needs a grant, and has none");
    assert!(budget.is_granted(&there) && budget.obstacle().is_none() && budget.waits(OriginCap::Grant) > 0);
    set(&budget, grant("b", 1_000));
    let request = |url: &Url| {
        let mut request = budget.try_request().unwrap();
        request.ask_of(url);
        request
    };
    let (mut first, mut other) = (request(&here), request(&there));
    assert_eq!((first.reserve(800), other.reserve(u64::MAX)), (800, u64::MAX));
    let mut second = request(&here);
    assert_eq!(second.reserve(800), 200);
    assert_eq!(why(), "grant `b` of https://h, of 1000 B, is used up");
    // What does not come can be asked for again; what is sent without being asked for counts, and no more of it is read.
    first.pay(300).await;
    drop(first);
    assert!(budget.is_granted(&here));
    assert_eq!(request(&here).reserve(u64::MAX), 500);
    set(&budget, grant("b", 1_000));
    assert_eq!(budget.grants()[0].used, 300, "set again, it keeps its count");
    let waits = budget.waits(OriginCap::Grant);
    let change = async {
        while budget.waits(OriginCap::Grant) == waits {
            tokio::task::yield_now().await;
        }
        set(&budget, grant("c", 5_000));
    };
    tokio::join!(second.pay(900), change);
    assert!(budget.is_granted(&here));
    at.store(200, Ordering::Relaxed);
    assert_eq!(why(), "grant `c` of https://h is over");
    assert_eq!((budget.grants()[0].left, request(&here).reserve(1)), (0, 0));
}

#[test]
fn what_came_by_a_grant_outlives_the_process() {
    let folder = std::env::temp_dir().join(format!("mr-granted-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let grants = json!({"grants": [{"origin": "https://h", "id": "a", "bytes": 1_000}]});
    let open = || {
        let now = || Timestamp::from_second(100).unwrap().to_zoned(TimeZone::UTC);
        OriginBudget::open(folder.clone(), Clock::simulated(now)).map(Arc::new).unwrap()
    };
    let first = open();
    set(&first, grants.clone());
    let mut request = first.try_request().unwrap();
    request.ask_of(&Url::parse("https://h/a").unwrap());
    assert_eq!(request.reserve(600), 600);
    OriginBudget::save(&folder, &first.unsaved().unwrap()).unwrap();
    let again = open();
    set(&again, grants);
    assert_eq!((again.grants()[0].used, again.grants()[0].left), (600, 400), "it may have come");
    std::fs::remove_dir_all(&folder).unwrap();
}
