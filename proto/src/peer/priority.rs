//! Canonical peer priority (BEP 40): an order of connections that both ends compute alike, so that whoever is full of connections
//! knows which one to give up for a newcomer.

use std::net::{IpAddr, SocketAddr};

/// What is left of an address byte that is not taken whole.
const PARTIAL: u8 = 0x55;

/// Bytes of an address that are always taken whole: half of an IPv4 address, a /48 of an IPv6 one.
const WHOLE_BYTES_V4: usize = 2;
const WHOLE_BYTES_V6: usize = 6;

/// The priority of a connection between `a` and `b`, the same whichever comes first; larger is kept longer.
///
/// `None` when one is IPv4 and the other IPv6: such a connection does not exist.
#[must_use]
pub fn priority(a: SocketAddr, b: SocketAddr) -> Option<u32> {
    if a.ip() == b.ip() {
        let (low, high) = (a.port().min(b.port()), a.port().max(b.port()));
        return Some(crc32c::crc32c_append(crc32c::crc32c(&low.to_be_bytes()), &high.to_be_bytes()));
    }
    match (a.ip(), b.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => Some(of_addresses(a.octets(), b.octets(), WHOLE_BYTES_V4)),
        (IpAddr::V6(a), IpAddr::V6(b)) => Some(of_addresses(a.octets(), b.octets(), WHOLE_BYTES_V6)),
        _ => None,
    }
}

/// Neighbours are told apart by more of their addresses: one byte beyond those that they share.
fn of_addresses<const N: usize>(mut a: [u8; N], mut b: [u8; N], whole: usize) -> u32 {
    let shared = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let whole = if shared < whole { whole } else { shared + 1 };
    for byte in a[whole.min(N)..].iter_mut().chain(&mut b[whole.min(N)..]) {
        *byte &= PARTIAL;
    }
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    crc32c::crc32c_append(crc32c::crc32c(&low), &high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: &str, b: &str) -> Option<u32> {
        let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(priority(a, b), priority(b, a), "both ends agree");
        priority(a, b)
    }

    #[test]
    fn the_examples_of_the_standard() {
        assert_eq!(check("123.213.32.10:1", "98.76.54.32:2"), Some(0xec2d_7224));
        assert_eq!(check("123.213.32.10:1", "123.213.32.234:2"), Some(0x9956_8189));
    }

    #[test]
    fn neighbours_are_told_apart() {
        let far = check("192.0.2.1:1", "198.51.100.7:1");
        assert_eq!(far, check("192.0.2.1:1", "198.51.100.5:1"), "their low bits count for nothing");
        assert_ne!(check("192.0.2.1:1", "192.0.2.2:1"), check("192.0.2.1:1", "192.0.2.3:1"));
        assert_ne!(
            check("[2001:db8::1]:1", "[2001:db8:0:a000::]:1"),
            check("[2001:db8::1]:1", "[2001:db8:0:b000::]:1")
        );
        assert_ne!(check("192.0.2.1:1", "192.0.2.1:2"), check("192.0.2.1:1", "192.0.2.1:3"));
        assert_eq!(check("192.0.2.1:1", "[2001:db8::1]:1"), None);
    }
}
