//! A content being pulled: reveals its bytes in ranges and out of order, and has all the misfortunes that a pull can have.

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_engine::event::News;
use millrace_pagecache::content::{Content, State, Stream};
use millrace_pagecache::hashes::Verdict;
use millrace_pagecache::layout::{FileIndex, Layout, PieceIndex};
use millrace_pagecache::new_content::{NewContent, Shape};
use millrace_proto::metainfo::plan_files;

use crate::disk::{Disk, GRAIN_BYTES};
use crate::pull;
use crate::random::Random;

/// Longest wait for bytes that a stall causes; less than a reader's patience, but for the rare long one.
const STALL_MS_MAX: u64 = 20_000;
const LONG_STALL_MS: u64 = 130_000;

const PIECE_BYTES: u32 = 16 * 1024;

/// How its bytes come.
#[derive(Debug)]
enum Kind {
    /// Hashes are known: piece by piece, each verified.
    Known { missing: Vec<PieceIndex> },
    /// Length known: along several lanes, each visible as it is written. Pieces are hashed when they are whole.
    Unknown { lanes: Vec<Lane>, unhashed: Vec<PieceIndex> },
    /// Nothing known: from the front to an end that shows when it is reached.
    Growing { stream: Option<Stream>, end: u64 },
    /// All is there.
    Complete,
}

#[derive(Debug)]
struct Lane {
    stream: Stream,
    end: u64,
}

/// One content and its pull.
#[derive(Debug)]
pub(super) struct Source {
    /// The content, in its newest body.
    pub(super) content: Arc<Content>,
    /// Its disk, which knows the right bytes.
    pub(super) disk: Arc<Disk>,
    /// Bodies that it had before.
    pub(super) retired: Vec<Arc<Content>>,
    /// The origin has changed; this source is what it has now.
    pub(super) superseded_by: Option<usize>,
    /// The relay has been told of it.
    pub(super) is_known: bool,
    /// And of its torrent.
    pub(super) is_torrent_known: bool,
    /// An answer of it may have been cut, or refused: it failed, was paused or removed.
    pub(super) was_lost: bool,
    /// Readers may have lost their patience.
    pub(super) was_slow: bool,
    seed: u64,
    kind: Kind,
    stalled_until_ms: u64,
    /// It moves in one step of so many.
    pace: u64,
}

impl Source {
    /// A content that the seed decides; nothing of it is there. `bytes_max` bounds its length.
    pub(super) fn new(seed: u64, random: &mut Random, bytes_max: u64) -> Self {
        let length = random.between(1, bytes_max);
        let source = match random.below(5) {
            0 | 1 => Self::with_hashes(seed, random, length),
            2 => Self::growing(seed, length),
            _ => Self::of_length(seed, random, length),
        };
        Source { pace: *random.pick(&[1, 8, 60]), ..source }
    }

    fn with(seed: u64, content: Arc<Content>, disk: Arc<Disk>, kind: Kind) -> Self {
        content.set_state(State::Pulling);
        Source {
            content,
            disk,
            retired: Vec::new(),
            superseded_by: None,
            is_known: false,
            is_torrent_known: false,
            was_lost: false,
            was_slow: false,
            seed,
            kind,
            stalled_until_ms: 0,
            pace: 1,
        }
    }

    fn with_hashes(seed: u64, random: &mut Random, length: u64) -> Self {
        let files: Vec<(Vec<String>, u64)> = if random.one_in(2) {
            vec![(Vec::new(), length)]
        } else {
            let first = random.below(length);
            let files = [("a", first), ("b", length - first), ("empty", 0), ("last", 700)];
            files.map(|(name, bytes)| (vec![name.to_owned()], bytes)).into()
        };
        let Ok(metainfo) = pull::torrent(seed, "torrent", &files, PIECE_BYTES) else {
            panic!("a simulated torrent is sound")
        };
        let Ok(layout) = Layout::from_info(&metainfo.info) else { panic!("and can be laid out") };
        let disk = Disk::new(seed, &layout);
        let missing = (0..layout.piece_count()).map(PieceIndex).collect();
        let content = disk.content(NewContent::with_metainfo(pull::id(seed), metainfo, "\"sim\""), layout);
        Self::with(seed, content, disk, Kind::Known { missing })
    }

    fn of_length(seed: u64, random: &mut Random, length: u64) -> Self {
        let Ok(layout) = Layout::single("file", length, PIECE_BYTES) else {
            panic!("a length within bounds")
        };
        let disk = Disk::new(seed, &layout);
        let new = NewContent::new(pull::id(seed), "file", Shape::Layout(layout.clone()), "\"sim\"");
        let content = disk.content(new, layout);
        let pieces = u64::from(content.layout().piece_count());
        let mut starts: Vec<u64> =
            (0..random.below(3)).map(|_| random.below(pieces) * u64::from(PIECE_BYTES)).collect();
        starts.push(0);
        starts.sort_unstable();
        starts.dedup();
        let ends = starts.iter().skip(1).copied().chain([length]);
        let lanes = starts.iter().zip(ends).filter_map(|(start, end)| {
            let stream = content.stream(*start)?;
            Some(Lane { stream, end })
        });
        let lanes = lanes.collect();
        let unhashed = (0..content.layout().piece_count()).map(PieceIndex).collect();
        Self::with(seed, content, disk, Kind::Unknown { lanes, unhashed })
    }

