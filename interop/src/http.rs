//! A small HTTP client of our own, for what real ones hide: whether a body ended cleanly or was cut, byte for byte.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest silence of a relay that is waiting for its origin.
const SILENCE: Duration = Duration::from_secs(30);

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As announced: by length, or by the last chunk.
    Clean,
    /// Before that: reset or closed.
    Cut,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Its fields, names in lower case.
    pub fields: Vec<(String, String)>,
    /// What came of the body, without chunk framing.
    pub body: Vec<u8>,
    /// How the body ended.
    pub end: End,
}

impl Answer {
    /// A field of this name, in lower case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection, with at most one answer being read.
#[derive(Debug)]
pub struct Connection<S = TcpStream> {
    stream: BufReader<S>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, SILENCE)?)
    }

    /// Takes a connected socket.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(Connection::on(stream))
    }
}

impl<S: Read + Write> Connection<S> {
    /// Takes what is neither connected by [`Connection::open`] nor a TCP socket alone, as it is.
    pub fn on(stream: S) -> Self {
        Connection { stream: BufReader::new(stream) }
    }

    /// Sends a request without a body; `fields` are whole lines without their end.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn request(&mut self, method: &str, path: &str, fields: &[&str]) -> io::Result<()> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: relay\r\n");
        for field in fields {
            text.push_str(field);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        self.stream.get_mut().write_all(text.as_bytes())
    }

    /// Reads the head of an answer; the body is left unread.
    ///
    /// # Errors
    /// Those of the socket, and a head that is none.
    pub fn head(&mut self) -> io::Result<Answer> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: `{line}`")))?;
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Answer { status, fields, body: Vec::new(), end: End::Cut });
            }
            let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other(line.clone()))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads the whole answer to a GET. A body that is cut is no error: see [`Answer::end`].
    ///
    /// # Errors
    /// A head that does not arrive, and a silence of half a minute.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.head()?;
        let chunked = answer.field("transfer-encoding") == Some("chunked");
        let length = answer.field("content-length").and_then(|text| text.parse::<u64>().ok());
        let ended = match (chunked, length) {
            (true, _) => self.chunks(&mut answer.body),
            (false, Some(length)) => self.exactly(length, &mut answer.body),
            (false, None) if matches!(answer.status, 204 | 304) => Ok(()),
            (false, None) => self.stream.read_to_end(&mut answer.body).map(drop),
        };
        answer.end = match ended {
            Ok(()) => End::Clean,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(_) => End::Cut,
        };
        Ok(answer)
    }

    /// Reads a body of this length, behind [`Connection::head`].
    ///
    /// # Errors
    /// Those of the socket, and an end before that.
    pub fn body(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.exactly(bytes, &mut body)?;
        Ok(body)
    }

    /// Reads `count` body bytes, or as many as come.
    fn exactly(&mut self, count: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let read = (&mut self.stream).take(count).read_to_end(into)?;
        if read as u64 == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// RFC 9112 §7.1, without trailers.
    fn chunks(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let size = u64::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
            self.exactly(size, into)?;
            if !self.line()?.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// GET over a connection of its own.
///
/// # Errors
/// As [`Connection::answer`].
pub fn get(address: SocketAddr, path: &str, fields: &[&str]) -> io::Result<Answer> {
    let mut connection = Connection::open(address)?;
    connection.request("GET", path, fields)?;
    connection.answer()
}

/// GET of `count` bytes from `offset`.
///
/// # Errors
/// As [`Connection::answer`].
pub fn range(address: SocketAddr, path: &str, offset: u64, count: u64) -> io::Result<Answer> {
    get(address, path, &[&format!("Range: bytes={offset}-{}", offset + count - 1)])
}
