//! The io_uring back end of a shard: turns engine operations into requests, and completions into events.
//!
//! [`probe()`] tells whether this host allows it, [`reserve`] makes the ring of a shard, [`run`] runs a shard on it until it is
//! drained. The ring gives readiness, connections, received bytes and reads past the page cache; sending is done by `millrace-send`,
//! the same as over epoll, but for zero-copy sends out of what was read so.
//!
//! **Receiving and pauses.** A connection that receives has one multishot receive in flight, and the kernel picks a buffer for each
//! piece. `Op::PauseReceive` cancels it. What the kernel had received before the cancellation took effect is still delivered, in
//! order, as `Event::Received`: nothing is held back, since it would have to be held in memory that no limit accounts for, while the
//! engine has such limits and enforces them. It is little: the kernel stops after 32 pieces (128 KiB) of one connection in
//! each loop.
//!
//! **Lifetimes.** Whatever the kernel may still write to is owned by a record until the terminal completion, and leaked where a
//! panic ends the loop before that. What the kernel only reads is its own until then, see `zero_copy.rs`.

mod buffers;
mod driver;
mod listeners;
mod mapping;
pub mod probe;
mod reads;
mod records;
mod reservation;
mod ring;
mod table;
mod token;
mod zero_copy;

pub use driver::run;
pub use probe::{Probe, probe};
pub use reservation::{Reservation, reserve};
pub use ring::Mode;
