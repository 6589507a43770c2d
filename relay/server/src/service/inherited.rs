//! Listening sockets that a service manager opened (sd_listen_fds(3)): they outlive the relay, so who connects while it restarts waits and
//! is served afterwards. Each has a name (`FileDescriptorName=`) that says what is served on it.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use socket2::SockRef;

/// First descriptor that is handed over, by convention; for messages.
const FIRST: usize = 3;

/// What was handed over. What is not there, the relay opens by itself.
#[derive(Debug, Default)]
pub struct Inherited {
    /// `http`, in the order they came, all with one address; best one for each shard.
    pub http: Vec<OwnedFd>,
    /// `https`, likewise.
    pub https: Vec<OwnedFd>,
    /// The stream sockets of `bt`, likewise.
    pub bittorrent: Vec<OwnedFd>,
    /// The datagram socket of `bt`, for the UDP tracker.
    pub udp: Option<UdpSocket>,
    /// `pages`.
    pub pages: Option<TcpListener>,
    /// `metrics`.
    pub metrics: Option<TcpListener>,
    /// `admin`.
    pub admin: Option<UnixListener>,
}

/// What was handed over cannot be used. Each message says what to change in the socket unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InheritedError {
    /// A name that means nothing.
    #[error(
        "the service manager hands over a socket named `{0}`: set FileDescriptorName= to http, https, bt, pages, metrics or admin"
    )]
    Name(String),
    /// Not of the kind that its name asks for.
    #[error(
        "the socket `{name}` (descriptor {descriptor}) is no {wanted} socket: {problem}; correct its socket unit"
    )]
    Kind {
        /// Its name.
        name: String,
        /// Its number.
        descriptor: usize,
        /// What it has to be.
        wanted: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Sockets of one name that do not belong together.
    #[error(
        "the sockets named `{name}` listen on {one} and {other}: one address for all shards, one ListenStream= line for each"
    )]
    Addresses {
        /// Their name.
        name: &'static str,
        /// An address.
        one: SocketAddr,
        /// Another.
        other: SocketAddr,
    },
    /// More than one where one is used.
    #[error(
        "the service manager hands over several {0} sockets, and one is used: remove the others from the socket unit"
    )]
    Several(&'static str),
    /// A datagram socket alone.
    #[error(
        "`bt` is handed over as a datagram socket alone: add ListenStream= for the same port to its socket unit"
    )]
    NoStream,
}

impl Inherited {
    /// Takes over what the environment speaks of, closed on exec and checked. To be called once, before there are other threads.
    ///
    /// # Errors
    /// See [`InheritedError`].
    pub fn take(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, InheritedError> {
        let names = variable("LISTEN_FDNAMES").and_then(|names| names.into_string().ok()).unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        // sd_listen_fds_with_names(3): without names they are all `unknown`.
        let names = names.split(':').filter(|name| !name.is_empty()).map(str::to_owned);
        let names = names.chain(std::iter::repeat("unknown".to_owned()));
        let mut inherited = Inherited::default();
        for (index, name) in (0..sockets.len()).zip(names) {
            let mut taken = Taken { sockets: &mut sockets, index, name: &name };
            match name.as_str() {
                "http" => inherited.http.push(taken.stream()?.into()),
                "https" => inherited.https.push(taken.stream()?.into()),
                "bt" => match taken.datagram() {
                    Some(udp) => set(&mut inherited.udp, udp, "bt datagram")?,
                    None => inherited.bittorrent.push(taken.stream()?.into()),
                },
                "pages" => set(&mut inherited.pages, taken.stream()?, "pages")?,
                "metrics" => set(&mut inherited.metrics, taken.stream()?, "metrics")?,
                "admin" => set(&mut inherited.admin, taken.unix()?, "admin")?,
                unknown => return Err(InheritedError::Name(unknown.to_owned())),
            }
        }
        inherited.check()
    }

    /// Whether the sockets of one name belong together.
    fn check(self) -> Result<Self, InheritedError> {
        let http = self.http.iter().filter_map(address);
        let bittorrent = self.bittorrent.iter().filter_map(address);
        let udp = self.udp.as_ref().and_then(address);
        if udp.is_some() && self.bittorrent.is_empty() {
            return Err(InheritedError::NoStream);
        }
        one_address("http", http)?;
        one_address("https", self.https.iter().filter_map(address))?;
        one_address("bt", bittorrent.chain(udp))?;
        Ok(self)
    }
}

fn one_address(
    name: &'static str,
    mut addresses: impl Iterator<Item = SocketAddr>,
) -> Result<(), InheritedError> {
    let Some(one) = addresses.next() else { return Ok(()) };
    match addresses.find(|other| *other != one) {
        Some(other) => Err(InheritedError::Addresses { name, one, other }),
        None => Ok(()),
    }
}

fn address(socket: &impl AsFd) -> Option<SocketAddr> {
    SockRef::from(socket).local_addr().ok()?.as_socket()
}

fn set<T>(place: &mut Option<T>, socket: T, name: &'static str) -> Result<(), InheritedError> {
    match place.replace(socket) {
        Some(_) => Err(InheritedError::Several(name)),
        None => Ok(()),
    }
}

/// One of the sockets, on its way to its place. What is of the wrong kind is not taken.
struct Taken<'a> {
    sockets: &'a mut ListenFd,
    index: usize,
    name: &'a str,
}

