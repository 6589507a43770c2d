//! `caps.json` in the store's folder: both layers, so that they outlive the process, and what was configured when they were written.

use std::io;
use std::path::{Path, PathBuf};

use millrace_pagecache::disk::replace_file;
use millrace_proto::admin::caps::{Caps, CapsError, Layer, Layers};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const NAME: &str = "caps.json";
const VERSION: u32 = 1;

/// Why the caps of the last run cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CapsFileError {
    /// It is not what was written.
    #[error(
        "{path} is damaged ({why}): put back a copy of it, or remove it to begin with the caps of the configuration alone"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It cannot be read.
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The configuration does not go with the controller's layer.
    #[error("the configured caps do not go with the controller's in {path}: {error}")]
    Conflict {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: CapsError,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    configured: Value,
    local: Value,
    controller: Value,
}

/// What holds at start, and whether the local layer is that of the configuration.
pub(super) struct Loaded {
    pub(super) layers: Layers,
    pub(super) changed: bool,
}

/// Reads the layers. The operator's newest word counts: what was set while a relay ran, unless the configuration was changed since.
pub(super) fn load(folder: &Path, configured: &Caps) -> Result<Loaded, CapsFileError> {
    let path = folder.join(NAME);
    let damaged = |why: String| CapsFileError::Damaged { path: path.clone(), why };
    let (before, local, controller) = match std::fs::read(&path) {
        Ok(bytes) => {
            let file: File = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
            if file.version != VERSION {
                return Err(damaged(format!("version {} is not known to this program", file.version)));
            }
            let caps = |name: &str, value| {
                Caps::from_value(value).map_err(|error| damaged(format!("{name}: {error}")))
            };
            let before = caps("configured", file.configured)?;
            (Some(before), caps("local", file.local)?, caps("controller", file.controller)?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (None, configured.clone(), Caps::default()),
        Err(error) => return Err(CapsFileError::Unreadable { path, error }),
    };
    let is_newer = before.as_ref().is_some_and(|before| before != configured);
    if is_newer && local != *configured {
        tracing::warn!(
            replaced = local.canonical(),
            "the caps of the configuration were changed: they replace those that were set while the relay ran"
        );
    }
    let local = if is_newer { configured.clone() } else { local };
    let changed = local != *configured;
    let layers = Layers::new(local, controller).map_err(|error| CapsFileError::Conflict { path, error })?;
    Ok(Loaded { layers, changed })
}

/// Writes the layers so that a crash leaves the old ones or the new ones.
pub(super) fn save(folder: &Path, configured: &Caps, layers: &Layers) -> io::Result<()> {
    let file = File {
        version: VERSION,
        configured: configured.to_value(),
        local: layers.layer(Layer::Local).to_value(),
        controller: layers.layer(Layer::Controller).to_value(),
    };
    replace_file(folder, NAME, &serde_json::to_vec_pretty(&file).map_err(io::Error::other)?)
}
