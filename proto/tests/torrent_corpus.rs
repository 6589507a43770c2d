//! Replays committed hostile and odd inputs: the file name says whether each is accepted (`ok-…`) or refused (`err-…`).
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fs;
use std::path::Path;

use millrace_proto::bencode::{Item, decode_canonical};
use millrace_proto::magnet::Magnet;
use millrace_proto::metainfo::Metainfo;

fn check(folder: &str, accepts: impl Fn(&[u8]) -> Result<(), String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let outcome = accepts(&fs::read(&path).unwrap());
        assert_eq!(outcome.is_ok(), name.starts_with("ok-"), "{name}: {outcome:?}");
        count += 1;
    }
    assert!(count >= 8, "corpus {folder:?} is there");
}

#[test]
fn bencode() {
    check("bencode", |bytes| {
        let value = decode_canonical(bytes).map_err(|error| error.to_string())?;
        assert_eq!(Item::from(&value).to_bytes(), bytes);
        Ok(())
    });
}

#[test]
fn metainfo() {
    check("metainfo", |bytes| {
        let metainfo = Metainfo::parse(bytes).map_err(|error| error.to_string())?;
        assert_eq!(Metainfo::parse(&metainfo.to_bytes()), Ok(metainfo));
        Ok(())
    });
}

#[test]
fn magnet() {
    check("magnet", |bytes| {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let magnet: Magnet =
            text.parse().map_err(|error: millrace_proto::magnet::MagnetError| error.to_string())?;
        assert_eq!(magnet.to_string().parse(), Ok(magnet));
        Ok(())
    });
}
