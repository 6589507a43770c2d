//! `origin-usage.json` in the store's folder: what has come from origins in each window, so that a restart does not forget.

use std::io;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, Zoned};
use millrace_pagecache::disk::replace_file;
use millrace_proto::admin::caps::Window;
use serde::{Deserialize, Serialize};

use super::granted::Granted;
use super::volume::Windows;

const NAME: &str = "origin-usage.json";
const VERSION: u32 = 1;

/// What was counted cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}, which counts what came from origins, cannot be used ({why}): put back a copy of it, or remove it to count from nothing"
)]
pub struct UsageError {
    path: PathBuf,
    why: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    windows: Vec<Used>,
    /// Left out where there are none, so that a relay that knows of none can read it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    grants: Vec<UsedGrant>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsedGrant {
    origin: String,
    id: String,
    bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Used {
    window: Window,
    /// Seconds since 1970.
    began: i64,
    bytes: u64,
}

/// Goes on counting from what the file says, if there is one.
pub(super) fn load(
    folder: &Path,
    windows: &mut Windows,
    granted: &mut Granted,
    now: &Zoned,
) -> Result<(), UsageError> {
    let path = folder.join(NAME);
    let failed = |why: String| UsageError { path: path.clone(), why };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error.to_string())),
    };
    let file: File = serde_json::from_slice(&bytes).map_err(|error| failed(format!("damaged: {error}")))?;
    if file.version != VERSION {
        return Err(failed(format!("version {} is not known to this program", file.version)));
    }
    for used in file.windows {
        let began = Timestamp::from_second(used.began).map_err(|error| failed(error.to_string()))?;
        windows.restore(used.window, began, used.bytes, now);
    }
    for UsedGrant { origin, id, bytes } in file.grants {
        granted.restore(origin, id, bytes);
    }
    Ok(())
}

/// The file's text. What is on its way counts as come: it may have by the time that anybody reads this.
pub(super) fn text(windows: &Windows, granted: &Granted) -> Vec<u8> {
    let used = windows.counted().iter().map(|counted| Used {
        window: counted.window,
        began: counted.began.as_second(),
        bytes: counted.used.saturating_add(windows.reserved()),
    });
    let grants = granted.counted().map(|(origin, id, bytes)| UsedGrant {
        origin: origin.to_owned(),
        id: id.to_owned(),
        bytes,
    });
    let file = File { version: VERSION, windows: used.collect(), grants: grants.collect() };
    // Numbers and names are always JSON.
    serde_json::to_vec_pretty(&file).unwrap_or_default()
}

/// Puts it in place of the one before.
pub(super) fn save(folder: &Path, text: &[u8]) -> io::Result<()> {
    replace_file(folder, NAME, text)
}
