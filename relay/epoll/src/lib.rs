//! Engine operations over epoll, for hosts and containers that forbid `io_uring`. It sends as the ring does (`millrace-send`), and differs
//! in readiness, in receiving and in how it waits for the disk.
//!
//! Connections are registered once, edge-triggered: what the kernel reports is remembered in the connection table and used when the
//! engine wants it, so pausing a connection or waiting for a full socket costs no system call. Listeners, the mailbox and the disk
//! thread are level-triggered.
#![forbid(unsafe_code)]

mod driver;
mod listeners;
mod table;
mod token;

pub use driver::run;
