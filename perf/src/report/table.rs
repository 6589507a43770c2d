//! The table for people: a column for each measurement, a row for each quantity.

use std::fmt;

use millrace_proto::units::{Rate, Size};

use crate::measure::caps::{CapHeld, StepHeld};
use crate::measure::paths::Path;
use crate::measure::syscalls::SystemCalls;

use super::{Measurement, Percentiles, Report};

/// Growth of memory in less than this says nothing.
const SOAK_SECONDS: f64 = 30.0;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for measurement in &self.measurements {
            writeln!(f)?;
            write_measurement(f, measurement)?;
        }
        for pull in &self.pulls {
            writeln!(f, "\n{}", pull.title())?;
            write_rows(f, &pull.rows(), &pull.error_texts)?;
        }
        for missed in &self.missed {
            writeln!(f, "\nMISSED {missed}")?;
        }
        Ok(())
    }
}

fn write_measurement(f: &mut fmt::Formatter<'_>, measurement: &Measurement) -> fmt::Result {
    writeln!(f, "{}", title(measurement))?;
    write_rows(f, &rows(measurement), &measurement.error_texts)
}

/// What was measured of whom, and for how long.
pub(crate) fn title(measurement: &Measurement) -> String {
    let Measurement { workload, server, version, seconds, .. } = measurement;
    format!("{workload}: {server} {version}, {seconds:.1} s")
}

fn write_rows(f: &mut fmt::Formatter<'_>, rows: &[(&str, String)], errors: &[String]) -> fmt::Result {
    for (name, value) in rows {
        writeln!(f, "  {name:<24} {value}")?;
    }
    for text in errors {
        writeln!(f, "  error: {text}")?;
    }
    Ok(())
}

/// Names and values of everything that was measured.
pub(crate) fn rows(measurement: &Measurement) -> Vec<(&'static str, String)> {
    let mut rows = vec![("throughput", rate(measurement.throughput()))];
    if measurement.http_bytes > 0 && measurement.bittorrent_bytes > 0 {
        let share = |bytes: u64| rate(super::gigabytes(bytes) * 1e9 / measurement.seconds);
        rows.push((
            "  HTTP, BitTorrent",
            format!("{}, {}", share(measurement.http_bytes), share(measurement.bittorrent_bytes)),
        ));
    }
    rows.push(("answers per second", format!("{:.0}", measurement.answers_per_second())));
    match measurement.server_cpu {
        Some(cost) => rows.push((
            "server CPU",
            format!(
                "{:.4} s/GB ({:.0} % of a core)",
                cost.per_gb,
                cost.seconds / measurement.seconds * 100.0
            ),
        )),
        None => rows.push(("server CPU", "not here".into())),
    }
    rows.push((
        "load CPU",
        format!(
            "{:.4} s/GB ({:.0} % of a core)",
            measurement.load_cpu.per_gb,
            measurement.load_cpu.seconds / measurement.seconds * 100.0
        ),
    ));
    if let Some(total) = measurement.total_cpu_per_gb() {
        rows.push(("both sides", format!("{total:.4} s/GB")));
    }
    for (first, last, latencies) in [
        ("HTTP first byte, ms", "HTTP whole range, ms", &measurement.http),
        ("block first byte, ms", "whole block, ms", &measurement.bittorrent),
    ] {
        if let Some(Percentiles { first_byte, last_byte }) = latencies {
            rows.push((first, percentiles(first_byte)));
            rows.push((last, percentiles(last_byte)));
        }
    }
    if let Some(calls) = &measurement.syscalls {
        let SystemCalls { per_gb, per_answer, sending_per_answer, counted_by } = calls;
        rows.push((
            "system calls",
            format!(
                "{per_gb:.0} per GB, {per_answer:.2} per answer, {sending_per_answer:.2} of them to send (by {counted_by})"
            ),
        ));
    }
    if !measurement.paths.is_empty() {
        let all: u64 = measurement.paths.iter().map(|path| path.bytes).sum();
        let share = |path: &Path| {
            let percent = super::gigabytes(path.bytes) / super::gigabytes(all) * 100.0;
            format!("{} {percent:.1} %", path.name)
        };
        let shares: Vec<String> = measurement.paths.iter().map(share).collect();
        rows.push(("sent by", format!("{}, of {}", shares.join(", "), Size(all))));
    }
    if let Some(memory) = measurement.memory {
        let (resident, anonymous) = (Size(memory.resident_bytes), Size(memory.anonymous_bytes));
        rows.push(("server memory", format!("{resident} resident, {anonymous} of its own")));
    }
    if let Some(growth) = crate::measure::samples::memory_growth(&measurement.samples)
        && measurement.seconds >= SOAK_SECONDS
    {
        rows.push((
            "memory growth",
            format!("{:+.1} MiB of its own since the second quarter", growth / 1_048_576.0),
        ));
    }
    if let Some(share) = measurement.resident_before {
        rows.push(("in memory at the start", format!("{:.1} %", share * 100.0)));
        if let Some(bytes) = measurement.disk_bytes {
            let ratio = super::gigabytes(bytes) / super::gigabytes(measurement.bytes());
            rows.push(("read from disk", format!("{} ({ratio:.2} × what was delivered)", Size(bytes))));
        }
    }
    if let Some(idle) = measurement.idle {
        rows.push((
            "idle connections",
            format!("{}, {} still open at the end", idle.connections, idle.still_open),
        ));
        rows.push(("  memory of each", format!("{:.0} bytes", idle.anonymous_bytes_each)));
        rows.push(("  throughput beside them", format!("{} × that without", idle.throughput_ratio)));
        if let Some(ratio) = idle.cpu_ratio {
            rows.push(("  CPU beside them", format!("{ratio} × that without")));
        }
    }
    if let Some(cold) = measurement.beside_cold {
        rows.push(("cold ranges beside it", rate(cold.throughput.median)));
        rows.push(("  p99 beside them", format!("{} × that without", cold.p99_ratio)));
    }
    for step in measurement.caps.iter().flat_map(|held| &held.0) {
        rows.push(("cap", cap(step)));
    }
    let (served, wanted) = (measurement.connections_served, measurement.connections);
    if served < wanted {
        rows.push(("connections served", format!("{served} of {wanted}")));
    }
    rows.push(("errors", measurement.errors.to_string()));
    rows
}

