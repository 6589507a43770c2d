//! One small answer over HTTP/1.1, for finding out about a server before load is put on it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

const PATIENCE: Duration = Duration::from_secs(10);

/// Fetches a path; the status and the body.
///
/// # Errors
/// Those of the socket, and an answer that is not HTTP.
pub(crate) fn get(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut stream =
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).with_context(|| format!("http://{host}{path}"))?;
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_bytes) = response.parse(&answer)? else {
        bail!("http://{host}{path}: closed within the head");
    };
    let status = response.code.unwrap_or(0);
    let field = |name: &str| {
        let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok()
    };
    let body = &answer[head_bytes..];
    if field("transfer-encoding").is_some() {
        bail!("http://{host}{path}: answered in chunks, which are not read here");
    }
    if let Some(length) = field("content-length")
        && length.trim().parse() != Ok(body.len())
    {
        bail!("http://{host}{path}: {} bytes instead of {length}", body.len());
    }
    Ok((status, body.to_owned()))
}

/// As [`get`], where everything but 200 is a failure.
///
/// # Errors
/// As [`get`], and any other status.
pub(crate) fn get_ok(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    match get(address, host, path)? {
        (200, body) => Ok(body),
        (status, _) => bail!("http://{host}{path}: status {status}"),
    }
}
