//! The least that a server can do for a range: one loop that takes a request, sends a head and refers the socket to the pages of the file. It
//! checks nothing and keeps nothing, so it is no server but a yardstick: what it costs is the kernel's own part, and what another costs beyond
//! it is that other's. Requests come whole and one at a time, as the harness sends them.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::sendfile::sendfile64;
use nix::unistd::pipe2;
use rustix::net::sockopt::set_tcp_cork;
use rustix::net::{SendFlags, send};

/// Answers shorter than this go by `sendfile`; longer ones through a pipe, which costs two calls and less for each page.
const PIPED_BYTES_MIN: u64 = 64 << 10;

/// What a pipe is asked to hold.
const PIPE_BYTES: i32 = 1 << 20;

/// The listener among the connections, which go by their descriptors.
const LISTENER: u64 = u64::MAX;

const EVENTS_MAX: usize = 512;
const REQUEST_BYTES_MAX: usize = 4096;

/// Serves `file` until the process is ended.
///
/// # Errors
/// Those of the file and of the listener; connections that fail are dropped.
pub(crate) fn serve(file: &Path, listener: &TcpListener) -> anyhow::Result<Infallible> {
    let file = File::open(file).with_context(|| format!("opening {}", file.display()))?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let length = file.metadata()?.len();
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = [EpollEvent::empty(); EVENTS_MAX];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            count => count?,
        };
        for event in &events[..count] {
            if event.data() == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    let connection = Connection::new(socket)?;
                    let number = usize::try_from(connection.socket.as_raw_fd())?;
                    let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                    epoll.add(&connection.socket, EpollEvent::new(interest, number as u64))?;
                    connections.resize_with(connections.len().max(number + 1), || None);
                    connections[number] = Some(connection);
                }
            } else if let Some(slot) = connections.get_mut(usize::try_from(event.data())?)
                && let Some(connection) = slot
                && connection.go_on(&file, length, event.events()).is_err()
            {
                *slot = None;
            }
        }
    }
}

struct Connection {
    socket: TcpStream,
    /// Bytes of the file that are not yet in the pipe or in the socket.
    left: Range<u64>,
    pipe: Option<Pipe>,
}

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: usize,
}

impl Connection {
    fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Connection { socket, left: 0..0, pipe: None })
    }

    /// Does what can be done; an error is the end of the connection.
    fn go_on(&mut self, file: &File, length: u64, ready: EpollFlags) -> io::Result<()> {
        if !self.is_sending() {
            if !ready.contains(EpollFlags::EPOLLIN) {
                return Ok(());
            }
            let mut request = [0; REQUEST_BYTES_MAX];
            let taken = match self.socket.read(&mut request) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                taken => taken?,
            };
            let range = range_of(&request[..taken], length).ok_or(io::ErrorKind::InvalidData)?;
            self.begin(range, length)?;
        }
        match self.send(file) {
            Err(Errno::EAGAIN) => Ok(()),
            sent => Ok(sent?),
        }
    }

    fn is_sending(&self) -> bool {
        !self.left.is_empty() || self.pipe.as_ref().is_some_and(|pipe| pipe.held > 0)
    }

    fn begin(&mut self, range: Range<u64>, length: u64) -> io::Result<()> {
        let bytes = range.end - range.start;
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {bytes}\r\nContent-Range: bytes {}-{}/{length}\r\n\r\n",
            range.start,
            range.end - 1
        );
        if bytes >= PIPED_BYTES_MIN {
            set_tcp_cork(&self.socket, true)?;
            if self.pipe.is_none() {
                self.pipe = Some(Pipe::new()?);
            }
        }
        // The last answer was taken whole before this was asked, so there is room.
        if send(&self.socket, head.as_bytes(), SendFlags::MORE | SendFlags::NOSIGNAL)? < head.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.left = range;
        Ok(())
    }

    fn send(&mut self, file: &File) -> nix::Result<()> {
        let is_piped = self.pipe.as_ref().is_some_and(|pipe| pipe.held > 0)
            || self.left.end - self.left.start >= PIPED_BYTES_MIN;
        match &mut self.pipe {
            Some(pipe) if is_piped => {
                pipe.send(&self.socket, file, &mut self.left)?;
                set_tcp_cork(&self.socket, false).map_err(|error| Errno::from_raw(error.raw_os_error()))
            }
            _ => send_file(&self.socket, file, &mut self.left),
        }
    }
}

impl Pipe {
    fn new() -> nix::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // A smaller one takes more calls.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        Ok(Pipe { reader, writer, held: 0 })
    }

    fn send(&mut self, socket: &TcpStream, file: &File, left: &mut Range<u64>) -> nix::Result<()> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        while self.held > 0 || !left.is_empty() {
            if self.held == 0 {
                let (mut offset, wanted) = place(left)?;
                self.held = splice(file, Some(&mut offset), &self.writer, None, wanted, flags)?;
                left.start += self.held as u64;
            }
            self.held -= splice(&self.reader, None, socket, None, self.held, flags)?;
        }
        Ok(())
    }
}

fn send_file(socket: &TcpStream, file: &File, left: &mut Range<u64>) -> nix::Result<()> {
    while !left.is_empty() {
        let (mut offset, wanted) = place(left)?;
        left.start += sendfile64(socket.as_fd(), file.as_fd(), Some(&mut offset), wanted)? as u64;
    }
    Ok(())
}

/// Where bytes of the file begin, and how many they are, as the kernel wants to be told.
fn place(left: &Range<u64>) -> nix::Result<(i64, usize)> {
    let too_far = |_| Errno::EOVERFLOW;
    Ok((
        i64::try_from(left.start).map_err(too_far)?,
        usize::try_from(left.end - left.start).map_err(too_far)?,
    ))
}

/// The bytes that `Range: bytes=first-last` names.
fn range_of(request: &[u8], length: u64) -> Option<Range<u64>> {
    let text = std::str::from_utf8(request).ok()?;
    let (first, rest) = text.split_once("bytes=")?.1.split_once('-')?;
    let (start, end) = (first.parse().ok()?, rest.split_once("\r\n")?.0.parse::<u64>().ok()?.checked_add(1)?);
    (start < end && end <= length).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::payload::Payload;
    use crate::server::scratch::Scratch;

    #[test]
    fn ranges_come_as_they_are_in_the_file_however_long() {
        let scratch = Scratch::create(None).unwrap();
        let path = scratch.path().join("file");
        let length = 8 << 20;
        let payload = Payload::new(3);
        payload
            .write(&mut File::create(&path).unwrap(), 0..length, &crate::interrupt::Interrupt::default())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // It ends with the tests.
        std::thread::spawn(move || serve(&path, &listener));
        for range in [0..16_384, 4000..4001, 5..(6 << 20) + 5, length - 70_000..length, 0..length] {
            let request =
                format!("GET /file HTTP/1.1\r\nRange: bytes={}-{}\r\n\r\n", range.start, range.end - 1);
            client.write_all(request.as_bytes()).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            assert!(head.contains(&format!(
                "Content-Range: bytes {}-{}/{length}\r\n",
                range.start,
                range.end - 1
            )));
            let mut body = vec![0; usize::try_from(range.end - range.start).unwrap()];
            client.read_exact(&mut body).unwrap();
            assert_eq!(payload.first_difference(range.start, &body), None, "{range:?}");
        }
    }
}
