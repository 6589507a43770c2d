//! A scripted peer drives a shard directly: no sockets, no clock, bytes that are a function of their offset. One short test a rule.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and makes its own numbers"
)]

mod asking;
mod choking;
mod hostile;
mod opening;
mod torrents;
mod wire;
