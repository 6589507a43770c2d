//! The keys of HTTPS: an address, and the files of a certificate, which go together.

use std::path::Path;
use std::time::Duration;

use millrace_send::tls::HandshakeLimits;

use super::check::{Found, Lookup, address, number, optional};
use super::file::{Entry, File};
use super::{ConfigError, Environment, Https, TlsKernel};
use crate::cli::ServeArgs;
use crate::tls;

/// HTTPS, where it is wanted. What is in the files is for who loads them to judge.
pub(super) fn https(
    lookup: &Lookup<'_>,
    args: &ServeArgs,
    file: &File,
    environment: &Environment<'_>,
) -> Result<Option<Https>, ConfigError> {
    let Some(found) = lookup.either("https", args.https.as_deref(), &file.https) else { return Ok(None) };
    let listen = |text: &str| if text == "off" { Ok(None) } else { address(text).map(Some) };
    let Some(address) = found.read(listen)? else { return Ok(None) };
    let path = |name: &'static str, flag: Option<&Path>, entry: &Entry| {
        let named =
            flag.map(Path::to_owned).or_else(|| lookup.entry(name, entry).map(|found| found.text.into()));
        named.or_else(|| environment.credential(name)).ok_or_else(|| {
            ConfigError(format!(
                "{}: HTTPS takes a certificate and its key: name their files with tls-certificate and tls-key (--{name} FILE), or pass them as credentials of these names",
                found.place
            ))
        })
    };
    let files = tls::Files {
        certificate: path("tls-certificate", args.tls_certificate.as_deref(), &file.tls_certificate)?,
        key: path("tls-key", args.tls_key.as_deref(), &file.tls_key)?,
    };
    Ok(Some(Https { address, files }))
}

/// Who encrypts.
pub(super) fn kernel(lookup: &Lookup<'_>, file: &File) -> Result<TlsKernel, ConfigError> {
    let kind = |text: &str| match text {
        "auto" => Ok(TlsKernel::Auto),
        "off" => Ok(TlsKernel::Off),
        _ => Err("write auto or off".into()),
    };
    Ok(optional(lookup.entry("tls-kernel", &file.tls_kernel), kind)?.unwrap_or(TlsKernel::Auto))
}

/// The bounds on handshakes.
pub(super) fn handshakes(lookup: &Lookup<'_>, file: &File) -> Result<HandshakeLimits, ConfigError> {
    let (keys, default) = (&file.limits, HandshakeLimits::default());
    let in_progress = lookup.entry("limits.tls-handshakes", &keys.tls_handshakes);
    let timeout = lookup.entry("limits.tls-handshake-timeout", &keys.tls_handshake_timeout);
    let seconds = |found: Option<Found<'_>>| optional(found, |text| number(text, 1, 86_400));
    Ok(HandshakeLimits {
        in_progress_max: optional(in_progress, |text| number(text, 1, 1 << 20))?
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(default.in_progress_max),
        timeout: seconds(timeout)?.map_or(default.timeout, Duration::from_secs),
    })
}
