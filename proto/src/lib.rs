//! Wire formats and protocol state of Millrace, without I/O, clock or threads.
//!
//! Everything here is a pure function of its input: it builds for `wasm32-unknown-unknown` as the proof.
#![forbid(unsafe_code)]

pub mod access;
pub mod admin;
pub mod bencode;
pub mod control;
pub mod http;
pub mod id;
pub mod magnet;
pub mod merkle;
pub mod metainfo;
pub mod metalink;
mod octets;
pub mod peer;
pub mod tracker;
pub mod units;

pub use octets::NoRoom;
