//! The HTTP front end: one session a connection, one answer at a time, requests in the order in which they came (RFC 9112).
//!
//! A request whose answer cannot begin yet stays in the input buffer, and is looked at again when there is news: there is but one
//! way from a request to its answer. Files come out of the store here; everything else is asked of the control thread.

mod answer;
mod body;
mod familiar;
mod file_fields;
mod route;

use std::time::Duration;

use millrace_proto::http::request::{self, Body as RequestBody, Parsed, Request};

use crate::counters::Reason;
use crate::event::Answer;
use crate::ids::Now;
use crate::limits::Limits;
use crate::op::Op;
use crate::session::{Context, End, Shared, Step};
use crate::shard::{Deadline, after};

pub(crate) use file_fields::Prepared;

use answer::Reply;
use body::{Body, Fill};
use familiar::Familiar;
use route::Place;

/// Input is no longer received once this many bytes wait, in units of the largest head.
const INPUT_HEADS_MAX: usize = 2;

/// Room for input that a connection keeps while it is idle: most requests of downloaders fit, and need no allocation.
const INPUT_BYTES_KEPT: usize = 512;

/// How long a drain waits for the first byte of a connection that has just been accepted.
const FIRST_HEAD_IN_DRAIN: Duration = Duration::from_secs(1);

/// What a session is doing.
#[derive(Debug)]
enum State {
    /// Reading a head.
    Head,
    /// The head at the start of the input is with the control thread.
    Asking,
    /// The answer to the head at the start of the input begins with bytes that are on their way.
    Waiting { place: Option<Place>, give_up: Deadline },
    /// Sending the bytes of a file.
    Sending { body: Body, keep_alive: bool, park: Option<Deadline> },
}

/// One HTTP connection.
#[derive(Debug)]
pub(crate) struct Session {
    input: Vec<u8>,
    receiving: bool,
    /// The peer has sent all that it will.
    input_ended: bool,
    state: State,
    head_by: Deadline,
    /// When the head of the request being answered was complete.
    asked: Now,
    /// What the next head probably looks like.
    familiar: Option<Box<Familiar>>,
}

impl Session {
    pub(crate) fn new(now: Now, shared: &Shared) -> Self {
        let head_by = match shared.draining {
            false => after(now, shared.limits.head_timeout, Reason::SlowHead),
            true => after(now, FIRST_HEAD_IN_DRAIN.max(shared.limits.drain_idle), Reason::Draining),
        };
        Session {
            input: Vec::new(),
            receiving: true,
            input_ended: false,
            state: State::Head,
            head_by,
            asked: now,
            familiar: None,
        }
    }

