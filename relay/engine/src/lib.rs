//! The shard of a relay as a state machine.
//!
//! [`Shard::handle`](shard::Shard::handle) takes the time and one [`Event`](event::Event) and appends [`Op`](op::Op)s for a back
//! end to carry out. There is no I/O here, no clock, no randomness and no unsafe: the same code runs over io_uring, over epoll and
//! over a simulation.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod counters;
pub mod durations;
pub mod event;
pub mod ids;
pub mod ledger;
pub mod limits;
pub mod op;
pub mod output;
pub mod shard;

mod access;
mod bittorrent;
mod http;
#[cfg(test)]
mod idle_tests;
mod session;
