//! Writing metainfo: the outer dictionary around an info dictionary that never changes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Metainfo;
use crate::bencode::Item;

impl Metainfo {
    /// The .torrent file, in canonical bencoding.
    ///
    /// `announce` is the first tracker; `announce-list` is there if there are more (BEP 12). One web seed is written as
    /// a string, several as a list (BEP 19). `piece layers` is written for a v2 part whose layers are all known.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut root = BTreeMap::new();
        let mut put = |key: &'static str, item| root.insert(Cow::Borrowed(key.as_bytes()), item);
        put("info", Item::Raw(Cow::Borrowed(&self.info_bytes)));
        if let Some(first) = self.announce.iter().flatten().next() {
            put("announce", Item::from(first.as_str()));
        }
        if self.announce.iter().map(Vec::len).sum::<usize>() > 1 {
            put("announce-list", Item::list(self.announce.iter().map(|tier| texts(tier))));
        }
        match &self.web_seeds[..] {
            [] => {}
            [only] => drop(put("url-list", Item::from(only.as_str()))),
            several => drop(put("url-list", texts(several))),
        }
        if let Some(comment) = &self.comment {
            put("comment", Item::from(comment.as_str()));
        }
        if let Some(created_by) = &self.created_by {
            put("created by", Item::from(created_by.as_str()));
        }
        if let Some(date) = self.creation_date {
            put("creation date", Item::Int(date));
        }
        if self.info.v2 && self.has_layers() {
            let layers = self.piece_layers.iter();
            let layers = layers.map(|(root, hashes)| (Cow::Borrowed(&root[..]), Item::from(hashes.concat())));
            put("piece layers", Item::Dict(layers.collect()));
        }
        Item::Dict(root).to_bytes()
    }
}

fn texts(texts: &[String]) -> Item<'_> {
    Item::list(texts.iter().map(|text| Item::from(text.as_str())))
}
