//! Verifying pieces as they complete: against their hashes where those are known, else learning them.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use millrace_pagecache::{PieceIndex, Verdict};

use super::{End, Pull};

/// Pieces that somebody waits for and that are no longer than this are hashed on the ingest thread: that takes a quarter of a millisecond, and
/// on a busy core a thread that has to be woken for it begins several later.
const HERE_BYTES_MAX: u64 = 256 * 1024;

/// Times that a piece may be wrong before the pull fails.
const BAD_MAX: u32 = 3;

impl Pull {
    /// Has the pieces checked whose bytes were here before the pull began.
    pub(super) fn check_what_is_here(self: &Rc<Self>) {
        let layout = self.content.layout();
        for piece in (0..layout.piece_count()).map(PieceIndex) {
            if !self.content.has_piece(piece) && self.planner.borrow().has(layout.piece_range(piece)) {
                self.check(piece.0);
            }
        }
    }

    /// Remembers who brought bytes of the pieces that `run` touches.
    pub(super) fn note_contributor(&self, origin: usize, run: &Range<u64>) {
        if !self.content.hashes_known() {
            return;
        }
        let layout = self.content.layout();
        let mut contributors = self.contributors.borrow_mut();
        for piece in layout.piece_of(run.start).0..=layout.piece_of(run.end - 1).0 {
            let origins = contributors.entry(piece).or_default();
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
    }

    /// Hashes a complete piece: here if that is soon done and somebody waits for it, else on another thread.
    pub(super) fn check(self: &Rc<Self>, piece: u32) {
        let index = PieceIndex(piece);
        if self.content.hashes_known() && self.is_awaited(index) {
            self.awaited.set(None);
            return self.checked(index, self.content.verify_piece(index));
        }
        self.checking.set(self.checking.get() + 1);
        let pull = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let content = Arc::clone(&pull.content);
            let verdict = match content.hashes_known() {
                true => pull.context.hash(move || content.verify_piece(index)).await,
                false => pull.context.hash(move || content.hash_piece(index).map(|_| Verdict::Good)).await,
            };
            pull.checking.set(pull.checking.get() - 1);
            pull.checked(index, verdict);
            pull.quieter.notify_waiters();
            pull.wake.notify_one();
        });
    }

    /// Whether a reader waits for this piece, and it is short.
    fn is_awaited(&self, piece: PieceIndex) -> bool {
        let range = self.content.layout().piece_range(piece);
        let awaited = self.awaited.get().is_some_and(|offset| range.contains(&offset));
        awaited && range.end - range.start <= HERE_BYTES_MAX
    }

    fn checked(&self, piece: PieceIndex, verdict: io::Result<Verdict>) {
        match verdict {
            Ok(Verdict::Good) => self.piece_is_good(piece),
            Ok(Verdict::Bad) => self.piece_is_bad(piece),
            Err(error) => self.stop(End::Failed(self.context.io_error(&error))),
        }
    }

    fn piece_is_good(&self, piece: PieceIndex) {
        self.contributors.borrow_mut().remove(&piece.0);
        self.content.mark_verified(piece);
        self.context.announce_bytes(&self.content);
        self.context.announce_piece(&self.content, piece);
    }

    fn piece_is_bad(&self, piece: PieceIndex) {
        let context = &self.context;
        context.metrics.hash_failures.increment();
        let origins = self.contributors.borrow_mut().remove(&piece.0).unwrap_or_default();
        let urls: Vec<_> = origins.iter().map(|origin| self.origin(*origin).shown()).collect();
        let error = format!("piece {} does not match its hash", piece.0);
        tracing::warn!(content = %self.content.id(), origins = ?urls, "{error}");
        self.balance.borrow_mut().suspected(&origins, &format!("{}: {error}", urls.join(", ")));
        let times = {
            let mut bad = self.bad.borrow_mut();
            let times = bad.entry(piece.0).or_default();
            *times += 1;
            *times
        };
        if times >= BAD_MAX {
            self.stop(End::Failed(format!("{error}, pulled {times} times (last from {})", urls.join(", "))));
            return;
        }
        self.planner.borrow_mut().discarded(self.content.layout().piece_range(piece));
    }
}
