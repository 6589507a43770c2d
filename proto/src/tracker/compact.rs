//! Compact peer lists: 6 bytes a peer for IPv4 (BEP 23), 18 for IPv6 (BEP 7), the port last.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::octets::{NoRoom, Writer, take, take_u16};

/// The two lengths an entry can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// 4 bytes of address, 2 of port.
    V4,
    /// 16 bytes of address, 2 of port.
    V6,
}

impl Family {
    /// The family of an address; an IPv4-mapped one counts as IPv4, since that is what the peer speaks.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Bytes of an entry.
    #[must_use]
    pub fn entry_bytes(self) -> usize {
        match self {
            Self::V4 => 6,
            Self::V6 => 18,
        }
    }
}

/// Reads up to `peers_max` entries onto `peers`; entries with port 0 are skipped, since nobody can be called there.
///
/// Returns `false`, and adds nothing, when the length is no multiple of an entry.
pub fn read(list: &[u8], family: Family, peers_max: usize, peers: &mut Vec<SocketAddr>) -> bool {
    if !list.len().is_multiple_of(family.entry_bytes()) {
        return false;
    }
    let entries = list.chunks_exact(family.entry_bytes()).filter_map(|entry| read_entry(entry, family));
    peers.extend(entries.filter(|peer| peer.port() != 0).take(peers_max));
    true
}

fn read_entry(mut entry: &[u8], family: Family) -> Option<SocketAddr> {
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(take::<4>(&mut entry)?)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(take::<16>(&mut entry)?)),
    };
    Some(SocketAddr::new(address, take_u16(&mut entry)?))
}

/// The entries of one family among `peers`, as the compact string of an HTTP answer.
#[must_use]
pub fn list(peers: &[SocketAddr], family: Family) -> Vec<u8> {
    let of_family = peers.iter().filter(|peer| Family::of(peer.ip()) == family);
    let mut bytes = vec![0; of_family.clone().count() * family.entry_bytes()];
    let mut to = Writer::new(&mut bytes);
    for peer in of_family {
        // The buffer was made for exactly these.
        let _ = write_entry(&mut to, peer);
    }
    bytes
}

pub(crate) fn write_entry(to: &mut Writer<'_>, peer: &SocketAddr) -> Result<(), NoRoom> {
    match peer.ip().to_canonical() {
        IpAddr::V4(v4) => to.bytes(&v4.octets())?,
        IpAddr::V6(v6) => to.bytes(&v6.octets())?,
    }
    to.u16(peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_apart_and_read_back() {
        let peers: Vec<SocketAddr> =
            ["192.0.2.1:6881", "[2001:db8::1]:1", "[::ffff:192.0.2.2]:80"].map(|p| p.parse().unwrap()).into();
        assert_eq!(list(&peers, Family::V4), [192, 0, 2, 1, 0x1a, 0xe1, 192, 0, 2, 2, 0, 80]);
        let mut back = Vec::new();
        assert!(read(&list(&peers, Family::V6), Family::V6, 10, &mut back));
        assert_eq!(back, [peers[1]]);
    }

    #[test]
    fn odd_lengths_port_zero_and_surplus_are_left_out() {
        let mut peers = Vec::new();
        assert!(!read(&[1; 7], Family::V4, 10, &mut peers) && peers.is_empty());
        assert!(read(&[1, 1, 1, 1, 0, 0, 1, 1, 1, 2, 0, 1, 1, 1, 1, 3, 0, 1], Family::V4, 1, &mut peers));
        assert_eq!(peers, ["1.1.1.2:1".parse().unwrap()]);
    }
}
