//! Wire scripts: one short text file for each rule of the peer wire, played against the real shard over the simulated kernel.
//!
//! A script is a list of lines, carried out in order:
//!
//! ```text
//! # a comment, which names the rule
//! limits upload_slots=1 requests=4            (first, if at all)
//! content length=100000 [piece=16384] [files=a:10,b:70000] [have=none|0,2]
//! peer B                                      (goes on as another peer, who connects when first named)
//! > handshake [fast] [extended] [v2] [infohash=v2|v1_half|unknown] | raw 0000..ff | noise N | keep_alive | interested | request 0 0 16384 |
//!   bitfield f0 | extended 0 d1:mdee | hash_request 0 0 2 1 | …             (`>*N` sends it N times)
//! < handshake [infohash=v2|v1_half] | unchoke | piece 0 0 16384 | metadata 0 | hashes 0 0 2 1 | …             (one message; `<*N piece|reject` reads N of these kinds)
//! > key [pad=N]                               (message stream encryption; until `< select`, `> ask` needs `< key` before it)
//! < key
//! > ask [pad=N] [provide=1|2|3] [infohash=v2|v1_half|unknown] [with MESSAGE]
//! < select
//! ignore                                      (whatever else was said)
//! access WAYS | rules allow N, deny N         (who may have it, and who is answered; peer A is 192.0.2.65, B 192.0.2.66)
//! verify 3 | state paused | remove | drain | finish | advance MS            (what happens meanwhile)
//! quiet | rejected | open | closed REASON | reset REASON                    (what must be true now)
//! ```
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use millrace_engine::counters::Reason;
use millrace_engine::event::News;
use millrace_engine::ids::{ConnId, Protocol};
use millrace_engine::ledger::gate::Gate;
use millrace_engine::limits::Limits;
use millrace_pagecache::content::{Content, State};
use millrace_pagecache::layout::{Layout, PieceIndex};
use millrace_pagecache::new_content::NewContent;
use millrace_proto::access::rules::Rules;
use millrace_proto::merkle::HashRange;
use millrace_proto::metainfo::Metainfo;
use millrace_proto::peer::extension::{ExtensionHandshake, parse_lt_donthave};
use millrace_proto::peer::handshake::{Handshake, Reserved};
use millrace_proto::peer::message::{Block, HashSpan, Message};
use millrace_proto::peer::metadata::{MetadataMessage, piece_range};
use millrace_sim::disk::Disk;
use millrace_sim::encrypted::Encrypted;
use millrace_sim::kernel::{Faults, Kernel};
use millrace_sim::peer::{Reader, frame};
use millrace_sim::pull;
use millrace_sim::socket::Ended;

const SEED: u64 = 7;

/// What the scripts' peers call `ut_metadata`.
const METADATA_ID: u8 = 9;

/// What they call `lt_donthave`.
const DONTHAVE_ID: u8 = 7;

#[derive(Default)]
struct Peer {
    conn: Option<ConnId>,
    reader: Reader,
    /// It opens with message stream encryption, and the relay has not selected plaintext yet.
    encrypted: Option<Encrypted>,
    /// The relay's handshake was looked at.
    greeted: bool,
}

struct Play {
    kernel: Kernel,
    peers: BTreeMap<String, Peer>,
    name: String,
    content: Option<Arc<Content>>,
    disk: Option<Arc<Disk>>,
}

