//! What `status` and `GET /v1/caps?layer=effective` say of caps.

use serde::{Deserialize, Serialize};

use super::effective::EffectiveGrant;
use super::{Cap, EffectiveCaps, Source, Window};

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
    /// What came from origins in each window, capped or not.
    #[serde(default)]
    pub origin_volume: Vec<VolumeStatus>,
    /// What came from each origin that needs a grant.
    #[serde(default)]
    pub origin_grants: Vec<GrantStatus>,
    /// Why nothing new is asked of origins, where that is so.
    #[serde(default)]
    pub pulls_wait: Option<Wait>,
}

/// What came from origins in a window of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Which window.
    pub window: Window,
    /// Bytes of bodies that have come in it.
    pub used: u64,
    /// Bytes that may still be asked for, what is on its way taken off; `None` is unlimited.
    pub left: Option<u64>,
    /// The cap.
    pub bytes: Cap,
    /// When the window ends, in local time as RFC 3339.
    pub ends_at: String,
}

/// A grant, and what of it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantStatus {
    /// The grant.
    #[serde(flatten)]
    pub grant: EffectiveGrant,
    /// Bytes of bodies that have come by it.
    pub used: u64,
    /// Bytes that may still be asked for, what is on its way taken off; 0 when it is over.
    pub left: u64,
}

/// What something waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Which cap, in words.
    pub why: String,
    /// Until when, as RFC 3339; `None` is until somebody changes it.
    pub until: Option<String>,
    /// Where the cap stands.
    #[serde(flatten)]
    pub source: Option<Source>,
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
