//! Listening sockets: one per shard and port, joined by `SO_REUSEPORT` so that the kernel deals connections out.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use millrace_send::socket::{make_listener, tune_listener};
use socket2::SockRef;

use crate::service::inherited::deal;

/// How often a port that is in use is tried again, and how long after the last time: a second in all.
const TRIES_MAX: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Why a port cannot be listened on. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has it.
    #[error("{address} is in use: stop what listens there, or choose another address with {flag}")]
    InUse {
        /// The address asked for.
        address: SocketAddr,
        /// The flag that names it.
        flag: &'static str,
    },
    /// The kernel refuses for another reason.
    #[error("cannot listen on {address}: {source}; choose another address with {flag}")]
    Refused {
        /// The address asked for.
        address: SocketAddr,
        /// The flag that names it.
        flag: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
}

impl ListenError {
    fn from(source: io::Error, address: SocketAddr, flag: &'static str) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { address, flag },
            _ => ListenError::Refused { address, flag, source },
        }
    }
}

/// Whether sockets can have IPv6 addresses here.
#[must_use]
pub fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

/// Opens one TCP listener for each of `shards`; port 0 lets the kernel choose one port for all. Returns the address they have.
///
/// `congestion` names the congestion control of their connections. `flag` is what the error tells the operator to change.
///
/// # Errors
/// The port is taken, or the address is not this machine's.
pub fn tcp(
    address: SocketAddr,
    shards: usize,
    congestion: Option<&str>,
    flag: &'static str,
) -> Result<(SocketAddr, Vec<OwnedFd>), ListenError> {
    let failed = |error| ListenError::from(error, address, flag);
    // A second relay of the same user could join a group of `SO_REUSEPORT` and take half the connections unnoticed, so the
    // port is first taken without it.
    let taken = patiently(|| make_listener(address, false, None)).map_err(failed)?;
    let address = local(&taken).map_err(failed)?;
    drop(taken);
    let failed = |error| ListenError::from(error, address, flag);
    let listeners = (0..shards)
        .map(|_| make_listener(address, true, congestion).map_err(failed))
        .collect::<Result<_, _>>()?;
    Ok((address, listeners))
}

/// Makes sockets that a service manager opened listen as ours do, and deals them to the shards. The port is not taken first as in
/// [`tcp`]: whoever opened them has it.
///
/// # Errors
/// The congestion control is not loaded, or there are no descriptors.
pub fn inherited(
    sockets: Vec<OwnedFd>,
    shards: usize,
    congestion: Option<&str>,
    flag: &'static str,
) -> Result<(SocketAddr, Vec<Vec<OwnedFd>>), ListenError> {
    let unknown = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let first = sockets.first().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)).and_then(local);
    let address = first.map_err(|error| ListenError::from(error, unknown, flag))?;
    let failed = |error| ListenError::from(error, address, flag);
    if sockets.len() != shards {
        tracing::warn!(
            sockets = sockets.len(),
            shards,
            "the service manager hands over another number of sockets for {flag} than there are shards: all are served, not all as fast; \
             write one ListenStream= line with ReusePort=yes for each shard"
        );
    }
    sockets.iter().try_for_each(|socket| tune_listener(socket, congestion)).map_err(failed)?;
    Ok((address, deal(sockets, shards).map_err(failed)?))
}

/// Opens a UDP socket that does not wait.
///
/// # Errors
/// As [`tcp`].
pub fn udp(address: SocketAddr, flag: &'static str) -> Result<UdpSocket, ListenError> {
    let open = || {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    patiently(open).map_err(|error| ListenError::from(error, address, flag))
}

/// Tries again for a moment: io_uring gives the sockets of a process that was killed back only some time after it is gone, and a
/// supervisor starts the next one at once.
fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES_MAX {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(BETWEEN_TRIES),
            result => return result,
        }
    }
    open()
}

fn local(listener: &OwnedFd) -> io::Result<SocketAddr> {
    let address = SockRef::from(listener).local_addr()?.as_socket();
    address.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// The address to name where an unspecified one is bound to: the first of this machine's that is not loopback.
#[must_use]
pub fn local_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let mut addresses: Vec<IpAddr> = interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|ip| match ip {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            // fe80::/10 means nothing without its interface.
            IpAddr::V6(v6) => !v6.is_loopback() && v6.segments()[0] & 0xffc0 != 0xfe80,
        })
        .collect();
    // IPv4 first: that is what a link is most likely to be opened by. The order of interfaces stays.
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::new([127, 0, 0, 1].into(), port)
    }

    #[test]
    fn one_port_for_all_shards() {
        let (address, listeners) = tcp(loopback(0), 3, Some("reno"), "--http").unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(listeners.len(), 3);
    }

    #[test]
    fn a_second_relay_does_not_join_the_group_of_the_first() {
        let (address, _listeners) = tcp(loopback(0), 2, None, "--http").unwrap();
        let error = tcp(address, 2, None, "--bt").unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("--bt"), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = tcp(SocketAddr::new([192, 0, 2, 1].into(), 0), 1, None, "--http").unwrap_err();
        assert!(matches!(error, ListenError::Refused { .. }), "{error}");
    }
}
