//! How a frame of `top` looks. From 80 columns and 24 lines on everything has its place; what is left over goes to the contents.

use millrace_proto::admin::{ContentState, ContentStatus, RelayState};
use millrace_proto::units::{Rate, Size};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row, Table, Widget};

use crate::client::state_name;

use super::gather::Sample;
use super::journal::printable;
use super::view::{View, as_f64};

const HELP: &[&str] = &[
    "q, Ctrl-C      quit",
    "s              sort contents by rate, pull, served or name",
    "p, space       stand still, go on",
    "up, down, j, k move the list of contents; page up and down by ten",
    "home, end      to its beginning, to its end",
    "?, h           this help",
];

const DIM: Style = Style::new().fg(Color::DarkGray);
const BAD: Style = Style::new().fg(Color::Red);
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws the whole frame.
pub(super) fn draw(view: &View, area: Rect, buffer: &mut Buffer) {
    let Some(sample) = view.sample() else {
        let said = view.error().unwrap_or("waiting for the relay");
        Paragraph::new(printable(said)).render(area, buffer);
        return;
    };
    let shards = lines_for(sample.status.shard_loads.len(), area.height / 6);
    let pulls = lines_for(view.pulls().len(), area.height / 8);
    let [head, summary, shards, contents, pulls, events, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(7),
        Constraint::Length(shards),
        Constraint::Min(4),
        Constraint::Length(pulls),
        Constraint::Length(1 + (area.height / 8).clamp(2, 8)),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_head(view, sample, head, buffer);
    let columns = [Constraint::Fill(3), Constraint::Fill(3), Constraint::Fill(4)];
    let [rates, connections, caps] = Layout::horizontal(columns).spacing(1).areas(summary);
    draw_rates(sample, rates, buffer);
    draw_connections(view, sample, connections, buffer);
    draw_caps(view, caps, buffer);
    draw_shards(view, shards, buffer);
    draw_contents(view, sample, contents, buffer);
    draw_pulls(view, pulls, buffer);
    draw_events(view, events, buffer);
    Line::styled(" q quit  s sort  p pause  ↑↓ scroll  ? help", DIM).render(foot, buffer);
    if view.shows_help {
        draw_help(area, buffer);
    }
}

/// A title, and a line for each thing as far as there is room.
fn lines_for(things: usize, room: u16) -> u16 {
    let things = u16::try_from(things).unwrap_or(u16::MAX);
    if things == 0 { 0 } else { 1 + things.min(room.max(2)) }
}

/// A title over a region; what is below it.
fn titled(title: &str, area: Rect, buffer: &mut Buffer) -> Rect {
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(DIM)
        .title(Span::styled(format!(" {title} "), STRONG));
    let inner = block.inner(area);
    block.render(area, buffer);
    inner
}

fn draw_head(view: &View, sample: &Sample, area: Rect, buffer: &mut Buffer) {
    let status = &sample.status;
    let mut spans = vec![
        Span::styled(format!("millrace-relay {}", status.version), STRONG),
        match status.state {
            RelayState::Serving => Span::raw("  serving"),
            RelayState::Draining => Span::styled("  draining", BAD),
        },
        Span::raw(format!(
            "  up {}  {}, {}  store {}, {} free",
            uptime(status.uptime_s),
            status.backend.name,
            status.send_path.name,
            Size(status.store.used),
            Size(status.store.free)
        )),
    ];
    match view.error() {
        Some(error) => spans.insert(0, Span::styled(format!("{}  ", printable(error)), BAD)),
        None if view.is_paused => spans.insert(0, Span::styled("paused  ", STRONG)),
        None => {}
    }
    Line::from(spans).render(area, buffer);
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match days {
        0 => format!("{hours:02}:{minutes:02}:{:02}", seconds % 60),
        _ => format!("{days} d {hours:02}:{minutes:02}"),
    }
}

/// Names on the left, values on the right.
fn draw_values(values: &[(&str, String)], area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let lines = values.iter().map(|(name, value)| {
        Line::raw(format!("{name}{value:>room$}", room = width.saturating_sub(name.chars().count())))
    });
    Paragraph::new(lines.collect::<Vec<_>>()).render(area, buffer);
}

fn draw_rates(sample: &Sample, area: Rect, buffer: &mut Buffer) {
    let area = titled("Rates", area, buffer);
    let (rates, totals) = (&sample.status.rates, &sample.status.totals);
    let served = totals.served.http + totals.served.bittorrent;
    let gain = match totals.origin_bytes {
        0 => "-".to_owned(),
        taken => format!("{:.1}", as_f64(served) / as_f64(taken)),
    };
    let values = [
        ("HTTP", Rate(rates.http).to_string()),
        ("BitTorrent", Rate(rates.bittorrent).to_string()),
        ("from origins", Rate(rates.pull).to_string()),
        ("served", Size(served).to_string()),
        ("served / taken", gain),
    ];
    draw_values(&values, area, buffer);
}

fn draw_connections(view: &View, sample: &Sample, area: Rect, buffer: &mut Buffer) {
    let area = titled("Connections", area, buffer);
    let status = &sample.status;
    let unchoked: u64 = status.shard_loads.iter().map(|load| load.unchoked).sum();
    let per_second =
        |count: fn(&millrace_proto::admin::Counts) -> u64| format!("{:.1}/s", view.per_second(count));
    let values = [
        ("HTTP", status.connections.http.to_string()),
        ("BitTorrent", status.connections.bittorrent.to_string()),
        ("of these unchoked", unchoked.to_string()),
        ("accepted", per_second(|counts| counts.accepted.http + counts.accepted.bittorrent)),
        ("requests", per_second(|counts| counts.requests)),
        ("refused", per_second(|counts| counts.refusals)),
    ];
    draw_values(&values, area, buffer);
}

fn draw_caps(view: &View, area: Rect, buffer: &mut Buffer) {
    let waits = view.per_second(|counts| counts.cap_waits);
    let area = titled(&format!("Caps  {waits:.0} waits/s"), area, buffer);
    let caps = view.caps();
    if caps.is_empty() {
        Line::styled("none", DIM).render(area, buffer);
        return;
    }
    let lines = caps.iter().map(|cap| {
        let used = match cap.use_of {
            Some((allowed, flows)) if allowed > 0 => {
                format!("{:.0} %", as_f64(flows) * 100.0 / as_f64(allowed))
            }
            _ => String::new(),
        };
        let (name, room) =
            (cap.name.trim_start_matches("egress."), usize::from(area.width).saturating_sub(17));
        Line::raw(format!("{name:<room$.room$} {:>10} {used:>5}", cap.allowed))
    });
    Paragraph::new(lines.collect::<Vec<_>>()).render(area, buffer);
}

fn draw_shards(view: &View, area: Rect, buffer: &mut Buffer) {
    let (cells, width, room) = if area.width < 100 { (10_u8, 10.0, 10) } else { (20, 20.0, 20) };
    let area = titled("Shards", area, buffer);
    let lines = view.shards().into_iter().enumerate().map(|(number, shard)| {
        let filled = (0..cells).filter(|cell| f64::from(*cell) < shard.busy * width).count();
        let bar = if shard.load.stuck { "stuck".to_owned() } else { "■".repeat(filled) };
        let text = format!(
            "{number:>3} {bar:<room$} {:>4.0} % {:>8.0} loops/s {:>7.1} µs  HTTP {:<5} BitTorrent {}",
            shard.busy * 100.0,
            shard.loops,
            shard.loop_us,
            shard.load.connections.http,
            shard.load.connections.bittorrent,
        );
        Line::styled(text, if shard.load.stuck { BAD } else { Style::new() })
    });
    Paragraph::new(lines.collect::<Vec<_>>()).render(area, buffer);
}

fn draw_contents(view: &View, sample: &Sample, area: Rect, buffer: &mut Buffer) {
    let title = format!(
        "Contents  {} of {} by {}",
        (view.scrolled() + 1).min(sample.contents.len()),
        sample.status.contents,
        view.order.name()
    );
    let area = titled(&title, area, buffer);
    let rows = view.contents().into_iter().take(usize::from(area.height)).map(|content| {
        let row = Row::new([
            printable(&content.name),
            state_name(content.state).to_owned(),
            progress(content),
            Rate(content.rates.pull).to_string(),
            Rate(content.rates.http).to_string(),
            Rate(content.rates.bittorrent).to_string(),
        ]);
        if content.state == ContentState::Failed { row.style(BAD) } else { row }
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(11),
    ];
    let head = Row::new(["name", "state", "here", "pull", "HTTP", "BitTorrent"]).style(DIM);
    Widget::render(Table::new(rows, widths).header(head), area, buffer);
}

/// What is here of a content.
fn progress(content: &ContentStatus) -> String {
    match content.length {
        Some(length) if length > 0 => {
            format!("{:.0} %", (as_f64(content.have_bytes) * 100.0 / as_f64(length)).floor())
        }
        Some(_) => "100 %".to_owned(),
        None => Size(content.have_bytes).to_string(),
    }
}

fn draw_pulls(view: &View, area: Rect, buffer: &mut Buffer) {
    if area.height == 0 {
        return;
    }
    let area = titled("Pulls", area, buffer);
    let lines = view.pulls().into_iter().take(usize::from(area.height)).map(|content| {
        let mut text = format!(
            "{:>6} {:>10}  {}",
            progress(content),
            Rate(content.rates.pull).to_string(),
            printable(&content.name)
        );
        let pull = content.pull.iter();
        for origin in pull.clone().flat_map(|pull| &pull.origins) {
            let state = match (&origin.error, origin.given_up) {
                (_, true) => " given up".to_owned(),
                (Some(error), _) => format!(" {}", printable(error)),
                (None, _) => format!(" {} requests at {}", origin.requests, Rate(origin.speed)),
            };
            text.push_str(&format!("  {}{state}", printable(&origin.url)));
        }
        for note in pull.filter_map(|pull| pull.note.as_ref()) {
            text.push_str(&format!("  {}", printable(note)));
        }
        Line::raw(text)
    });
    Paragraph::new(lines.collect::<Vec<_>>()).render(area, buffer);
}

fn draw_events(view: &View, area: Rect, buffer: &mut Buffer) {
    let area = titled("Events", area, buffer);
    let lines = view.lines().take(usize::from(area.height));
    let lines =
        lines.map(|line| Line::styled(line.text.clone(), if line.is_bad { BAD } else { Style::new() }));
    Paragraph::new(lines.collect::<Vec<_>>()).render(area, buffer);
}

fn draw_help(area: Rect, buffer: &mut Buffer) {
    let lines = u16::try_from(HELP.len()).unwrap_or(u16::MAX);
    let area = area.centered(Constraint::Length(70), Constraint::Length(lines.saturating_add(2)));
    Clear.render(area, buffer);
    let block = Block::bordered().title(" Keys ");
    Paragraph::new(HELP.iter().map(|line| Line::raw(*line)).collect::<Vec<_>>())
        .block(block)
        .render(area, buffer);
}
