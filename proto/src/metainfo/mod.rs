//! Torrents: reading and writing metainfo of v1 (BEP 3), v2 (BEP 52) and hybrids, with padding files (BEP 47).
//!
//! The info dictionary is kept as the bytes that arrived, because the infohashes are over those; everything else is
//! checked once, here, so that what a [`Metainfo`] says can be trusted: names stay inside the torrent's folder,
//! lengths add up, and every piece has its hash.

mod build;
mod error;
mod half;
mod info;
mod names;
mod pieces;
mod plan;
mod tree;
mod write;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sha1::Sha1;
use sha2::{Digest, Sha256};

pub use build::Builder;
pub use error::MetainfoError;
pub use info::{File, Info, PIECE_BYTES_MAX, PIECE_COUNT_MAX};
pub use pieces::Piece;
pub use plan::{Plan, choose_piece_bytes, plan_files};

use crate::bencode::{Dict, Value, decode_canonical};
use crate::id::{InfoHashV1, InfoHashV2};
use crate::merkle::{self, Hash};

/// A torrent, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metainfo {
    /// What the infohashes name.
    pub info: Info,
    /// The info dictionary as it arrived, with the keys that [`Info`] does not know.
    pub info_bytes: Vec<u8>,
    /// Trackers by tier (BEP 12); a sole `announce` is one tier of one.
    pub announce: Vec<Vec<String>>,
    /// Web seeds (BEP 19).
    pub web_seeds: Vec<String>,
    /// Free text.
    pub comment: Option<String>,
    /// The program that made the torrent.
    pub created_by: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<i64>,
    /// By `pieces root`: the piece layer of each file longer than a piece (BEP 52). Verified against the root.
    pub piece_layers: BTreeMap<Hash, Vec<Hash>>,
}

impl Metainfo {
    /// Reads a .torrent file.
    ///
    /// # Errors
    /// Whatever [`MetainfoError`] lists. Non-canonical bencoding is refused; so is a `piece layers` that does not
    /// verify or lacks a file. Where `piece layers` is absent altogether, see [`Metainfo::has_layers`].
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        let value = decode_canonical(bytes)?;
        let root = value.as_dict().ok_or(MetainfoError::Invalid("torrent"))?;
        let info_dict = root
            .get("info")
            .ok_or(MetainfoError::Missing("info"))?
            .as_dict()
            .ok_or(MetainfoError::Invalid("info"))?;
        let info = Info::from_dict(info_dict)?;
        Ok(Self {
            piece_layers: piece_layers(root, &info)?,
            info,
            info_bytes: info_dict.raw().to_vec(),
            announce: announce_tiers(root)?,
            web_seeds: web_seeds(root)?,
            comment: text(root, "comment"),
            created_by: text(root, "created by"),
            creation_date: root.get("creation date").and_then(Value::as_int),
        })
    }

    /// Makes a torrent of an info dictionary that came from peers (BEP 9), without trackers and piece layers.
    ///
    /// The caller has compared the infohash already.
    ///
    /// # Errors
    /// As [`Info::parse`].
    pub fn from_info_bytes(info_bytes: Vec<u8>) -> Result<Self, MetainfoError> {
        Ok(Self {
            info: Info::parse(&info_bytes)?,
            info_bytes,
            announce: Vec::new(),
            web_seeds: Vec::new(),
            comment: None,
            created_by: None,
            creation_date: None,
            piece_layers: BTreeMap::new(),
        })
    }

    /// SHA-1 of the info dictionary, if it has a v1 part.
    #[must_use]
    pub fn infohash_v1(&self) -> Option<InfoHashV1> {
        self.info.v1_pieces.as_ref().map(|_| InfoHashV1(Sha1::digest(&self.info_bytes).into()))
    }

    /// SHA-256 of the info dictionary, if it has a v2 part.
    #[must_use]
    pub fn infohash_v2(&self) -> Option<InfoHashV2> {
        self.info.v2.then(|| InfoHashV2(Sha256::digest(&self.info_bytes).into()))
    }

    /// Whether every file longer than a piece has its piece layer: always so for v1 only; a v2 torrent from a magnet
    /// link still has to ask peers for them.
    #[must_use]
    pub fn has_layers(&self) -> bool {
        self.info
            .files
            .iter()
            .filter(|file| file.length > u64::from(self.info.piece_bytes))
            .all(|file| file.pieces_root.is_none_or(|root| self.piece_layers.contains_key(&root)))
    }
}

/// Text of a key that nothing depends on: replaced where it is not UTF-8, dropped where it is not a string.
fn text(root: &Dict<'_>, key: &str) -> Option<String> {
    root.get(key)?.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// BEP 12: where `announce-list` is present, `announce` does not count.
fn announce_tiers(root: &Dict<'_>) -> Result<Vec<Vec<String>>, MetainfoError> {
    let invalid = || MetainfoError::Invalid("announce-list");
    let mut tiers = Vec::new();
    if let Some(list) = root.get("announce-list") {
        for tier in list.as_list().ok_or_else(invalid)? {
            let urls = urls(tier.as_list().ok_or_else(invalid)?);
            if !urls.is_empty() {
                tiers.push(urls);
            }
        }
    }
    if tiers.is_empty()
        && let Some(announce) = root.get("announce")
    {
        let urls = urls(std::slice::from_ref(announce));
        tiers.extend((!urls.is_empty()).then_some(urls));
    }
    Ok(tiers)
}

/// BEP 19: one URL, or a list of them.
fn web_seeds(root: &Dict<'_>) -> Result<Vec<String>, MetainfoError> {
    match root.get("url-list") {
        None => Ok(Vec::new()),
        Some(one @ Value::Bytes(_)) => Ok(urls(std::slice::from_ref(one))),
        Some(Value::List(list)) => Ok(urls(list.items())),
        Some(_) => Err(MetainfoError::Invalid("url-list")),
    }
}

/// The non-empty texts among `values`; what is no text cannot be a URL and is of no use to anybody.
fn urls(values: &[Value<'_>]) -> Vec<String> {
    values.iter().filter_map(Value::as_str).filter(|url| !url.is_empty()).map(str::to_owned).collect()
}

/// The piece layers of all files that need one (BEP 52); layers of other roots are left out, nothing vouches for them.
fn piece_layers(root: &Dict<'_>, info: &Info) -> Result<BTreeMap<Hash, Vec<Hash>>, MetainfoError> {
    let mut layers = BTreeMap::new();
    let Some(value) = root.get("piece layers") else { return Ok(layers) };
    let dict = value.as_dict().ok_or(MetainfoError::Invalid("piece layers"))?;
    let piece_bytes = u64::from(info.piece_bytes);
    for file in info.files.iter().filter(|file| file.length > piece_bytes) {
        let Some(pieces_root) = file.pieces_root else { continue };
        let wrong = || MetainfoError::PieceLayer(file.path.join("/"));
        let at =
            dict.entries().binary_search_by(|(key, _)| (*key).cmp(&pieces_root[..])).map_err(|_| wrong())?;
        let bytes = dict.entries()[at].1.as_bytes().ok_or_else(wrong)?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        let count = file.length.div_ceil(piece_bytes);
        if !rest.is_empty() || u64::try_from(hashes.len()) != Ok(count) {
            return Err(wrong());
        }
        // Files of equal content share a layer: verify it once.
        if let Entry::Vacant(vacant) = layers.entry(pieces_root) {
            if merkle::root(hashes, merkle::piece_layer(info.piece_bytes)) != pieces_root {
                return Err(wrong());
            }
            vacant.insert(hashes.to_vec());
        }
    }
    Ok(layers)
}
