//! The log: events of `tracing` on stderr, as lines for people or as JSON. `MILLRACE_LOG` chooses levels and modules.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Where the log goes; a terminal's progress bars lend theirs.
pub type Writer = fn() -> Box<dyn std::io::Write>;

/// Starts logging for the whole process. A second call does nothing.
pub fn start(format: LogFormat, writer: Writer) {
    let filter = EnvFilter::try_from_env("MILLRACE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

/// Standard error.
#[must_use]
pub fn stderr() -> Box<dyn std::io::Write> {
    Box::new(std::io::stderr())
}
