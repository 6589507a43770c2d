//! What `top` knows and shows: the last two samples, what happened, and where the person at the keys is.

use std::collections::VecDeque;

use millrace_proto::admin::{ContentStatus, Counts, ShardLoad};
use millrace_proto::units::{Rate, Size};
use serde_json::Value;

use super::gather::Sample;
use super::journal::Line;

/// Lines of what happened that are kept.
const LINES_MAX: usize = 200;

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    /// Shows the help, or takes it away.
    Help,
    /// Takes the help away.
    Close,
    /// Sorts the contents by something else.
    Sort,
    /// Stands still, or goes on.
    Pause,
    /// Moves the list of contents by so many lines.
    Scroll(isize),
}

/// What contents are sorted by, largest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Rate,
    Pull,
    Served,
    Name,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Rate => "rate",
            Order::Pull => "pull",
            Order::Served => "served",
            Order::Name => "name",
        }
    }

    fn next(self) -> Self {
        match self {
            Order::Rate => Order::Pull,
            Order::Pull => Order::Served,
            Order::Served => Order::Name,
            Order::Name => Order::Rate,
        }
    }
}

/// A cap that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cap {
    /// Its path in the document.
    pub(super) name: String,
    /// What it allows, for people.
    pub(super) allowed: String,
    /// Bytes per second that it allows, and that flow under it, where both are known.
    pub(super) use_of: Option<(u64, u64)>,
}

/// What one shard did in the last second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shard {
    /// Share of the time, from 0 to 1.
    pub(super) busy: f64,
    pub(super) loops: f64,
    /// Mean time of a loop, in microseconds.
    pub(super) loop_us: f64,
    pub(super) load: ShardLoad,
}

#[derive(Debug, Default)]
pub(super) struct View {
    now: Option<Sample>,
    before: Option<Sample>,
    error: Option<String>,
    lines: VecDeque<Line>,
    pub(super) order: Order,
    pub(super) is_paused: bool,
    pub(super) shows_help: bool,
    scrolled: usize,
}

impl View {
    /// The next sample; while paused the last one stays.
    pub(super) fn note(&mut self, sample: Sample) {
        self.error = None;
        if self.is_paused {
            return;
        }
        if let Some(now) = &self.now {
            // Of another run of the relay there is nothing to subtract.
            self.before = (sample.status.uptime_s >= now.status.uptime_s).then(|| now.clone());
        }
        self.now = Some(sample);
        self.scroll(0);
        self.note_counts();
    }

    /// There is no sample.
    pub(super) fn lost(&mut self, error: String) {
        self.error = Some(error);
    }

