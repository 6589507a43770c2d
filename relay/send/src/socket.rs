//! The options of listening and accepted sockets, the same for every back end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::calls;

/// Unsent bytes a socket may hold before it counts as full. Bounds the pages that a slow reader keeps from being evicted, and lets
/// a fast one never run dry.
const NOTSENT_LOWAT_BYTES: u32 = 128 * 1024;

/// Connections the kernel completes for us while the shard is busy; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listening TCP socket on `address`, non-blocking and closed on exec. With `reuse_port` each shard listens on the same address
/// and the kernel spreads connections. `congestion` names a congestion control (such as `cubic`), which accepted sockets inherit;
/// it is set here because switching a connection away from BBR leaves its pacing on. IPv6 wildcard addresses take IPv4 too.
///
/// # Errors
/// The address is taken or not ours, or the congestion control is not loaded.
pub fn make_listener(address: SocketAddr, reuse_port: bool, congestion: Option<&str>) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    tune_listener(&socket, congestion)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets what accepted sockets inherit from a listener, which saves system calls with each, and what the listener needs itself:
/// non-blocking. For one that was made elsewhere; [`make_listener`] has done it.
///
/// # Errors
/// The congestion control is not loaded.
pub fn tune_listener(socket: impl AsFd, congestion: Option<&str>) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    socket.set_nonblocking(true)?;
    if let Some(name) = congestion {
        socket.set_tcp_congestion(name.as_bytes())?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)
}

/// Sets what an accepted socket needs, whatever listener it came by (one passed in by systemd has none of our options): non-blocking,
/// no Nagle delay (RFC 896), a bound on unsent bytes.
///
/// # Errors
/// The peer is gone already.
pub fn tune_accepted(socket: impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)
}

/// The peer's address as the engine knows it: IPv4-mapped addresses (RFC 4291 §2.5.5.2) as IPv4. None where there is none, as for
/// a Unix socket.
#[must_use]
pub fn peer_address(address: &SockAddr) -> Option<SocketAddr> {
    let address = address.as_socket()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Makes the close of `socket` a reset, which tells the reader that what it has is not all.
///
/// # Errors
/// None that leaves the socket usable.
pub fn reset_on_close(socket: impl AsFd) -> io::Result<()> {
    SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO))
}

/// Runs `send` under `TCP_CORK`, so that segments go out full and the last one when all has been said.
///
/// `MSG_MORE` does not do for more than 64 KiB: with `TCP_NODELAY` set, as here, every acknowledgement that comes in meanwhile pushes out
/// what the last segment has so far. Of 1 MiB over loopback, which takes 17 segments, that made 23.
pub(crate) fn corked<T>(socket: BorrowedFd<'_>, send: impl FnOnce() -> T) -> T {
    let options = SockRef::from(&socket);
    calls::note();
    // Sockets that know no cork (a test's socket pair) do without.
    let corked = options.set_tcp_cork(true).is_ok();
    let sent = send();
    if corked {
        calls::note();
        // Fails only on a socket that is broken, which the next call finds out.
        let _ = options.set_tcp_cork(false);
    }
    sent
}

/// Numbers that `SO_MEMINFO` gives, and which of them are the send buffer and what is queued in it (`linux/sock_diag.h`).
const MEMORY_NUMBERS: usize = 9;
const SEND_BUFFER: usize = 3;
const SEND_QUEUED: usize = 5;

/// Bytes that fit between what waits in the socket and its send buffer: an estimate, since the kernel counts overhead too and grows the
/// buffer as it goes. Both by one system call, which is made for every batch.
pub(crate) fn send_room(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut numbers = [0u32; MEMORY_NUMBERS];
    let mut bytes = libc::socklen_t::try_from(size_of_val(&numbers)).map_err(io::Error::other)?;
    calls::note();
    // SAFETY: the kernel writes at most `bytes` bytes to `numbers`, which is that long, and how many it wrote to `bytes`; both outlive
    // the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    Errno::result(result)?;
    Ok(u64::from(numbers[SEND_BUFFER].saturating_sub(numbers[SEND_QUEUED])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, expected: &str) {
        let address: SocketAddr = address.parse().unwrap();
        assert_eq!(peer_address(&address.into()), Some(expected.parse().unwrap()));
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        check("[::ffff:192.0.2.1]:80", "192.0.2.1:80");
        check("[2001:db8::1]:80", "[2001:db8::1]:80");
        check("192.0.2.1:80", "192.0.2.1:80");
    }

    #[test]
    fn accepted_sockets_inherit_the_options_of_the_listener() {
        let listener = Socket::from(make_listener("[::]:0".parse().unwrap(), true, Some("reno")).unwrap());
        let port = listener.local_addr().unwrap().as_socket().unwrap().port();
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        assert!(peer_address(&peer).unwrap().is_ipv4());
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT_BYTES);
        assert!(accepted.tcp_congestion().unwrap().starts_with(b"reno"));
        tune_accepted(&accepted).unwrap();
        assert!(accepted.nonblocking().unwrap());
    }

    #[test]
    fn what_is_queued_takes_from_the_room() {
        use std::io::Write as _;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_reader, _) = listener.accept().unwrap();
        let empty = send_room(client.as_fd()).unwrap();
        let buffer = SockRef::from(&client).send_buffer_size().unwrap() as u64;
        assert_eq!(empty, buffer);
        // More than the reader's buffer takes, so that some stays here.
        client.set_nonblocking(true).unwrap();
        while client.write(&[0; 65_536]).is_ok() {}
        assert!(send_room(client.as_fd()).unwrap() < empty);
    }
}
