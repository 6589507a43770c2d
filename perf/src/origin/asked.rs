//! What the origin is asked for.

use std::io::{self, Read as _};
use std::net::TcpStream;

use millrace_proto::http::range::{self, ByteRange, Ranges};
use millrace_proto::http::request::{self, Method, Parsed};
use millrace_proto::http::target::Target;

/// A request.
pub(super) struct Asked {
    /// The file, if there is such a one.
    pub(super) number: Option<u64>,
    pub(super) status: u16,
    pub(super) body: ByteRange,
    pub(super) has_body: bool,
    pub(super) keep_alive: bool,
}

impl Asked {
    /// Reads the next request, for a file of `length` bytes; `None` when there is none, or none that makes sense. What came behind it stays in
    /// `received`.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn read(
        stream: &mut TcpStream,
        received: &mut Vec<u8>,
        length: u64,
    ) -> io::Result<Option<Asked>> {
        let mut buffer = [0; 4096];
        loop {
            let (head_bytes, asked) = match request::parse(received, &request::Limits::default()) {
                Parsed::NeedMore => {
                    let count = stream.read(&mut buffer)?;
                    if count == 0 {
                        return Ok(None);
                    }
                    received.extend_from_slice(&buffer[..count]);
                    continue;
                }
                Parsed::Bad(_) => return Ok(None),
                Parsed::Request { head_bytes, request } => {
                    let (status, body) = select(request.range, length);
                    let number = match request.target {
                        Target::Resource { path, .. } => number_of(path.as_str()),
                        Target::Server => None,
                    };
                    let (has_body, keep_alive) = (request.method == Method::Get, request.keep_alive);
                    (head_bytes, Asked { number, status, body, has_body, keep_alive })
                }
            };
            received.drain(..head_bytes);
            return Ok(Some(asked));
        }
    }
}

/// Status and bytes of the answer.
fn select(range: Option<&[u8]>, length: u64) -> (u16, ByteRange) {
    match range.map_or(Ranges::Whole, |value| range::select(value, length)) {
        Ranges::Single(range) => (206, range),
        Ranges::Several(_) | Ranges::Whole | Ranges::Unsatisfiable => {
            (200, ByteRange { start: 0, end: length })
        }
    }
}

/// `/17.bin` is file 17.
fn number_of(path: &str) -> Option<u64> {
    path.strip_prefix('/')?.strip_suffix(".bin")?.parse().ok()
}
