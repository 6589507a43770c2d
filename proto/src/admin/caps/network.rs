//! Networks of clients.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An IPv4 or IPv6 network, such as `10.1.0.0/16`; an address alone is a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNet);

impl Cidr {
    /// Whether a client with this address is in it. An IPv4 address that came over an IPv6 socket is an IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Its lowest address, and how many bits of it are fixed.
    #[must_use]
    pub fn parts(&self) -> (IpAddr, u8) {
        (self.0.addr(), self.0.prefix_len())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| {
                format!("`{text}` is no network: write an address and a prefix length, such as 10.1.0.0/16 or 2001:db8::/32")
            })?,
        };
        if net.addr().to_canonical() != net.addr() {
            return Err(format!("`{text}` is IPv4 in IPv6: write it as an IPv4 network"));
        }
        if net.trunc() != net {
            return Err(format!("`{text}` has bits behind its prefix: write {}", net.trunc()));
        }
        Ok(Cidr(net))
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses_only() {
        let contains = |net: &str, address: &str| {
            net.parse::<Cidr>().map(|net| address.parse().is_ok_and(|address| net.contains(address)))
        };
        assert_eq!(contains("10.1.0.0/16", "10.1.255.255"), Ok(true));
        assert_eq!(contains("10.1.0.0/16", "10.2.0.0"), Ok(false));
        assert_eq!(contains("10.1.0.0/16", "::ffff:10.1.2.3"), Ok(true));
        assert_eq!(contains("2001:db8::/32", "2001:db8:ffff::1"), Ok(true));
        assert_eq!(contains("192.0.2.7", "192.0.2.7"), Ok(true));
        assert_eq!(contains("0.0.0.0/0", "2001:db8::1"), Ok(false));
        for bad in [
            "10.1.2.3/16",
            "10.1/16",
            "10.1.0.0/33",
            "::ffff:10.0.0.0/104",
            "",
            "10.0.0.0/-1",
            "fe80::1%eth0",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        assert_eq!("192.0.2.7".parse::<Cidr>().map(|net| net.to_string()), Ok("192.0.2.7/32".to_owned()));
    }
}
