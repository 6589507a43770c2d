//! Why ingest does not start, and why a content is not added.

use millrace_proto::id::ContentId;

use super::answer::Refused;
use super::client::{ClientError, FetchError};
use super::origin::OriginError;

/// Ingest that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The clients cannot be set up.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The thread cannot be started.
    #[error("cannot start the ingest thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A content that is not added, or not found.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AddError {
    /// Neither sources nor a torrent.
    #[error("no source: name a URL, a path or a .torrent")]
    NoSource,
    /// A key of the request.
    #[error("{0}")]
    BadRequest(String),
    /// The source is here, and nothing says that its digest is the wanted one.
    #[error(
        "this source is here already as {0}, not with this SHA-256: remove that first, or add it without"
    )]
    OtherDigest(ContentId),
    /// Not a source that can be pulled from.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// A magnet link.
    #[error(
        "pulling from swarms is not built yet: give the .torrent, or a URL of the file, instead of the magnet link"
    )]
    Magnet,
    /// A local path from somebody else than the operator.
    #[error("only the operator may add local files")]
    LocalPath,
    /// Several sources where one is expected.
    #[error("a local path cannot be combined with other sources")]
    Mixed,
    /// No torrent, or one that cannot be used.
    #[error("the torrent cannot be used: {0}")]
    Torrent(String),
    /// A torrent that names no web seed.
    #[error("the torrent has no web seed, and pulling from swarms is not built yet: add a URL of its files")]
    NoWebSeed,
    /// No metalink, or one that cannot be used.
    #[error("the metalink cannot be used: {0}")]
    Metalink(String),
    /// A local file that cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// The path.
        path: String,
        /// What the system said.
        error: String,
    },
    /// No origin answered with the file.
    #[error("{url}: {error}")]
    Fetch {
        /// The origin asked last.
        url: String,
        /// What came of it.
        error: FetchError,
    },
    /// The caps on origins let nothing be asked.
    #[error("{0}: change that with `caps set`, or add it again later")]
    Capped(String),
    /// There is no room.
    #[error("{0}")]
    NoRoom(String),
    /// The store refused.
    #[error("{0}")]
    Store(String),
    /// No such content.
    #[error("there is no such content")]
    Absent,
    /// The relay is stopping.
    #[error("the relay is stopping")]
    Stopping,
}

impl AddError {
    /// Whether an origin was asked and says that there is no such file (404 or 410).
    #[must_use]
    pub fn is_absent_at_origin(&self) -> bool {
        let AddError::Fetch { error: FetchError::Refused(Refused::Status(status)), .. } = self else {
            return false;
        };
        matches!(status.as_u16(), 404 | 410)
    }

    /// The HTTP status that says the same.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            AddError::Fetch { .. } => 502,
            AddError::Absent => 404,
            AddError::OtherDigest(_) => 409,
            AddError::NoRoom(_) => 507,
            AddError::Store(_) => 500,
            AddError::Stopping | AddError::Capped(_) => 503,
            _ => 422,
        }
    }
}
