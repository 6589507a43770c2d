//! The HTTP client for the controller: TLS with verified certificates, the operator's proxy, HTTP/1.1, no redirects.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Config;

/// Time to connect, through a proxy too, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A client for the controller.
pub(crate) fn client(config: &Config) -> anyhow::Result<reqwest::Client> {
    let mut roots = rustls::RootCertStore::empty();
    // A system without certificates is no error where the operator names those of the controller.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in config.ca_file.as_deref().map(certificates).transpose()?.unwrap_or_default() {
        roots.add(certificate).context("ca-file holds something that is no CA certificate")?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS cannot be set up")?
        .with_root_certificates(roots);
    let mut tls = match &config.client {
        None => tls.with_no_client_auth(),
        Some((chain, key)) => {
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| anyhow!("{}: {error}: name a PEM file of a private key", key.display()))?;
            tls.with_client_auth_cert(certificates(chain)?, key)
                .context("client-certificate and client-key do not go together")?
        }
    };
    // A WebSocket begins as a request of HTTP/1.1.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .user_agent(concat!("millrace-agent/", env!("CARGO_PKG_VERSION")))
        .tcp_keepalive(Duration::from_secs(30))
        .connect_timeout(CONNECT_TIMEOUT);
    if let Some(proxy) = &config.proxy {
        builder = builder.no_proxy().proxy(reqwest::Proxy::all(proxy.as_str()).context("proxy")?);
    }
    builder.build().context("the HTTP client cannot be set up")
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let wrong = |error: String| anyhow!("{}: {error}: name a PEM file of certificates", path.display());
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let read: Result<Vec<_>, _> = read.collect();
    let read = read.map_err(|error| wrong(error.to_string()))?;
    if read.is_empty() { Err(wrong("no certificate in it".to_owned())) } else { Ok(read) }
}

/// An error with what caused it, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
