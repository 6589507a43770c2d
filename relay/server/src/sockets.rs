//! Every socket that others see but the admin one: those that a service manager opened, and the rest by ourselves.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use socket2::SockRef;
use url::Url;

use crate::config::{Config, Pages};
use crate::control::socket::SocketFile;
use crate::listen;
use crate::service::inherited::Inherited;
use crate::start::StartError;

/// An address, and each shard's sockets that listen there.
pub(crate) type Listeners = (SocketAddr, Vec<Vec<OwnedFd>>);

/// Every socket that others see.
pub(crate) struct Sockets {
    pub(crate) http: Listeners,
    pub(crate) https: Option<Listeners>,
    pub(crate) bittorrent: Listeners,
    pub(crate) udp: UdpSocket,
    pub(crate) pages: Option<TcpListener>,
    pub(crate) metrics: Option<TcpListener>,
}

/// The same sockets once more, to be given to the program that follows. Closed when the last who has one closes it.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) http: Vec<OwnedFd>,
    pub(crate) https: Vec<OwnedFd>,
    pub(crate) bittorrent: Vec<OwnedFd>,
    pub(crate) udp: OwnedFd,
    pub(crate) pages: Option<OwnedFd>,
    pub(crate) metrics: Option<OwnedFd>,
    pub(crate) admin: OwnedFd,
    /// Whether the file of the admin socket is this relay's to remove.
    pub(crate) owns_admin_file: bool,
}

impl Kept {
    /// The file of the admin socket, where that is this relay's to remove.
    pub(crate) fn admin_file(&self) -> Option<SocketFile> {
        let address = SockRef::from(&self.admin).local_addr().ok().filter(|_| self.owns_admin_file)?;
        address.as_pathname().map(|path| SocketFile::of(path.to_owned()))
    }
}

impl Sockets {
    /// Opens what is not inherited.
    pub(crate) fn open(config: &Config, inherited: Inherited) -> Result<Self, StartError> {
        let http = Self::listeners(config, inherited.http, config.http, "--http")?;
        let https = match &config.https {
            Some(https) => Some(Self::listeners(config, inherited.https, https.address, "--https")?),
            None => {
                if !inherited.https.is_empty() {
                    tracing::warn!(
                        "HTTPS is off, and the service manager listens for it: who connects there waits in vain, so stop that socket unit"
                    );
                }
                None
            }
        };
        let bittorrent = Self::listeners(config, inherited.bittorrent, config.bittorrent, "--bt")?;
        let udp = match inherited.udp {
            Some(udp) => udp,
            None => listen::udp(bittorrent.0, "--bt")?,
        };
        udp.set_nonblocking(true)
            .map_err(|source| StartError::Kernel { what: "the UDP socket cannot be used", source })?;
        let pages = match config.pages {
            Pages::Apart(address) => Self::alone(Some(address), inherited.pages, "--pages")?,
            Pages::WithData | Pages::Off => None,
        };
        let metrics = Self::alone(config.metrics, inherited.metrics, "--metrics")?;
        Ok(Sockets { http, https, bittorrent, udp, pages, metrics })
    }

    /// A socket that the control thread serves: what was inherited, where it is wanted.
    fn alone(
        wanted: Option<SocketAddr>,
        inherited: Option<TcpListener>,
        flag: &'static str,
    ) -> Result<Option<TcpListener>, StartError> {
        match (wanted, inherited) {
            (None, _) => Ok(None),
            (Some(_), Some(inherited)) => Ok(Some(inherited)),
            (Some(address), None) => {
                let (_, listeners) = listen::tcp(address, 1, None, flag)?;
                Ok(listeners.into_iter().next().map(Into::into))
            }
        }
    }

    /// All of them once more, and the admin socket.
    ///
    /// # Errors
    /// There are no descriptors.
    pub(crate) fn keep(&self, admin: &UnixListener, owns_admin_file: bool) -> io::Result<Kept> {
        let again = |listeners: &Listeners| -> io::Result<Vec<OwnedFd>> {
            listeners.1.iter().flatten().map(OwnedFd::try_clone).collect()
        };
        let alone = |listener: &Option<TcpListener>| -> io::Result<Option<OwnedFd>> {
            Ok(listener.as_ref().map(TcpListener::try_clone).transpose()?.map(Into::into))
        };
        Ok(Kept {
            http: again(&self.http)?,
            https: self.https.as_ref().map_or(Ok(Vec::new()), again)?,
            bittorrent: again(&self.bittorrent)?,
            udp: self.udp.try_clone()?.into(),
            pages: alone(&self.pages)?,
            metrics: alone(&self.metrics)?,
            admin: admin.try_clone()?.into(),
            owns_admin_file,
        })
    }

    fn listeners(
        config: &Config,
        inherited: Vec<OwnedFd>,
        address: SocketAddr,
        flag: &'static str,
    ) -> Result<Listeners, StartError> {
        let (shards, congestion) = (config.cores.len(), config.congestion.as_deref());
        if !inherited.is_empty() {
            return Ok(listen::inherited(inherited, shards, congestion, flag)?);
        }
        let (address, sockets) = listen::tcp(address, shards, congestion, flag)?;
        Ok((address, sockets.into_iter().map(|socket| vec![socket]).collect()))
    }
}

/// `http://`, the first address of this machine that is not loopback, and the port. A relay bound to one address names that.
pub(crate) fn default_public_url(sockets: &Sockets) -> Url {
    let address = sockets.http.0;
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => Some(ip),
        ip => listen::local_addresses().into_iter().find(|local| ip.is_ipv6() || local.is_ipv4()),
    };
    let host = ip.map_or_else(
        || format!("localhost:{}", address.port()),
        |ip| SocketAddr::new(ip, address.port()).to_string(),
    );
    Url::parse(&format!("http://{host}/"))
        .unwrap_or_else(|_| unreachable!("an address and a port make a URL"))
}
