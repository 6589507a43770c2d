//! One request and its body: from the origin into the store.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use millrace_pagecache::content::Stream;
use millrace_pagecache::layout::{FileIndex, SliceSource};
use reqwest::Response;

use super::{End, Pull, milliseconds};
use crate::ingest::answer::{Accepted, Body, Refused, Validators};
use crate::ingest::balance::Fate;
use crate::ingest::budget::Grant;
use crate::ingest::client::FetchError;
use crate::ingest::lines::Lent;

/// Why a transfer ended before its end.
enum Halt {
    /// The origin's fault, or the network's.
    Fetch(FetchError),
    /// The disk's fault.
    Disk(io::Error),
    /// The operator paused the pull.
    Paused,
}

impl From<FetchError> for Halt {
    fn from(error: FetchError) -> Self {
        Halt::Fetch(error)
    }
}

/// A body on its way into the store.
struct Flow {
    origin: usize,
    /// Where the next byte goes, in the content's linear space.
    at: u64,
    end: u64,
    /// Writes what is visible at once, where hashes are not known.
    stream: Option<Stream>,
    /// What it may bring.
    grant: Grant,
    received: u64,
    /// When bytes of the body began to come.
    begun: Instant,
    /// When half of it was there, and how much that was.
    half: Option<(Instant, u64)>,
}

impl Flow {
    /// Notes that `bytes` came.
    fn receive(&mut self, bytes: u64, whole: u64) {
        self.received += bytes;
        if self.half.is_none() && self.received >= whole / 2 {
            self.half = Some((Instant::now(), self.received));
        }
    }

    /// Bytes a second of the later half: TCP may have been finding out during the first.
    fn speed(&self) -> u64 {
        let later = self.half.filter(|(_, before)| *before < self.received);
        let (at, before) = later.unwrap_or((self.begun, 0));
        let nanoseconds = at.elapsed().as_nanos().max(1);
        let speed = u128::from(self.received - before) * 1_000_000_000 / nanoseconds;
        u64::try_from(speed).unwrap_or(u64::MAX)
    }
}

/// The bytes of a single file that a body holds.
pub(super) fn body_range(body: &Body, length: u64) -> Range<u64> {
    match body {
        Body::Part(range) => range.start..range.end.min(length),
        Body::Whole(_) => 0..length,
        Body::Empty => 0..0,
    }
}

impl Pull {
    /// Carries `range`, which is in flight and within one file, from `origin` on `line`. What does not come is missing again afterwards.
    pub(super) async fn transfer(
        self: Rc<Self>,
        origin: usize,
        mut line: Lent,
        range: Range<u64>,
        first: Option<(Response, Accepted)>,
        grant: Grant,
        asked_at: Instant,
    ) {
        let started = Instant::now();
        let mut flow = Flow {
            origin,
            at: range.start,
            end: range.end,
            stream: None,
            grant,
            received: 0,
            begun: started,
            half: None,
        };
        let mut claimed = range.clone();
        let result = self.carry(&line, &range, first, &mut flow, &mut claimed, asked_at).await;
        line.measured(result.as_ref().ok().map(|()| flow.speed()));
        let (at, received) = (flow.at, flow.received);
        drop((line, flow));
        // What came before may have been wrong and be on its way again, from elsewhere.
        self.planner.borrow_mut().abandoned(at.max(claimed.start)..claimed.end);
        self.in_flight.set(self.in_flight.get() - 1);
        self.balance.borrow_mut().ended(origin, received, milliseconds(started.elapsed()));
        match result {
            // What was retried has been got over.
            Ok(()) => self.content.set_error(None),
            Err(Halt::Paused) => {}
            Err(Halt::Disk(error)) => self.stop(End::Failed(self.context.io_error(&error))),
            Err(Halt::Fetch(error)) => self.transfer_failed(origin, &error),
        }
        self.quieter.notify_waiters();
        self.wake.notify_one();
    }

    async fn carry(
        self: &Rc<Self>,
        line: &Lent,
        range: &Range<u64>,
        first: Option<(Response, Accepted)>,
        flow: &mut Flow,
        claimed: &mut Range<u64>,
        asked_at: Instant,
    ) -> Result<(), Halt> {
        let layout = self.content.layout();
        let source = layout.slices(range.start, 1).next().map(|slice| slice.source);
        // The planner asks for bytes of files only; an empty content has none.
        let Some(SliceSource::File(file, file_offset)) = source else { return Ok(()) };
        let Some(span) = layout.file(file) else { return Ok(()) };
        let (response, accepted) = match first {
            Some(first) => first,
            None => {
                let asked = file_offset..file_offset + (range.end - range.start);
                let answer = self.ask(line, flow.origin, file, asked).await?;
                self.balance.borrow_mut().answered(flow.origin, milliseconds(asked_at.elapsed()));
                answer
            }
        };
        self.remember(flow.origin, file, &accepted.validators);
        if let Some(found) = accepted.validators.length
            && found != span.length
        {
            return Err(FetchError::Length { expected: span.length, found }.into());
        }
        let is_whole = matches!(accepted.body, Body::Whole(_));
        if is_whole {
            self.unconditional.borrow_mut().insert(flow.origin);
            self.wholes.borrow_mut().insert(flow.origin);
        }
        if is_whole && span.length != range.end - range.start {
            if self.in_flight.get() > 1 {
                // Others are bringing parts of it: reading the whole beside them would bring bytes twice.
                return Err(FetchError::from(Refused::RangeIgnored).into());
            }
            *claimed = span.offset..span.end();
            self.planner.borrow_mut().claim(claimed.clone());
            (flow.at, flow.end) = (span.offset, span.end());
        }
        self.pour(response, flow, is_whole, asked_at).await
    }

