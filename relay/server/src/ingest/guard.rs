//! Which addresses a pull may connect to.
//!
//! A URL that a user, a torrent, a metalink or a redirect gave must not lead the relay to its own host or its neighbours (SSRF). The
//! check is made on the *resolved* address, in the resolver that the client connects by, so a name that resolves differently
//! the second time (DNS rebinding) gains nothing. An origin that the operator named goes by the unguarded client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Why an address is not connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// The address is not a public one.
    #[error(
        "{host} ({address}) is not a public address: name this origin on the command line or in the configuration if it is meant"
    )]
    NotPublic {
        /// The host of the URL.
        host: String,
        /// What it resolved to.
        address: IpAddr,
    },
    /// The name has no address.
    #[error("{0} has no address")]
    NoAddress(String),
}

/// Whether `address` is a unicast address of the public Internet (the registries of RFC 6890).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b); // RFC 6598: carrier-grade NAT
    let protocols = a == 192 && b == 0 && c == 0; // RFC 6890
    let relay_6to4 = a == 192 && b == 88 && c == 99; // RFC 7526: deprecated anycast
    let benchmarks = a == 198 && (b == 18 || b == 19); // RFC 2544
    !(a == 0
        || a >= 240
        || shared
        || protocols
        || relay_6to4
        || benchmarks
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

/// Only 2000::/3 is handed out; what embeds an IPv4 address is judged by that address.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, ..] = address.segments();
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    if a == 0x0064 && b == 0xff9b && c == 0 {
        // RFC 6052: NAT64.
        return is_public_v4(embedded(address.segments()[6], address.segments()[7]));
    }
    if a == 0x2002 {
        // RFC 3056: 6to4.
        return is_public_v4(embedded(b, c));
    }
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    let special = a == 0x2001 && b < 0x0200; // RFC 2928: Teredo, ORCHID, benchmarks
    a & 0xe000 == 0x2000 && !documentation && !special
}

/// Checks a host that is an address already: those never reach a resolver.
///
/// # Errors
/// When the address is not public.
pub fn check_literal(url: &Url) -> Result<(), GuardError> {
    let address = match url.host() {
        Some(Host::Ipv4(v4)) => IpAddr::V4(v4),
        Some(Host::Ipv6(v6)) => IpAddr::V6(v6),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    match is_public(address) {
        true => Ok(()),
        false => Err(GuardError::NotPublic { host: url.host_str().unwrap_or_default().to_owned(), address }),
    }
}

/// Keeps the addresses that may be connected to.
///
/// One address that is not public condemns the whole answer: a public name that also points inside is an attack or a mistake.
fn allowed(host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, GuardError> {
    if let Some(inside) = found.iter().find(|address| !is_public(address.ip())) {
        return Err(GuardError::NotPublic { host: host.to_owned(), address: inside.ip() });
    }
    if found.is_empty() { Err(GuardError::NoAddress(host.to_owned())) } else { Ok(found) }
}

/// The resolver of the guarded client: the system's, with every address checked.
#[derive(Debug, Clone, Copy)]
pub struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found = allowed(name.as_str(), found.collect())?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, public: bool) {
        assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
    }

    #[test]
    fn only_the_public_internet_is_public() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "::127.0.0.1",
            "100::1",
            "fec0::1",
        ] {
            check(inside, false);
        }
        for outside in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.1.1",
            "8.8.8.8",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::",
            "2a00:1450::1",
        ] {
            check(outside, true);
        }
    }

    #[test]
    fn an_answer_with_one_address_inside_is_refused_whole() {
        let outside: SocketAddr = "8.8.8.8:0".parse().unwrap();
        let inside: SocketAddr = "127.0.0.1:0".parse().unwrap();
        assert_eq!(allowed("h", vec![outside]), Ok(vec![outside]));
        assert!(matches!(allowed("h", vec![outside, inside]), Err(GuardError::NotPublic { .. })));
        assert_eq!(allowed("h", vec![]), Err(GuardError::NoAddress("h".into())));
    }

    #[test]
    fn literals_are_checked_in_every_spelling() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
        ] {
            assert!(check_literal(&url.parse().unwrap()).is_err(), "{url}");
        }
        for url in ["http://8.8.8.8/", "http://example.org/", "http://[2606:4700::1111]/"] {
            assert!(check_literal(&url.parse().unwrap()).is_ok(), "{url}");
        }
    }
}