    fn growing(seed: u64, length: u64) -> Self {
        let layout = Layout::growing("file");
        let disk = Disk::new(seed, &layout);
        let content = disk.content(NewContent::growing(pull::id(seed), "file", "\"sim\""), layout);
        let stream = content.stream(0);
        Self::with(seed, content, disk, Kind::Growing { stream, end: length })
    }

    /// Whether every byte is there.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.kind, Kind::Complete)
    }

    /// The files that can be asked for.
    pub(super) fn files(&self) -> Vec<FileIndex> {
        let files = self.content.layout().files().iter().enumerate();
        let asked = files.filter(|(_, file)| !file.padding);
        asked.filter_map(|(at, _)| u32::try_from(at).ok().map(FileIndex)).collect()
    }

    /// Where the file's bytes lie in the content; of a content that still grows, how far it has come.
    pub(super) fn span(&self, file: FileIndex) -> (u64, u64) {
        let Some(span) = self.content.layout().file(file) else { panic!("a file that is there") };
        (span.offset, self.content.length().map_or(self.content.visible_bytes(), |end| span.length.min(end)))
    }

    /// The path of a file, as it stands in a request.
    pub(super) fn path(&self, file: FileIndex) -> String {
        let path = self.content.layout().file(file).map(|file| file.path.join("/"));
        format!("/c/{}/{}", self.content.id(), path.unwrap_or_default())
    }

    /// The misfortunes of a pull. A changed origin is for the caller to see to: true when it has.
    pub(super) fn suffer(&mut self, now_ms: u64, random: &mut Random, mail: &mut VecDeque<News>) -> bool {
        match random.below(400) {
            0..4 => self.stalled_until_ms = now_ms + random.below(STALL_MS_MAX),
            4 => {
                self.stalled_until_ms = now_ms + LONG_STALL_MS;
                self.was_slow = true;
            }
            5 => self.change(State::Failed, mail),
            6 => self.change(State::Paused, mail),
            7..11 if self.stands_still() => self.recover(mail),
            11 => return true,
            _ => {}
        }
        false
    }

    fn change(&mut self, state: State, mail: &mut VecDeque<News>) {
        self.was_lost = true;
        self.content.set_state(state);
        mail.push_back(News::Changed(self.content.id()));
    }

    fn stands_still(&self) -> bool {
        matches!(self.content.state(), State::Failed | State::Paused)
    }

    /// Goes on, whatever was wrong.
    pub(super) fn recover(&mut self, mail: &mut VecDeque<News>) {
        self.stalled_until_ms = 0;
        if self.stands_still() {
            self.content.set_state(if self.is_complete() { State::Complete } else { State::Pulling });
            mail.push_back(News::Changed(self.content.id()));
        }
    }

    /// The origin has something else now: nobody gets a byte of this content any more.
    pub(super) fn remove(&mut self, mail: &mut VecDeque<News>) {
        self.was_lost = true;
        self.content.set_state(State::Removed);
        mail.push_back(News::Gone(self.content.id()));
    }

    /// One step of the pull. `wanted` is where somebody waits; with `faults` pieces may fail their hash.
    pub(super) fn pull(
        &mut self,
        now_ms: u64,
        wanted: Option<u64>,
        random: &mut Random,
        faults: bool,
        mail: &mut VecDeque<News>,
    ) {
        let moves = random.one_in(self.pace);
        if !moves || now_ms < self.stalled_until_ms || self.content.state() != State::Pulling {
            return;
        }
        match &mut self.kind {
            Kind::Known { missing } => {
                let is_wanted = |piece: &PieceIndex| {
                    wanted.is_some_and(|at| self.content.layout().piece_of(at) == *piece)
                };
                let at = missing.iter().position(is_wanted).unwrap_or_else(|| random.index(missing.len()));
                let right = !(faults && random.one_in(5));
                if fetch_piece(&self.content, &self.disk, missing[at], right) {
                    let piece = missing.remove(at);
                    announce(&self.content, piece, mail);
                }
            }
            Kind::Unknown { lanes, unhashed } => {
                let at = random.index(lanes.len());
                let bytes = random.between(1, 24) * GRAIN_BYTES;
                let Lane { stream, end } = &mut lanes[at];
                if write(&self.disk, stream, bytes, *end) {
                    lanes.swap_remove(at);
                }
                hash_whole(&self.content, unhashed, mail);
            }
            Kind::Growing { stream: Some(stream), end } => {
                let bytes = random.between(1, 24) * GRAIN_BYTES;
                write(&self.disk, stream, bytes, *end);
            }
            Kind::Growing { stream: None, .. } | Kind::Complete => {}
        }
        self.finish(mail);
        if self.content.take_parked() != 0 {
            mail.push_back(News::Arrived(self.content.id()));
        }
    }

    /// Notices that everything is there.
    fn finish(&mut self, mail: &mut VecDeque<News>) {
        match &mut self.kind {
            Kind::Known { missing } if missing.is_empty() => {}
            Kind::Unknown { lanes, unhashed } if lanes.is_empty() => {
                assert!(unhashed.is_empty(), "all is written, so every piece can be hashed");
                self.publish(mail);
            }
            Kind::Growing { stream, end } if stream.as_ref().is_some_and(|stream| stream.at() == *end) => {
                *stream = None;
                self.content.end_growth();
                self.content.set_state(State::Complete);
                mail.push_back(News::Changed(self.content.id()));
                return;
            }
            // A loop later it is settled: the same content with a body of known length.
            Kind::Growing { stream: None, end } => {
                let end = *end;
                self.settle(end, mail);
            }
            _ => return,
        }
        self.kind = Kind::Complete;
        self.content.set_state(State::Complete);
        mail.push_back(News::Changed(self.content.id()));
    }

    /// Gives up the pull, and what it holds.
    pub(super) fn stop(&mut self) {
        self.kind = Kind::Complete;
    }

    /// The rest of a growing content's life, which needs no pull.
    pub(super) fn settle_growth(&mut self, mail: &mut VecDeque<News>) {
        if matches!(self.kind, Kind::Growing { stream: None, .. }) && self.content.state() == State::Complete
        {
            self.finish(mail);
        }
    }

    fn settle(&mut self, length: u64, mail: &mut VecDeque<News>) {
        let Ok(layout) = Layout::single("file", length, PIECE_BYTES) else {
            panic!("a length within bounds")
        };
        let new = NewContent::new(self.content.id(), "file", Shape::Layout(layout.clone()), "\"sim\"");
        let settled = self.disk.content(new, layout);
        pull::complete(&settled);
        self.retired.push(std::mem::replace(&mut self.content, settled));
        self.publish(mail);
    }

    /// Makes a torrent of it.
    fn publish(&self, mail: &mut VecDeque<News>) {
        let length = self.content.layout().length();
        let plan = plan_files("file", PIECE_BYTES, &[(Vec::new(), length)]);
        match plan.and_then(|plan| pull::metainfo(&self.content, plan)) {
            Ok(metainfo) => assert!(self.content.set_metainfo(Arc::new(metainfo)), "it had none"),
            Err(error) => panic!("no torrent of content {}: {error}", self.seed),
        }
        mail.push_back(News::Put(Arc::clone(&self.content)));
    }
}

