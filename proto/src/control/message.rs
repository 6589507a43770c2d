//! The messages of the WebSocket, each a text of JSON with its `type`.

use serde::{Deserialize, Serialize};

use super::report::Report;
use super::signed::PublicKey;

/// What a controller says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToAgent {
    /// What the relay should be. Sent after `hello`, and whenever it changes; sending it again does nothing.
    State {
        /// A desired state, signed.
        document: String,
    },
}

/// What an agent says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToController {
    /// The first message of a connection.
    Hello {
        /// The version of the protocol that the agent speaks.
        protocol: u32,
        /// Version of the agent.
        version: String,
        /// The relay.
        relay: String,
        /// Sequence of the state that it holds; `null` is none yet.
        sequence: Option<u64>,
        /// The keys that it takes documents of.
        keys: Vec<PublicKey>,
    },
    /// A document was verified and kept; the relay is being brought to it.
    Accepted {
        /// Its sequence.
        sequence: u64,
    },
    /// A message was refused. Nothing is changed by it.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// How things are: at intervals, and soon after something changed.
    Report {
        /// Box, relay, contents.
        report: Box<Report>,
    },
}

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{detail}")]
pub struct Refusal {
    /// The kind.
    pub reason: RefusalReason,
    /// In words.
    pub detail: String,
    /// The sequence of the refused document, where its signature was good.
    #[serde(default)]
    pub sequence: Option<u64>,
}

/// Kinds of refusals, in the order in which they are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// No message of this protocol.
    Malformed,
    /// The document is not signed by Ed25519.
    Unsigned,
    /// It is signed by a key that is not, or no longer, accepted.
    UnknownKey,
    /// The signature is not that of the document.
    BadSignature,
    /// What is signed is no desired state, or has values that it cannot have.
    Unusable,
    /// It is for another relay.
    OtherRelay,
    /// Its sequence is smaller than that of the state held.
    Older,
    /// It has the sequence of the state held, and says something else.
    Changed,
    /// It is not to be accepted any more.
    Expired,
    /// It could not be kept: the disk failed.
    NotKept,
}
