//! The relay program as a library: configuration, start-up, ingest and control around the shards.
//!
//! `main` calls [`run`] and nothing else. The modules are public so that tests can start a relay inside their own process.
#![forbid(unsafe_code)]

pub mod access;
mod backend;
pub mod caps;
pub mod cli;
mod client;
pub mod config;
pub mod control;
pub mod demo;
mod doctor;
pub mod ingest;
pub mod listen;
pub mod logging;
pub mod machine;
pub mod origins;
pub mod relay;
mod run;
mod serve;
pub mod service;
pub mod shards;
mod sockets;
pub mod start;
mod terminal;
pub mod tls;
mod top;
pub mod upgrade;
pub mod verify;

pub use run::run;
