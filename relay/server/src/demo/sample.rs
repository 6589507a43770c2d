//! The demo's sample: a file of noise, and the torrent that a publisher would have made of it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use millrace_proto::merkle::{PieceHash, PieceHasher, leaf_width};
use millrace_proto::metainfo::{Builder, Metainfo, choose_piece_bytes, plan_files};

/// A file to distribute.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) metainfo: Metainfo,
    pub(super) sha256: [u8; 32],
    pub(super) length: u64,
}

impl Sample {
    /// Writes `length` bytes of noise to `path`, and hashes them on the way.
    pub(super) fn create(path: &Path, length: u64) -> io::Result<Self> {
        let piece_bytes = choose_piece_bytes(length);
        let mut file = BufWriter::new(File::create(path)?);
        let mut sha256 = ring::digest::Context::new(&ring::digest::SHA256);
        let mut pieces: Vec<PieceHash> = Vec::new();
        let mut noise = Noise(0x6d69_6c6c_7261_6365);
        let mut piece = vec![0; piece_bytes as usize];
        let mut at = 0;
        while at < length {
            let count = usize::try_from(length - at).map_or(piece.len(), |left| left.min(piece.len()));
            noise.fill(&mut piece[..count]);
            file.write_all(&piece[..count])?;
            sha256.update(&piece[..count]);
            let mut hasher = PieceHasher::new(true, true);
            hasher.update(&piece[..count]);
            pieces.push(hasher.finish(leaf_width(length, piece_bytes)));
            at += count as u64;
        }
        file.flush()?;
        let plan = plan_files("sample.bin", piece_bytes, &[(vec![], length)]).map_err(io::Error::other)?;
        let metainfo = Builder::new(plan).build(&pieces).map_err(io::Error::other)?;
        let mut digest = [0; 32];
        digest.copy_from_slice(sha256.finish().as_ref());
        Ok(Sample { metainfo, sha256: digest, length })
    }
}

/// Bytes that do not compress, from a xorshift generator.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}
