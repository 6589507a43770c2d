//! Which groups of networks an address is in.

use std::collections::HashMap;
use std::net::IpAddr;

use millrace_proto::admin::caps::Cidr;

/// Groups by network. Looking an address up costs one step for each length of prefix that occurs.
#[derive(Debug, Default)]
pub(super) struct Networks(Vec<(bool, u8, HashMap<u128, Vec<u32>>)>);

impl Networks {
    /// Puts a network into a group.
    pub(super) fn add(&mut self, cidr: Cidr, group: u32) {
        let (address, bits) = cidr.parts();
        let (is_v6, key) = key(address, bits);
        let position = self.0.iter().position(|(v6, length, _)| (*v6, *length) == (is_v6, bits));
        let position = position.unwrap_or_else(|| {
            self.0.push((is_v6, bits, HashMap::new()));
            self.0.len() - 1
        });
        self.0[position].2.entry(key).or_default().push(group);
    }

    /// The groups that an address is in, in order and each once.
    pub(super) fn of(&self, address: IpAddr) -> Vec<u32> {
        let address = address.to_canonical();
        let mut groups: Vec<u32> = Vec::new();
        for (is_v6, bits, networks) in &self.0 {
            if *is_v6 == address.is_ipv6() {
                groups.extend(networks.get(&key(address, *bits).1).into_iter().flatten());
            }
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

/// The first `bits` of an address.
fn key(address: IpAddr, bits: u8) -> (bool, u128) {
    let (is_v6, all, number) = match address {
        IpAddr::V4(v4) => (false, 32, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (true, 128, u128::from(v6)),
    };
    (is_v6, number.checked_shr(all - u32::from(bits).min(all)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(groups: &[&[&str]], address: &str, expected: &[u32]) {
        let mut networks = Networks::default();
        for (group, cidrs) in (0..).zip(groups) {
            cidrs.iter().for_each(|cidr| networks.add(cidr.parse().unwrap(), group));
        }
        assert_eq!(networks.of(address.parse().unwrap()), expected, "{address} in {groups:?}");
    }

    #[test]
    fn every_group_that_contains_it_counts_once() {
        let groups: &[&[&str]] =
            &[&["10.0.0.0/8", "10.1.0.0/16"], &["10.1.2.0/24"], &["2001:db8::/32"], &["::/0"]];
        check(groups, "10.1.2.3", &[0, 1]);
        check(groups, "10.1.3.3", &[0]);
        check(groups, "11.1.2.3", &[]);
        check(groups, "::ffff:10.9.9.9", &[0]);
        check(groups, "2001:db8::1", &[2, 3]);
        check(groups, "2001:db9::1", &[3]);
        check(&[&["0.0.0.0/0"], &["192.0.2.1"]], "192.0.2.1", &[0, 1]);
    }
}
