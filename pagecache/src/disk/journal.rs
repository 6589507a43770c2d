//! The `arrived` file: pieces that came since the last commit, so that a restart re-hashes instead of pulling them.
//!
//! Nothing is synced: after a kill the records and the bytes are still in the page cache, after a power cut both may be
//! gone. A record is therefore only a hint where to look; the hash decides. Little endian: magic (8), version u32, then
//! records of piece u32, SHA-1 (20), layer hash (32), CRC-32C u32; both hashes are zero where the metainfo knows them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::durable::Unreadable;
use super::state_file::take;
use crate::hashes::PieceHash;
use crate::layout::PieceIndex;

const MAGIC: &[u8; 8] = b"MRARRIV\0";
const VERSION: u32 = 1;

/// A piece that arrived.
pub(crate) type Record = (PieceIndex, Option<PieceHash>);

/// The journal of one content; opened when the first piece arrives.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    file: Option<File>,
    records: Vec<Record>,
}

impl Journal {
    pub(super) fn at(path: PathBuf) -> Journal {
        Journal { path, open: Mutex::default() }
    }

    /// Remembers a piece. An error means only that a crash may cost that piece.
    pub(crate) fn append(&self, record: Record) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.records.push(record);
        let mut bytes = Vec::new();
        if open.file.is_none() {
            let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
            if file.metadata()?.len() == 0 {
                bytes.extend(header());
            }
            open.file = Some(file);
        }
        bytes.extend(encode(&record));
        open.file.as_mut().map_or(Ok(()), |file| file.write_all(&bytes))
    }

    /// Forgets the pieces that the state vouches for now.
    pub(super) fn retain(&self, keep: impl Fn(PieceIndex) -> bool) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.records.retain(|record| keep(record.0));
        open.file = None;
        if open.records.is_empty() {
            return super::durable::remove(&self.path);
        }
        let mut bytes = header();
        open.records.iter().for_each(|record| bytes.extend(encode(record)));
        let new = self.path.with_extension("new");
        fs::write(&new, bytes)?;
        fs::rename(&new, &self.path)
    }

    /// What was remembered, up to the first record that is torn.
    pub(super) fn read(&self) -> Result<Vec<Record>, Unreadable> {
        match fs::read(&self.path) {
            Ok(bytes) => decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Unreadable::Io(error)),
        }
    }
}

fn header() -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes()].concat()
}

fn encode((piece, hash): &Record) -> Vec<u8> {
    let hash = hash.unwrap_or(PieceHash { sha1: [0; 20], layer: [0; 32] });
    let mut out = piece.0.to_le_bytes().to_vec();
    out.extend(hash.sha1);
    out.extend(hash.layer);
    out.extend(crc32c::crc32c(&out).to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Result<Vec<Record>, Unreadable> {
    let mut rest = bytes;
    if take::<8>(&mut rest) != Some(*MAGIC) {
        return Ok(Vec::new());
    }
    match take(&mut rest).map(u32::from_le_bytes) {
        Some(VERSION) => {}
        Some(version) => return Err(Unreadable::Version(u64::from(version))),
        None => return Ok(Vec::new()),
    }
    let mut records = Vec::new();
    while let Some(record) = take::<60>(&mut rest) {
        let mut fields = &record[..];
        let (Some(piece), Some(sha1), Some(layer)) =
            (take(&mut fields), take(&mut fields), take(&mut fields))
        else {
            break;
        };
        if take(&mut fields).map(u32::from_le_bytes) != Some(crc32c::crc32c(&record[..56])) {
            break;
        }
        let known = PieceHash { sha1, layer };
        let hash = (known.sha1 != [0; 20]).then_some(known);
        records.push((PieceIndex(u32::from_le_bytes(piece)), hash));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_tail_costs_only_itself() {
        let hash = PieceHash { sha1: [7; 20], layer: [8; 32] };
        let records = [(PieceIndex(3), Some(hash)), (PieceIndex(0), None)];
        let mut bytes = header();
        records.iter().for_each(|record| bytes.extend(encode(record)));
        for cut in 0..=bytes.len() {
            let whole = cut.saturating_sub(12) / 60;
            assert_eq!(decode(&bytes[..cut]).unwrap(), records[..whole], "cut at {cut}");
        }
        bytes[12 + 30] ^= 1;
        assert_eq!(decode(&bytes).unwrap(), []);
    }
}
