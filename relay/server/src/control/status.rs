//! `GET /v1/status`: the relay in one document.

use std::path::Path;

use millrace_engine::counters::{Counters, Reason};
use millrace_proto::admin::{
    Addresses, Counts, PerProtocol, RelayState, RelayStatus, SentBytes, ShardLoad, StoreStatus, Totals,
};

use super::questions::Questions;
use super::viewer::Viewer;

pub(super) fn relay(questions: &Questions) -> RelayStatus {
    let relay = &questions.relay;
    let sum = |count: fn(&Counters) -> u64| relay.counters.iter().map(|counters| count(counters)).sum();
    let occupied = questions.occupied();
    let mut caps = relay.caps.status();
    // There may be thousands.
    caps.effective.contents.clear();
    RelayStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: if relay.stop.is_wished() { RelayState::Draining } else { RelayState::Serving },
        backend: relay.backend.clone(),
        send_path: relay.send_path.clone(),
        ingest_io: relay.ingest_io.clone(),
        addresses: Addresses {
            http: relay.http,
            https: relay.https,
            bittorrent: relay.bittorrent,
            pages: relay.pages,
            metrics: relay.metrics,
        },
        store: StoreStatus {
            path: relay.config.store.display().to_string(),
            capacity: relay.config.capacity.unwrap_or(u64::MAX),
            used: occupied.used,
            shared: occupied.saved,
            free: free_bytes(&relay.config.store),
        },
        shards: u32::try_from(relay.counters.len()).unwrap_or(u32::MAX),
        connections: PerProtocol {
            http: sum(|counters| counters.connections_http.value()),
            bittorrent: sum(|counters| counters.connections_bittorrent.value()),
        },
        totals: Totals {
            origin_bytes: relay.ingest.metrics().origin_bytes.value(),
            served: PerProtocol {
                http: sum(|counters| counters.served_http_bytes.value()),
                bittorrent: sum(|counters| counters.served_bittorrent_bytes.value()),
            },
            sent: SentBytes {
                reference: sum(|counters| counters.sent_reference_bytes.value()),
                sendfile: sum(|counters| counters.sent_sendfile_bytes.value()),
                copy: sum(|counters| {
                    counters.sent_copy_bytes.value() + counters.sent_zero_copy_copied_bytes.value()
                }),
                zero_copy: sum(|counters| counters.sent_zero_copy_bytes.value()),
            },
        },
        rates: questions.index.rates(),
        egress_cap: caps.effective.egress.total.value,
        caps: Some(caps),
        uptime_s: relay.started.elapsed().as_secs(),
        contents: u64::try_from(questions.index.count(Viewer::Operator)).unwrap_or(u64::MAX),
        counts: counts(questions),
        shard_loads: shard_loads(questions),
    }
}

fn counts(questions: &Questions) -> Counts {
    let relay = &questions.relay;
    let sum = |count: &dyn Fn(&Counters) -> u64| relay.counters.iter().map(|counters| count(counters)).sum();
    let ingest = relay.ingest.metrics();
    Counts {
        accepted: PerProtocol {
            http: sum(&|counters| counters.accepted_http.value()),
            bittorrent: sum(&|counters| counters.accepted_bittorrent.value()),
        },
        closed: Reason::ALL
            .iter()
            .map(|(reason, name)| {
                ((*name).to_owned(), sum(&|counters| counters.closed[*reason as usize].value()))
            })
            .collect(),
        requests: sum(&|counters| counters.requests.value()),
        refusals: sum(&|counters| counters.responses[4].value() + counters.responses[5].value()),
        cap_waits: sum(&|counters| counters.cap_waits.iter().map(|waits| waits.value()).sum()),
        parked: sum(&|counters| counters.parked.value()),
        origin_retries: ingest.retries.value(),
        hash_failures: ingest.hash_failures.value(),
        evictions: questions.index.evictions(),
    }
}

fn shard_loads(questions: &Questions) -> Vec<ShardLoad> {
    let stuck = questions.stuck_shards();
    let shards = questions.relay.counters.iter().enumerate();
    shards
        .map(|(number, counters)| ShardLoad {
            loops: counters.loops.value(),
            busy_us: counters.loop_durations.sum_ns() / 1000,
            connections: PerProtocol {
                http: counters.connections_http.value(),
                bittorrent: counters.connections_bittorrent.value(),
            },
            unchoked: counters.unchoked.value(),
            stuck: stuck.contains(&number),
        })
        .collect()
}

/// Bytes that the file system of the store has left; 0 where it does not tell.
pub(super) fn free_bytes(folder: &Path) -> u64 {
    nix::sys::statvfs::statvfs(folder)
        .map_or(0, |stat| stat.blocks_available().saturating_mul(stat.fragment_size()))
}
