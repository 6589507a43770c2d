//! The one send path of a Millrace relay: page references, sendfile, the pipe, the header table.
//!
//! Both back ends carry out `Op::Send` here, and share what else they have in common: the mailbox of a shard, its set-up and the
//! options of its sockets, the decision how absent bytes are read, and the threads that wait for the disk. They differ in readiness, in
//! receiving, and in who carries out reads past the page cache.

mod calls;
pub mod clock;
pub mod cold;
mod corked;
pub mod disk;
pub mod header_table;
mod kept;
pub mod mailbox;
pub mod outcome;
mod pipe;
mod plan;
mod reference;
mod residency;
mod sealed;
pub mod selftest;
pub mod sender;
pub mod setup;
mod slice;
pub mod socket;
pub mod tls;
pub mod zero_copy;

pub use header_table::HeaderTables;
pub use mailbox::{Mailbox, Postbox};
pub use outcome::{Absent, Outcome, Residency, SendPath, Way};
pub use selftest::{Probe, probe};
pub use sender::Sender;
pub use setup::{Front, Outward, Setup};
pub use tls::Flushed;
