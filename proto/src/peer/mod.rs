//! The BitTorrent peer wire: handshake, frames, extension messages (BEP 3, 6, 9, 10, 21, 52, 54), and what some peers wrap the handshake
//! in ([`mse`]).
//!
//! Bytes arrive through [`handshake::Handshake::parse`] once and [`frame::next_frame`] afterwards; what leaves is
//! written by [`message::Message::encode`] into a buffer the caller owns. Nothing on that path allocates.

pub mod allowed_fast;
pub mod bitfield;
mod encode;
pub mod extension;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod metadata;
pub mod mse;
pub mod priority;
