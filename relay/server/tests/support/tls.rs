//! TLS in front of a test origin, with a certificate of a CA made on the spot.
//!
//! Requests and answers alternate, so one thread a connection carries both ways.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A TLS server for `localhost`.
pub(crate) struct Front {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    /// Who signed its certificate.
    pub(crate) ca_pem: String,
}

/// Starts a TLS server in front of `origin`.
pub(crate) fn front(origin: SocketAddr) -> Front {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // A client that does not trust us ends the connection: nothing to report.
            std::thread::spawn(move || carry(StreamOwned::new(connection, stream), origin));
        }
    });
    Front { port, ca_pem }
}

fn carry(tls: StreamOwned<ServerConnection, TcpStream>, origin: SocketAddr) -> io::Result<()> {
    let (mut client, mut server) = (BufReader::new(tls), BufReader::new(TcpStream::connect(origin)?));
    loop {
        let (request, _) = head(&mut client)?;
        server.get_mut().write_all(request.as_bytes())?;
        let (answer, length) = head(&mut server)?;
        client.get_mut().write_all(answer.as_bytes())?;
        io::copy(&mut server.by_ref().take(length), client.get_mut())?;
        client.get_mut().flush()?;
    }
}

/// A head as it came, and the length of the body that follows.
fn head(reader: &mut impl BufRead) -> io::Result<(String, u64)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match head[start..].trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().unwrap()
            }
            None if head[start..].trim().is_empty() => return Ok((head, length)),
            _ => {}
        }
    }
}
