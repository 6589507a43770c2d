//! Connections that do nothing: opened, greeted, and left alone, to see what they cost the server and those that work.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use millrace_proto::peer::handshake::{HANDSHAKE_BYTES, Handshake, Reserved};

use crate::interrupt::Interrupt;
use crate::payload::mix;
use crate::server::{HttpFile, Server, Torrent};

const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that are held open.
#[derive(Debug)]
pub(crate) struct Idle {
    streams: Vec<TcpStream>,
}

impl Idle {
    /// Opens `count` of them, over HTTP with one answer of one byte each, and where there is no HTTP over BitTorrent with a handshake each.
    ///
    /// # Errors
    /// The server refuses one, descriptors run out, or Ctrl-C.
    pub(crate) fn open(
        count: usize,
        http: Option<&HttpFile>,
        server: &Server,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let mut streams = Vec::with_capacity(count);
        for number in 0..count {
            interrupt.check()?;
            streams.push(match (http, &server.bittorrent) {
                (Some(file), _) => greet_http(file)?,
                (None, Some(torrent)) => greet_bittorrent(torrent, number as u64)?,
                (None, None) => anyhow::bail!("{} speaks neither protocol", server.name),
            });
        }
        Ok(Idle { streams })
    }

    /// How many the server has not closed.
    pub(crate) fn open_count(&self) -> usize {
        let is_open = |stream: &&TcpStream| {
            // Nothing to read is an open connection; what a BitTorrent peer says after its handshake is as well.
            stream.set_nonblocking(true).is_ok()
                && match stream.peek(&mut [0]) {
                    Ok(bytes) => bytes > 0,
                    Err(error) => error.kind() == io::ErrorKind::WouldBlock,
                }
        };
        self.streams.iter().filter(is_open).count()
    }
}

fn connect(address: std::net::SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn greet_http(file: &HttpFile) -> io::Result<TcpStream> {
    let mut stream = connect(file.address)?;
    let HttpFile { path, host, .. } = file;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nRange: bytes=0-0\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed an idle connection"));
        }
        answer.extend_from_slice(&buffer[..count]);
        // The one byte may be anything, so it is the length that counts.
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        if head.is_some_and(|at| answer.len() > at + 4) {
            return Ok(stream);
        }
    }
}

fn greet_bittorrent(torrent: &Torrent, number: u64) -> io::Result<TcpStream> {
    let mut stream = connect(torrent.address)?;
    let mut peer_id = *b"-MP0001-idle........";
    peer_id[12..].copy_from_slice(&mix(u64::from(std::process::id()) << 32 ^ number).to_be_bytes());
    let reserved = Reserved::default().with_fast().with_extension_protocol();
    stream.write_all(&Handshake { reserved, infohash: torrent.infohash, peer_id }.encode())?;
    stream.read_exact(&mut [0; HANDSHAKE_BYTES])?;
    Ok(stream)
}
