//! What a controller and the agent of a relay say to each other: enrolment over HTTPS, then JSON messages over a WebSocket.
//!
//! The controller says what a relay should be as signed documents ([`signed`], [`state`]); the agent says what is
//! ([`report`]). `docs/control-protocol.md` tells it in plain words. Times are seconds since 1970.

mod enroll;
mod message;
pub mod report;
#[cfg(feature = "openapi")]
pub mod schema;
pub mod signed;
pub mod state;

pub use enroll::{Enroll, Enrolled};
pub use message::{Refusal, RefusalReason, ToAgent, ToController};
pub use report::Report;
pub use signed::PublicKey;
pub use state::{DesiredState, StateError};

/// The version of all this that both sides name.
pub const PROTOCOL: u32 = 1;

/// Where a relay is enrolled, beneath the controller's URL.
pub const ENROLL_PATH: &str = "/v1/enroll";

/// Seconds that the token of a connection is good for.
pub const TOKEN_SECONDS: u64 = 300;
