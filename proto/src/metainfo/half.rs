//! The v1 half of a hybrid torrent, as a torrent of its own.
//!
//! Clients that know nothing of BEP 52 should be able to read a hybrid, but some stumble over the empty keys of its `file tree`:
//! Transmission before 4.0 refuses the file, aria2 before 1.37 computes another infohash.

use super::{Info, Metainfo};
use crate::bencode::{Item, decode};

/// What only v2 reads of an info dictionary (BEP 52).
const V2_KEYS: [&[u8]; 2] = [b"file tree", b"meta version"];

impl Metainfo {
    /// The same files and pieces for v1 alone, under an infohash of its own; `None` when this is no hybrid.
    #[must_use]
    pub fn v1_half(&self) -> Option<Metainfo> {
        if !self.info.v2 || self.info.v1_pieces.is_none() {
            return None;
        }
        let info = decode(&self.info_bytes).ok()?;
        let kept = info.as_dict()?.entries().iter().filter(|(key, _)| !V2_KEYS.contains(key));
        let kept = kept.map(|(key, value)| Some((std::str::from_utf8(key).ok()?, Item::from(value))));
        let info_bytes = Item::dict(kept.collect::<Option<Vec<_>>>()?).to_bytes();
        Some(Metainfo {
            info: Info::parse(&info_bytes).ok()?,
            info_bytes,
            piece_layers: std::collections::BTreeMap::new(),
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::merkle::{PieceHasher, leaf_width};
    use crate::metainfo::{Builder, Metainfo, plan_files};

    #[test]
    fn the_half_has_the_same_bytes_and_another_name() {
        let files = [(vec!["a".to_owned()], 20_000), (vec!["b".to_owned()], 5_000)];
        let plan = plan_files("folder", 16_384, &files).unwrap();
        let hash = |_| {
            let mut hasher = PieceHasher::new(true, true);
            hasher.update(&[7; 16_384]);
            hasher.finish(leaf_width(20_000, 16_384))
        };
        let pieces: Vec<_> = (0..plan.piece_count()).map(hash).collect();
        let hybrid = Builder::new(plan).build(&pieces).unwrap();
        let half = Metainfo::parse(&hybrid.v1_half().unwrap().to_bytes()).unwrap();
        assert_eq!((half.info.v2, half.info.length), (false, hybrid.info.length));
        assert_eq!(half.info.v1_pieces, hybrid.info.v1_pieces);
        assert_ne!(half.infohash_v1(), hybrid.infohash_v1());
        assert_eq!(half.v1_half(), None);
        assert!(!half.info_bytes.windows(9).any(|window| window == b"file tree"));
    }
}
