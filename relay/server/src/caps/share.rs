//! A share of the caps on what is sent, while a program before this one or after it sends too. Every upgrade halves the share of the one
//! that is replaced and gives the other half to the new one, so that all together never have more than the whole.

use millrace_proto::admin::caps::{Cap, EffectiveCaps};

/// How often the whole was halved. A cap that is not the whole relay's, as that of a connection, is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// For programs before this one.
    pub(crate) before: u32,
    /// For the one that follows.
    pub(crate) after: u32,
}

impl Share {
    /// Both together.
    pub(crate) fn halvings(self) -> u32 {
        self.before + self.after
    }

    /// This share of `caps`.
    pub(crate) fn of(self, mut caps: EffectiveCaps) -> EffectiveCaps {
        let halve = |cap: &mut Cap| {
            // Never a pause where there was none.
            let share = |value: u64| value.checked_shr(self.halvings()).unwrap_or(0).max(value.min(1));
            cap.value = cap.value.map(share);
        };
        let egress = &mut caps.egress;
        [&mut egress.total, &mut egress.http, &mut egress.bittorrent].into_iter().for_each(halve);
        egress.networks.iter_mut().for_each(|network| halve(&mut network.total));
        caps.contents.values_mut().for_each(|content| halve(&mut content.egress));
        caps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_are_never_more_than_the_whole() {
        let cap = |value| Cap { value, source: None };
        let of = |share: Share, value| {
            let mut caps = EffectiveCaps::default();
            (caps.egress.total, caps.egress.per_connection) = (cap(value), cap(value));
            let caps = share.of(caps);
            assert_eq!(caps.egress.per_connection.value, value);
            caps.egress.total.value
        };
        // Three upgrades in a row, all of them still sending.
        let shares = [(0, 1), (1, 1), (2, 1), (3, 0)].map(|(before, after)| Share { before, after });
        for whole in [1_000_003, 64, 10] {
            let sum: u64 = shares.iter().filter_map(|share| of(*share, Some(whole))).sum();
            assert!(sum <= whole && sum + 4 >= whole, "{sum} of {whole}");
        }
        assert_eq!((of(shares[3], Some(0)), of(shares[3], None)), (Some(0), None));
    }
}
