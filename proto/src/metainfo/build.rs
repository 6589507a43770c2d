//! Making a hybrid torrent, which v1-only and v2 clients both read, from a plan and the hashes of its pieces.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::info::File;
use super::{Info, Metainfo, MetainfoError, Plan};
use crate::bencode::Item;
use crate::merkle::{self, Hash, PieceHash};

/// Piece layers by root.
type PieceLayers = BTreeMap<Hash, Vec<Hash>>;

/// What goes into a hybrid v1 and v2 torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    /// Files and piece length.
    pub plan: Plan,
    /// Trackers by tier (BEP 12).
    pub announce: Vec<Vec<String>>,
    /// Web seeds (BEP 19).
    pub web_seeds: Vec<String>,
    /// Free text.
    pub comment: Option<String>,
    /// The program that makes the torrent.
    pub created_by: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<i64>,
    /// Only the trackers may be asked for peers (BEP 27).
    pub private: bool,
}

impl Builder {
    /// A torrent of the planned files, without trackers, web seeds and texts: set the fields to have them.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            announce: Vec::new(),
            web_seeds: Vec::new(),
            comment: None,
            created_by: None,
            creation_date: None,
            private: false,
        }
    }

    /// The torrent; `pieces` are both hashes of every piece of the linear space, in order.
    ///
    /// # Errors
    /// [`MetainfoError::PieceCount`] if `pieces` are not as many as the plan has, [`MetainfoError::Missing`] if one
    /// lacks a hash, and what [`Metainfo::parse`] would refuse.
    pub fn build(self, pieces: &[PieceHash]) -> Result<Metainfo, MetainfoError> {
        let found = u64::try_from(pieces.len()).unwrap_or(u64::MAX);
        if found != self.plan.piece_count() {
            return Err(MetainfoError::PieceCount { expected: self.plan.piece_count(), found });
        }
        let v1: Option<Vec<[u8; 20]>> = pieces.iter().map(|piece| piece.v1).collect();
        let v1 = v1.ok_or(MetainfoError::Missing("pieces"))?;
        let v2: Option<Vec<Hash>> = pieces.iter().map(|piece| piece.v2).collect();
        let v2 = v2.ok_or(MetainfoError::Missing("piece layers"))?;
        let (files, piece_layers) = self.rooted_files(&v2)?;
        let info_bytes = self.info_item(&files, &v1).to_bytes();
        Ok(Metainfo {
            // Reading back what was written is the proof that others can.
            info: Info::parse(&info_bytes)?,
            info_bytes,
            announce: self.announce,
            web_seeds: self.web_seeds,
            comment: self.comment,
            created_by: self.created_by,
            creation_date: self.creation_date,
            piece_layers,
        })
    }

    /// The files with their roots, and the layers of those longer than a piece.
    fn rooted_files(&self, v2: &[Hash]) -> Result<(Vec<File>, PieceLayers), MetainfoError> {
        let piece_bytes = u64::from(self.plan.piece_bytes);
        let mut files = self.plan.files.clone();
        let mut layers = BTreeMap::new();
        for file in files.iter_mut().filter(|file| !file.padding && file.length > 0) {
            let first = usize::try_from(file.offset / piece_bytes).ok();
            let count = usize::try_from(file.length.div_ceil(piece_bytes)).ok();
            let range = first.zip(count).and_then(|(first, count)| v2.get(first..first.checked_add(count)?));
            let layer = range.ok_or(MetainfoError::TooLong)?;
            // The v2 hash of an only piece is the file's root already: a layer of one.
            let root = merkle::root(layer, merkle::piece_layer(self.plan.piece_bytes));
            file.pieces_root = Some(root);
            if layer.len() > 1 {
                layers.insert(root, layer.to_vec());
            }
        }
        Ok((files, layers))
    }

    fn info_item<'a>(&'a self, files: &'a [File], v1: &[[u8; 20]]) -> Item<'a> {
        let mut info = vec![
            ("file tree", file_tree(files)),
            ("meta version", Item::Int(2)),
            ("name", Item::from(self.plan.name.as_str())),
            ("piece length", Item::Int(i64::from(self.plan.piece_bytes))),
            ("pieces", Item::from(v1.concat())),
        ];
        if self.plan.multi_file {
            let entry = |file: &'a File| {
                let mut entry = properties(file, true);
                let path = file.path[1..].iter().map(|part| Item::from(part.as_str()));
                entry.push(("path", Item::list(path)));
                Item::dict(entry)
            };
            info.push(("files", Item::list(files.iter().map(entry))));
        } else {
            info.extend(files.iter().flat_map(|file| properties(file, true)));
        }
        if self.private {
            info.push(("private", Item::Int(1)));
        }
        Item::dict(info)
    }
}

/// Length, attributes, and outside of the v1 list the root.
fn properties(file: &File, v1: bool) -> Vec<(&'static str, Item<'_>)> {
    let letters = [(file.padding, 'p'), (file.executable, 'x'), (file.hidden, 'h')];
    let attr: String = letters.into_iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect();
    let mut properties = vec![("length", Item::Int(i64::try_from(file.length).unwrap_or(i64::MAX)))];
    if !attr.is_empty() {
        properties.push(("attr", Item::from(attr)));
    }
    if let Some(root) = file.pieces_root.as_ref().filter(|_| !v1) {
        properties.push(("pieces root", Item::from(&root[..])));
    }
    properties
}

/// The v2 tree: a dictionary a folder, and for a file one whose only key is empty.
fn file_tree(files: &[File]) -> Item<'_> {
    let mut tree = BTreeMap::new();
    for file in files.iter().filter(|file| !file.padding) {
        // The torrent's name is no part of the tree, but is the file of a single-file torrent.
        let inside = if file.path.len() > 1 { &file.path[1..] } else { &file.path[..] };
        let mut folder = &mut tree;
        for part in inside {
            let entry: &mut Item<'_> =
                folder.entry(Cow::Borrowed(part.as_bytes())).or_insert_with(|| Item::Dict(BTreeMap::new()));
            match entry {
                Item::Dict(next) => folder = next,
                _ => unreachable!("the tree under construction holds dictionaries only"),
            }
        }
        folder.insert(Cow::Borrowed(&b""[..]), Item::dict(properties(file, false)));
    }
    Item::Dict(tree)
}
