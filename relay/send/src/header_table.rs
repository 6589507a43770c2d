//! The 13 bytes before each BitTorrent block, as immutable tables that all shards send from by reference.
//!
//! A head says nothing but piece index, offset and length (BEP 3), so contents of the same piece length share one table. The control
//! thread makes tables as contents come; a shard looks heads up without waiting, and copies those that no table has.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use millrace_proto::peer::message::{BLOCK_BYTES, BLOCK_HEAD_BYTES, block_head};

use crate::sealed::Sealed;

/// Distance between heads in a table: no head crosses a page, so each takes one slot of a pipe.
const STRIDE_BYTES: usize = 16;

/// Heads in one table at most: 64 MiB, for 64 GiB of content. What lies beyond is copied, at a cost that only such contents have.
const HEADS_MAX: u64 = 1 << 22;

/// Piece lengths that get a table at most. Torrents use a handful of powers of two; a hostile one cannot make us keep more.
const TABLES_MAX: usize = 32;

/// All tables. Shared by the control thread and every shard.
#[derive(Debug, Default)]
pub struct HeaderTables {
    tables: ArcSwap<Vec<Arc<Table>>>,
    /// Held while a table is made. Shards never take it.
    making: Mutex<()>,
}

/// The heads of one piece length.
#[derive(Debug)]
struct Table {
    piece_bytes: u32,
    blocks_per_piece: u64,
    heads: u64,
    memory: Sealed,
}

impl HeaderTables {
    /// Makes sure that the heads of the first `pieces` pieces of `piece_bytes` bytes each are at hand, as far as they can be. For
    /// the control thread, when a content with metainfo is put: it fills memory, 0.1 % of the content's size.
    ///
    /// # Errors
    /// No memory or descriptor for a table. The tables there are stay; shards copy what is missing.
    pub fn cover(&self, piece_bytes: u32, pieces: u32) -> io::Result<()> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = self.tables.load();
        let position = tables.iter().position(|table| table.piece_bytes == piece_bytes);
        let heads = (u64::from(pieces) * blocks_per_piece(piece_bytes)).min(HEADS_MAX);
        let enough = match position {
            Some(position) => tables[position].heads >= heads,
            None => heads == 0 || tables.len() >= TABLES_MAX,
        };
        if enough {
            return Ok(());
        }
        let table = Arc::new(Table::make(piece_bytes, heads)?);
        let mut larger = Vec::clone(&tables);
        match position {
            Some(position) => larger[position] = table,
            None => larger.push(table),
        }
        self.tables.store(Arc::new(larger));
        Ok(())
    }

    /// Bytes of memory that the tables hold.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tables.load().iter().map(|table| table.memory.len() as u64).sum()
    }

    /// The tables as they are now, for the heads of one content.
    pub(crate) fn of_piece_length(&self, piece_bytes: u32) -> Heads {
        let tables = self.tables.load();
        let position = tables.iter().position(|table| table.piece_bytes == piece_bytes);
        Heads { tables, position }
    }
}

/// The heads of one piece length, held for one batch.
pub(crate) struct Heads {
    tables: Guard<Arc<Vec<Arc<Table>>>>,
    position: Option<usize>,
}

impl Heads {
    /// The head of the block of 16 KiB at `begin` in piece `index`, where a table has it.
    pub(crate) fn find(&self, index: u32, begin: u32) -> Option<&[u8]> {
        self.tables[self.position?].find(index, begin)
    }
}

impl Table {
    fn make(piece_bytes: u32, heads: u64) -> io::Result<Self> {
        let blocks_per_piece = blocks_per_piece(piece_bytes);
        let memory = Sealed::new("millrace-heads", |file| write_heads(file, blocks_per_piece, heads))?;
        Ok(Table { piece_bytes, blocks_per_piece, heads, memory })
    }

    fn find(&self, index: u32, begin: u32) -> Option<&[u8]> {
        if !begin.is_multiple_of(BLOCK_BYTES) || begin >= self.piece_bytes {
            return None;
        }
        let head = u64::from(index) * self.blocks_per_piece + u64::from(begin / BLOCK_BYTES);
        if head >= self.heads {
            return None;
        }
        let start = usize::try_from(head).ok()?.checked_mul(STRIDE_BYTES)?;
        self.memory.get(start..start + BLOCK_HEAD_BYTES)
    }
}

fn blocks_per_piece(piece_bytes: u32) -> u64 {
    u64::from(piece_bytes.div_ceil(BLOCK_BYTES))
}

fn write_heads(file: &mut File, blocks_per_piece: u64, heads: u64) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, file);
    for head in 0..heads {
        let index = u32::try_from(head / blocks_per_piece).map_err(io::Error::other)?;
        let block = u32::try_from(head % blocks_per_piece).map_err(io::Error::other)?;
        let mut entry = [0; STRIDE_BYTES];
        entry[..BLOCK_HEAD_BYTES].copy_from_slice(&block_head(index, block * BLOCK_BYTES, BLOCK_BYTES));
        file.write_all(&entry)?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u32 = 1024;

    fn check(tables: &HeaderTables, piece_bytes: u32, index: u32, begin: u32, expected: bool) {
        let heads = tables.of_piece_length(piece_bytes);
        let found = heads.find(index, begin).map(<[u8]>::to_vec);
        let head = expected.then(|| block_head(index, begin, BLOCK_BYTES).to_vec());
        assert_eq!(found, head, "piece {index} of {piece_bytes} bytes, block at {begin}");
    }

    #[test]
    fn every_head_of_the_pieces_covered_and_no_other() {
        let tables = HeaderTables::default();
        tables.cover(64 * KIB, 3).unwrap();
        tables.cover(40 * KIB, 2).unwrap(); // the third block of a piece is a short one
        for index in 0..4 {
            for begin in (0..80 * KIB).step_by(8 * 1024) {
                let whole = begin % BLOCK_BYTES == 0;
                check(&tables, 64 * KIB, index, begin, whole && index < 3 && begin < 64 * KIB);
                check(&tables, 40 * KIB, index, begin, whole && index < 2 && begin < 40 * KIB);
                check(&tables, 32 * KIB, index, begin, false);
            }
        }
    }

    #[test]
    fn a_larger_table_takes_the_place_of_a_smaller_one_which_stays_valid() {
        let tables = HeaderTables::default();
        tables.cover(64 * KIB, 1).unwrap();
        let small = tables.of_piece_length(64 * KIB);
        tables.cover(64 * KIB, 5).unwrap();
        tables.cover(64 * KIB, 2).unwrap();
        check(&tables, 64 * KIB, 4, 0, true);
        assert_eq!(small.find(0, 0), Some(&block_head(0, 0, BLOCK_BYTES)[..]));
        assert_eq!(small.find(4, 0), None);
        assert_eq!(tables.bytes(), 5 * 4 * 16);
    }

    #[test]
    fn memory_is_bounded_whatever_contents_come() {
        let tables = HeaderTables::default();
        for piece_bytes in 1..=40 {
            tables.cover(piece_bytes * 16 * KIB, 1).unwrap();
        }
        check(&tables, 32 * 16 * KIB, 0, 0, true);
        check(&tables, 33 * 16 * KIB, 0, 0, false);
        tables.cover(16 * KIB, u32::MAX).unwrap();
        let most = u32::try_from(HEADS_MAX).unwrap();
        check(&tables, 16 * KIB, most - 1, 0, true);
        check(&tables, 16 * KIB, most, 0, false);
        check(&tables, 16 * KIB, u32::MAX, u32::MAX, false);
    }
}
