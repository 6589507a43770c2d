//! What `status` and `GET /v1/caps?layer=effective` say of caps.

use serde::{Deserialize, Serialize};

use super::EffectiveCaps;

/// What holds, whose it is, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapsStatus {
    /// The local time that this was told at, as RFC 3339: what schedules go by.
    pub now: String,
    /// When another set of schedule entries will be in force, as RFC 3339; `None` if that never happens.
    pub changes_at: Option<String>,
    /// Where the local layer comes from.
    pub local_from: LocalFrom,
    /// The values.
    #[serde(flatten)]
    pub effective: EffectiveCaps,
}

/// Where the local layer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalFrom {
    /// From flags and configuration file.
    Configuration,
    /// It was set while a relay ran, and holds instead of what is configured.
    Admin,
}
