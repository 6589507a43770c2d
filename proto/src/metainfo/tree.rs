//! The v2 `file tree` (BEP 52), and its agreement with the v1 list of a hybrid torrent.

use super::MetainfoError;
use super::info::{File, Info, end_of, file, length};
use super::names::{self, Attributes, PATH_DEPTH_MAX};
use crate::bencode::{Dict, Value};

/// A name of the tree, and the file or folder it names.
type Entry<'a> = (&'a [u8], Value<'a>);

/// The files of the tree in its order, each aligned to a piece.
///
/// A tree of one file that has the torrent's name is a single-file torrent, unless a v1 part says otherwise.
pub(super) fn files(dict: &Dict<'_>, info: &Info) -> Result<Vec<File>, MetainfoError> {
    let tree = dict.get("file tree").ok_or(MetainfoError::Missing("file tree"))?;
    let tree = tree.as_dict().ok_or(MetainfoError::Invalid("file tree"))?;
    let mut files = Vec::new();
    let mut end = 0;
    // Folders still to be read, the next one last; each with the path above it.
    let mut open: Vec<(Vec<String>, &[Entry<'_>])> = vec![(vec![info.name.clone()], tree.entries())];
    while let Some((above, entries)) = open.pop() {
        let Some(((name, node), rest)) = entries.split_first() else { continue };
        let mut path = above.clone();
        path.push(names::name(name, None)?);
        open.push((above, rest));
        let node = node.as_dict().ok_or(MetainfoError::Invalid("file tree"))?;
        if path.len() > PATH_DEPTH_MAX || node.entries().is_empty() {
            return Err(MetainfoError::Invalid("file tree"));
        }
        match node.get("") {
            None => open.push((path, node.entries())),
            // What has properties is a file and cannot be a folder as well.
            Some(_) if node.entries().len() > 1 => return Err(MetainfoError::Collision(path.join("/"))),
            Some(properties) => {
                let properties = properties.as_dict().ok_or(MetainfoError::Invalid("file tree"))?;
                let leaf = leaf(properties, path, end, info.piece_bytes)?;
                end = end_of(leaf.offset, leaf.length)?;
                files.push(leaf);
            }
        }
    }
    let v1_says_folder = info.v1_pieces.is_some() && info.multi_file;
    if let [only] = &mut files[..]
        && only.path.len() == 2
        && only.path[0] == only.path[1]
        && !v1_says_folder
    {
        only.path.pop();
    }
    Ok(files)
}

/// A file behind `end`; only what has bytes needs alignment.
fn leaf(properties: &Dict<'_>, path: Vec<String>, end: u64, piece_bytes: u32) -> Result<File, MetainfoError> {
    let attributes = Attributes::of(properties, &path.join("/"))?;
    if attributes.padding {
        // In v2 alignment is implicit: padding in the tree has no meaning but confusion.
        return Err(MetainfoError::Invalid("file tree"));
    }
    let length = length(properties)?;
    if length == 0 {
        return Ok(file(path, 0, end, attributes));
    }
    let offset = end.checked_next_multiple_of(u64::from(piece_bytes)).ok_or(MetainfoError::TooLong)?;
    let root = properties.get("pieces root").ok_or(MetainfoError::Missing("pieces root"))?;
    let root = root.as_bytes().and_then(|bytes| bytes.try_into().ok());
    let root = root.ok_or(MetainfoError::Invalid("pieces root"))?;
    Ok(File { pieces_root: Some(root), ..file(path, length, offset, attributes) })
}

/// Adds the roots of the v2 part to the v1 list of a hybrid, after checking that both describe the same bytes.
pub(super) fn merge(info: &mut Info, v2_files: Vec<File>) -> Result<(), MetainfoError> {
    let mismatch = |file: &File| MetainfoError::HybridMismatch(file.path.join("/"));
    let piece_bytes = u64::from(info.piece_bytes);
    let mut v2_files = v2_files.into_iter();
    let mut end = 0;
    for v1 in &mut info.files {
        if v1.padding {
            continue;
        }
        let Some(v2) = v2_files.next() else { return Err(mismatch(v1)) };
        // Empty files have no bytes to align.
        let aligned = v1.offset == v2.offset || v1.length == 0;
        if v1.path != v2.path || v1.length != v2.length || !aligned {
            return Err(mismatch(v1));
        }
        v1.pieces_root = v2.pieces_root;
        end = end.max(v2.offset + v2.length);
    }
    if let Some(extra) = v2_files.next() {
        return Err(mismatch(&extra));
    }
    // Padding behind the last file completes its piece at most.
    let v1_end = info.files.iter().map(|file| file.offset + file.length).max().unwrap_or(0);
    match info.files.last() {
        Some(last) if v1_end.div_ceil(piece_bytes) != end.div_ceil(piece_bytes) => Err(mismatch(last)),
        _ => Ok(()),
    }
}
