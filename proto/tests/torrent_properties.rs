//! Properties over arbitrary input: nothing panics, and what is accepted survives a round trip.

use std::collections::BTreeMap;

use millrace_proto::bencode::{Item, Value, decode, decode_canonical, decode_prefix};
use millrace_proto::id::{InfoHashV1, InfoHashV2};
use millrace_proto::magnet::Magnet;
use millrace_proto::metainfo::{Info, Metainfo, plan_files};
use proptest::prelude::*;

fn item() -> impl Strategy<Value = Item<'static>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..12);
    let leaf = prop_oneof![any::<i64>().prop_map(Item::Int), bytes().prop_map(Item::from)];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Item::List),
            prop::collection::btree_map(bytes().prop_map(Into::into), inner, 0..6).prop_map(Item::Dict),
        ]
    })
}

/// Bytes that are likely to get past the first checks of a decoder.
fn bencode_like() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        "[0-9ilde:-]{1,6}".prop_map(String::into_bytes),
        item().prop_map(|item| item.to_bytes()),
        prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

const INFO_KEYS: [&str; 12] = [
    "attr",
    "file tree",
    "files",
    "length",
    "meta version",
    "name",
    "path",
    "piece length",
    "pieces",
    "pieces root",
    "private",
    "",
];

/// Dictionaries of the right keys with values that are sometimes right.
fn info_like() -> impl Strategy<Value = Item<'static>> {
    let scalar = prop_oneof![
        prop::sample::select(vec![0, 1, 2, 5, 16_384, 32_768, i64::MAX, -1]).prop_map(Item::Int),
        prop::sample::select(vec![0usize, 1, 20, 32, 40, 64]).prop_map(|n| Item::from(vec![b'a'; n])),
        prop::sample::select(vec!["a", "b", "..", "p", "l"]).prop_map(Item::from),
    ];
    let dict = scalar.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Item::List),
            prop::collection::btree_map(prop::sample::select(INFO_KEYS.to_vec()), inner, 0..8)
                .prop_map(Item::dict),
        ]
    });
    (prop::collection::btree_map(prop::sample::select(INFO_KEYS.to_vec()), dict, 0..12), any::<bool>())
        .prop_map(|(mut entries, v2): (BTreeMap<&str, Item<'_>>, bool)| {
            entries.insert("name", Item::from("a"));
            entries.insert("piece length", Item::Int(16_384));
            if v2 {
                entries.insert("meta version", Item::Int(2));
            }
            Item::dict(entries)
        })
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(item in item()) {
        let bytes = item.to_bytes();
        let value = decode_canonical(&bytes).unwrap();
        prop_assert_eq!(Item::from(&value), item);
        let followed = [&bytes[..], b"more"].concat();
        prop_assert_eq!(decode_prefix(&followed), Ok((value, &b"more"[..])));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic_and_canonical_is_unique(bytes in bencode_like()) {
        let lenient = decode(&bytes);
        if let Ok(value) = decode_canonical(&bytes) {
            prop_assert_eq!(Item::from(&value).to_bytes(), &bytes[..]);
            prop_assert_eq!(lenient, Ok(value));
        } else if let Ok(Value::Dict(dict)) = &lenient {
            prop_assert_eq!(dict.raw(), &bytes[..]);
        }
        let _ = Metainfo::parse(&bytes);
        let _ = Info::parse(&bytes);
    }

    #[test]
    fn arbitrary_info_does_not_panic(info in info_like(), layers in item()) {
        let bytes = Item::dict([("info", info.clone()), ("piece layers", layers)]).to_bytes();
        let _ = Metainfo::parse(&bytes);
        if let Ok(metainfo) = Metainfo::from_info_bytes(info.to_bytes()) {
            for index in [0, 1, u32::MAX] {
                let _ = metainfo.piece(index);
            }
            prop_assert_eq!(Metainfo::parse(&metainfo.to_bytes()), Ok(metainfo));
        }
    }

    #[test]
    fn plans_align_and_add_up(lengths in prop::collection::vec(0u64..100_000, 1..12), log in 14u32..18) {
        let files: Vec<_> = lengths.iter().enumerate().map(|(i, n)| (vec![format!("f{i}")], *n)).collect();
        let plan = plan_files("t", 1 << log, &files).unwrap();
        let mut end = 0;
        for file in &plan.files {
            prop_assert_eq!(file.offset, end);
            prop_assert!(file.padding || file.length == 0 || file.offset.is_multiple_of(1 << log));
            prop_assert!(!file.padding || file.length < 1 << log);
            end += file.length;
        }
        prop_assert_eq!(end, plan.length);
        let data: u64 = plan.files.iter().filter(|file| !file.padding).map(|file| file.length).sum();
        prop_assert_eq!(data, lengths.iter().sum::<u64>());
    }

    #[test]
    fn magnets_round_trip(
        v1 in any::<[u8; 20]>(), v2 in any::<Option<[u8; 32]>>(), name in any::<Option<String>>(),
        trackers in prop::collection::vec(any::<String>(), 0..3), length in any::<Option<u64>>(),
    ) {
        let magnet = Magnet {
            v1: Some(InfoHashV1(v1)), v2: v2.map(InfoHashV2), name, length,
            web_seeds: trackers.clone(), peers: trackers.clone(), trackers,
        };
        prop_assert_eq!(magnet.to_string().parse(), Ok(magnet));
    }

    #[test]
    fn arbitrary_links_do_not_panic(text in "(magnet:\\?)?([a-z.]{0,4}=)?(urn:bt[im]h:)?\\PC{0,60}") {
        let _ = text.parse::<Magnet>();
    }
}
