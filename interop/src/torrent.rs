//! Torrents of every shape, made from patterns: hybrid as the relay makes them, and v1 or v2 alone as others do.

use std::io::Write as _;
use std::path::Path;

use millrace_proto::bencode::{Item, Value, decode};
use millrace_proto::merkle::{self, PieceHasher};
use millrace_proto::metainfo::{Builder, Info, Metainfo, plan_files};
use sha2::Digest as _;

use crate::origin::Resource;
use crate::pattern::{Pattern, sha256_of};

/// One file of a torrent: its path with `/`, and its length. Its bytes are [`Tree::pattern`]'s.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Path inside of the torrent's folder.
    pub path: String,
    /// Length in bytes.
    pub length: u64,
}

/// What a torrent is made of.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Name of the torrent: its folder, or its file.
    pub name: String,
    /// Its files; one with an empty path makes a torrent of one file.
    pub files: Vec<Entry>,
    /// Bytes of a piece.
    pub piece_bytes: u32,
}

impl Tree {
    /// One file.
    #[must_use]
    pub fn file(name: &str, length: u64, piece_bytes: u32) -> Self {
        Tree { name: name.to_owned(), files: vec![Entry { path: String::new(), length }], piece_bytes }
    }

    /// A folder of files.
    #[must_use]
    pub fn folder(name: &str, files: &[(&str, u64)], piece_bytes: u32) -> Self {
        let files = files.iter().map(|(path, length)| Entry { path: (*path).to_owned(), length: *length });
        Tree { name: name.to_owned(), files: files.collect(), piece_bytes }
    }

    /// The bytes of a file: a pattern of the path below the torrent's folder, or of the name of an only file.
    #[must_use]
    pub fn pattern(&self, path: &str) -> Pattern {
        pattern_of(if path.is_empty() { &self.name } else { path })
    }

    /// Paths below a download folder, and what each file must be.
    pub fn expected(&self) -> impl Iterator<Item = (String, u64, Pattern)> {
        self.files.iter().map(|file| {
            let path = [self.name.as_str(), &file.path].into_iter().filter(|part| !part.is_empty());
            (path.collect::<Vec<_>>().join("/"), file.length, self.pattern(&file.path))
        })
    }

    /// The tree as resources of an origin; `prefix` names a folder there, with a slash on either side.
    #[must_use]
    pub fn resources(&self, prefix: &str) -> Vec<Resource> {
        let resource = |(path, length, pattern): (String, u64, Pattern)| {
            let path = format!("{prefix}{path}");
            Resource { path, length, pattern }
        };
        self.expected().map(resource).collect()
    }

    /// Checks that the tree lies in `folder`, whole and right. Files without bytes may be absent: Transmission 3 does not
    /// make them.
    ///
    /// # Panics
    /// If a file is missing, short, long, or has a wrong byte.
    #[track_caller]
    pub fn check(&self, folder: &Path) {
        for (path, length, pattern) in self.expected() {
            let file = folder.join(&path);
            if length == 0 && !file.exists() {
                continue;
            }
            let found =
                std::fs::metadata(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).len();
            assert_eq!(found, length, "length of {path}");
            assert_eq!(sha256_of(&file), pattern.sha256(length), "SHA-256 of {path}");
        }
    }

