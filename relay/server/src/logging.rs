//! The log: events of `tracing` on stderr, as lines for people or as JSON. `MILLRACE_LOG` chooses levels and modules.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry};

use crate::config::LogFormat;

/// Where the log goes; a terminal's progress bars lend theirs.
pub type Writer = fn() -> Box<dyn std::io::Write>;

/// What is logged, which may change while the process runs.
#[derive(Debug, Clone)]
pub struct Levels(Option<reload::Handle<Targets, Registry>>);

impl Levels {
    /// From now on these, unless `MILLRACE_LOG` has chosen.
    pub fn set(&self, levels: &Targets) {
        if let Some(handle) = &self.0
            && handle.reload(levels.clone()).is_err()
        {
            tracing::warn!("log-level cannot be changed any more");
        }
    }
}

/// Reads levels: one for everything, and others for modules, as in `info,millrace_relay::ingest=debug`.
///
/// # Errors
/// What to write instead.
pub fn levels(text: &str) -> Result<Targets, String> {
    let problem = "write off, error, warn, info, debug or trace, or MODULE=LEVEL, several behind commas";
    // A word that is no level would be taken for a module of which everything is logged.
    let level =
        |part: &str| part.rsplit('=').next().is_some_and(|level| level.parse::<LevelFilter>().is_ok());
    if !text.split(',').all(level) {
        return Err(problem.to_owned());
    }
    text.parse().map_err(|_| problem.to_owned())
}

/// Starts logging for the whole process at these levels, or at those of `MILLRACE_LOG`, which then stay. A second call does nothing.
pub fn start(format: LogFormat, levels: &Targets, writer: Writer) -> Levels {
    let chosen = std::env::var("MILLRACE_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let is_chosen = chosen.is_some();
    let (filter, handle) = reload::Layer::new(chosen.unwrap_or_else(|| levels.clone()));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => layer.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let started = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    Levels((!is_chosen).then_some(handle))
}

/// Standard error.
#[must_use]
pub fn stderr() -> Box<dyn std::io::Write> {
    Box::new(std::io::stderr())
}
