//! Certificates made on the spot, and a client that trusts them, tells a clean end from a cut, and reads no faster than it is told.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

/// Time that anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A certificate for `localhost` and its key.
pub(crate) struct Pair {
    der: CertificateDer<'static>,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        Pair { der: certificate.der().clone(), certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// Who trusts one certificate, and keeps the tickets that it is given.
#[derive(Clone)]
pub(crate) struct Client(Arc<ClientConfig>);

/// An open connection.
pub(crate) type Connection = BufReader<StreamOwned<ClientConnection, TcpStream>>;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn of(pair: &Pair, versions: &[&'static SupportedProtocolVersion]) -> Client {
        Client::with(pair, versions, |_| true)
    }

    /// Offers only those cipher suites.
    pub(crate) fn with(
        pair: &Pair,
        versions: &[&'static SupportedProtocolVersion],
        is_offered: impl Fn(CipherSuite) -> bool,
    ) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(pair.der.clone()).unwrap();
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites.retain(|suite| is_offered(suite.suite()));
        let config =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Client(Arc::new(config))
    }

    /// Connects with a small window, so that the relay meets a full socket; the handshake is done when it returns.
    pub(crate) fn connect(&self, port: u16) -> io::Result<Connection> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_recv_buffer_size(64 * 1024)?;
        socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        let session = ClientConnection::new(Arc::clone(&self.0), "localhost".try_into().unwrap()).unwrap();
        let mut tls = StreamOwned::new(session, stream);
        tls.flush()?;
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(BufReader::with_capacity(16 * 1024, tls))
    }
}

/// Sends a request without waiting for its answer.
pub(crate) fn ask(connection: &mut Connection, path: &str, fields: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    connection.get_mut().write_all(request.as_bytes()).unwrap();
}

/// The head of the next answer, and how long its body is.
pub(crate) fn head(connection: &mut Connection) -> (u16, String, u64) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(connection.read_line(&mut head).unwrap() > 0, "the connection ended after `{head}`");
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let field = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        line.and_then(|line| line.split_once(':')?.1.trim().parse().ok())
    };
    let length = field("content-length").unwrap_or(0);
    (status, head, length)
}

/// One request, and its whole answer.
pub(crate) fn get(connection: &mut Connection, path: &str, fields: &str) -> Answer {
    ask(connection, path, fields);
    let (status, head, length) = head(connection);
    let mut body = vec![0; usize::try_from(length).unwrap()];
    connection.read_exact(&mut body).unwrap();
    Answer { status, head, body }
}
