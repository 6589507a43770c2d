//! `/metrics` in the OpenMetrics text format and in the older one of Prometheus. Numbers are gathered when somebody asks.
//!
//! prometheus-client's registry holds one collector of ours, since every number exists already as an atomic of the engine, of ingest
//! or of the store.

mod access;
mod caps;
mod tls;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use millrace_engine::counters::{Counters, Reason};
use millrace_engine::durations::Durations;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ingest::budget::OriginCap;
use crate::ingest::metrics::IngestMetrics;

use super::exposition;
use super::index::state_of;
use super::problem::Refusal;
use super::questions::Questions;
use super::status::free_bytes;

/// What Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What everybody else gets: `promtool check metrics`, agents that speak no OpenMetrics.
const TEXT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The address, for the OpenAPI document.
pub(super) fn routes() -> OpenApiRouter<Arc<Registry>> {
    OpenApiRouter::default().routes(routes!(answer))
}

/// `/metrics`, for the admin socket and for the address of `--metrics`.
pub(super) fn router(questions: Arc<Questions>) -> Router {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Numbers(questions)));
    Router::from(routes()).with_state(Arc::new(registry))
}

/// Metrics for Prometheus
///
/// In the OpenMetrics text format for who accepts `application/openmetrics-text`, else in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "relay",
    responses((status = 200, description = "Every metric.", content(
        (String = "text/plain; version=0.0.4; charset=utf-8"),
        (String = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ))),
)]
async fn answer(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> Result<Response, Refusal> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .map_err(|error| Refusal::failed(&error))?;
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (content_type, text) = match accepted.into_iter().any(|value| value.contains(OPEN_METRICS)) {
        true => (OPEN_METRICS_TYPE, text),
        false => (TEXT_TYPE, exposition::plain(&text)),
    };
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

/// Everything that is counted.
struct Numbers(Arc<Questions>);

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers")
    }
}

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let relay = &self.0.relay;
        let mut out = Writer(encoder);
        connections(&mut out, &relay.counters)?;
        bytes(&mut out, &relay.counters)?;
        shards(&mut out, &relay.counters)?;
        out.gauge(
            "stuck_shards",
            "Shards whose loops do not turn",
            alone(count_of(self.0.stuck_shards().len())),
        )?;
        if let Some(tls) = &relay.tls {
            tls::tls(&mut out, tls)?;
        }
        ingest(&mut out, relay.ingest.metrics())?;
        self.contents(&mut out)?;
        caps::caps(&mut out, &relay.ledger.caps(), &relay.counters)?;
        access::access(&mut out, &relay.ledger)?;
        self.origin_caps(&mut out)?;
        out.gauge(
            "tracker_peers",
            "Peers that the built-in tracker knows",
            alone(count_of(self.0.tracker.peer_count())),
        )?;
        out.gauge_f64(
            "uptime_seconds",
            "Time since the relay started",
            relay.started.elapsed().as_secs_f64(),
        )?;
        out.info(
            "backend",
            "How the relay talks to the kernel and why so, how it writes what it pulls, and how it sends",
            &[
                ("io", relay.backend.name.as_str()),
                ("io_reason", relay.backend.reason.as_str()),
                ("ingest_io", relay.ingest_io.name.as_str()),
                ("send_path", relay.send_path.name.as_str()),
                ("version", env!("CARGO_PKG_VERSION")),
            ],
        )
    }
}

