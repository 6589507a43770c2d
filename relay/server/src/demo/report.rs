//! What the demo tells at its end.

use std::fmt;

use millrace_proto::admin::RelayStatus;

use super::http::Timing;
use super::sample::Sample;

/// Everything that was measured.
pub(super) struct Report<'a> {
    pub(super) sample: &'a Sample,
    pub(super) by_http: Timing,
    pub(super) by_bittorrent: Timing,
    /// Bytes of the origin's own count.
    pub(super) origin_bytes: u64,
    pub(super) status: &'a RelayStatus,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nEvery byte arrived, over both protocols: SHA-256 {}…", hex(&self.sample.sha256[..8]))?;
        writeln!(f, "\n                  first byte       all      rate")?;
        for (name, timing) in [("HTTP", self.by_http), ("BitTorrent", self.by_bittorrent)] {
            let rate = self.sample.length as f64 / 1e6 / timing.total.as_secs_f64();
            let first_ms = timing.first_byte.as_secs_f64() * 1e3;
            writeln!(
                f,
                "  {name:<14} {first_ms:>8.1} ms  {:>6.2} s  {rate:>6.1} MB/s",
                timing.total.as_secs_f64()
            )?;
        }
        let totals = &self.status.totals;
        let served = totals.served.http + totals.served.bittorrent;
        let share = self.origin_bytes as f64 / self.sample.length as f64;
        writeln!(f, "\n  taken from the origin {:>8.1} MB  ({share:.2} × the file)", mb(self.origin_bytes))?;
        writeln!(f, "  served to clients     {:>8.1} MB", mb(served))?;
        let sent = totals.sent;
        writeln!(
            f,
            "  sent by page reference {:.1} MB, by sendfile {:.1} MB, by copy {:.1} MB",
            mb(sent.reference),
            mb(sent.sendfile),
            mb(sent.copy)
        )?;
        writeln!(f, "  through {}", if self.status.backend.name == "uring" { "io_uring" } else { "epoll" })?;
        writeln!(f, "\nThe same with a real file:")?;
        writeln!(
            f,
            "  millrace-relay serve https://example.org/big.iso      # pull it and serve it on port 8080"
        )?;
        writeln!(
            f,
            "  open http://localhost:8080/                           # the page with links, rates and progress"
        )?;
        write!(f, "  millrace-relay status                                 # the same in a terminal")
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit after the point")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