    /// Asks an origin for a range of a file. One that answers `If-Range` with the whole of the same version does not understand
    /// the condition, or no ranges: it is asked without the condition from then on.
    async fn ask(
        &self,
        line: &Lent,
        index: usize,
        file: FileIndex,
        asked: Range<u64>,
    ) -> Result<(Response, Accepted), FetchError> {
        let origin = self.origin(index);
        let url = origin.file_url(self.content.layout(), file);
        // Known hashes judge better than validators do.
        let known = origin.validators.get(&file.0).filter(|_| !self.content.hashes_known());
        let conditional = known.is_some() && !self.unconditional.borrow().contains(&index);
        let answer =
            self.context.clients.fetch(line.connection(), &origin, &url, &asked, known, conditional).await?;
        if !conditional || !matches!(answer.1.body, Body::Whole(_)) {
            return Ok(answer);
        }
        drop(answer);
        self.unconditional.borrow_mut().insert(index);
        self.context.clients.fetch(line.connection(), &origin, &url, &asked, known, false).await
    }

    /// Keeps what the origin said of a file first.
    fn remember(&self, index: usize, file: FileIndex, validators: &Validators) {
        let mut sources = self.sources.borrow_mut();
        sources.origins[index].validators.entry(file.0).or_insert_with(|| validators.clone());
    }

    /// Reads the body to its end.
    async fn pour(
        self: &Rc<Self>,
        mut response: Response,
        flow: &mut Flow,
        is_whole: bool,
        asked_at: Instant,
    ) -> Result<(), Halt> {
        let context = &self.context;
        let start = flow.at;
        flow.begun = Instant::now();
        while let Some(chunk) = context.clients.chunk(&mut response).await? {
            let bytes = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            if self.arrived_bytes.get() == 0 {
                context.metrics.first_byte(asked_at.elapsed());
            }
            context.metrics.origin_bytes.add(bytes);
            self.content.counters().origin_bytes.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            let wanted = usize::try_from(flow.end - flow.at).unwrap_or(usize::MAX).min(chunk.len());
            flow.receive(bytes.min(flow.end - flow.at), flow.end - start);
            self.take(flow, chunk.slice(..wanted)).await.map_err(Halt::Disk)?;
            if wanted < chunk.len() {
                return Err(FetchError::Long(flow.end - start).into());
            }
            flow.grant.pay(bytes).await;
            if is_whole && self.paused.get() {
                return Err(Halt::Paused);
            }
        }
        if flow.at < flow.end {
            return Err(FetchError::Short { received: flow.at - start, expected: flow.end - start }.into());
        }
        Ok(())
    }

    /// Writes what is new of `bytes`, and has the pieces checked that it completes.
    async fn take(self: &Rc<Self>, flow: &mut Flow, bytes: Bytes) -> io::Result<()> {
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let start = flow.at;
        flow.at += count;
        let mut next = start;
        loop {
            // A whole body passes over what another request may be bringing meanwhile.
            self.context.writes.landed(self.content.id(), next..flow.at).await;
            let Some(run) = self.planner.borrow().missing(next..flow.at).into_iter().next() else { break };
            next = run.end;
            let inside = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
            self.write(flow, run.start, bytes.slice(inside(run.start)..inside(run.end))).await?;
            self.arrived_bytes.set(self.arrived_bytes.get() + (run.end - run.start));
            self.note_contributor(flow.origin, &run);
            let complete = self.planner.borrow_mut().arrived(run);
            complete.into_iter().for_each(|piece| self.check(piece));
        }
        if !self.content.hashes_known() {
            self.context.announce_bytes(&self.content);
        }
        Ok(())
    }

    /// With known hashes bytes stay invisible until verified; without, they are visible as soon as they are written.
    async fn write(&self, flow: &mut Flow, offset: u64, bytes: Bytes) -> io::Result<()> {
        if flow.stream.as_ref().is_none_or(|stream| stream.at() != offset) {
            flow.stream = None;
            flow.stream = self.content.stream(offset);
        }
        match &mut flow.stream {
            Some(stream) => self.context.writes.append(&self.content, stream, bytes).await,
            // Inside a block where no stream can start: visible when its piece has been hashed.
            None => self.context.writes.write(&self.content, offset, bytes).await,
        }
    }

    fn transfer_failed(&self, origin: usize, error: &FetchError) {
        self.context.metrics.retries.increment();
        let url = self.origin(origin).shown();
        let text = format!("{url}: {error}");
        tracing::warn!(content = %self.content.id(), origin = %url, "{error}");
        self.content.set_error(Some(&text));
        let dice = self.context.dice();
        let alone = self.balance.borrow().is_alone(origin);
        let fate = match error {
            // It may have the whole once nothing else is under way; beside origins that answer ranges it is of no use.
            FetchError::Refused(Refused::RangeIgnored) if alone => Fate::Rest(None),
            FetchError::Refused(Refused::RangeIgnored) => Fate::GiveUp,
            error => error.fate(),
        };
        self.balance.borrow_mut().failed(origin, self.now_ms(), fate, dice, text);
        if matches!(error, FetchError::Refused(Refused::Changed(_))) && self.balance.borrow().is_given_up() {
            self.stop(End::Changed(error.to_string()));
        }
    }
}
