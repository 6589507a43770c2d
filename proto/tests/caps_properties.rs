//! Properties of the caps document and of what comes of two layers, by random documents and a model that counts minutes.

use millrace_proto::admin::caps::schedule::Days;
use millrace_proto::admin::caps::{Caps, CivilTime, EffectiveCaps, Layers};
use proptest::prelude::*;
use serde_json::{Value, json};

fn caps(value: Value) -> Caps {
    Caps::from_value(value).expect("a document")
}

fn effective(local: Value, controller: Value, now: CivilTime) -> EffectiveCaps {
    Layers::new(caps(local), caps(controller)).expect("layers").effective(now)
}

/// Random documents, of values that are close together, so that the lower is not always the same one's.
fn any_caps() -> impl Strategy<Value = Value> {
    let limit = || {
        prop_oneof![
            Just(Value::Null),
            (0..4u64).prop_map(Value::from),
            Just(json!("0.2%")),
            Just(json!("50%"))
        ]
    };
    let egress = (limit(), limit(), limit(), limit(), 0..3u8, limit()).prop_map(
        |(total, http, bittorrent, each, net, of_net)| {
            json!({"total": total, "http": http, "bittorrent": bittorrent, "per_connection": each,
               "networks": [{"cidr": [format!("10.{net}.0.0/16")], "total": of_net}]})
        },
    );
    let volume =
        prop_oneof![Just(json!([])), (0..4u64).prop_map(|bytes| json!([{"window": "day", "bytes": bytes}]))];
    let origin = (limit(), prop_oneof![Just(Value::Null), (0..4u64).prop_map(Value::from)], volume).prop_map(
        |(bandwidth, connections, volume)| json!({"bandwidth": bandwidth, "connections": connections, "volume": volume}),
    );
    let day = || prop::sample::select(vec!["mon", "tue-thu", "sat,sun", "fri-mon", "mon-sun"]);
    let entry = (day(), 0..24u32, 0..24u32, egress.clone(), origin.clone()).prop_map(
        |(days, from, to, egress, origin)| {
            // Never equal, and through the night as often as not.
            let (from, to) = (format!("{from:02}:30"), format!("{to:02}:00"));
            json!({"days": days, "from": from, "to": to, "egress": egress, "origin": origin})
        },
    );
    (egress, origin, prop::collection::vec(entry, 0..4), 4..2_000u64).prop_map(|(egress, origin, schedule, line_rate)| {
        json!({"egress": egress, "origin": origin, "schedule": schedule, "line_rate": line_rate})
    })
}

/// The entries in force, found by walking back minute by minute to a beginning instead of by comparing times.
fn in_force(entry: &Value, now: CivilTime) -> bool {
    let days: Days = entry["days"].as_str().expect("days").parse().expect("days");
    let minute = |key: &str| {
        let (hour, minute) = entry[key].as_str().expect("a time").split_once(':').expect("a time");
        hour.parse::<u32>().expect("an hour") * 60 + minute.parse::<u32>().expect("a minute")
    };
    let length = (minute("to") + 1_440 - minute("from")) % 1_440;
    (0..length).any(|back| {
        let then = now.after(7 * 86_400 - back * 60);
        then.second() / 60 == minute("from") && days.contains(then.day())
    })
}

/// The lowest of all values under `pointer`, in both documents and their entries in force.
fn lowest(layers: [&Value; 2], pointer: &str, now: CivilTime) -> Option<u64> {
    let mut lowest: Option<u64> = None;
    for layer in layers {
        let line_rate = layer["line_rate"].as_u64().expect("a rate");
        let entries = layer["schedule"].as_array().expect("a list").iter();
        for place in entries.filter(|entry| in_force(entry, now)).chain([layer]) {
            let value = match place.pointer(pointer) {
                Some(Value::String(share)) if share == "50%" => Some(line_rate / 2),
                Some(Value::String(_)) => Some(line_rate * 2 / 1_000),
                value => value.and_then(Value::as_u64),
            };
            lowest = [lowest, value].into_iter().flatten().min();
        }
    }
    lowest
}