    pub(super) fn happened(&mut self, line: Line) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_back();
        }
        self.lines.push_front(line);
    }

    /// Errors that no event tells of.
    fn note_counts(&mut self) {
        let grown = |count: fn(&Counts) -> u64| {
            let before = self.before.as_ref()?;
            let grown = count(&self.now.as_ref()?.status.counts).saturating_sub(count(&before.status.counts));
            (grown > 0).then_some(grown)
        };
        let told = [
            (grown(|counts| counts.hash_failures), "pieces did not match their hash"),
            (grown(|counts| counts.origin_retries), "requests to origins were made again"),
            (grown(|counts| counts.evictions), "contents were dropped to make room"),
        ];
        for (grown, what) in told {
            if let Some(grown) = grown {
                self.happened(Line { text: format!("{grown} {what}"), is_bad: true });
            }
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Quit => {}
            Action::Help => self.shows_help = !self.shows_help,
            Action::Close => self.shows_help = false,
            Action::Sort => self.order = self.order.next(),
            Action::Pause => self.is_paused = !self.is_paused,
            Action::Scroll(lines) => self.scroll(lines),
        }
    }

    fn scroll(&mut self, lines: isize) {
        let last = self.now.as_ref().map_or(0, |now| now.contents.len().saturating_sub(1));
        self.scrolled = self.scrolled.saturating_add_signed(lines).min(last);
    }

    pub(super) fn sample(&self) -> Option<&Sample> {
        self.now.as_ref()
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Newest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }

    /// How often something happened, per second.
    pub(super) fn per_second(&self, count: impl Fn(&Counts) -> u64) -> f64 {
        self.difference(|sample| count(&sample.status.counts)).unwrap_or_default()
    }

    fn difference(&self, count: impl Fn(&Sample) -> u64) -> Option<f64> {
        let (now, before) = (self.now.as_ref()?, self.before.as_ref()?);
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        (seconds > 0.0).then(|| as_f64(count(now).saturating_sub(count(before))) / seconds)
    }

    pub(super) fn shards(&self) -> Vec<Shard> {
        let Some(now) = &self.now else { return Vec::new() };
        let of = |number: usize, count: fn(&ShardLoad) -> u64| {
            self.difference(|sample| sample.status.shard_loads.get(number).map_or(0, count))
                .unwrap_or_default()
        };
        let shards = now.status.shard_loads.iter().enumerate();
        shards
            .map(|(number, load)| {
                let (loops, busy_us) = (of(number, |load| load.loops), of(number, |load| load.busy_us));
                let loop_us = if loops > 0.0 { busy_us / loops } else { 0.0 };
                Shard { busy: (busy_us / 1e6).min(1.0), loops, loop_us, load: *load }
            })
            .collect()
    }

    /// The contents in their order, from the first that is shown.
    pub(super) fn contents(&self) -> Vec<&ContentStatus> {
        let mut contents: Vec<_> = self.now.iter().flat_map(|now| &now.contents).collect();
        let sent = |content: &ContentStatus| content.rates.http + content.rates.bittorrent;
        match self.order {
            Order::Rate => {
                contents.sort_by_key(|content| std::cmp::Reverse((sent(content), content.rates.pull)))
            }
            Order::Pull => {
                contents.sort_by_key(|content| std::cmp::Reverse((content.rates.pull, sent(content))))
            }
            Order::Served => contents
                .sort_by_key(|content| std::cmp::Reverse(content.served.http + content.served.bittorrent)),
            Order::Name => contents.sort_by(|one, other| one.name.cmp(&other.name)),
        }
        contents.split_off(self.scrolled.min(contents.len()))
    }

    pub(super) fn scrolled(&self) -> usize {
        self.scrolled
    }

    /// The pulls under way, fastest first.
    pub(super) fn pulls(&self) -> Vec<&ContentStatus> {
        let contents = self.now.iter().flat_map(|now| &now.contents);
        let mut pulls: Vec<_> = contents.filter(|content| content.pull.is_some()).collect();
        pulls.sort_by_key(|content| std::cmp::Reverse(content.rates.pull));
        pulls
    }

    /// The caps that are set, hardest first: what of them is used is known where a rate belongs to them.
    pub(super) fn caps(&self) -> Vec<Cap> {
        let Some(now) = &self.now else { return Vec::new() };
        let mut caps = Vec::new();
        held(&now.caps, &mut String::new(), &mut |name, value| {
            let flow = flow(now, name);
            let allowed = match value {
                0 => "paused".to_owned(),
                value if name.starts_with("origin.volume") => Size(value).to_string(),
                value if name.ends_with("connections") => value.to_string(),
                value => Rate(value).to_string(),
            };
            caps.push(Cap { name: name.to_owned(), allowed, use_of: flow.map(|flow| (value, flow)) });
        });
        let used =
            |cap: &Cap| cap.use_of.map_or(0.0, |(allowed, flows)| as_f64(flows) / as_f64(allowed.max(1)));
        caps.sort_by(|one, other| used(other).total_cmp(&used(one)));
        caps
    }
}

/// Calls `each` with every cap that holds, an object with a `value`, and its path.
fn held(caps: &Value, path: &mut String, each: &mut impl FnMut(&str, u64)) {
    if let Some(value) = caps.get("value") {
        return value.as_u64().into_iter().for_each(|value| each(path, value));
    }
    let mut below = |name: &str, caps: &Value| {
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(name);
        held(caps, path, each);
        path.truncate(length);
    };
    match caps {
        Value::Object(object) => object.iter().for_each(|(name, caps)| below(name, caps)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(number, caps)| below(&number.to_string(), caps));
        }
        _ => {}
    }
}

/// Bytes per second that flow under a cap.
fn flow(sample: &Sample, cap: &str) -> Option<u64> {
    let rates = &sample.status.rates;
    match cap {
        "egress.total" => Some(rates.http + rates.bittorrent),
        "egress.http" => Some(rates.http),
        "egress.bittorrent" => Some(rates.bittorrent),
        "origin.bandwidth" => Some(rates.pull),
        _ => {
            let id = cap.strip_prefix("contents.")?.strip_suffix(".egress")?;
            let content = sample.contents.iter().find(|content| content.id == id)?;
            Some(content.rates.http + content.rates.bittorrent)
        }
    }
}

/// For people: the last digits of large counts do not matter.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}
