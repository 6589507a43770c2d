//! What the two programs of an upgrade say to each other. A change that the other side would misunderstand is a new [`PROTOCOL`].

use std::ops::Range;
use std::path::PathBuf;

use millrace_proto::id::ContentId;
use serde::{Deserialize, Serialize};

/// Version of all of this. A program refuses to take over from one that speaks another, which then goes on.
pub(super) const PROTOCOL: u32 = 1;

/// Runs in one message, so that it stays far below what a socket takes at once.
pub(super) const RUNS_MAX: usize = 1024;

/// A message; JSON on the wire, one to a packet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub(super) enum Message {
    /// Both begin with it.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Of the program, for people.
        version: String,
    },
    /// Comes with one descriptor.
    Descriptor {
        /// What it is.
        role: Role,
    },
    /// What the two have to have in common.
    Store {
        /// Folder of the store.
        folder: PathBuf,
        /// Whether the file of the admin socket is the relay's to remove.
        owns_admin_file: bool,
        /// BitTorrent peer id, as hexadecimal digits: to trackers it goes on being one peer.
        peer_id: String,
    },
    /// What is here of a content and in no file that says so.
    Content(Loose),
    /// Nothing more is given; the running program writes nothing any more.
    All,
    /// The new program has all it needs, and waits.
    Ready,
    /// The new program ends, and why.
    Failed {
        /// For the operator.
        why: String,
    },
    /// From here on the new program is the relay.
    Go {
        /// How often caps were halved, of which it enforces that share.
        halvings: u32,
    },
    /// A reader of the old program waits for bytes.
    Demand {
        /// Of this content.
        id: ContentId,
        /// From here on.
        offset: u64,
        /// So many.
        bytes: u64,
    },
    /// What has become of a content that the old program's readers wait for.
    Bytes {
        /// The content.
        id: ContentId,
        /// These may be served; the first begins where a block does.
        visible: Option<Range<u64>>,
        /// All of it is here, and this is how much that is.
        ended: Option<u64>,
        /// Whether more will come.
        fate: Fate,
    },
    /// The files of a content are about to lose their names.
    Leaving {
        /// The content.
        id: ContentId,
    },
    /// The old program opens none of its files any more.
    Left {
        /// The content.
        id: ContentId,
    },
}

/// What a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    /// A listening socket of HTTP.
    Http,
    /// A listening socket of HTTPS.
    Https,
    /// A listening socket of BitTorrent.
    BitTorrent,
    /// The UDP side of the BitTorrent port.
    Udp,
    /// Where the pages for people are served.
    Pages,
    /// Where metrics are served.
    Metrics,
    /// The admin socket.
    Admin,
    /// The store's lock.
    Lock,
}

/// What waiting for a content comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fate {
    /// More may come.
    Open,
    /// The pull has failed, for now.
    Failed {
        /// For who asks.
        why: Option<String>,
    },
    /// It is gone.
    Removed,
}

/// The bytes of a content that are on the disk and that nothing there vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loose {
    /// The content.
    pub(crate) id: ContentId,
    /// What is being served of them, where hashes are not known.
    pub(crate) visible: Vec<Range<u64>>,
    /// What waits for the rest of its piece, where they are.
    pub(crate) arrived: Vec<Range<u64>>,
}
