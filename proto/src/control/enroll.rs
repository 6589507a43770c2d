//! Enrolment: how an agent's key becomes known to a controller, and the controller's to the agent.

use serde::{Deserialize, Serialize};

use super::signed::PublicKey;

/// `POST /v1/enroll`. The same key with the same token again answers with the same relay, as an answer can be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Enroll {
    /// The version of the protocol that the agent speaks.
    pub protocol: u32,
    /// What the controller gave out for this relay, once.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 4096))]
    pub token: String,
    /// The agent's key: it signs the token of each connection.
    pub key: PublicKey,
    /// What the operator calls this box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 255))]
    pub name: Option<String>,
    /// Version of the agent.
    pub version: String,
}

/// The answer to [`Enroll`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enrolled {
    /// The name of this relay, which every document for it carries.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub relay: String,
    /// Where the agent connects to: `wss://…`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^wss://.+"))]
    pub url: String,
    /// The keys that documents are signed with.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 8))]
    pub keys: Vec<PublicKey>,
}
