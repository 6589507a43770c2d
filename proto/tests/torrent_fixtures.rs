//! Torrents made by libtorrent 2.1.1 of known bytes: they parse, verify, and come back byte for byte; and torrents of
//! the same bytes made here agree with them.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its sizes are small"
)]

use std::fs;
use std::path::Path;

use millrace_proto::magnet::Magnet;
use millrace_proto::merkle::{self, PieceHash, PieceHasher};
use millrace_proto::metainfo::{Builder, File, Metainfo, Plan, plan_files};

/// Name, v1 and v2 infohash as libtorrent gives them.
const FIXTURES: [(&str, &str, &str); 6] = [
    ("v1-folder", "4e15d87372d19d81b981d09b490dd46081cf8888", ""),
    ("v1-single", "e398381b8205f24425b1428b66450deddf0acedf", ""),
    ("v2-folder", "", "07fdddbb56eed67891563160bbc90bd1d2f890f4e219522e770f965786542ae1"),
    ("v2-single", "", "812301fa8e32442169f39c0ddc38eb7caad062c2b1a471343ed18602259e260a"),
    (
        "hybrid-folder",
        "a9d03dcd6a45f0036f085f604d31a59b9275c872",
        "3a1bf8e951f0849bc1e901d80dae0c126e89d44234d70df845dfe38421b672b9",
    ),
    (
        "hybrid-single",
        "466f6ac4dad4b41ee78c6e36cc65b0cc68e8f8c0",
        "f5c903415ea51a7ddb1cd960da65eb8d7eadb3d5fba08a08a47b2915afa3951b",
    ),
];

/// The files of the folder, in the order of their seeds.
const FOLDER: [(&str, u64); 5] =
    [("a.bin", 40_000), ("empty", 0), ("z/deep/er", 65_536), ("z/last", 5), ("片段/é.bin", 100)];

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.torrent"))).unwrap()
}

/// The bytes the fixtures were made of.
fn content(file: &File) -> Vec<u8> {
    let inside = file.path[1..].join("/");
    let seed = FOLDER.iter().position(|(path, _)| *path == inside).map_or(9, |seed| seed as u64);
    (0..file.length).map(|i| (i * 7 + seed * 31 + (i >> 8) * 13).to_le_bytes()[0]).collect()
}

/// The linear space, with zeros for padding of either kind.
fn linear(files: &[File], length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    for file in files.iter().filter(|file| !file.padding) {
        bytes[file.offset as usize..][..file.length as usize].copy_from_slice(&content(file));
    }
    bytes
}

/// Hashes every piece of a plan, as an ingest would.
fn hash_pieces(plan: &Plan) -> Vec<PieceHash> {
    let bytes = linear(&plan.files, plan.length);
    let piece_bytes = u64::from(plan.piece_bytes);
    let hash = |index: u64| {
        let offset = index * piece_bytes;
        let file = plan.files.iter().rev().find(|f| f.length > 0 && f.offset <= offset).unwrap();
        let data = (file.length - (offset - file.offset)).min(piece_bytes);
        let all = (plan.length - offset).min(piece_bytes);
        let mut hasher = PieceHasher::new(true, true);
        hasher.update(&bytes[offset as usize..(offset + data) as usize]);
        hasher.update_padding((all - data) as u32);
        hasher.finish(merkle::leaf_width(file.length, plan.piece_bytes))
    };
    (0..plan.piece_count()).map(hash).collect()
}

#[test]
fn libtorrent_torrents_come_back_byte_for_byte() {
    for (name, v1, v2) in FIXTURES {
        let bytes = fixture(name);
        let metainfo = Metainfo::parse(&bytes).unwrap();
        assert_eq!(metainfo.infohash_v1().map_or(String::new(), |hash| hash.to_string()), v1, "{name}");
        assert_eq!(metainfo.infohash_v2().map_or(String::new(), |hash| hash.to_string()), v2, "{name}");
        assert_eq!(metainfo.to_bytes(), bytes, "{name}");
        assert!(metainfo.has_layers());
        assert_eq!(metainfo.info.multi_file, name.ends_with("folder"));
        assert_eq!(metainfo.info.private, name == "hybrid-folder");
        let magnet = Magnet::from(&metainfo);
        assert_eq!(magnet.to_string().parse(), Ok(magnet));
        let bare = Metainfo::from_info_bytes(metainfo.info_bytes.clone()).unwrap();
        assert_eq!(bare.info, metainfo.info);
        assert_eq!(bare.has_layers(), v2.is_empty(), "{name} has files longer than a piece");
    }
}

