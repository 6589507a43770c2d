//! Layers over restarts, and schedules under a clock that is set by hand.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use millrace_engine::ledger::caps::Scope;
use serde_json::{Value, json};

use super::*;

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("mr-caps-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn open(&self, configured: Value, clock: &Hands) -> Result<Keeper, CapsFileError> {
        Keeper::open(self.0.clone(), Caps::from_value(configured).unwrap(), clock.clock())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Seconds since Thursday, 1970-01-01, 00:00 in Central Europe.
#[derive(Clone, Default)]
struct Hands(Arc<AtomicI64>);

impl Hands {
    fn set(&self, days: i64, hours: i64) {
        self.0.store(days * 86_400 + hours * 3_600, Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let hands = self.clone();
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        Clock::simulated(move || {
            let seconds = hands.0.load(Ordering::Relaxed) - 3_600;
            Timestamp::from_second(seconds).unwrap().to_zoned(zone.clone())
        })
    }
}

fn set(keeper: &Keeper, layer: Layer, patch: Value) -> Result<(), ChangeError> {
    keeper.change(layer, |_| true, |caps| caps.patched(&patch))
}

fn total(keeper: &Keeper) -> Option<u64> {
    keeper.effective().egress.total.value
}

#[test]
fn layers_outlive_the_process_and_the_newest_word_of_the_operator_counts() {
    let (folder, hands) = (Folder::new("newest"), Hands::default());
    let configured = json!({"egress": {"total": 100}});
    let keeper = folder.open(configured.clone(), &hands).unwrap();
    assert_eq!(total(&keeper), Some(100));
    set(&keeper, Layer::Local, json!({"egress": {"total": 50}})).unwrap();
    set(&keeper, Layer::Controller, json!({"egress": {"http": 7}})).unwrap();
    assert_eq!(keeper.status().local_from, LocalFrom::Admin);
    let again = folder.open(configured, &hands).unwrap();
    assert_eq!((total(&again), again.effective().egress.http.value), (Some(50), Some(7)));
    assert_eq!(again.status().local_from, LocalFrom::Admin);
    // The configuration was changed since: that is the newer word. The controller's layer is not the operator's to change so.
    let newer = folder.open(json!({"egress": {"total": 70}}), &hands).unwrap();
    assert_eq!((total(&newer), newer.effective().egress.http.value), (Some(70), Some(7)));
    assert_eq!(newer.status().local_from, LocalFrom::Configuration);
    // So it is while the relay runs; what it said before is no word at all.
    set(&newer, Layer::Local, json!({"egress": {"total": 9}})).unwrap();
    let configure = |rate: u64| {
        let caps = Caps::from_value(json!({"egress": {"total": rate}})).unwrap();
        newer.configure(&caps).unwrap();
        total(&newer)
    };
    assert_eq!((configure(70), configure(60)), (Some(9), Some(60)));
    let again = folder.open(json!({"egress": {"total": 60}}), &hands).unwrap();
    assert_eq!((total(&again), again.status().local_from), (Some(60), LocalFrom::Configuration));
}

#[test]
fn what_is_damaged_is_reported() {
    let (folder, hands) = (Folder::new("damaged"), Hands::default());
    set(&folder.open(json!({}), &hands).unwrap(), Layer::Local, json!({"egress": {"total": 5}})).unwrap();
    let path = folder.0.join("caps.json");
    let good = std::fs::read_to_string(&path).unwrap();
    for bad in [
        good[..good.len() / 2].to_owned(),
        good.replace("\"total\": 5", "\"total\": -5"),
        good.replace("\"version\": 1", "\"version\": 2"),
        String::new(),
    ] {
        std::fs::write(&path, &bad).unwrap();
        let error = folder.open(json!({}), &hands).unwrap_err().to_string();
        assert!(error.contains("caps.json is damaged") && error.contains("remove it"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bad, "it is left as it is");
    }
    // Where the write was cut short, the old one is there.
    std::fs::write(&path, &good).unwrap();
    std::fs::write(folder.0.join(".caps.json.new"), "{").unwrap();
    assert_eq!(total(&folder.open(json!({}), &hands).unwrap()), Some(5));
}

#[test]
fn a_refused_change_changes_nothing() {
    let (folder, hands) = (Folder::new("refused"), Hands::default());
    let keeper = folder.open(json!({"egress": {"total": 100}}), &hands).unwrap();
    let (before, tag) = keeper.document(Layer::Local);
    let edit = |caps: &Caps| caps.patched(&json!({"egress": {"total": 1}}));
    assert!(matches!(keeper.change(Layer::Local, |_| false, edit), Err(ChangeError::Stale)));
    let share = set(&keeper, Layer::Controller, json!({"egress": {"http": "5%"}}));
    assert!(matches!(share, Err(ChangeError::Refused(error)) if error.path == "line_rate"));
    std::fs::remove_dir_all(&folder.0).unwrap();
    assert!(matches!(set(&keeper, Layer::Local, json!({"egress": {"total": 1}})), Err(ChangeError::Disk(_))));
    assert_eq!(keeper.document(Layer::Local), (before, tag));
    assert_eq!(total(&keeper), Some(100));
}

#[test]
fn the_operators_line_cannot_go_while_the_controller_counts_by_it() {
    let (folder, hands) = (Folder::new("line"), Hands::default());
    let keeper = folder.open(json!({"line_rate": 1_000}), &hands).unwrap();
    set(&keeper, Layer::Controller, json!({"egress": {"total": "40%"}})).unwrap();
    assert_eq!(total(&keeper), Some(400));
    assert!(matches!(set(&keeper, Layer::Local, json!({"line_rate": null})), Err(ChangeError::Refused(_))));
    // Nor behind the relay's back.
    let error = folder.open(json!({}), &hands).unwrap_err().to_string();
    assert!(error.contains("line_rate") && error.contains("caps.json"), "{error}");
}

#[test]
fn schedules_are_enforced_as_the_clock_says_also_when_it_jumps() {
    let (folder, hands) = (Folder::new("schedule"), Hands::default());
    let schedule = json!([{"days": "thu", "from": "08:00", "to": "18:00", "egress": {"total": 30}}]);
    let keeper = folder.open(json!({"egress": {"total": 100}, "schedule": schedule}), &hands).unwrap();
    let ledger = Arc::new(Ledger::default());
    keeper.enforce(Arc::clone(&ledger), Shards::new(Vec::new()), Arc::new(OriginBudget::new(hands.clock())));
    assert_eq!(ledger.caps().rate(Scope::Total), Some(100));
    // On, back, over midnight, a week ahead.
    for (days, hours, expected) in
        [(0, 8, 30), (0, 7, 100), (0, 17, 30), (0, 18, 100), (1, 9, 100), (7, 9, 30)]
    {
        hands.set(days, hours);
        keeper.look_at_the_clock();
        assert_eq!(ledger.caps().rate(Scope::Total), Some(expected), "day {days}, {hours}:00");
    }
    let status = keeper.status();
    assert_eq!(status.now, "1970-01-08T09:00:00+01:00");
    assert_eq!(status.changes_at.as_deref(), Some("1970-01-08T18:00:00+01:00"));
    assert_eq!(status.effective.egress.total.source, Some(Source { layer: Layer::Local, schedule: Some(0) }));
}
