//! What somebody at a terminal sees: where the relay answers, a bar for each pull, and at the end what was moved. Elsewhere only the
//! log speaks.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use millrace_pagecache::State;
use millrace_proto::id::ContentId;
use millrace_proto::units::Size;

use crate::logging;
use crate::relay::Relay;

/// Bars shown at one time.
const BARS_MAX: usize = 10;

/// The bars of the process; log lines are written above them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// The terminal of `serve`, if there is one.
pub(crate) struct Terminal {
    bars: Option<Mutex<HashMap<ContentId, ProgressBar>>>,
}

/// Writes a log line above the bars.
struct AboveBars;

impl std::io::Write for AboveBars {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        BARS.suspend(|| std::io::stderr().write(line))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

impl Terminal {
    pub(crate) fn new() -> Self {
        Terminal { bars: std::io::stderr().is_terminal().then(Mutex::default) }
    }

    /// Where the log goes.
    pub(crate) fn log_writer(&self) -> logging::Writer {
        if self.bars.is_some() { || Box::new(AboveBars) } else { logging::stderr }
    }

    /// How often to show progress.
    pub(crate) fn interval(&self) -> Duration {
        if self.bars.is_some() { Duration::from_millis(200) } else { Duration::from_secs(10) }
    }

    /// Says where the relay answers.
    pub(crate) fn announce(&self, relay: &Relay) {
        if self.bars.is_none() {
            tracing::info!(
                page = %relay.public_url, http = %relay.http, https = relay.https.map(tracing::field::display), bittorrent = %relay.bittorrent,
                admin = %relay.config.admin.display(), "serving"
            );
            return;
        }
        eprintln!("Page        {}", relay.public_url);
        eprintln!("HTTP        {}   BitTorrent {}", relay.http, relay.bittorrent);
        if let Some(https) = relay.https {
            eprintln!("HTTPS       {https}");
        }
        eprintln!("Admin       {}", relay.config.admin.display());
        if let Some(metrics) = relay.metrics {
            eprintln!("Metrics     http://{metrics}/metrics");
        }
    }

    /// Moves the bars.
    pub(crate) fn show(&self, relay: &Relay) {
        let Some(bars) = &self.bars else { return };
        let mut bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
        for id in relay.ingest.pulls().into_iter().filter_map(|pull| pull.content) {
            if bars.len() < BARS_MAX
                && !bars.contains_key(&id)
                && let Some(content) = relay.store.get(id)
            {
                let bar = BARS.add(new_bar(content.length()));
                bar.set_message(content.name().replace(char::is_control, "?"));
                bars.insert(id, bar);
            }
        }
        bars.retain(|id, bar| {
            let content = relay.store.get(*id);
            if let Some(content) = content.as_ref().filter(|content| content.state() == State::Pulling) {
                if let Some(length) = content.length() {
                    bar.set_length(length);
                }
                bar.set_position(content.visible_bytes());
                return true;
            }
            bar.finish_and_clear();
            if let Some(content) = content.filter(|content| content.is_complete()) {
                say_complete(relay, &content);
            }
            false
        });
    }

    /// Takes the bars away.
    pub(crate) fn clear(&self) {
        if self.bars.is_some() {
            let _ = BARS.clear();
        }
    }

    /// Says what was moved.
    pub(crate) fn summary(&self, relay: &Relay) {
        let sum = |count: fn(&millrace_engine::counters::Counters) -> u64| {
            Size(relay.counters.iter().map(|counters| count(counters)).sum())
        };
        let http = sum(|counters| counters.served_http_bytes.value());
        let bittorrent = sum(|counters| counters.served_bittorrent_bytes.value());
        let origin = Size(relay.ingest.metrics().origin_bytes.value());
        match &self.bars {
            Some(_) => {
                eprintln!("Served {http} by HTTP and {bittorrent} by BitTorrent; took {origin} from origins.")
            }
            None => tracing::info!(%http, %bittorrent, %origin, "stopped"),
        }
    }
}

fn new_bar(length: Option<u64>) -> ProgressBar {
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let style =
        "{msg:30!} {bar:30} {binary_bytes:>10} of {binary_total_bytes} {binary_bytes_per_sec:>12} {eta}";
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        // The template is fixed, and a plain bar is a bar.
        Err(_) => bar,
    }
}

fn say_complete(relay: &Relay, content: &millrace_pagecache::Content) {
    BARS.suspend(|| {
        eprintln!("Complete    {}  {}c/{}", content.name(), relay.public_url, content.id());
        if content.metainfo().is_some() {
            eprintln!("Torrent     {}c/{}.torrent", relay.public_url, content.id());
        }
    });
}
