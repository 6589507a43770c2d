//! What one call is going to send: the parts of an output, resolved to memory and files.

use std::sync::Arc;

use millrace_engine::output::{Output, Part};
use millrace_pagecache::OpenFile;
use millrace_pagecache::content::Content;
use millrace_pagecache::layout::SliceSource;
use millrace_proto::peer::message::{BLOCK_BYTES, BLOCK_HEAD_BYTES};
use smallvec::SmallVec;

use crate::cold::StagedFor;
use crate::header_table::Heads;
use crate::kept::KeptFiles;

/// Runs planned for one call at most: several pipes full of the smallest parts.
const RUNS_MAX: usize = 512;

/// Bytes asked about, and brought in, at a time.
pub(crate) const ABSENT_BYTES_MAX: u64 = 1 << 20;

/// Where a run of bytes is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// In memory that changes after the call.
    Memory(&'a [u8]),
    /// In a header table.
    Head(&'a [u8]),
    /// Nowhere: padding.
    Zeros,
    /// In a buffer that they were read into, the one at this place among those that are staged.
    Staged(usize, &'a [u8]),
    /// In the file of this number in [`Plan::files`], from this offset on.
    File(usize, u64),
}

/// A run of bytes from one source, at least one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) bytes: u64,
}

/// The first byte cannot be sent, nor read.
#[derive(Debug)]
pub(crate) struct Unreadable;

/// Bytes of a file that are not in memory.
#[derive(Debug)]
pub(crate) struct Gap {
    pub(crate) file: Arc<OpenFile>,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// What the contents' bytes in one plan come out of. Buffers and files go different ways, so a plan has one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Files,
    Buffers,
}

/// The runs of one call, in order.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    runs: Vec<Run<'a>>,
    files: SmallVec<[Arc<OpenFile>; 1]>,
    store: Option<Store>,
    has_heads: bool,
    bytes: u64,
}

/// A place in a plan.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Position {
    run: usize,
    skip: u64,
}

impl<'a> Plan<'a> {
    /// Plans the first `bytes_max` bytes of `output`, fewer where something stands in the way further on: what comes before it is
    /// sent first, and the next call meets it at its start. `heads` are those of the output's content.
    pub(crate) fn new(
        output: &'a Output,
        bytes_max: u64,
        heads: Option<&'a Heads>,
        staged: StagedFor<'a>,
        kept: &mut KeptFiles,
    ) -> Result<Self, Unreadable> {
        let mut plan = Plan {
            runs: Vec::with_capacity(output.segments().min(RUNS_MAX)),
            files: SmallVec::new(),
            store: None,
            has_heads: false,
            bytes: 0,
        };
        for part in output.parts() {
            let left = bytes_max - plan.bytes;
            if left == 0 || plan.runs.len() >= RUNS_MAX {
                break;
            }
            match part {
                Part::Bytes(bytes) => plan.push(Source::Memory(bytes), left.min(bytes.len() as u64)),
                Part::BlockHead { bytes, index, begin, length } => {
                    plan.has_heads = true;
                    let source = head_source(heads, bytes, index, begin, length);
                    plan.push(source, left.min(bytes.len() as u64));
                }
                Part::Extent { offset, bytes } => {
                    let Some(content) = output.content() else { break };
                    if !plan.push_extent(content, offset, bytes.min(left), staged, kept) {
                        break;
                    }
                }
            }
        }
        if plan.runs.is_empty() && bytes_max > 0 && !output.is_empty() {
            return Err(Unreadable);
        }
        Ok(plan)
    }

    /// Bytes in all.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a block of BitTorrent is among it.
    pub(crate) fn has_heads(&self) -> bool {
        self.has_heads
    }

    /// Whether bytes of a file are among it, and not in a buffer.
    pub(crate) fn has_files(&self) -> bool {
        self.store == Some(Store::Files)
    }

    /// Whether bytes in a buffer are among it.
    pub(crate) fn has_buffers(&self) -> bool {
        self.store == Some(Store::Buffers)
    }