proptest! {
    #[test]
    fn documents_are_read_as_they_are_written(document in any_caps()) {
        let document = caps(document);
        let again = Caps::from_json(document.canonical().as_bytes());
        prop_assert_eq!(again.as_ref().map(Caps::canonical), Ok(document.canonical()));
        prop_assert_eq!(again, Ok(document));
    }

    #[test]
    fn a_merged_document_is_the_patch_applied_to_what_is_shown(one in any_caps(), other in any_caps()) {
        let (one, other) = (caps(one), caps(other));
        // A patch that says everything is a replacement.
        prop_assert_eq!(one.patched(&other.to_value()), Ok(other));
    }

    #[test]
    fn the_lowest_of_all_that_is_in_force_holds(
        local in any_caps(), controller in any_caps(), day in 0..7u8, second in 0..86_400u32,
    ) {
        let now = CivilTime::new(day, second / 60 * 60);
        let held = effective(local.clone(), controller.clone(), CivilTime::new(day, second));
        let lowest = |pointer: &str| lowest([&local, &controller], pointer, now);
        for (pointer, cap) in [
            ("/egress/total", held.egress.total), ("/egress/http", held.egress.http),
            ("/egress/bittorrent", held.egress.bittorrent), ("/egress/per_connection", held.egress.per_connection),
            ("/origin/bandwidth", held.origin.bandwidth), ("/origin/connections", held.origin.connections),
            ("/origin/volume/0/bytes", held.origin.volume.first().map(|volume| volume.bytes).unwrap_or_default()),
        ] {
            prop_assert_eq!(cap.value, lowest(pointer), "{}", pointer);
            prop_assert_eq!(cap.value.is_some(), cap.source.is_some());
        }
    }

    #[test]
    fn nothing_changes_before_the_time_that_is_told(
        local in any_caps(), controller in any_caps(), day in 0..7u8, second in 0..86_400u32, part in 0.0..1.0f64,
    ) {
        let layers = Layers::new(caps(local), caps(controller)).expect("layers");
        let now = CivilTime::new(day, second);
        let sources = |held: &EffectiveCaps| held.schedule.iter().map(|entry| entry.source).collect::<Vec<_>>();
        let held = layers.effective(now);
        let ahead = held.changes_in_s.unwrap_or(7 * 86_400);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of what is an u32")]
        let before = layers.effective(now.after((f64::from(ahead) * part) as u32));
        prop_assert_eq!(&held.egress, &before.egress);
        prop_assert_eq!(sources(&held), sources(&before));
        if held.changes_in_s.is_some() {
            prop_assert_ne!(sources(&held), sources(&layers.effective(now.after(ahead))));
        }
        for entry in held.schedule {
            if let Some(seconds) = entry.ends_in_s {
                prop_assert!(sources(&layers.effective(now.after(seconds - 1))).contains(&entry.source));
                prop_assert!(!sources(&layers.effective(now.after(seconds))).contains(&entry.source));
            }
        }
    }

    #[test]
    fn days_are_written_as_they_are_read(bits in 1..128u8) {
        let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let named: Vec<_> = (0..7).filter(|day| bits >> day & 1 == 1).map(|day| names[day]).collect();
        let days: Days = named.join(",").parse().expect("days");
        prop_assert_eq!(days.to_string().parse::<Days>(), Ok(days));
        prop_assert!((0..7u8).all(|day| days.contains(day) == (bits >> day & 1 == 1)));
    }

    #[test]
    fn strange_text_is_refused_without_a_panic(text in "[a-z0-9:,%./ -]{0,24}") {
        let _ = Caps::from_value(json!({"schedule": [{"days": text, "from": text}]}));
        let _ = Caps::from_value(json!({"egress": {"total": text, "networks": [{"cidr": [text]}]}}));
        let _ = Caps::from_value(json!({"origin": {"volume": [{"window": text, "bytes": text}]}}));
    }
}
