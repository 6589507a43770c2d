//! What a relay and a service manager (systemd) have to say to each other: [`notify`] when it is ready, reloads or stops,
//! [`supervise`](mod@supervise) that every shard turns, [`reload`] that the configuration changed, and which sockets are [`inherited`]. Without a manager
//! all of it is silent.

pub mod inherited;
mod notify;
mod reload;
mod supervise;

pub(crate) use notify::{Notify, State};
pub(crate) use reload::Reload;
pub(crate) use supervise::{Supervision, status, watchdog_interval};
