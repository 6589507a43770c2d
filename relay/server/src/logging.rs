//! The log: events of `tracing` on stderr, as lines for people or as JSON. `MILLRACE_LOG` chooses levels and modules.

use std::io::IsTerminal;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// Where the log goes; a terminal's progress bars lend theirs.
pub type Writer = fn() -> Box<dyn std::io::Write>;

/// Starts logging for the whole process. A second call does nothing.
pub fn start(format: LogFormat, writer: Writer) {
    let chosen = std::env::var("MILLRACE_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = chosen.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => layer.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let started = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

/// Standard error.
#[must_use]
pub fn stderr() -> Box<dyn std::io::Write> {
    Box::new(std::io::stderr())
}