impl Taken<'_> {
    fn stream(&mut self) -> Result<TcpListener, InheritedError> {
        let taken = self.sockets.take_tcp_listener(self.index);
        self.listening(taken, "listening TCP")
    }

    fn unix(&mut self) -> Result<UnixListener, InheritedError> {
        let taken = self.sockets.take_unix_listener(self.index);
        self.listening(taken, "listening Unix stream")
    }

    fn datagram(&mut self) -> Option<UdpSocket> {
        self.sockets.take_udp_socket(self.index).ok().flatten()
    }

    fn listening<T: AsFd>(
        &self,
        taken: io::Result<Option<T>>,
        wanted: &'static str,
    ) -> Result<T, InheritedError> {
        let problem = match taken {
            Ok(Some(socket)) => match SockRef::from(&socket).is_listener() {
                Ok(true) => return Ok(socket),
                Ok(false) => "nobody has called listen() on it".to_owned(),
                Err(error) => error.to_string(),
            },
            Ok(None) => "it was handed over only once".to_owned(),
            Err(error) => error.to_string(),
        };
        let (name, descriptor) = (self.name.to_owned(), FIRST + self.index);
        Err(InheritedError::Kind { name, descriptor, wanted, problem })
    }
}

/// Deals sockets to shards in their order. Where the numbers differ nothing is lost: of too many, some shards have several, since a
/// connection that waits on a socket must find somebody; of too few, shards share.
///
/// # Errors
/// There is no descriptor for a shared one.
pub fn deal(sockets: Vec<OwnedFd>, shards: usize) -> io::Result<Vec<Vec<OwnedFd>>> {
    let mut dealt: Vec<Vec<OwnedFd>> = (0..shards).map(|_| Vec::new()).collect();
    let handed_over = sockets.len();
    for shard in handed_over..shards {
        dealt[shard].push(sockets[shard % handed_over].try_clone()?);
    }
    for (number, socket) in sockets.into_iter().enumerate() {
        dealt[number % shards].push(socket);
    }
    Ok(dealt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().into()).collect()
    }

    /// The ports that each shard listens on, as positions in what was handed over.
    #[track_caller]
    fn check(handed_over: usize, shards: usize, expected: &[&[usize]]) {
        let sockets = listeners(handed_over);
        let ports: Vec<_> = sockets.iter().map(|socket| address(socket).unwrap().port()).collect();
        let place = |socket| ports.iter().position(|port| *port == address(socket).unwrap().port()).unwrap();
        let dealt: Vec<Vec<_>> = deal(sockets, shards)
            .unwrap()
            .iter()
            .map(|sockets| sockets.iter().map(place).collect())
            .collect();
        assert_eq!(dealt, expected);
    }

    #[test]
    fn every_socket_has_a_shard_and_every_shard_a_socket() {
        check(2, 2, &[&[0], &[1]]);
        check(1, 3, &[&[0], &[0], &[0]]);
        check(3, 2, &[&[0, 2], &[1]]);
        check(2, 3, &[&[0], &[1], &[0]]);
    }

    #[test]
    fn sockets_of_one_name_have_one_address() {
        let two = Inherited { http: listeners(2), ..Inherited::default() };
        assert!(matches!(two.check(), Err(InheritedError::Addresses { name: "http", .. })));
        let one = Inherited { http: listeners(1), bittorrent: listeners(1), ..Inherited::default() };
        assert!(one.check().is_ok());
        let udp = || UdpSocket::bind("127.0.0.1:0").ok();
        let alone = Inherited { udp: udp(), ..Inherited::default() };
        assert_eq!(alone.check().unwrap_err(), InheritedError::NoStream);
        let apart = Inherited { bittorrent: listeners(1), udp: udp(), ..Inherited::default() };
        assert!(matches!(apart.check(), Err(InheritedError::Addresses { name: "bt", .. })));
    }

    #[test]
    fn one_is_used_where_one_is_enough() {
        let mut place = None;
        assert_eq!(set(&mut place, 1, "metrics"), Ok(()));
        assert_eq!(set(&mut place, 2, "metrics"), Err(InheritedError::Several("metrics")));
    }
}