    /// When this connection has waited too long, and for what.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        match &self.state {
            State::Head => Some(self.head_by),
            State::Asking | State::Waiting { .. } => None,
            State::Sending { park, .. } => *park,
        }
    }

    /// We make it wait ourselves: what it has to do begins anew.
    pub(crate) fn excuse(&mut self, now: Now, limits: &Limits) {
        match &mut self.state {
            State::Head if self.input.is_empty() => {
                self.head_by = after(now, limits.idle_timeout, Reason::Idle)
            }
            State::Sending { park: Some(park), .. } => {
                *park = after(now, limits.park_timeout, Reason::ParkedTooLong);
            }
            State::Head | State::Asking | State::Waiting { .. } | State::Sending { .. } => {}
        }
    }

    pub(crate) fn handle_received(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Step {
        if data.is_empty() {
            self.input_ended = true;
            return match self.state {
                State::Head if cx.output.is_empty() => Err(End::Now(Reason::PeerClosed)),
                _ => Ok(()),
            };
        }
        if matches!(self.state, State::Head) && self.input.is_empty() {
            self.head_by = after(cx.now, cx.shared.limits.head_timeout, Reason::SlowHead);
        }
        self.input.extend_from_slice(data);
        if self.receiving && self.input.len() > cx.shared.limits.head_bytes_max * INPUT_HEADS_MAX {
            self.receiving = false;
            cx.ops.push(Op::PauseReceive { conn: cx.conn });
        }
        self.refill(cx)
    }

    pub(crate) fn handle_answer(&mut self, cx: &mut Context<'_>, answer: Answer) -> Step {
        if !matches!(self.state, State::Asking) {
            return Ok(());
        }
        self.state = State::Head;
        match answer {
            Answer::Document(document) => {
                self.with_request(cx, |cx, request| answer::document(cx, request, &document))?;
            }
            Answer::File { content, file } => {
                let place = Place { content, file };
                self.with_request(cx, |cx, request| route::pulled(cx, request, place))?;
            }
        }
        self.refill(cx)
    }

    pub(crate) fn handle_drain(&mut self, cx: &mut Context<'_>) -> Step {
        if !matches!(self.state, State::Head) || !self.input.is_empty() {
            return Ok(());
        }
        let idle = cx.shared.limits.drain_idle;
        // Its first request is on its way, and would be lost. Between requests a client knows that it may be (RFC 9112 §9.3.1).
        let patience = match self.head_by.reason {
            Reason::SlowHead => FIRST_HEAD_IN_DRAIN.max(idle),
            _ if !cx.output.is_empty() => return Ok(()),
            _ if idle.is_zero() => return Err(End::AfterOutput(Reason::Draining)),
            _ => idle,
        };
        self.head_by = after(cx.now, patience, Reason::Draining);
        Ok(())
    }

    /// Once a second: a reader that still waits says so again, since its demand may have been dropped.
    pub(crate) fn handle_tick(&mut self, cx: &mut Context<'_>) -> Step {
        match &mut self.state {
            State::Waiting { give_up, .. } if cx.now.monotonic_ms() >= give_up.at_ms => {
                self.state = State::Head;
                self.with_request(cx, |cx, request| {
                    let detail = "The bytes did not arrive from the origin in time.";
                    Ok(answer::problem(cx, request, 504, detail, Some(10)))
                })
            }
            State::Waiting { .. } | State::Sending { park: Some(_), .. } => self.refill(cx),
            State::Head if self.input.is_empty() => {
                self.input = Vec::new();
                self.familiar = None;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Bytes of heap that it holds.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.input.capacity() + self.familiar.as_ref().map_or(0, |familiar| familiar.held_bytes())
    }

    /// Goes on: fills the output while there is something to send, takes the next request when the last answer is out.
    pub(crate) fn refill(&mut self, cx: &mut Context<'_>) -> Step {
        while cx.output.is_empty() {
            match &mut self.state {
                State::Asking => return Ok(()),
                State::Head => {
                    if !self.next_request(cx)? {
                        return Ok(());
                    }
                }
                State::Waiting { place, .. } => {
                    let place = place.take();
                    self.state = self.retry(cx, place)?;
                    if matches!(self.state, State::Waiting { .. }) {
                        return Ok(());
                    }
                }
                State::Sending { .. } => {
                    if !self.fill(cx)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts more of the body into the output. False when it has to wait, or there is no body.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let State::Sending { body, keep_alive, park } = &mut self.state else { return Ok(false) };
        match body.fill(cx) {
            Fill::Queued => *park = None,
            Fill::Parked => {
                park.get_or_insert_with(|| {
                    after(cx.now, cx.shared.limits.park_timeout, Reason::ParkedTooLong)
                });
                return Ok(false);
            }
            // The reader must not take what it has for the whole (RFC 9112 §8).
            Fill::Lost => return Err(End::Reset(Reason::ContentLost)),
            // The head alone is queued, of an answer without bytes.
            Fill::Finished if !cx.output.is_empty() => return Ok(false),
            Fill::Finished => {
                let goes_on = *keep_alive;
                cx.output.release();
                self.end_of_answer(cx, goes_on)?;
            }
        }
        Ok(true)
    }

    fn end_of_answer(&mut self, cx: &mut Context<'_>, keep_alive: bool) -> Step {
        self.state = State::Head;
        let took_ns = cx.now.monotonic_ns.saturating_sub(self.asked.monotonic_ns);
        cx.shared.counters.request_durations.record_ns(took_ns);
        if !keep_alive || cx.shared.draining {
            return Err(End::AfterOutput(Reason::EndOfAnswer));
        }
        self.head_by = after(cx.now, cx.shared.limits.idle_timeout, Reason::Idle);
        Ok(())
    }

    /// Takes the next request from the input. False when there is none yet.
    fn next_request(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let input = std::mem::take(&mut self.input);
        if let Some(head_bytes) = self.answer_familiar(cx, &input)? {
            self.put_back(input, head_bytes);
            return Ok(true);
        }
        match request::parse(&input, &head_limits(&cx.shared.limits)) {
            Parsed::NeedMore if self.input_ended => Err(End::Now(Reason::PeerClosed)),
            Parsed::NeedMore => {
                self.input = input;
                if !self.receiving {
                    self.receiving = true;
                    cx.ops.push(Op::Receive { conn: cx.conn });
                }
                Ok(false)
            }
            Parsed::Bad(refusal) => {
                cx.shared.counters.requests.increment();
                answer::refusal(cx, refusal);
                Err(End::AfterOutput(Reason::BadRequest))
            }
            Parsed::Request { head_bytes, request } => {
                cx.shared.counters.requests.increment();
                self.asked = cx.now;
                let begun = self.answer(cx, &request, route::answer)?;
                self.familiar = match &self.state {
                    State::Sending { body, .. } => Familiar::of(cx, &input[..head_bytes], &request, body),
                    _ => None,
                };
                self.put_back(input, if begun { head_bytes } else { 0 });
                Ok(!matches!(self.state, State::Asking | State::Waiting { .. }))
            }
        }
    }

    /// Answers the request at the start of `input` if it is the last one again, with other numbers. Returns the bytes of its head.
    fn answer_familiar(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Result<Option<usize>, End> {
        let Some(familiar) = &self.familiar else { return Ok(None) };
        let Some((head_bytes, range)) = familiar.read(input) else { return Ok(None) };
        let Some(body) = familiar.answer(cx, range) else { return Ok(None) };
        let keep_alive = familiar.keeps_alive() && !cx.shared.draining;
        cx.shared.counters.requests.increment();
        self.asked = cx.now;
        self.send(cx, body, keep_alive)?;
        Ok(Some(head_bytes))
    }

    /// Looks again at the request whose answer could not begin.
    fn retry(&mut self, cx: &mut Context<'_>, place: Option<Place>) -> Result<State, End> {
        let State::Waiting { give_up, .. } = self.state else { return Ok(State::Head) };
        self.state = State::Head;
        self.with_request(cx, |cx, request| match place {
            Some(place) => answer::file(cx, request, place),
            None => route::answer(cx, request),
        })?;
        Ok(match std::mem::replace(&mut self.state, State::Head) {
            State::Waiting { place, .. } => State::Waiting { place, give_up },
            other => other,
        })
    }

    /// Lets `act` answer the request that waits at the start of the input, and takes it away when its answer has begun.
    fn with_request(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Context<'_>, &Request<'_>) -> Result<Reply, End>,
    ) -> Step {
        let input = std::mem::take(&mut self.input);
        let Parsed::Request { head_bytes, request } = request::parse(&input, &head_limits(&cx.shared.limits))
        else {
            unreachable!("the head was parsed before, and has not changed")
        };
        let begun = self.answer(cx, &request, act)?;
        self.put_back(input, if begun { head_bytes } else { 0 });
        Ok(())
    }

    /// Lets `act` answer a request. False when the answer cannot begin yet.
    fn answer(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        act: impl FnOnce(&mut Context<'_>, &Request<'_>) -> Result<Reply, End>,
    ) -> Result<bool, End> {
        // A body that nobody reads cannot be told from the next request: answer, and end (RFC 9112 §9.3).
        let keep_alive = request.keep_alive && request.body == RequestBody::None && !cx.shared.draining;
        match act(cx, request)? {
            Reply::Ask(question) => {
                cx.ops.push(Op::Ask { conn: cx.conn, question });
                self.state = State::Asking;
                return Ok(false);
            }
            Reply::Wait(place) => {
                let give_up = after(cx.now, cx.shared.limits.park_timeout, Reason::ParkedTooLong);
                self.state = State::Waiting { place, give_up };
                return Ok(false);
            }
            Reply::Whole => self.end_of_answer(cx, keep_alive)?,
            Reply::Body(body) => {
                let keep_alive = keep_alive && body.is_framed();
                self.send(cx, body, keep_alive)?;
            }
        }
        Ok(true)
    }

    /// Goes on from the head of an answer to its body.
    fn send(&mut self, cx: &mut Context<'_>, body: Body, keep_alive: bool) -> Step {
        self.state = State::Sending { body, keep_alive, park: None };
        // Head and first bytes go out together: alone, the head would be a segment of its own.
        self.fill(cx).map(|_| ())
    }

    /// Gives the input back without its first `taken` bytes.
    fn put_back(&mut self, mut input: Vec<u8>, taken: usize) {
        input.drain(..taken);
        // An idle connection holds no more than the room of a usual request.
        if !input.is_empty() || input.capacity() <= INPUT_BYTES_KEPT {
            self.input = input;
        }
    }
}

fn head_limits(limits: &Limits) -> request::Limits {
    request::Limits { head_bytes_max: limits.head_bytes_max, ..request::Limits::default() }
}