impl Numbers {
    /// A gauge cannot say "none": infinity compares rightly with every number.
    fn origin_caps(&self, out: &mut Writer<'_>) -> fmt::Result {
        let budget = self.0.relay.ingest.budget();
        let (bandwidth, _, windows) = budget.status();
        let or_infinite = |value: Option<u64>| value.map_or(f64::INFINITY, as_f64);
        out.gauge_f64(
            "origin_cap_bytes_per_second",
            "Cap on what is pulled from all origins; +Inf is none",
            or_infinite(bandwidth.value),
        )?;
        let waits = [
            ("bandwidth", OriginCap::Bandwidth),
            ("connections", OriginCap::Connections),
            ("volume", OriginCap::Volume),
            ("grant", OriginCap::Grant),
        ];
        let waits = waits.map(|(name, cap)| ([("cap", name)], budget.waits(cap)));
        out.counter(
            "origin_cap_waits",
            "Times that a pull waited for a cap on origins",
            waits.iter().map(|(labels, count)| (&labels[..], *count)),
        )?;
        let names: Vec<_> = windows.iter().map(|volume| volume.window.to_string()).collect();
        let mut samples = Vec::new();
        for (volume, name) in windows.iter().zip(&names) {
            samples.push(([("state", "used"), ("window", name.as_str())], volume.used));
            if let Some(left) = volume.left {
                samples.push(([("state", "left"), ("window", name.as_str())], left));
            }
        }
        out.gauge(
            "origin_volume_bytes",
            "Bytes that came from origins in the present window, and that a cap leaves of it",
            samples.iter().map(|(labels, bytes)| (&labels[..], *bytes)),
        )
    }

    fn contents(&self, out: &mut Writer<'_>) -> fmt::Result {
        const STATES: [&str; 5] = ["queued", "pulling", "complete", "paused", "failed"];
        let mut by_state = [0; 5];
        self.0.index.for_each(|entry| by_state[state_of(&entry.content) as usize] += 1);
        let labelled: Vec<_> =
            STATES.iter().zip(by_state).map(|(state, count)| ([("state", *state)], count)).collect();
        out.gauge(
            "contents",
            "Contents by state",
            labelled.iter().map(|(labels, count)| (&labels[..], *count)),
        )?;
        let relay = &self.0.relay;
        let occupied = self.0.occupied();
        out.gauge(
            "store_bytes",
            "The store's bytes: used by contents, saved because contents share them, and free on its file system",
            [
                (&[("state", "used")][..], occupied.used),
                (&[("state", "shared")][..], occupied.saved),
                (&[("state", "free")][..], free_bytes(&relay.config.store)),
            ],
        )?;
        out.counter("evictions", "Contents dropped to make room", alone(self.0.index.evictions()))
    }
}

fn sum(counters: &[Arc<Counters>], count: impl Fn(&Counters) -> u64) -> u64 {
    counters.iter().map(|counters| count(counters)).sum()
}

fn connections(out: &mut Writer<'_>, counters: &[Arc<Counters>]) -> fmt::Result {
    let label = |protocol| [("protocol", protocol), ("state", "open")];
    out.gauge(
        "connections",
        "Connections",
        [
            (&label("http")[..], sum(counters, |c| c.connections_http.value())),
            (&label("bittorrent")[..], sum(counters, |c| c.connections_bittorrent.value())),
            (&[("protocol", "bittorrent"), ("state", "unchoked")][..], sum(counters, |c| c.unchoked.value())),
        ],
    )?;
    out.counter(
        "accepted",
        "Connections accepted",
        [
            (&[("protocol", "http")][..], sum(counters, |c| c.accepted_http.value())),
            (&[("protocol", "bittorrent")][..], sum(counters, |c| c.accepted_bittorrent.value())),
        ],
    )?;
    let reasons: Vec<_> = Reason::ALL
        .iter()
        .map(|(reason, name)| ([("reason", *name)], sum(counters, |c| c.closed[*reason as usize].value())))
        .collect();
    out.counter(
        "closed",
        "Connections closed, by reason",
        reasons.iter().map(|(labels, count)| (&labels[..], *count)),
    )?;
    out.counter("requests", "HTTP requests", alone(sum(counters, |c| c.requests.value())))?;
    let classes: Vec<_> = ["1xx", "2xx", "3xx", "4xx", "5xx"]
        .iter()
        .zip(1..)
        .map(|(class, index): (_, usize)| {
            ([("status", *class)], sum(counters, |c| c.responses[index].value()))
        })
        .collect();
    out.counter(
        "responses",
        "HTTP answers by class",
        classes.iter().map(|(labels, count)| (&labels[..], *count)),
    )?;
    out.counter(
        "encrypted_handshakes",
        "BitTorrent handshakes that came through message stream encryption",
        alone(sum(counters, |c| c.encrypted_handshakes.value())),
    )?;
    out.counter(
        "blocks",
        "BitTorrent blocks queued for sending",
        alone(sum(counters, |c| c.blocks.value())),
    )?;
    out.counter("rejects", "BitTorrent requests rejected", alone(sum(counters, |c| c.rejects.value())))
}

