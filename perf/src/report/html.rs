//! The page for people: one file with everything in it, plots included, that needs no network and no script.

use std::fmt::Write as _;

use super::machine::Machine;
use super::pull::PullMeasurement;
use super::svg::{escape, histogram, lines, stacked_bars};
use super::table::{rows, title};
use super::{Measurement, Percentiles, Report, sweep};

/// Measurements with fewer samples have no course worth drawing.
const SAMPLES_MIN: usize = 8;

/// Points of a drawn course.
const POINTS_MAX: usize = 300;

/// What a page begins with.
pub(crate) struct Top<'a> {
    pub(crate) heading: &'a str,
    pub(crate) machine: &'a Machine,
    pub(crate) version: &'a str,
    pub(crate) command: &'a [String],
    /// What went wrong or was missed.
    pub(crate) bad: &'a [String],
    pub(crate) notes: &'a [String],
}

/// The page of what one of the load commands found.
pub(crate) fn page(report: &Report) -> String {
    let bad: Vec<String> = report.missed.iter().map(|missed| format!("Missed: {missed}")).collect();
    let mut page = begin(&Top {
        heading: "What the relay delivered, and what it cost",
        machine: &report.machine,
        version: &report.version,
        command: &report.command,
        bad: &bad,
        notes: &report.notes,
    });
    put_costs(&mut page, &report.measurements);
    for measurement in &report.measurements {
        put_measurement(&mut page, measurement);
    }
    for pull in &report.pulls {
        put_pull(&mut page, pull);
    }
    end(page)
}

/// Everything above the results; [`end`] closes it.
pub(crate) fn begin(top: &Top<'_>) -> String {
    let mut page = String::from("<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>");
    page.push_str("<meta name='viewport' content='width=device-width, initial-scale=1'><title>millrace-perf</title><style>\n");
    page.push_str(include_str!("style.css"));
    page.push_str("</style></head><body>\n");
    put(&mut page, &format!("<h1>{}</h1>", escape(top.heading)));
    put(
        &mut page,
        &format!(
            "<p class='soft'>{}<br>millrace-perf {}</p>",
            escape(&top.machine.to_string()),
            escape(top.version)
        ),
    );
    put(&mut page, &format!("<p><code>{}</code></p>", escape(&top.command.join(" "))));
    for bad in top.bad {
        put_bad(&mut page, bad);
    }
    if !top.notes.is_empty() {
        let notes = top.notes.iter().map(|note| format!("<li>{}</li>", escape(note)));
        put(&mut page, &format!("<ul>{}</ul>", notes.collect::<String>()));
    }
    page
}

/// The whole page.
pub(crate) fn end(page: String) -> String {
    page + "</body></html>\n"
}

/// What serving during a pull came to.
pub(crate) fn put_pull(page: &mut String, pull: &PullMeasurement) {
    put(page, &format!("<section><h2>{}</h2>", escape(&pull.title())));
    put_rows(page, &pull.rows(), &pull.error_texts);
    put_histogram(page, "First byte at the client after the origin's first byte", &pull.first_byte.bars);
    put_histogram(page, "The same from the origin itself", &pull.direct_first_byte.bars);
    put(page, "</section>");
}

/// CPU time per GB of every measurement, and against the number of connections where that varies.
fn put_costs(page: &mut String, measurements: &[Measurement]) {
    let costs: Vec<(String, Vec<f64>)> = measurements
        .iter()
        .map(|measurement| {
            let server = measurement.server_cpu.map_or(0.0, |cost| cost.per_gb);
            (measurement.workload.clone(), vec![server, measurement.load_cpu.per_gb])
        })
        .collect();
    if costs.is_empty() {
        return;
    }
    put(page, "<h2>CPU seconds per GB delivered</h2>");
    put(page, &stacked_bars(&costs, &["server", "load"], "s/GB"));
    let plots = sweep::plots(measurements);
    if !plots.is_empty() {
        put(page, "<h2>Against the number of connections</h2>");
    }
    for (heading, plot) in plots {
        put(page, &format!("<h3>{heading}</h3>"));
        put(page, &plot);
    }
}

