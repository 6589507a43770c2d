//! `doctor`: what this kernel and its limits allow, what the relay will use, and what to change, one line each.

use std::fs;

use millrace_engine::limits::Limits;
use millrace_pagecache::waiting::SHARDS_MAX;
use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;

use crate::backend::{default_ingest_io, reserve_all};
use crate::cli::DoctorArgs;
use crate::machine;
use crate::run::Failure;
use crate::serve::println;

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Good,
    /// Works, and could work better.
    Warn,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    name: &'static str,
    verdict: Verdict,
    value: String,
    /// What to do, where something is to be done.
    change: Option<String>,
}

impl Finding {
    fn good(name: &'static str, value: impl Into<String>) -> Self {
        Finding { name, verdict: Verdict::Good, value: value.into(), change: None }
    }

    fn warn(name: &'static str, value: impl Into<String>, change: impl Into<String>) -> Self {
        Finding { name, verdict: Verdict::Warn, value: value.into(), change: Some(change.into()) }
    }

    /// Good from `least` on.
    fn at_least(name: &'static str, value: Option<u64>, least: u64, change: &str) -> Self {
        match value {
            Some(value) if value >= least => Self::good(name, value.to_string()),
            Some(value) => Self::warn(name, value.to_string(), change),
            None => Self::warn(name, "not readable here", change),
        }
    }
}

/// The command. What could be better is no failure.
pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let findings = examine();
    if args.json {
        println(&serde_json::json!({ "findings": findings }).to_string());
        return Ok(());
    }
    for finding in &findings {
        println(&line(finding));
    }
    let changes = findings.iter().filter(|finding| finding.verdict == Verdict::Warn).count();
    println(&match changes {
        0 => "Nothing to change.".to_owned(),
        1 => "1 thing could be better; the relay runs as it is.".to_owned(),
        _ => format!("{changes} things could be better; the relay runs as it is."),
    });
    Ok(())
}

fn line(finding: &Finding) -> String {
    let mark = if finding.verdict == Verdict::Good { "ok  " } else { "warn" };
    let change = finding.change.as_ref().map(|change| format!("  -> {change}")).unwrap_or_default();
    format!("{mark}  {:20}  {}{change}", finding.name, finding.value)
}

fn examine() -> Vec<Finding> {
    let ring = millrace_ring::probe();
    let send = millrace_send::probe();
    let mut findings = vec![Finding::good("kernel", ring.kernel.clone()), backend()];
    findings.extend(ring.gates.iter().map(|gate| Finding::good("kernel bug avoided", gate.to_string())));
    findings.push(match send.path {
        millrace_send::SendPath::Reference => {
            Finding::good("send path", format!("reference: {}", send.reason))
        }
        millrace_send::SendPath::Sendfile => Finding::warn(
            "send path",
            format!("sendfile: {}", send.reason),
            "allow vmsplice and splice; sendfile costs more for each small block",
        ),
    });
    findings.extend(ring.verdict.as_ref().ok().map(|found| zero_copy(found.zero_copy)));
    findings.push(tls());
    findings.push(ingest_io(&ring));
    findings.push(cachestat());
    findings.push(cores());
    findings.extend(limits());
    findings.extend(network());
    findings.extend(memory());
    findings
}

/// What `serve` gets with the limits of its configuration's defaults. Rings that run already count, so it is as of now.
fn backend() -> Finding {
    let shards = machine::cores_allowed().len().min(SHARDS_MAX as usize);
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
    let mut limits = Limits::default();
    limits.connections_max = machine::connections_per_shard(limits.connections_max, descriptors, shards);
    match reserve_all(shards, &limits) {
        Ok((_, found)) => Finding::good("back end", format!("uring: {found}")),
        Err(reason) => Finding::warn(
            "back end",
            format!("epoll: {reason}"),
            "allow io_uring for the relay; epoll serves the same at more cost",
        ),
    }
}

/// Whether cards are asked to send out of read buffers. Without it nothing is wrong: what is read past the page cache is copied.
fn zero_copy(is_known: bool) -> Finding {
    let value = if is_known {
        "SEND_ZC is tried once on each connection that gets 64 KiB or more out of a read buffer, and kept where the kernel reports no copy \
         (metric sent_bytes, send_zc and send_zc_copied)"
    } else {
        "none: this kernel knows no SEND_ZC with reports (Linux 6.2); what is read past the page cache is copied"
    };
    Finding::good("zero-copy sends", value)
}

/// Who would encrypt HTTPS. Without the kernel nothing is wrong: bytes are copied.
fn tls() -> Finding {
    let by = match millrace_send::tls::probe() {
        Ok(suites) => format!("1.3 encrypted by the kernel ({suites}), 1.2 by the relay"),
        Err(error) => format!("encrypted by the relay: {}", crate::tls::without_kernel(&error)),
    };
    Finding::good("tls", format!("1.2 and 1.3, {by}; --https ADDR needs a certificate and its key"))
}

