//! What somebody at a terminal sees while a measurement runs. Elsewhere nothing is drawn.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use millrace_proto::units::Rate;

use crate::load::meter::Totals;

/// A bar of time, with what was delivered lately.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    last: std::cell::Cell<(Instant, u64)>,
}

impl Progress {
    /// A bar on stderr for so long.
    pub(crate) fn start(name: &str, length: Duration) -> Self {
        let milliseconds = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let bar = ProgressBar::new(milliseconds).with_prefix(name.to_owned());
        // The template is fixed, and a plain bar is a bar.
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {elapsed}  {msg}") {
            bar.set_style(style);
        }
        let now = Instant::now();
        Progress { bar, started: now, last: std::cell::Cell::new((now, 0)) }
    }

    /// A bar of so many rounds, for [`Progress::round`].
    pub(crate) fn rounds(name: &str, count: usize) -> Self {
        let progress = Progress::start(name, Duration::ZERO);
        progress.bar.set_length(count as u64);
        progress
    }

    /// So many rounds are done.
    pub(crate) fn round(&self, done: usize) {
        self.bar.set_message(format!("{done} rounds"));
        self.bar.set_position(done as u64);
    }

    /// Moves it.
    pub(crate) fn show(&self, totals: &Totals) {
        let (then, bytes) = self.last.get();
        let milliseconds = u64::try_from(then.elapsed().as_millis()).unwrap_or(u64::MAX);
        if milliseconds >= 500 {
            let rate = Rate((totals.bytes() - bytes).saturating_mul(1000) / milliseconds);
            let Totals { connections, errors, .. } = totals;
            self.bar.set_message(format!("{rate}  {connections} connections  {errors} errors"));
            self.last.set((Instant::now(), totals.bytes()));
        }
        self.bar.set_position(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
    }

    /// Takes it away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
