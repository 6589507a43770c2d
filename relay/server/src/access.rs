//! Who is let in, from the configuration to the shards; and the commands that make keys and sign URLs, which need no relay.

mod sign;

use std::io;
use std::path::{Path, PathBuf};

use millrace_engine::event::News;
use millrace_engine::ledger::gate::Gate;
use millrace_proto::access::signature::Keys;

use crate::config::AccessConfig;
use crate::relay::Relay;

pub(crate) use sign::{keys, sign};

/// Why keys cannot be used. Each message names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("access.keys: {}: {source}; name a file that user {} may read", path.display(), nix::unistd::geteuid())]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// There is something else in it.
    #[error("access.keys: {}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, without secrets.
        problem: String,
    },
}

/// Reads a file of keys.
pub(crate) fn read_keys(path: &Path) -> Result<Keys, KeysError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| KeysError::File { path: path.to_owned(), source })?;
    Keys::parse(&text).map_err(|problem| KeysError::Content { path: path.to_owned(), problem })
}

/// Who is let in by a configuration. The keys are read anew each time.
///
/// # Errors
/// See [`KeysError`].
pub fn gate(config: &AccessConfig) -> Result<Gate, KeysError> {
    let AccessConfig { default, rules, keys } = config;
    let keys = keys.as_deref().map(read_keys).transpose()?.unwrap_or_default();
    Ok(Gate { rules: rules.clone(), keys, default: default.clone() })
}

/// Lets in by this from now on.
pub(crate) fn replace(relay: &Relay, gate: Gate) {
    let keys: Vec<_> = gate.keys.ids().collect();
    tracing::info!(keys = %keys.join(" "), default = %gate.default, "who is let in");
    let gate = relay.ledger.set_gate(gate);
    relay.shards.broadcast(|| News::Gate(std::sync::Arc::clone(&gate)));
}
