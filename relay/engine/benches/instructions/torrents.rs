//! Torrents of the size that people have. Their hashes are made up; what is built on them is not.

use millrace_proto::merkle::PieceHash;
use millrace_proto::metainfo::{Builder, Metainfo, plan_files};

pub(crate) const PIECE_BYTES: u32 = 1 << 20;

/// One file of 4 GiB in 4,096 pieces: a .torrent of about 210 kB.
pub(crate) fn image() -> Metainfo {
    hybrid("image.iso", &[(Vec::new(), 4 << 30)])
}

/// A folder of 1,000 files of 3 MB.
pub(crate) fn folder() -> Metainfo {
    let path = |number| vec![format!("part {}", number / 100), format!("file {number:04}.bin")];
    let files: Vec<_> = (0..1_000).map(|number| (path(number), 3_000_000)).collect();
    hybrid("folder", &files)
}

fn hybrid(name: &str, files: &[(Vec<String>, u64)]) -> Metainfo {
    let plan = plan_files(name, PIECE_BYTES, files).unwrap();
    let hash = |piece: u64| {
        let number = piece.to_le_bytes();
        let (mut v1, mut v2) = ([7; 20], [9; 32]);
        v1[..8].copy_from_slice(&number);
        v2[..8].copy_from_slice(&number);
        PieceHash { v1: Some(v1), v2: Some(v2) }
    };
    let hashes: Vec<_> = (0..plan.piece_count()).map(hash).collect();
    let mut builder = Builder::new(plan);
    builder.announce = vec![vec!["http://relay.example:8080/announce".into()]];
    builder.web_seeds = vec!["http://relay.example:8080/c/".into()];
    builder.build(&hashes).unwrap()
}
