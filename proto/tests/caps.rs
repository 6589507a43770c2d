//! The caps document as operators write it, and what two layers and the time make of it.

use millrace_proto::admin::caps::effective::InForce;
use millrace_proto::admin::caps::schedule::next_change;
use millrace_proto::admin::caps::{Cap, Caps, CivilTime, EffectiveCaps, Layer, Layers, Source};
use serde_json::{Value, json};

fn caps(value: Value) -> Caps {
    Caps::from_value(value).expect("a document")
}

/// The document of the manual.
fn manual() -> Value {
    json!({
        "egress": {"total": 1_250_000_000, "http": null, "bittorrent": 500_000_000, "per_connection": null,
                   "networks": [{"cidr": ["10.1.0.0/16"], "total": 50_000_000}]},
        "origin": {"bandwidth": 125_000_000, "connections": 8,
                   "volume": [{"window": "day", "bytes": 10_000_000_000_000_u64}]},
        "contents": {"gayddnrzgi2tmnzyhfqwey3emy": {"egress": 100_000_000, "priority": 5}},
        "schedule": [{"days": "mon-fri", "from": "08:00", "to": "18:00", "egress": {"total": 300_000_000}}],
        "line_rate": 1_250_000_000})
}

#[test]
fn the_manuals_document_is_read_and_written_again() {
    let document = caps(manual());
    assert_eq!(Caps::from_json(document.canonical().as_bytes()), Ok(document.clone()));
    let mut written = document.to_value();
    // An entry of a schedule that names `egress` says all of it.
    written["schedule"][0]["egress"] = json!({"total": 300_000_000});
    assert_eq!(written, manual());
    let empty = caps(json!({}));
    assert!(empty.is_empty() && !document.is_empty());
    let nulls = json!({"egress": null, "origin": {"volume": null, "bandwidth": null}, "contents": null, "schedule": null});
    assert_eq!(caps(nulls), empty);
    assert_eq!(
        empty.canonical(),
        r#"{"contents":{},"egress":{"bittorrent":null,"http":null,"networks":[],"per_connection":null,"total":null},"line_rate":null,"origin":{"bandwidth":null,"connections":null,"volume":[]},"schedule":[]}"#
    );
}

#[test]
fn equal_documents_are_written_alike() {
    let one = caps(json!({"egress": {"total": "8Mbit/s", "http": "40.0%"}, "line_rate": "1Gbit/s",
        "schedule": [{"days": "Tue,mon,wed", "egress": {"http": 0}}]}));
    let other = caps(
        json!({"schedule": [{"egress": {"http": 0}, "to": "24:00", "from": "00:00", "days": "mon-wed"}],
        "line_rate": 125_000_000, "egress": {"http": "40%", "total": 1_000_000}}),
    );
    assert_eq!(one.canonical(), other.canonical());
}

#[track_caller]
fn refused(value: Value, path: &str, reason: &str) {
    let error = Caps::from_json(value.to_string().as_bytes()).expect_err("must be refused");
    assert_eq!(error.path, path, "{error}");
    assert!(error.reason.contains(reason), "{error}");
    assert_eq!(Caps::from_value(value).map_err(|error| error.path), Err(path.to_owned()));
}