pub(crate) fn percentiles(summary: &crate::measure::latency::Summary) -> String {
    let crate::measure::latency::Summary { p50_ms, p99_ms, p999_ms, max_ms, .. } = summary;
    format!("p50 {p50_ms:.3}  p99 {p99_ms:.3}  p99.9 {p999_ms:.3}  max {max_ms:.1}")
}

fn cap(step: &StepHeld) -> String {
    let text = |side: &str, held: CapHeld| {
        let worst = Rate(held.worst_second);
        format!("{side} worst second {worst}, mean {:.4} ×", held.mean_of_cap())
    };
    let cap = step.relay.or(step.clients).map(|held| Rate(held.cap).to_string()).unwrap_or_default();
    let in_force = match (step.relay, step.in_force_ms) {
        (None, _) => None,
        (Some(_), None) => Some("never in force".to_owned()),
        (Some(_), Some(time)) => Some(format!("in force after {time:.0} ms")),
    };
    let sides = [
        step.relay.map(|held| text("sent", held)),
        step.clients.map(|held| text("received", held)),
        in_force,
    ];
    let sides: Vec<String> = sides.into_iter().flatten().collect();
    format!("{} {cap}: {}", step.name, sides.join("; "))
}

/// A rate as people read it.
pub(crate) fn rate(bytes_per_second: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive, and exact enough in bytes"
    )]
    let whole = bytes_per_second as u64;
    Rate(whole).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn everything_measured_is_shown() {
        let report = Report {
            measurements: vec![Measurement { error_texts: vec!["HTTP: status 500".into()], ..sample() }],
            notes: vec!["epoll".into()],
            missed: vec!["throughput".into()],
            ..Report::new()
        };
        let text = report.to_string();
        for part in [
            "500.0 MB/s",
            "0.5000 s/GB (25 % of a core)",
            "1.0000 s/GB",
            "p99 99",
            "300.0 MiB resident, 20.0 MiB",
            "status 500",
            "note: epoll",
            "MISSED throughput",
            "0.1.0",
        ] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
    }
}
