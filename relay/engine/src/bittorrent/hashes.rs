//! Answering hash requests (BEP 52) out of the piece layers of the metainfo.
//!
//! A tree is built once per swarm, when somebody asks for it. Block hashes are not stored: who asks beneath the piece layer gets a
//! reject, and verifies whole pieces.

use std::collections::btree_map::Entry;

use millrace_pagecache::content::Content;
use millrace_proto::merkle::{Hash, HashRange, Tree, piece_layer};
use millrace_proto::peer::message::HashSpan;

use crate::session::Shared;

/// Longest piece layer that a tree is built of: the shard stands still for it, some 10 ms at most.
const LAYER_HASHES_MAX: usize = 64 * 1024;

/// The hashes of a span and their uncles; `None` is to be rejected.
pub(super) fn answer(shared: &mut Shared, content: &Content, span: &HashSpan) -> Option<Vec<Hash>> {
    if !span.is_well_formed() {
        return None;
    }
    let metainfo = content.metainfo()?;
    let base_layer = piece_layer(metainfo.info.piece_bytes);
    if span.base_layer < base_layer {
        return None;
    }
    let layer =
        metainfo.piece_layers.get(&span.pieces_root).filter(|layer| layer.len() <= LAYER_HASHES_MAX)?;
    let tree = match shared.swarms.get_mut(&content.id())?.trees.entry(span.pieces_root) {
        Entry::Occupied(built) => built.into_mut(),
        Entry::Vacant(vacant) => vacant.insert(Tree::new(layer.clone(), base_layer)),
    };
    let HashSpan { base_layer, index, length, proof_layers, .. } = *span;
    tree.proof(HashRange { base_layer, index, length, proof_layers }).ok()
}
