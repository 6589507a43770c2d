//! `GET /v1/status`: the relay in one document.

use std::path::Path;

use millrace_engine::counters::Counters;
use millrace_proto::admin::{
    Addresses, PerProtocol, RelayState, RelayStatus, SentBytes, StoreStatus, Totals,
};

use super::questions::Questions;

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
        addresses: Addresses { http: relay.http, bittorrent: relay.bittorrent, metrics: relay.metrics },
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
                copy: sum(|counters| counters.sent_copy_bytes.value()),
            },
        },
        rates: questions.index.rates(),
        egress_cap: caps.effective.egress.total.value,
        caps: Some(caps),
    }
}

/// Bytes that the file system of the store has left; 0 where it does not tell.
pub(super) fn free_bytes(folder: &Path) -> u64 {
    nix::sys::statvfs::statvfs(folder)
        .map_or(0, |stat| stat.blocks_available().saturating_mul(stat.fragment_size()))
}