#[test]
fn every_script_plays_whole_and_byte_by_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/bittorrent");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 30, "scripts are missing");
    let mut failures = Vec::new();
    for path in &paths {
        let script = std::fs::read_to_string(path).unwrap();
        for (receive, send) in [(65_536, u64::MAX), (1, 7)] {
            let name = format!("{} ({receive} bytes a receive)", path.file_stem().unwrap().to_string_lossy());
            let faults = Faults { receive_bytes_max: receive, send_bytes_max: send, ..Faults::default() };
            let played = std::panic::catch_unwind(|| Play::new(&script, faults).run(&script));
            if let Err(panic) = played {
                let text = panic.downcast_ref::<String>().cloned();
                failures.push(format!("{name}: {}", text.unwrap_or_else(|| "panicked".into())));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

impl Play {
    fn new(script: &str, faults: Faults) -> Self {
        let mut limits = Limits::default();
        let line = script.lines().find_map(|line| line.strip_prefix("limits ")).unwrap_or_default();
        for (name, value) in line.split_whitespace().map(|option| option.split_once('=').unwrap()) {
            match name {
                "upload_slots" => limits.upload_slots = value.parse().unwrap(),
                "requests" => limits.peer_requests_max = value.parse().unwrap(),
                other => panic!("no such limit {other}"),
            }
        }
        let kernel = Kernel::new(SEED, limits, faults);
        Play { kernel, peers: BTreeMap::new(), name: "A".into(), content: None, disk: None }
    }

    fn run(&mut self, script: &str) {
        for (at, line) in script.lines().enumerate() {
            let number = at + 1;
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (word, times) =
                word.split_once('*').map_or((word, 1), |(word, n)| (word, n.parse().unwrap()));
            match word {
                "" | "#" | "limits" => {}
                "content" => self.put(rest),
                "peer" => self.name = rest.into(),
                ">" => {
                    let conn = self.conn();
                    let bytes = match rest.split_whitespace().next() {
                        Some("key" | "ask") => self.encrypted_bytes(rest),
                        _ => self.bytes(rest).repeat(times),
                    };
                    self.kernel.peer_send(conn, &bytes);
                }
                "<" => (0..times).for_each(|_| self.expect(number, rest, times > 1)),
                _ => self.happen(number, word, rest),
            }
        }
        self.settle();
        for name in self.peers.keys().cloned().collect::<Vec<_>>() {
            let peer = self.peers.get_mut(&name).unwrap();
            assert!(
                peer.encrypted.as_ref().is_none_or(Encrypted::is_empty),
                "said to {name} and not expected"
            );
            let said = peer.reader.next_frame();
            assert!(said.is_none(), "said to {name} and not expected: {}", self.describe(&said.unwrap()));
        }
    }

    /// The connection of the peer whose turn it is.
    fn conn(&mut self) -> ConnId {
        let peer = self.peers.entry(self.name.clone()).or_default();
        let host = self.name.bytes().next().unwrap();
        *peer.conn.get_or_insert_with(|| self.kernel.connect(Protocol::BitTorrent, host))
    }

    fn settle(&mut self) {
        loop {
            self.kernel.settle();
            let mut more = false;
            for peer in self.peers.values_mut() {
                let Some(conn) = peer.conn else { continue };
                let bytes = self.kernel.peer_read(conn, usize::MAX);
                more |= !bytes.is_empty();
                match &mut peer.encrypted {
                    Some(encrypted) => encrypted.feed(&bytes),
                    None => peer.reader.feed(&bytes),
                }
            }
            if !more {
                return;
            }
        }
    }

    fn metainfo(&self) -> &Metainfo {
        self.content.as_ref().unwrap().metainfo().unwrap()
    }

    /// What a line says, as bytes.
    fn bytes(&self, line: &str) -> Vec<u8> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u32>().unwrap();
        let block = || Block { index: number(1), begin: number(2), length: number(3) };
        let raw;
        let message = match words[0] {
            "handshake" => return self.handshake(&words[1..]),
            "noise" => return millrace_sim::bytes::read(99, 0, number(1) as usize),
            "raw" => return hex(words[1]),
            "huge" => {
                // An extension dictionary of so many bytes, announced and begun.
                let mut bytes = (number(1) + 2).to_be_bytes().to_vec();
                bytes.extend_from_slice(b"\x14\x00d1:v1000000:xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
                return bytes;
            }
            "keep_alive" => Message::KeepAlive,
            "choke" => Message::Choke,
            "unchoke" => Message::Unchoke,
            "interested" => Message::Interested,
            "not_interested" => Message::NotInterested,
            "have" => Message::Have(number(1)),
            "have_all" => Message::HaveAll,
            "have_none" => Message::HaveNone,
            "suggest" => Message::Suggest(number(1)),
            "allowed_fast" => Message::AllowedFast(number(1)),
            "port" => Message::Port(6881),
            "request" => Message::Request(block()),
            "cancel" => Message::Cancel(block()),
            "reject" => Message::Reject(block()),
            "piece" => Message::Piece { index: number(1), begin: number(2), block: b"bytes" },
            "bitfield" => {
                raw = hex(words[1]);
                Message::Bitfield(&raw)
            }
            "extended" => {
                Message::Extended { id: u8::try_from(number(1)).unwrap(), payload: words[2].as_bytes() }
            }
            "hash_request" => Message::HashRequest(self.span(&words[1..])),
            other => panic!("no such message {other}"),
        };
        frame(&message)
    }

    /// A step of message stream encryption.
    fn encrypted_bytes(&mut self, line: &str) -> Vec<u8> {
        let (line, first) = line.split_once(" with ").unwrap_or((line, ""));
        let first = if first.is_empty() { Vec::new() } else { self.bytes(first) };
        let (mut pad, mut provide, mut infohash) = (0, 3, self.infohash(""));
        for option in line.split_whitespace().skip(1) {
            match option.split_once('=').unwrap() {
                ("pad", bytes) => pad = bytes.parse().unwrap(),
                ("provide", bits) => provide = bits.parse().unwrap(),
                ("infohash", "unknown") => infohash = [0x11; 20],
                ("infohash", _) => infohash = self.infohash(option),
                other => panic!("no such option {other:?}"),
            }
        }
        let encrypted = &mut self.peers.get_mut(&self.name).unwrap().encrypted;
        if line.starts_with("key") {
            return encrypted.insert(Encrypted::default()).key(pad);
        }
        encrypted.as_mut().unwrap().ask(infohash, provide, pad, &first)
    }

    fn handshake(&self, options: &[&str]) -> Vec<u8> {
        let mut reserved = Reserved::default();
        let mut infohash = self.infohash("");
        let mut peer_id = *b"-SC0001-............";
        peer_id[19] = self.name.as_bytes()[0];
        let mut bytes = usize::MAX;
        for option in options {
            match *option {
                "fast" => reserved = reserved.with_fast(),
                "extended" => reserved = reserved.with_extension_protocol(),
                "v2" => reserved = reserved.with_v2(),
                "infohash=unknown" => infohash = [0x11; 20],
                named if named.starts_with("infohash=") => infohash = self.infohash(named),
                "begun" => bytes = 48,
                "peer_id=own" => peer_id = *b"-MR0001-simulation..",
                other => panic!("no such option {other}"),
            }
        }
        Handshake { reserved, infohash, peer_id }.encode().into_iter().take(bytes).collect()
    }

    /// The infohash that `infohash=…` names; v1's where there is no such word.
    fn infohash(&self, word: &str) -> [u8; 20] {
        let named = match word {
            "infohash=v2" => self.metainfo().infohash_v2().map(|v2| v2.truncated()),
            "infohash=v1_half" => self.metainfo().v1_half().and_then(|half| half.infohash_v1()),
            "" => self.metainfo().infohash_v1(),
            other => panic!("no such option {other}"),
        };
        named.unwrap().0
    }

    /// A span of hashes of the first file.
    fn span(&self, words: &[&str]) -> HashSpan {
        let number = |at: usize| words[at].parse::<u32>().unwrap();
        HashSpan {
            pieces_root: self.metainfo().info.files[0].pieces_root.unwrap(),
            base_layer: number(0),
            index: number(1),
            length: number(2),
            proof_layers: number(3),
        }
    }

    fn expect(&mut self, number: usize, expected: &str, any_of_kind: bool) {
        self.settle();
        if let Some(word) = expected.strip_prefix("handshake") {
            let infohash = self.infohash(word.trim_start());
            let peer = self.peers.get_mut(&self.name).unwrap();
            assert!(!std::mem::replace(&mut peer.greeted, true), "line {number}: only one handshake is made");
            let ours = peer.reader.handshake().unwrap_or_else(|| panic!("line {number}: no handshake"));
            assert_eq!(ours.infohash, infohash, "line {number}: an infohash of another swarm");
            let speaks = ours.reserved;
            assert_eq!(speaks.v2(), word != " infohash=v1_half", "line {number}");
            assert!(speaks.fast() && speaks.extension_protocol() && !speaks.dht());
            return;
        }
        let peer = self.peers.get_mut(&self.name).unwrap();
        if let Some(encrypted) = &mut peer.encrypted {
            match expected {
                "key" => assert!(encrypted.take_key(), "line {number}: no key"),
                "select" => {
                    let stream = encrypted.stream().unwrap_or_else(|| panic!("line {number}: no selection"));
                    peer.encrypted = None;
                    peer.reader.feed(&stream);
                }
                other => panic!("line {number}: {other} is not told from what is encrypted"),
            }
            return;
        }
        let Some(said) = peer.reader.next_frame() else { panic!("line {number}: nothing is said") };
        let said = self.describe(&said);
        match expected.split_once(" with ") {
            Some((kind, parts)) => {
                assert!(said.starts_with(kind), "line {number}: {said}");
                for part in parts.split_whitespace() {
                    match part.strip_prefix('!') {
                        Some(absent) => {
                            assert!(!said.contains(absent), "line {number}: {absent} is in {said}")
                        }
                        None => assert!(said.contains(part), "line {number}: no {part} in {said}"),
                    }
                }
            }
            None if any_of_kind => {
                let is_one = expected.split('|').any(|kind| said.starts_with(kind));
                assert!(is_one, "line {number}: {said}");
            }
            None => assert_eq!(said, expected, "line {number}"),
        }
    }

    /// A frame in the words of the scripts, after what it carries was found right.
    fn describe(&self, said: &[u8]) -> String {
        let block =
            |name: &str, block: Block| format!("{name} {} {} {}", block.index, block.begin, block.length);
        match Message::decode(said).unwrap() {
            Message::KeepAlive => "keep_alive".into(),
            Message::Choke => "choke".into(),
            Message::Unchoke => "unchoke".into(),
            Message::HaveAll => "have_all".into(),
            Message::HaveNone => "have_none".into(),
            Message::Have(piece) => format!("have {piece}"),
            Message::AllowedFast(piece) => format!("allowed_fast {piece}"),
            Message::Reject(rejected) => block("reject", rejected),
            Message::Bitfield(bits) => {
                format!("bitfield {}", bits.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
            }
            Message::Piece { index, begin, block } => {
                let start = self.content.as_ref().unwrap().layout().piece_range(PieceIndex(index)).start;
                let right = self.disk.as_ref().unwrap().truth(start + u64::from(begin), block.len());
                assert!(block == right, "wrong bytes in piece {index} at {begin}");
                format!("piece {index} {begin} {}", block.len())
            }
            Message::Hashes { span, hashes } => {
                let HashSpan { base_layer, index, length, proof_layers, .. } = span;
                let range = HashRange { base_layer, index, length, proof_layers };
                let found = range.ancestor(hashes.as_chunks().0).unwrap();
                assert_eq!(found, span.pieces_root, "the hashes do not lead to the root");
                format!("hashes {base_layer} {index} {length} {proof_layers}")
            }
            Message::HashReject(span) => {
                format!(
                    "hash_reject {} {} {} {}",
                    span.base_layer, span.index, span.length, span.proof_layers
                )
            }
            Message::Extended { id: 0, payload } => {
                let ours = ExtensionHandshake::parse(payload).unwrap();
                let size = ours.metadata_size.unwrap_or(0);
                assert_eq!(usize::try_from(size), Ok(self.metainfo().info_bytes.len()));
                format!("extended handshake {}", String::from_utf8_lossy(payload))
            }
            Message::Extended { id: DONTHAVE_ID, payload } => {
                format!("donthave {}", parse_lt_donthave(payload).unwrap())
            }
            Message::Extended { id: METADATA_ID, payload } => {
                match MetadataMessage::parse(payload).unwrap() {
                    MetadataMessage::Data { piece, total_size, data } => {
                        let range = piece_range(piece, total_size).unwrap();
                        assert!(data == &self.metainfo().info_bytes[range], "wrong metadata");
                        format!("metadata {piece}")
                    }
                    MetadataMessage::Reject { piece } => format!("metadata_reject {piece}"),
                    MetadataMessage::Request { .. } => "metadata request".into(),
                }
            }
            other => format!("{other:?}"),
        }
    }

    fn happen(&mut self, number: usize, word: &str, rest: &str) {
        let content = self.content.clone();
        match word {
            "verify" => {
                let (content, piece) = (content.unwrap(), PieceIndex(rest.parse().unwrap()));
                self.settle();
                content.mark_verified(piece);
                if content.listeners() != 0 {
                    self.kernel.news(News::Piece { content: content.id(), piece });
                }
            }
            "state" => {
                self.settle();
                content.as_ref().unwrap().set_state(match rest {
                    "paused" => State::Paused,
                    "failed" => State::Failed,
                    "pulling" => State::Pulling,
                    other => panic!("line {number}: no state {other}"),
                });
                self.kernel.news(News::Changed(content.unwrap().id()));
            }
            "access" => {
                self.settle();
                content.as_ref().unwrap().set_access(rest.parse().unwrap());
                self.kernel.news(News::Changed(content.unwrap().id()));
            }
            "rules" => {
                self.settle();
                let rules = Rules::parse(rest.split(", ")).unwrap();
                let gate = self.kernel.ledger.set_gate(Gate { rules, ..Gate::default() });
                self.kernel.news(News::Gate(gate));
            }
            "remove" => {
                self.settle();
                content.as_ref().unwrap().set_state(State::Removed);
                self.kernel.news(News::Gone(content.unwrap().id()));
            }
            "drain" => {
                self.settle();
                self.kernel.news(News::Drain);
            }
            "finish" => {
                self.settle();
                let conn = self.conn();
                self.kernel.peer_finish(conn);
            }
            "advance" => {
                for _ in 0..rest.parse::<u64>().unwrap() / 500 {
                    self.settle();
                    self.kernel.advance_ms(500);
                }
            }
            "rejected" => {
                self.settle();
                assert!(self.kernel.counters.rejects.value() > 0, "line {number}");
            }
            "ignore" => {
                self.settle();
                let peer = self.peers.get_mut(&self.name).unwrap();
                while peer.reader.next_frame().is_some() {}
            }
            "quiet" => {
                self.settle();
                let said = self.peers.get_mut(&self.name).unwrap().reader.next_frame();
                assert!(said.is_none(), "line {number}: {}", self.describe(&said.unwrap()));
            }
            "open" | "closed" | "reset" => self.ended(number, word, rest),
            other => panic!("line {number}: no such word {other:?}"),
        }
    }

    fn ended(&mut self, number: usize, word: &str, reason: &str) {
        self.settle();
        let conn = self.conn();
        let ended = match self.kernel.ended(conn) {
            None => "open",
            Some(Ended::Finished) => "closed",
            Some(Ended::Reset) => "reset",
        };
        assert_eq!(ended, word, "line {number}, {:?}", self.reasons());
        if word != "open" {
            // Until the peer has ended too, an orderly end is not counted.
            self.kernel.peer_finish(conn);
            self.settle();
            let reasons = self.reasons();
            assert!(reasons.contains(&reason), "line {number}: counted as {reasons:?}");
        }
    }

    /// Why connections were closed so far.
    fn reasons(&self) -> Vec<&'static str> {
        let counted = |reason: Reason| self.kernel.counters.closed[reason as usize].value() > 0;
        Reason::ALL.iter().filter(|(reason, _)| counted(*reason)).map(|(_, name)| *name).collect()
    }

    fn put(&mut self, options: &str) {
        let (mut length, mut piece_bytes, mut have) = (0, 16_384, "all");
        let mut files = Vec::new();
        for option in options.split_whitespace() {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "length" => length = value.parse().unwrap(),
                "piece" => piece_bytes = value.parse().unwrap(),
                "have" => have = value,
                "files" => {
                    let named = value.split(',').map(|file| file.split_once(':').unwrap());
                    files =
                        named.map(|(name, bytes)| (vec![name.to_owned()], bytes.parse().unwrap())).collect();
                }
                other => panic!("no such option {other}"),
            }
        }
        if files.is_empty() {
            files.push((Vec::new(), length));
        }
        let metainfo = pull::torrent(SEED, "torrent", &files, piece_bytes).unwrap();
        let layout = Layout::from_info(&metainfo.info).unwrap();
        let disk = Disk::new(SEED, &layout);
        disk.write(0..layout.length(), true);
        let content = disk.content(NewContent::with_metainfo(pull::id(SEED), metainfo, "\"sim\""), layout);
        content.set_state(State::Pulling);
        match have {
            "all" => pull::complete(&content),
            "none" => {}
            some => {
                some.split(',').for_each(|piece| content.mark_verified(PieceIndex(piece.parse().unwrap())));
            }
        }
        self.kernel.news(News::Put(Arc::clone(&content)));
        self.disk = Some(disk);
        self.content = Some(content);
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}
