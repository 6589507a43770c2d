//! Engine operations over a simulated kernel, disk, network and clock.
//!
//! The real [`Shard`](millrace_engine::shard::Shard) and the real store logic run here over a model in which one seed decides
//! everything: how much a socket takes, in which pieces bytes arrive, when a disk fails. Content bytes are a pure function of a seed
//! and their position, so every byte that a client receives can be checked without storage.
#![forbid(unsafe_code)]

pub mod bytes;
mod cap;
pub mod crowd;
pub mod disk;
pub mod encrypted;
pub mod kernel;
pub mod peer;
pub mod pull;
pub mod random;
pub mod socket;
mod trace;
pub mod world;