/// One measurement, with its latencies and its course.
pub(crate) fn put_measurement(page: &mut String, measurement: &Measurement) {
    put(page, &format!("<section><h2>{}</h2>", escape(&title(measurement))));
    put_rows(page, &rows(measurement), &measurement.error_texts);
    for (name, latencies) in
        [("HTTP range", &measurement.http), ("BitTorrent block", &measurement.bittorrent)]
    {
        if let Some(Percentiles { last_byte, .. }) = latencies {
            put_histogram(page, &format!("Time to the last byte of a {name}"), &last_byte.bars);
        }
    }
    put_course(page, measurement);
    put(page, "</section>");
}

fn put_rows(page: &mut String, rows: &[(&str, String)], errors: &[String]) {
    page.push_str("<div class='wide'><table>\n");
    for (name, value) in rows {
        put(page, &format!("<tr><th>{}</th><td>{}</td></tr>", escape(name.trim()), escape(value)));
    }
    page.push_str("</table></div>\n");
    for text in errors {
        put_bad(page, text);
    }
}

/// A sentence that nobody should miss.
pub(crate) fn put_bad(page: &mut String, text: &str) {
    put(page, &format!("<p class='bad'>{}</p>", escape(text)));
}

fn put_histogram(page: &mut String, title: &str, bars: &[(f64, u64)]) {
    if bars.iter().any(|(_, count)| *count > 0) {
        put(page, &format!("<h3>{}, ms</h3>", escape(title)));
        put(page, &histogram(bars, "ms"));
    }
}

/// Throughput and memory over the time of the window.
fn put_course(page: &mut String, measurement: &Measurement) {
    let step = measurement.samples.len().div_ceil(POINTS_MAX).max(1);
    let samples: Vec<_> = measurement.samples.iter().step_by(step).collect();
    if samples.len() < SAMPLES_MIN {
        return;
    }
    let rates = samples.windows(2).map(|pair| {
        let bytes = super::gigabytes(pair[1].bytes.saturating_sub(pair[0].bytes));
        (pair[1].at_s, bytes / (pair[1].at_s - pair[0].at_s).max(1e-6))
    });
    put(page, "<h3>Throughput, GB/s</h3>");
    put(page, &lines(&[("throughput", rates.collect())], "seconds", "GB/s", false));
    let memory: Vec<(f64, f64)> = samples
        .iter()
        .map(|sample| (sample.at_s, exact(sample.memory.anonymous_bytes) / 1_048_576.0))
        .collect();
    if memory.iter().any(|(_, bytes)| *bytes > 0.0) {
        put(page, "<h3>Memory of the server's own, MiB</h3>");
        put(page, &lines(&[("memory", memory)], "seconds", "MiB", false));
    }
}

/// An element, on a line of its own.
pub(crate) fn put(page: &mut String, element: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{element}");
}

#[expect(clippy::cast_precision_loss, reason = "a plot is no exact number")]
fn exact(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;
    use crate::measure::samples::tests::course;

    #[test]
    fn the_page_holds_everything_and_asks_for_nothing() {
        let measurements = [1, 16, 64].map(|connections| Measurement {
            connections,
            workload: format!("HTTP {connections} × <1 MiB>"),
            swept: Some("HTTP".into()),
            samples: course(60, |number| u64::from(number) * 1000),
            ..sample()
        });
        let report = Report {
            measurements: measurements.to_vec(),
            notes: vec!["server & load".into()],
            missed: vec!["throughput".into()],
            ..Report::new()
        };
        let page = page(&report);
        for part in [
            "Missed: throughput",
            "server &amp; load",
            "× &lt;1 MiB&gt;",
            "prefers-color-scheme: dark",
            "Against the number",
        ] {
            assert!(page.contains(part), "no `{part}`");
        }
        // Costs, two against connections, and for each its histogram, throughput and memory.
        assert_eq!(page.matches("<svg").count(), 3 + 3 * 3);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        for foreign in ["http:", "https:", "<script", "NaN", "src="] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