fn bytes(out: &mut Writer<'_>, counters: &[Arc<Counters>]) -> fmt::Result {
    out.counter(
        "served_bytes",
        "Bytes of contents sent",
        [
            (&[("protocol", "http")][..], sum(counters, |c| c.served_http_bytes.value())),
            (&[("protocol", "bittorrent")][..], sum(counters, |c| c.served_bittorrent_bytes.value())),
        ],
    )?;
    out.counter(
        "sent_bytes",
        "Bytes sent, by the way they took to the socket; send_zc: out of read buffers, not copied; send_zc_copied: copied by the kernel all the same",
        [
            (&[("path", "reference")][..], sum(counters, |c| c.sent_reference_bytes.value())),
            (&[("path", "zerocopy")][..], sum(counters, |c| c.sent_sendfile_bytes.value())),
            (&[("path", "copy")][..], sum(counters, |c| c.sent_copy_bytes.value())),
            (&[("path", "send_zc")][..], sum(counters, |c| c.sent_zero_copy_bytes.value())),
            (&[("path", "send_zc_copied")][..], sum(counters, |c| c.sent_zero_copy_copied_bytes.value())),
            (&[("path", "tls")][..], sum(counters, |c| c.sent_tls_bytes.value())),
        ],
    )?;
    out.counter(
        "send_zc_refusals",
        "Zero-copy sends that the kernel refused, as where RLIMIT_MEMLOCK has no room for them; their connections are copied to",
        alone(sum(counters, |c| c.zero_copy_refusals.value())),
    )?;
    cold(out, counters)
}

/// What was not in memory when it was to be sent.
fn cold(out: &mut Writer<'_>, counters: &[Arc<Counters>]) -> fmt::Result {
    out.counter(
        "disk_reads",
        "Reads from the disk before a send: past the page cache, or into it for what was asked for before",
        [
            (&[("way", "direct")][..], sum(counters, |c| c.read_direct.value())),
            (&[("way", "brought_in")][..], sum(counters, |c| c.brought_in.value())),
        ],
    )?;
    out.counter(
        "disk_read_bytes",
        "Bytes of these reads",
        [
            (&[("way", "direct")][..], sum(counters, |c| c.read_direct_bytes.value())),
            (&[("way", "brought_in")][..], sum(counters, |c| c.brought_in_bytes.value())),
        ],
    )?;
    out.counter(
        "read_buffer_waits",
        "Reads past the page cache that waited for a buffer (limits.read-buffers)",
        alone(sum(counters, |c| c.buffer_waits.value())),
    )
}

fn shards(out: &mut Writer<'_>, counters: &[Arc<Counters>]) -> fmt::Result {
    out.gauge("shards", "Threads of the data plane", alone(count_of(counters.len())))?;
    out.counter("shard_loops", "Loops that shards turned", alone(sum(counters, |c| c.loops.value())))?;
    out.durations(
        "request_seconds",
        "Time from the end of a request's head to the last byte of its answer handed to the kernel",
        counters.iter().map(|counters| &counters.request_durations),
    )?;
    out.durations(
        "shard_loop_seconds",
        "Time of a shard's loop, from its first event to its end",
        counters.iter().map(|counters| &counters.loop_durations),
    )?;
    out.counter(
        "parked",
        "Readers that waited for bytes on their way",
        alone(sum(counters, |c| c.parked.value())),
    )?;
    out.counter(
        "ring_overflow",
        "Completion queue overflows",
        alone(sum(counters, |c| c.ring_overflows.value())),
    )
}