/// Writes a piece, and verifies it. False when its bytes were wrong, and have to be pulled again.
fn fetch_piece(content: &Content, disk: &Disk, piece: PieceIndex, right: bool) -> bool {
    let range = content.layout().piece_range(piece);
    let count = usize::try_from(range.end - range.start).unwrap_or(0);
    disk.write(range.clone(), right);
    let written = content.write(range.start, &disk.truth(range.start, count));
    assert!(written.is_ok(), "a piece that is not visible can be written");
    let verdict = content.verify_piece(piece);
    let expected = if right { Verdict::Good } else { Verdict::Bad };
    assert!(matches!(verdict, Ok(found) if found == expected), "piece {} is found {verdict:?}", piece.0);
    if right {
        content.mark_verified(piece);
    }
    right
}

/// Writes on, in order. True when the end is reached.
fn write(disk: &Disk, stream: &mut Stream, bytes: u64, end: u64) -> bool {
    let start = stream.at();
    let stop = (start + bytes).min(end);
    disk.write(start..stop, true);
    let count = usize::try_from(stop - start).unwrap_or(0);
    assert!(stream.write(&disk.truth(start, count)).is_ok(), "bytes that are not visible can be written");
    stop == end
}

fn hash_whole(content: &Content, unhashed: &mut Vec<PieceIndex>, mail: &mut VecDeque<News>) {
    unhashed.retain(|piece| {
        let range = content.layout().piece_range(*piece);
        let whole = content.visible_until(range.start, range.end) == range.end;
        if whole {
            assert!(content.hash_piece(*piece).is_ok(), "what is visible can be read");
            content.mark_verified(*piece);
            announce(content, *piece, mail);
        }
        !whole
    });
}

fn announce(content: &Content, piece: PieceIndex, mail: &mut VecDeque<News>) {
    if content.listeners() != 0 {
        mail.push_back(News::Piece { content: content.id(), piece });
    }
}
