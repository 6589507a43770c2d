//! The certificate of this relay: read from files, checked so that a mistake is told in one line, and replaced while connections go on.

mod validity;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use millrace_send::tls::{self, HandshakeLimits, Offer, Suites, Terms};
use ring::digest::{self, SHA256};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{Error, InconsistentKeys, ServerConfig};

use crate::config::TlsKernel;

pub use validity::Validity;

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM: the relay's own certificate first, those between it and a root behind it.
    pub certificate: PathBuf,
    /// PEM, not encrypted.
    pub key: PathBuf,
}

/// Why a certificate cannot be used. Each message names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key}: {}: {source}; name a file that user {} may read", path.display(), nix::unistd::geteuid())]
    File {
        /// The key of the configuration that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// There is nothing of use in a file.
    #[error("{key}: {} holds no {wanted} in PEM ({problem})", path.display())]
    Content {
        /// The key of the configuration that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What should be there.
        wanted: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// They are of different pairs.
    #[error("tls-key: {} is not the key of the certificate in {}: name the two that were made together", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// rustls does not take them.
    #[error("tls-certificate: {}: {source}", path.display())]
    Refused {
        /// The certificate's file.
        path: PathBuf,
        /// Its word.
        source: Error,
    },
}

/// A certificate that can be offered.
#[derive(Debug, Clone)]
pub struct Loaded {
    config: Arc<ServerConfig>,
    /// From when to when it is valid.
    pub validity: Option<Validity>,
    /// Of both files.
    digest: [u8; 32],
}

impl Files {
    /// Reads both files.
    ///
    /// # Errors
    /// See [`TlsError`]. A certificate that is not valid now is none: [`Loaded::warning`] says so.
    pub fn load(&self) -> Result<Loaded, TlsError> {
        let certificate = read("tls-certificate", &self.certificate)?;
        let key = read("tls-key", &self.key)?;
        let mut both = digest::Context::new(&SHA256);
        [&certificate, &key].into_iter().for_each(|file| both.update(digest::digest(&SHA256, file).as_ref()));
        let content = |key, path: &Path, wanted, error: pem::Error| TlsError::Content {
            key,
            path: path.to_owned(),
            wanted,
            problem: match error {
                pem::Error::NoItemsFound => "there is none".to_owned(),
                other => other.to_string(),
            },
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificate)
            .collect::<Result<_, _>>()
            .and_then(
                |chain: Vec<_>| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) },
            )
            .map_err(|error| content("tls-certificate", &self.certificate, "certificate", error))?;
        let private = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|error| content("tls-key", &self.key, "private key that is not encrypted", error))?;
        let validity = chain.first().and_then(|own| Validity::of(own));
        let config = self.config(chain, private)?;
        let mut digest = [0; 32];
        digest.copy_from_slice(both.finish().as_ref());
        Ok(Loaded { config: Arc::new(config), validity, digest })
    }

    fn config(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let refused = |source| TlsError::Refused { path: self.certificate.clone(), source };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    TlsError::Mismatch { certificate: self.certificate.clone(), key: self.key.clone() }
                }
                other => refused(other),
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // What a client needs to resume is in its ticket, whose keys are of this certificate's time and change every few hours. Early
        // data, which can be replayed, is not taken.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(refused)?;
        // For the kernel, when it takes over a connection.
        config.enable_secret_extraction = true;
        Ok(config)
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { key, path: path.to_owned(), source })
}

impl Loaded {
    /// What is wrong with the time that it is valid for, at `now` in seconds since 1970.
    #[must_use]
    pub fn warning(&self, now: i64) -> Option<String> {
        match &self.validity {
            None => Some("the certificate does not say how long it is valid".to_owned()),
            Some(validity) => validity.warning(now),
        }
    }

    fn offer(&self, limits: HandshakeLimits, kernel: Suites) -> Offer {
        Offer { config: Arc::clone(&self.config), limits, kernel }
    }
}

impl TlsKernel {
    /// What the kernel is to encrypt by, and why nothing, in words for an operator.
    fn suites(self) -> (Suites, String) {
        match (self, tls::probe()) {
            (TlsKernel::Off, _) => (Suites::NONE, "tls-kernel = off".to_owned()),
            (TlsKernel::Auto, Ok(suites)) => (suites, format!("the kernel takes {suites}")),
            (TlsKernel::Auto, Err(error)) => (Suites::NONE, without_kernel(&error)),
        }
    }
}

/// Why the kernel encrypts nothing, and what may change that.
pub(crate) fn without_kernel(error: &io::Error) -> String {
    format!("the kernel offers no TLS ({error}); `modprobe tls` where it has the module")
}

/// What a running relay offers.
#[derive(Debug)]
pub struct Tls {
    /// What shards make handshakes with.
    pub terms: Arc<Terms>,
    loaded: Mutex<Loaded>,
}

impl Tls {
    /// Offers this, and logs what is wrong with it.
    #[must_use]
    pub fn new(loaded: Loaded, limits: HandshakeLimits, kernel: TlsKernel) -> Self {
        loaded.log("certificate");
        let (kernel, reason) = kernel.suites();
        tracing::info!(by = encrypted_by(kernel), %reason, "HTTPS is encrypted");
        Tls { terms: Arc::new(Terms::new(loaded.offer(limits, kernel))), loaded: Mutex::new(loaded) }
    }

    /// Offers this from now on to who connects. Who is connected keeps what was agreed on. The same certificate keeps its tickets.
    pub fn replace(&self, new: Loaded, limits: HandshakeLimits, kernel: TlsKernel) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.digest != new.digest {
            new.log("certificate replaced");
            *loaded = new;
        }
        let (kernel, reason) = kernel.suites();
        if kernel != self.terms.offer().kernel {
            tracing::info!(by = encrypted_by(kernel), %reason, "HTTPS is encrypted");
        }
        self.terms.replace(loaded.offer(limits, kernel));
    }

    /// When the certificate expires, in seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> Option<i64> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.validity.as_ref().map(|validity| validity.not_after)
    }
}

fn encrypted_by(kernel: Suites) -> &'static str {
    if kernel == Suites::NONE { "relay" } else { "kernel" }
}

impl Loaded {
    fn log(&self, what: &str) {
        let until = self.validity.as_ref().map(Validity::until).unwrap_or_default();
        match self.warning(jiff::Timestamp::now().as_second()) {
            None => tracing::info!(%until, "{what}"),
            Some(warning) => tracing::warn!("{what}: {warning}: clients will refuse it"),
        }
    }
}

#[cfg(test)]
mod tests;