    /// How many runs.
    pub(crate) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// What it begins with that changes after the call: the head of an answer, if anything.
    pub(crate) fn first_memory(&self) -> &'a [u8] {
        match self.runs.first() {
            Some(Run { source: Source::Memory(memory), bytes }) => {
                &memory[..usize::try_from(*bytes).map_or(memory.len(), |bytes| bytes.min(memory.len()))]
            }
            _ => &[],
        }
    }

    /// The file that a [`Source::File`] names.
    pub(crate) fn file(&self, file: usize) -> &OpenFile {
        &self.files[file]
    }

    /// What is left of the run at `position`; none at the end.
    pub(crate) fn at(&self, position: Position) -> Option<Run<'a>> {
        let run = self.runs.get(position.run)?;
        let skip = position.skip;
        let skip_bytes = usize::try_from(skip).unwrap_or(usize::MAX);
        let source = match run.source {
            Source::Memory(bytes) => Source::Memory(bytes.get(skip_bytes..).unwrap_or_default()),
            Source::Head(bytes) => Source::Head(bytes.get(skip_bytes..).unwrap_or_default()),
            Source::Staged(place, bytes) => {
                Source::Staged(place, bytes.get(skip_bytes..).unwrap_or_default())
            }
            Source::Zeros => Source::Zeros,
            Source::File(file, offset) => Source::File(file, offset + skip),
        };
        Some(Run { source, bytes: run.bytes - skip })
    }

    /// The place `bytes` after `position`.
    pub(crate) fn after(&self, position: Position, bytes: u64) -> Position {
        let Position { mut run, mut skip } = position;
        skip += bytes;
        while let Some(passed) = self.runs.get(run).filter(|run| run.bytes <= skip) {
            skip -= passed.bytes;
            run += 1;
        }
        Position { run, skip }
    }

    /// The runs that the first `bytes` bytes consist of.
    pub(crate) fn prefix(&self, bytes: u64) -> impl Iterator<Item = Run<'a>> {
        self.runs.iter().scan(bytes, |left, run| {
            let taken = run.bytes.min(*left);
            *left -= taken;
            (taken > 0).then_some(Run { bytes: taken, ..*run })
        })
    }

    /// How many of the first `bytes` bytes come out of which buffer.
    pub(crate) fn staged_prefix(&self, bytes: u64) -> Vec<(usize, u64)> {
        if !self.has_buffers() {
            return Vec::new();
        }
        let staged = self.prefix(bytes).filter_map(|run| match run.source {
            Source::Staged(place, _) => Some((place, run.bytes)),
            _ => None,
        });
        staged.collect()
    }

    fn push(&mut self, source: Source<'a>, bytes: u64) {
        if bytes > 0 {
            self.runs.push(Run { source, bytes });
            self.bytes += bytes;
        }
    }

    /// False where the extent, or its rest, cannot be read, or not be sent with what comes before it.
    fn push_extent(
        &mut self,
        content: &Content,
        offset: u64,
        bytes: u64,
        staged: StagedFor<'a>,
        kept: &mut KeptFiles,
    ) -> bool {
        let mut pushed = 0;
        // Neighbouring slices are of different files, so a file is looked up once an extent.
        for slice in content.layout().slices(offset, bytes) {
            match slice.source {
                SliceSource::Padding => self.push(Source::Zeros, slice.bytes),
                SliceSource::File(index, at) => {
                    let Ok(file) = content.file(index) else { return false };
                    let Some(number) = self.number_of(file, kept) else { return false };
                    if !self.push_of_file(number, at, slice.bytes, staged) {
                        return false;
                    }
                }
            }
            pushed += slice.bytes;
        }
        pushed == bytes
    }

    /// Takes bytes of a file out of buffers where they are staged. False where some are and others are not.
    fn push_of_file(&mut self, number: usize, mut offset: u64, bytes: u64, staged: StagedFor<'a>) -> bool {
        let end = offset + bytes;
        while offset < end {
            let left = end - offset;
            let (store, source, bytes) = match staged.find(&self.files[number], offset) {
                Some((place, found)) => {
                    (Store::Buffers, Source::Staged(place, found), left.min(found.len() as u64))
                }
                None => (Store::Files, Source::File(number, offset), left),
            };
            if *self.store.get_or_insert(store) != store {
                return false;
            }
            self.push(source, bytes);
            offset += bytes;
        }
        true
    }

    /// The number of `file` in this plan. None for one that was changed since it was imported, which is asked once a loop.
    fn number_of(&mut self, file: Arc<OpenFile>, kept: &mut KeptFiles) -> Option<usize> {
        if let Some(number) = self.files.iter().rposition(|known| Arc::ptr_eq(known, &file)) {
            return Some(number);
        }
        if !kept.lease(&file) {
            return None;
        }
        self.files.push(file);
        Some(self.files.len() - 1)
    }

    /// Leaves out everything from the first byte on that `is_there` denies of a file, an offset and a count. Where nothing of a file comes
    /// before it, says what is missing. Where the kernel does not tell, bytes are read each time, since a shard that waits for a disk makes all its clients wait.
    /// Blocks that follow each other in a file, as peers ask for them, are asked about together: a probe for each block would cost more
    /// than it saves.
    pub(crate) fn cut_before_absent(
        &mut self,
        mut is_there: impl FnMut(&Arc<OpenFile>, u64, u64) -> bool,
    ) -> Option<Gap> {
        let mut start = 0;
        while let Some(asked) = self.neighbours(start, ABSENT_BYTES_MAX) {
            let file = &self.files[asked.file];
            if !is_there(file, asked.offset, asked.bytes) {
                // Heads alone are not worth a packet: they wait with what they belong to.
                if start == 0 {
                    return Some(Gap { file: Arc::clone(file), offset: asked.offset, bytes: asked.bytes });
                }
                self.runs.truncate(asked.first);
                self.bytes = self.runs.iter().map(|run| run.bytes).sum();
                return None;
            }
            start = asked.next;
        }
        None
    }

    /// How many bytes without a gap, at most `bytes_max`, the plan has of the file that it begins with.
    pub(crate) fn first_bytes(&self, bytes_max: u64) -> u64 {
        self.neighbours(0, bytes_max).map_or(0, |found| found.bytes.min(bytes_max))
    }

    /// The next runs of one file without a gap, from run `start` on: the first of them, and those that fit `bytes_max` with it.
    fn neighbours(&self, start: usize, bytes_max: u64) -> Option<Neighbours> {
        let mut files =
            self.runs.iter().enumerate().skip(start).filter_map(|(number, run)| match run.source {
                Source::File(file, offset) => Some((number, file, offset, run.bytes)),
                _ => None,
            });
        let (first, file, offset, bytes) = files.next()?;
        let mut found = Neighbours { first, next: first + 1, file, offset, bytes };
        for (number, file, offset, bytes) in files {
            let follows = file == found.file && offset == found.offset + found.bytes;
            if !follows || found.bytes + bytes > bytes_max {
                break;
            }
            found.bytes += bytes;
            found.next = number + 1;
        }
        Some(found)
    }
}

/// Runs of one file that follow each other, whatever heads lie between them.
struct Neighbours {
    first: usize,
    next: usize,
    file: usize,
    offset: u64,
    bytes: u64,
}

/// From the table where it has the head; of one that was sent in part, the same tail.
fn head_source<'a>(
    heads: Option<&'a Heads>,
    bytes: &'a [u8],
    index: u32,
    begin: u32,
    length: u32,
) -> Source<'a> {
    let head = heads.filter(|_| length == BLOCK_BYTES).and_then(|heads| heads.find(index, begin));
    let sent = BLOCK_HEAD_BYTES - bytes.len().min(BLOCK_HEAD_BYTES);
    match head.and_then(|head| head.get(sent..)) {
        Some(head) => Source::Head(head),
        None => Source::Memory(bytes),
    }
}