#[test]
fn what_is_refused_names_its_key_and_what_would_be_right() {
    refused(json!([]), "", "list");
    refused(json!({"egress": [1]}), "egress", "list");
    refused(json!({"schedule": [[]]}), "schedule[0]", "list");
    refused(json!(5), "", "struct Caps");
    let twice = Caps::from_json(br#"{"egress": {"total": 1, "total": 2}}"#);
    assert_eq!(twice.map_err(|error| error.path), Err("egress".to_owned()));
    assert!(Caps::from_json(b"{").is_err() && Caps::from_json(b"{} x").is_err());
    refused(json!({"egres": {}}), "egres", "expected one of `egress`");
    refused(json!({"egress": {"totl": 1}}), "egress.totl", "`total`");
    refused(json!({"egress": {"total": -1}}), "egress.total", "0 pauses");
    refused(json!({"egress": {"total": 1.5}}), "egress.total", "2Gbit/s");
    refused(json!({"egress": {"total": true}}), "egress.total", "2Gbit/s");
    refused(json!({"egress": {"http": "fast"}}), "egress.http", "2Gbit/s");
    refused(json!({"egress": {"http": "140%"}}), "egress.http", "0% to 100%");
    refused(json!({"egress": {"networks": [{"cidr": []}]}}), "egress.networks[0].cidr", "10.1.0.0/16");
    refused(json!({"egress": {"networks": [{"total": 1}]}}), "egress.networks[0]", "cidr");
    let beyond = json!({"egress": {"networks": [{"cidr": ["10.0.0.0/8", "10.1.2.0/16"]}]}});
    refused(beyond, "egress.networks[0].cidr[1]", "write 10.1.0.0/16");
    let many: Vec<_> =
        (0..257).map(|net| json!({"cidr": [format!("10.{}.{}.0/24", net / 256, net % 256)]})).collect();
    refused(json!({"egress": {"networks": many}}), "egress.networks", "at most 256");
    refused(json!({"origin": {"connections": 65_536}}), "origin.connections", "65535");
    refused(json!({"origin": {"connections": -1}}), "origin.connections", "u32");
    refused(
        json!({"origin": {"volume": [{"window": "week", "bytes": 1}]}}),
        "origin.volume[0].window",
        "month",
    );
    refused(json!({"origin": {"volume": [{"window": 0, "bytes": 1}]}}), "origin.volume[0].window", "seconds");
    let twice = json!([{"window": "day", "bytes": 1}, {"window": "day", "bytes": 2}]);
    refused(json!({"origin": {"volume": twice}}), "origin.volume[1].window", "once");
    refused(json!({"contents": {"x": {}}}), "contents.x", "26 lower-case");
    let id = "gayddnrzgi2tmnzyhfqwey3emy";
    refused(json!({"contents": {id: {"priority": 101}}}), &format!("contents.{id}.priority"), "-100 to 100");
    refused(json!({"schedule": [{"days": "mon-fry"}]}), "schedule[0].days", "mon-fri");
    refused(json!({"schedule": [{"from": "8:00"}]}), "schedule[0].from", "00:00 to 24:00");
    refused(json!({"schedule": [{"from": "24:00"}]}), "schedule[0].from", "00:00");
    refused(json!({"schedule": [{"from": "08:00", "to": "08:00"}]}), "schedule[0].to", "whole day");
    let nested = json!({"schedule": [{}, {"egress": {"networks": [{"cidr": []}]}}]});
    refused(nested, "schedule[1].egress.networks[0].cidr", "at least one");
    refused(json!({"schedule": vec![json!({}); 65]}), "schedule", "at most 64");
    refused(json!({"line_rate": 0}), "line_rate", "null");
}

#[test]
fn patches_change_what_they_name() {
    let patch = json!({"egress": {"total": 5, "networks": null}, "origin": null, "contents": {"gayddnrzgi2tmnzyhfqwey3emy": {"priority": null}}});
    let patched = caps(manual()).patched(&patch).expect("a document");
    let mut expected = manual();
    expected["egress"]["total"] = json!(5);
    expected["egress"]["networks"] = json!([]);
    expected["origin"] = json!({});
    expected["contents"] = json!({"gayddnrzgi2tmnzyhfqwey3emy": {"egress": 100_000_000}});
    assert_eq!(patched, caps(expected));
    assert_eq!(caps(manual()).patched(&json!({})), Ok(caps(manual())));
    let error = caps(manual()).patched(&json!({"egress": {"totl": 5}})).expect_err("unknown");
    assert_eq!(error.path, "egress.totl");
    assert!(caps(manual()).patched(&json!(null)).is_err() && caps(manual()).patched(&json!([])).is_err());
}

/// Monday is 0.
fn at(day: u8, hour: u32, minute: u32) -> CivilTime {
    CivilTime::new(day, hour * 3_600 + minute * 60)
}

fn effective(local: Value, controller: Value, now: CivilTime) -> EffectiveCaps {
    Layers::new(caps(local), caps(controller)).expect("layers").effective(now)
}

const LOCAL: Source = Source { layer: Layer::Local, schedule: None };
const CONTROLLER: Source = Source { layer: Layer::Controller, schedule: None };

fn cap(value: u64, source: Source) -> Cap {
    Cap { value: Some(value), source: Some(source) }
}

#[test]
fn the_lower_value_wins_and_says_whose_it_is() {
    let held = effective(
        json!({"egress": {"total": 100, "http": 50, "bittorrent": 7}, "origin": {"volume": [{"window": "day", "bytes": 10}]}}),
        json!({"egress": {"total": 200, "http": 40, "bittorrent": 7},
               "origin": {"connections": 2, "volume": [{"window": "hour", "bytes": 3}, {"window": "day", "bytes": 9}]}}),
        at(0, 0, 0),
    );
    assert_eq!((held.egress.total, held.egress.http), (cap(100, LOCAL), cap(40, CONTROLLER)));
    assert_eq!((held.egress.bittorrent, held.egress.per_connection), (cap(7, LOCAL), Cap::default()));
    assert_eq!(held.origin.connections, cap(2, CONTROLLER));
    let volumes: Vec<_> =
        held.origin.volume.iter().map(|volume| (volume.window.to_string(), volume.bytes)).collect();
    assert_eq!(volumes, [("hour".to_owned(), cap(3, CONTROLLER)), ("day".to_owned(), cap(9, CONTROLLER))]);
    assert_eq!(held.changes_in_s, None);
}

#[test]
fn equal_groups_of_networks_are_one_and_others_hold_beside_each_other() {
    let held = effective(
        json!({"egress": {"networks": [{"cidr": ["10.1.0.0/16", "10.0.0.0/16"], "total": 9}, {"cidr": ["::/0"]}]}}),
        json!({"egress": {"networks": [{"cidr": ["10.0.0.0/16", "10.1.0.0/16"], "total": 8}, {"cidr": ["10.0.0.0/8"], "total": 20}]}}),
        at(0, 0, 0),
    );
    let groups: Vec<_> = held.egress.networks.iter().map(|group| (group.cidr.len(), group.total)).collect();
    assert_eq!(groups, [(1, cap(20, CONTROLLER)), (2, cap(8, CONTROLLER))]);
}

#[test]
fn percentages_are_of_the_own_line_or_else_of_the_operators() {
    let (local, controller) = (json!({"line_rate": 1_000}), json!({"egress": {"total": "40%"}}));
    assert_eq!(effective(local.clone(), controller.clone(), at(0, 0, 0)).egress.total, cap(400, CONTROLLER));
    let own = json!({"egress": {"total": "40%"}, "line_rate": 500});
    assert_eq!(effective(local, own, at(0, 0, 0)).egress.total, cap(200, CONTROLLER));
    for places in [
        json!({"egress": {"networks": [{"cidr": ["::/0"], "total": "1%"}]}}),
        json!({"origin": {"bandwidth": "1%"}}),
        json!({"contents": {"gayddnrzgi2tmnzyhfqwey3emy": {"egress": "1%"}}}),
        json!({"schedule": [{"egress": {"per_connection": "1%"}}]}),
    ] {
        for (local, controller) in [(places.clone(), json!({})), (json!({}), places.clone())] {
            let error = Layers::new(caps(local), caps(controller)).expect_err("no line");
            assert_eq!(error.path, "line_rate", "{places}");
        }
    }
    // The controller's line is not the operator's.
    assert!(Layers::new(caps(json!({"egress": {"total": "1%"}})), caps(json!({"line_rate": 5}))).is_err());
}

#[test]
fn entries_hold_at_their_hours_by_the_clock_on_the_wall() {
    let local = json!({"egress": {"total": 1_000}, "schedule": [
        {"days": "mon-fri", "from": "08:00", "to": "18:00", "egress": {"total": 300}},
        {"days": "fri", "from": "22:00", "to": "06:00", "egress": {"total": 2_000, "http": 5}}]});
    let now = |day, hour, minute| effective(local.clone(), json!({}), at(day, hour, minute));
    let entry = |index| Source { layer: Layer::Local, schedule: Some(index) };
    assert_eq!(now(0, 7, 59).egress.total, cap(1_000, LOCAL));
    assert_eq!(now(0, 7, 59).changes_in_s, Some(60));
    let working = now(4, 8, 0);
    assert_eq!(working.egress.total, cap(300, entry(0)));
    assert_eq!(working.schedule, [InForce { source: entry(0), ends_in_s: Some(36_000) }]);
    assert_eq!(now(4, 18, 0).changes_in_s, Some(4 * 3_600));
    // The night of Friday ends on Saturday, and a schedule lifts nothing.
    for (day, hour) in [(4, 22), (5, 0), (5, 5)] {
        let night = now(day, hour, 30);
        assert_eq!((night.egress.total, night.egress.http), (cap(1_000, LOCAL), cap(5, entry(1))));
    }
    assert_eq!(now(5, 6, 0).egress.http, Cap::default());
    assert_eq!(now(5, 22, 30).egress.http, Cap::default());
    assert_eq!(now(5, 6, 0).changes_in_s, Some((2 * 24 + 2) * 3_600), "until Monday");
    assert_eq!(at(4, 18, 0).to_string(), "Fri 18:00");
}

#[test]
fn what_always_holds_never_changes() {
    let always = json!({"schedule": [{"egress": {"total": 1}}, {"days": "sat-fri", "egress": {"http": 1}}]});
    let held = effective(always, json!({}), at(3, 12, 0));
    assert_eq!((held.changes_in_s, held.schedule.len()), (None, 2));
    assert_eq!(held.schedule[0].ends_in_s, None);
    assert_eq!(next_change(&[], at(0, 0, 0)), None);
}

#[test]
fn effective_caps_say_in_json_whose_each_is() {
    let held = effective(
        json!({"egress": {"total": 1}, "schedule": [{"egress": {"http": 2}}]}),
        json!({}),
        at(0, 0, 0),
    );
    let value = serde_json::to_value(&held).expect("JSON");
    assert_eq!(value["egress"]["total"], json!({"value": 1, "layer": "local"}));
    assert_eq!(value["egress"]["http"], json!({"value": 2, "layer": "local", "schedule": 0}));
    assert_eq!(value["egress"]["bittorrent"], json!({"value": null}));
    assert_eq!(serde_json::from_value::<EffectiveCaps>(value).ok(), Some(held));
}

#[test]
fn the_operators_priority_goes_first() {
    let (id, parsed) = ("gayddnrzgi2tmnzyhfqwey3emy", "gayddnrzgi2tmnzyhfqwey3emy".parse().expect("an id"));
    let of = |priority: i32| json!({"contents": {id: {"priority": priority}}});
    assert_eq!(effective(of(5), of(1), at(0, 0, 0)).contents[&parsed].priority, Some(5));
    assert_eq!(effective(json!({}), of(1), at(0, 0, 0)).contents[&parsed].priority, Some(1));
}
