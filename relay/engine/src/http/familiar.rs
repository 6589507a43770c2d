//! A head that says what the one before it on its connection said, but for the bytes it asks for.
//!
//! Whoever fetches a file in many ranges sends the same head each time, with other numbers in `Range`. Equal bytes mean the same: so such a head
//! is compared instead of parsed, and what it names is not looked up again. Whatever is unusual about it, or has changed since, takes the long way.

use std::ops::Range;

use millrace_pagecache::content::State;
use millrace_proto::http::range::ByteRange;
use millrace_proto::http::request::{Body as RequestBody, Request};

use crate::session::Context;

use super::answer::{self, Manner};
use super::body::{Body, Parts};
use super::route::Place;

/// Longest head that is kept: those of downloaders are much shorter.
const HEAD_BYTES_MAX: usize = 1024;

/// Most digits of a number that is read here; more of them take the long way.
const DIGITS_MAX: usize = 18;

/// The last head that asked for one range of a file, and what it led to.
#[derive(Debug)]
pub(super) struct Familiar {
    head: Box<[u8]>,
    /// Where `first-last` is in it.
    numbers: Range<usize>,
    manner: Manner,
    place: Place,
    /// What the catalog was when the place was found in it.
    edition: u64,
}

impl Familiar {
    /// Keeps the `head` of a request that was read from it and is being answered with `body`. `None` for one whose answer depends on more
    /// than its bytes and the file.
    pub(super) fn of(
        cx: &Context<'_>,
        head: &[u8],
        request: &Request<'_>,
        body: &Body,
    ) -> Option<Box<Familiar>> {
        let value =
            request.range.filter(|_| request.is_unconditional() && request.body == RequestBody::None)?;
        let specs = value.strip_prefix(b"bytes=")?;
        read_range(specs).filter(|(_, rest)| rest.is_empty() && head.len() <= HEAD_BYTES_MAX)?;
        let Parts::Single(_) = body.parts() else { return None };
        // The value was borrowed from the head.
        let start = specs.as_ptr().addr().checked_sub(head.as_ptr().addr())?;
        Some(Box::new(Familiar {
            head: head.into(),
            numbers: start..start + specs.len(),
            manner: Manner::of(request),
            place: body.place().clone(),
            edition: cx.shared.catalog.edition(),
        }))
    }

    /// How long the head at the start of `input` is, and what it asks for, where it differs from this one in the numbers alone.
    pub(super) fn read(&self, input: &[u8]) -> Option<(usize, ByteRange)> {
        let rest = input.strip_prefix(&self.head[..self.numbers.start])?;
        let (range, rest) = read_range(rest)?;
        let rest = rest.strip_prefix(&self.head[self.numbers.end..])?;
        Some((input.len() - rest.len(), range))
    }

    /// Begins the answer, where it can begin at once. Otherwise nothing has happened.
    pub(super) fn answer(&self, cx: &mut Context<'_>, range: ByteRange) -> Option<Body> {
        let content = &self.place.content;
        let span = content.layout().file(self.place.file)?;
        let (base, length) = (span.offset, span.length);
        let range = ByteRange { end: range.end.min(length), ..range };
        if cx.shared.catalog.edition() != self.edition
            || !cx.admits(content)
            || matches!(content.state(), State::Paused | State::Removed)
            || range.start >= range.end
            || content.visible_until(base + range.start, base + range.end) == base + range.start
        {
            return None;
        }
        content.counters().touch(cx.now.unix_s);
        let fields = cx.shared.prepared.of(&self.place);
        let body = Body::new(self.place.clone(), base, Parts::single(range));
        answer::sized_head(cx, self.manner, 206, &fields, &body, length);
        cx.output.lease(content);
        Some(body)
    }

    /// Whether the connection may stay open after the answer.
    pub(super) fn keeps_alive(&self) -> bool {
        self.manner.keep_alive
    }

    /// Bytes of heap that it holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.head.len()
    }
}

/// Reads `first-last` at the start of `bytes`, where that is a range, and what follows it.
fn read_range(bytes: &[u8]) -> Option<(ByteRange, &[u8])> {
    let (start, rest) = read_number(bytes)?;
    let (last, rest) = read_number(rest.strip_prefix(b"-")?)?;
    (start <= last).then_some((ByteRange { start, end: last + 1 }, rest))
}

/// Reads 1*DIGIT.
fn read_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    let mut digits = 0;
    while let Some(digit) = bytes.get(digits).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10)
    {
        number = number * 10 + u64::from(digit);
        digits += 1;
        if digits > DIGITS_MAX {
            return None;
        }
    }
    (digits > 0).then(|| (number, &bytes[digits..]))
}
