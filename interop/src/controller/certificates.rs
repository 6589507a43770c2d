//! A CA made on the spot, and what it signs: the controller's certificate for `localhost`, and one for a client.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

#[derive(Debug)]
pub(super) struct Certificates {
    pub(super) ca_pem: String,
    /// Certificate and key.
    pub(super) client_pem: (String, String),
    ca: CertificateDer<'static>,
    server: (CertificateDer<'static>, Vec<u8>),
    strict: bool,
}

impl Certificates {
    pub(super) fn make(strict: bool) -> Self {
        let key = || KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = key();
        let certificate = ca.self_signed(&ca_key).expect("a certificate");
        let issuer = Issuer::new(ca, ca_key);
        let (server_key, client_key) = (key(), key());
        let sign = |name: &str, key: &KeyPair| {
            let parameters = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
            parameters.signed_by(key, &issuer).expect("a certificate")
        };
        Certificates {
            ca_pem: certificate.pem(),
            client_pem: (sign("box", &client_key).pem(), client_key.serialize_pem()),
            ca: certificate.der().clone(),
            server: (sign("localhost", &server_key).der().clone(), server_key.serialize_der()),
            strict,
        }
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("versions of TLS");
        let builder = if self.strict {
            let mut roots = RootCertStore::empty();
            roots.add(self.ca.clone()).expect("a CA");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = &self.server;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.clone()));
        Arc::new(builder.with_single_cert(vec![certificate.clone()], key).expect("a certificate and its key"))
    }
}