#[test]
fn every_piece_of_libtorrent_torrents_verifies() {
    for (name, v1, v2) in FIXTURES {
        let metainfo = Metainfo::parse(&fixture(name)).unwrap();
        let info = &metainfo.info;
        let bytes = linear(&info.files, info.length);
        let count = u32::try_from(info.piece_count()).unwrap();
        for index in 0..count {
            let piece = metainfo.piece(index).unwrap();
            assert!(!v1.is_empty() || piece.bytes == piece.data_bytes, "implicit padding has no bytes");
            let data = &bytes[piece.offset as usize..][..piece.data_bytes as usize];
            let mut hasher = PieceHasher::new(!v1.is_empty(), !v2.is_empty());
            hasher.update(data);
            hasher.update_padding(piece.bytes - piece.data_bytes);
            let expected = PieceHash { v1: piece.v1, v2: piece.v2 };
            assert_eq!(hasher.finish(piece.leaf_width), expected, "{name} piece {index}");
        }
        assert_eq!(metainfo.piece(count), None);
    }
}

#[test]
fn offsets_follow_the_kind_of_torrent() {
    let offsets = |name: &str| -> Vec<u64> {
        let metainfo = Metainfo::parse(&fixture(name)).unwrap();
        metainfo.info.files.iter().filter(|file| !file.padding).map(|file| file.offset).collect()
    };
    assert_eq!(offsets("v1-folder"), [0, 40_000, 40_000, 105_536, 105_541]);
    assert_eq!(offsets("v2-folder"), [0, 40_000, 49_152, 114_688, 131_072]);
    assert_eq!(offsets("hybrid-folder"), [0, 49_152, 49_152, 114_688, 131_072]);
}

#[test]
fn a_built_single_file_torrent_equals_that_of_libtorrent() {
    let theirs = Metainfo::parse(&fixture("hybrid-single")).unwrap();
    let plan = plan_files("single.bin", 16_384, &[(Vec::new(), 50_000)]).unwrap();
    let pieces = hash_pieces(&plan);
    let mut builder = Builder::new(plan);
    builder.announce = theirs.announce.clone();
    builder.web_seeds = theirs.web_seeds.clone();
    builder.comment = theirs.comment.clone();
    builder.created_by = theirs.created_by.clone();
    builder.creation_date = theirs.creation_date;
    let ours = builder.build(&pieces).unwrap();
    assert_eq!(ours, theirs);
    assert_eq!(ours.to_bytes(), fixture("hybrid-single"));
}

#[test]
fn a_built_folder_has_the_roots_of_libtorrent_and_reads_back() {
    let theirs = Metainfo::parse(&fixture("hybrid-folder")).unwrap();
    for piece_bytes in [16_384, 65_536] {
        let files: Vec<(Vec<String>, u64)> = FOLDER
            .iter()
            .map(|(path, length)| (path.split('/').map(str::to_owned).collect(), *length))
            .collect();
        let mut plan = plan_files("folder", piece_bytes, &files).unwrap();
        plan.files[0].executable = true;
        let pieces = hash_pieces(&plan);
        let mut builder = Builder::new(plan.clone());
        builder.announce = vec![vec!["http://a/announce".into()], vec!["udp://b:1".into()]];
        builder.web_seeds = vec!["http://w/".into()];
        builder.private = true;
        let ours = builder.build(&pieces).unwrap();
        let roots = |metainfo: &Metainfo| -> Vec<_> {
            metainfo.info.files.iter().filter(|file| !file.padding).map(|file| file.pieces_root).collect()
        };
        assert_eq!(roots(&ours), roots(&theirs), "a root does not depend on the piece length");
        assert!(ours.info.files[0].executable && ours.info.private && ours.has_layers());
        assert_eq!(ours.info.length, plan.length);
        if piece_bytes == theirs.info.piece_bytes {
            assert_eq!(ours.piece_layers, theirs.piece_layers);
        }
        assert_eq!(Metainfo::parse(&ours.to_bytes()), Ok(ours));
    }
}

#[test]
fn pieces_that_do_not_fit_the_plan_are_refused() {
    let plan = plan_files("single.bin", 16_384, &[(Vec::new(), 50_000)]).unwrap();
    let mut pieces = hash_pieces(&plan);
    pieces[2].v1 = None;
    assert!(Builder::new(plan.clone()).build(&pieces).is_err());
    pieces.pop();
    assert!(Builder::new(plan).build(&pieces).is_err());
}