    /// Writes the tree into `folder`.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) {
        for (path, length, pattern) in self.expected() {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            let mut file = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
            pattern.for_each(length, |chunk| file.write_all(chunk).expect("room on the disk"));
            file.flush().expect("room on the disk");
        }
    }

    /// Hybrid, padded so that each file begins a piece.
    ///
    /// # Panics
    /// If the tree cannot be a torrent.
    #[must_use]
    pub fn hybrid(&self) -> Metainfo {
        let split = |path: &str| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let files: Vec<(Vec<String>, u64)> =
            self.files.iter().map(|file| (split(&file.path), file.length)).collect();
        let plan = plan_files(&self.name, self.piece_bytes, &files).expect("a plan");
        let piece_bytes = u64::from(self.piece_bytes);
        let mut pieces = Vec::new();
        for (index, file) in plan.files.iter().enumerate() {
            if file.padding {
                continue;
            }
            let path = if file.path.len() > 1 { file.path[1..].join("/") } else { String::new() };
            let pad = plan.files.get(index + 1).filter(|next| next.padding).map_or(0, |next| next.length);
            let width = merkle::leaf_width(file.length, self.piece_bytes);
            let mut at = 0;
            while at < file.length {
                let count = piece_bytes.min(file.length - at);
                let mut hasher = PieceHasher::new(true, true);
                hasher.update(&self.pattern(&path).bytes(at, usize::try_from(count).expect("a piece")));
                at += count;
                if at == file.length {
                    hasher.update_padding(u32::try_from(pad).expect("less than a piece"));
                }
                pieces.push(hasher.finish(width));
            }
        }
        Builder::new(plan).build(&pieces).expect("a torrent")
    }

    /// v1 alone, its files one behind the other as the tree has them, so that pieces span them.
    #[must_use]
    pub fn v1(&self) -> Metainfo {
        let mut hasher = PieceHasher::new(true, false);
        let (mut pieces, mut filled) = (Vec::new(), 0_u64);
        let mut close = |hasher: &mut PieceHasher| {
            let full = std::mem::replace(hasher, PieceHasher::new(true, false));
            pieces.extend(full.finish(1).v1.expect("a v1 hash"));
        };
        for file in &self.files {
            let mut at = 0;
            while at < file.length {
                let count = (u64::from(self.piece_bytes) - filled).min(file.length - at);
                hasher.update(&self.pattern(&file.path).bytes(at, usize::try_from(count).expect("a piece")));
                (at, filled) = (at + count, filled + count);
                if filled == u64::from(self.piece_bytes) {
                    close(&mut hasher);
                    filled = 0;
                }
            }
        }
        if filled > 0 {
            close(&mut hasher);
        }
        let mut info = vec![
            ("name", Item::from(self.name.as_str())),
            ("piece length", Item::Int(i64::from(self.piece_bytes))),
            ("pieces", Item::from(pieces)),
        ];
        let length = |length: u64| Item::Int(i64::try_from(length).expect("a length"));
        match &self.files[..] {
            [only] if only.path.is_empty() => info.push(("length", length(only.length))),
            files => info.push((
                "files",
                Item::list(files.iter().map(|file| {
                    let path = Item::list(file.path.split('/').map(Item::from));
                    Item::dict([("length", length(file.length)), ("path", path)])
                })),
            )),
        }
        Metainfo::from_info_bytes(Item::dict(info).to_bytes()).expect("a v1 torrent")
    }

    /// v2 alone: the hybrid's info dictionary without what only v1 reads.
    #[must_use]
    pub fn v2(&self) -> Metainfo {
        let hybrid = self.hybrid();
        let info = decode(&hybrid.info_bytes).expect("what we wrote");
        let kept = ["file tree", "meta version", "name", "piece length"];
        let info = info.as_dict().expect("a dictionary");
        let info = kept.map(|key| (key, Item::from(info.get(key).expect("a key of v2"))));
        let mut whole = hybrid.clone();
        whole.info_bytes = Item::dict(info).to_bytes();
        whole.info = Info::parse(&whole.info_bytes).expect("a v2 torrent");
        whole
    }
}

/// The bytes of whatever has this name.
#[must_use]
pub fn pattern_of(name: &str) -> Pattern {
    let digest = sha2::Sha256::digest(name.as_bytes());
    Pattern(u64::from_le_bytes(digest[..8].try_into().expect("8 of 32 bytes")))
}

/// The same torrent without `url-list` (BEP 19); its infohash stays.
///
/// # Panics
/// If it is not a torrent.
#[must_use]
pub fn without_web_seeds(torrent: &[u8]) -> Vec<u8> {
    let mut metainfo = Metainfo::parse(torrent).expect("the relay's torrent");
    metainfo.web_seeds.clear();
    metainfo.to_bytes()
}

/// Whether a torrent has this top-level key.
#[must_use]
pub fn has_key(torrent: &[u8], key: &str) -> bool {
    decode(torrent).ok().as_ref().and_then(Value::as_dict).is_some_and(|root| root.get(key).is_some())
}