fn ingest(out: &mut Writer<'_>, ingest: &IngestMetrics) -> fmt::Result {
    out.counter("origin_bytes", "Bytes of bodies that origins sent", alone(ingest.origin_bytes.value()))?;
    out.gauge("pulls", "Pulls under way", alone(ingest.pulls_active.value()))?;
    let classes: Vec<_> = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"]
        .iter()
        .zip(&ingest.requests)
        .map(|(class, count)| ([("status", *class)], count.value()))
        .collect();
    out.counter(
        "origin_requests",
        "Requests to origins by class of the answer",
        classes.iter().map(|(labels, count)| (&labels[..], *count)),
    )?;
    out.counter("origin_retries", "Requests to origins made again", alone(ingest.retries.value()))?;
    out.counter(
        "hash_failures",
        "Pieces that did not match their hash",
        alone(ingest.hash_failures.value()),
    )?;
    out.counter(
        "origin_changes",
        "Contents whose origin changed during the pull",
        alone(ingest.origin_changes.value()),
    )?;
    out.counter(
        "guard_refusals",
        "Origin addresses refused for where they lead",
        alone(ingest.guard_refusals.value()),
    )?;
    out.durations(
        "fill_to_first_byte_seconds",
        "Time from the start of a fill to its first byte",
        [&ingest.fill_to_first_byte],
    )
}

/// Counts beyond 2^53 lose their last digits in Prometheus anyway.
#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

type Labels<'a> = &'a [(&'a str, &'a str)];

/// Writes metrics; each name once, prefixed here.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn descriptor(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        write: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let name = format!("millrace_{name}");
        write(self.0.encode_descriptor(&name, help, None, kind)?)
    }

    fn family<'l, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        values: impl IntoIterator<Item = (Labels<'l>, M)>,
    ) -> fmt::Result {
        self.descriptor(name, help, kind, |mut encoder| {
            for (labels, value) in values {
                if labels.is_empty() {
                    return value.encode(encoder);
                }
                value.encode(encoder.encode_family(&labels)?)?;
            }
            Ok(())
        })
    }

    /// The format appends `_total` to the name.
    fn counter<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let values = values.into_iter().map(|(labels, count)| (labels, ConstCounter::new(count)));
        self.family(name, help, MetricType::Counter, values)
    }

    fn gauge<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let values = values.into_iter().map(|(labels, value)| (labels, ConstGauge::new(as_f64(value))));
        self.family(name, help, MetricType::Gauge, values)
    }

    fn gauge_f64(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, [(&[][..], ConstGauge::new(value))])
    }

    /// A histogram of several counts of durations together.
    fn durations<'d>(
        &mut self,
        name: &str,
        help: &str,
        durations: impl IntoIterator<Item = &'d Durations>,
    ) -> fmt::Result {
        let (mut buckets, mut sum_ns, mut count) = (Vec::new(), 0, 0);
        for durations in durations {
            sum_ns += durations.sum_ns();
            buckets.resize(durations.buckets().count(), (f64::INFINITY, 0));
            for (bucket, (bound_us, fell)) in buckets.iter_mut().zip(durations.buckets()) {
                bucket.0 = bound_us.map_or(f64::INFINITY, |us| as_f64(us) / 1e6);
                bucket.1 += fell;
                count += fell;
            }
        }
        self.descriptor(name, help, MetricType::Histogram, |mut encoder| {
            encoder.encode_histogram::<[(&str, &str); 0]>(as_f64(sum_ns) / 1e9, count, &buckets, None)
        })
    }

    /// The format appends `_info` to the name.
    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        self.descriptor(name, help, MetricType::Info, |mut encoder| encoder.encode_info(&labels))
    }
}

/// A value without labels.
fn alone(value: u64) -> [(Labels<'static>, u64); 1] {
    [(&[], value)]
}

fn count_of(things: usize) -> u64 {
    u64::try_from(things).unwrap_or(u64::MAX)
}
