//! Metrics of HTTPS: handshakes, and until when the certificate is good.

use std::fmt;

use millrace_send::tls::{HandshakeEnd, KernelEnd};

use super::{Writer, alone};
use crate::tls::Tls;

pub(super) fn tls(out: &mut Writer<'_>, tls: &Tls) -> fmt::Result {
    let ends = HandshakeEnd::ALL.map(|(end, name)| ([("result", name)], tls.terms.ended(end)));
    out.counter(
        "tls_handshakes",
        "TLS handshakes by how they ended",
        ends.iter().map(|(labels, count)| (&labels[..], *count)),
    )?;
    let ends = KernelEnd::ALL.map(|(end, name)| ([("result", name)], tls.terms.by_kernel(end)));
    out.counter(
        "tls_kernel",
        "Connections that the kernel was asked to encrypt for, by what came of it",
        ends.iter().map(|(labels, count)| (&labels[..], *count)),
    )?;
    out.gauge("tls_handshakes_in_progress", "TLS handshakes in progress", alone(tls.terms.in_progress()))?;
    match tls.expires().and_then(|seconds| u64::try_from(seconds).ok()) {
        Some(seconds) => out.gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate of HTTPS expires, in seconds since 1970",
            alone(seconds),
        ),
        None => Ok(()),
    }
}