fn ingest_io(ring: &millrace_ring::Probe) -> Finding {
    let (_, choice) = default_ingest_io();
    let other = if ring.is_usable() { "works here too" } else { "would not start here" };
    Finding::good("ingest", format!("{}: {}; --ingest-io uring {other}", choice.name, choice.reason))
}

fn cores() -> Finding {
    let cores = machine::cores_allowed();
    let list: Vec<_> = cores.iter().map(ToString::to_string).collect();
    Finding::good("cores", format!("{} allowed ({}); one shard on each", cores.len(), list.join(",")))
}

/// Whether the store can ask which pages are in memory, tried on the folder where the store would be by default.
fn cachestat() -> Finding {
    match millrace_pagecache::disk::residency::probe_works(&std::env::temp_dir()) {
        Ok(true) => Finding::good("residency", "cachestat tells which pages are in memory"),
        Ok(false) => Finding::warn(
            "residency",
            "cachestat cannot be believed here",
            "run Linux 6.5 or later and allow cachestat; until then a cold page may make a shard wait for the disk",
        ),
        Err(error) => Finding::warn("residency", error.to_string(), "make the temporary folder writable"),
    }
}

fn limits() -> Vec<Finding> {
    let hard = |resource| getrlimit(resource).ok().map(|(_, hard)| hard);
    vec![
        Finding::at_least(
            "nofile (hard)",
            hard(Resource::RLIMIT_NOFILE),
            65_536,
            "LimitNOFILE=1048576 in the unit, or ulimit -Hn: each connection takes a descriptor",
        ),
        Finding::at_least(
            "memlock (hard)",
            hard(Resource::RLIMIT_MEMLOCK),
            64 << 20,
            "LimitMEMLOCK=infinity in the unit: the rings of all shards count against it, a MB each, and those of other programs of its user",
        ),
        Finding::at_least(
            "pipe-max-size",
            number("/proc/sys/fs/pipe-max-size"),
            1 << 20,
            "sysctl fs.pipe-max-size=1048576: each shard sends through one pipe",
        ),
        Finding::at_least(
            "pipe-user-pages-soft",
            // 0 is no limit.
            number("/proc/sys/fs/pipe-user-pages-soft")
                .map(|pages| if pages == 0 { u64::MAX } else { pages }),
            16_384,
            "sysctl fs.pipe-user-pages-soft=65536: beyond it pipes shrink to two pages",
        ),
    ]
}

fn network() -> Vec<Finding> {
    let control = read("/proc/sys/net/ipv4/tcp_congestion_control");
    let congestion = match control.as_deref() {
        Some("bbr") => Finding::warn(
            "congestion control",
            "bbr",
            "for benchmarks, above all over loopback: sysctl net.ipv4.tcp_congestion_control=cubic (bbr paces what needs no pacing)",
        ),
        Some(other) => Finding::good("congestion control", other),
        None => Finding::good("congestion control", "not readable here"),
    };
    let send_buffer =
        read("/proc/sys/net/ipv4/tcp_wmem").and_then(|text| text.split_whitespace().nth(2)?.parse().ok());
    let receive_buffer =
        read("/proc/sys/net/ipv4/tcp_rmem").and_then(|text| text.split_whitespace().nth(2)?.parse().ok());
    vec![
        congestion,
        Finding::at_least(
            "somaxconn",
            number("/proc/sys/net/core/somaxconn"),
            4096,
            "sysctl net.core.somaxconn=4096: it cuts the queue of new connections",
        ),
        Finding::at_least(
            "tcp_wmem (max)",
            send_buffer,
            4 << 20,
            "sysctl net.ipv4.tcp_wmem=\"4096 65536 16777216\": far readers need more in flight",
        ),
        Finding::at_least(
            "tcp_rmem (max)",
            receive_buffer,
            4 << 20,
            "sysctl net.ipv4.tcp_rmem=\"4096 131072 16777216\": far origins need more in flight",
        ),
    ]
}

fn memory() -> Vec<Finding> {
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled")
        .and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned()));
    vec![
        Finding::at_least(
            "max_map_count",
            number("/proc/sys/vm/max_map_count"),
            262_144,
            "sysctl vm.max_map_count=262144: each open file of a content is one mapping",
        ),
        Finding::good("huge pages", huge.unwrap_or_else(|| "none".to_owned())),
    ]
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    read(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_warning_says_what_to_change() {
        for finding in examine() {
            assert_eq!(finding.change.is_some(), finding.verdict == Verdict::Warn, "{finding:?}");
            assert!(!line(&finding).contains('\n'), "{finding:?}");
        }
    }

    #[test]
    fn what_is_low_or_unknown_is_a_warning() {
        assert_eq!(Finding::at_least("x", Some(5), 5, "more").verdict, Verdict::Good);
        assert_eq!(Finding::at_least("x", Some(4), 5, "more").verdict, Verdict::Warn);
        assert_eq!(Finding::at_least("x", None, 5, "more").change.as_deref(), Some("more"));
    }
}
