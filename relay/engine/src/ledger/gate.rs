//! What decides who may have what, besides the contents' own word: the networks that are answered at all, the keys of signed URLs, and
//! who may have what was added without a word. And how often somebody was turned away, by reason.

use millrace_proto::access::Access;
use millrace_proto::access::rules::Rules;
use millrace_proto::access::signature::{Keys, Refusal};

use crate::counters::Counter;

/// See the module. Replaced as a whole: running shards are told by [`News::Gate`](crate::event::News::Gate).
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// The networks that are answered.
    pub rules: Rules,
    /// The keys of signed URLs.
    pub keys: Keys,
    /// Who may have what was added without a word, pulls through named origins above all.
    pub default: Access,
}

/// Why somebody was turned away. The labels of `millrace_access_refusals_total{reason}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Barrier {
    /// The relay's rules deny the client's network.
    Rules,
    /// A content is not for this client, which brought no signature.
    Private,
    /// A signed URL is incomplete.
    Malformed,
    /// It was signed with a key that is not here.
    UnknownKey,
    /// It is not the URL that was signed.
    WrongSignature,
    /// Its time is over.
    Expired,
    /// It was signed for another network.
    OtherNetwork,
}

impl Barrier {
    /// All of them, in the order of their numbers.
    pub const ALL: [(Barrier, &'static str); 7] = [
        (Barrier::Rules, "rules"),
        (Barrier::Private, "private"),
        (Barrier::Malformed, "malformed"),
        (Barrier::UnknownKey, "unknown_key"),
        (Barrier::WrongSignature, "wrong_signature"),
        (Barrier::Expired, "expired"),
        (Barrier::OtherNetwork, "other_network"),
    ];
}

impl From<Refusal> for Barrier {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed => Barrier::Malformed,
            Refusal::UnknownKey => Barrier::UnknownKey,
            Refusal::Wrong => Barrier::WrongSignature,
            Refusal::Expired => Barrier::Expired,
            Refusal::OtherNetwork => Barrier::OtherNetwork,
        }
    }
}

/// How often each of them held, over all shards and the control thread.
#[derive(Debug, Default)]
pub struct TurnedAway([Counter; Barrier::ALL.len()]);

impl TurnedAway {
    /// Counts one.
    pub fn count(&self, barrier: Barrier) {
        self.0[barrier as usize].increment();
    }

    /// The counts by label.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Barrier::ALL.iter().map(|(barrier, name)| (*name, self.0[*barrier as usize].value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn barriers_are_numbered_in_the_order_of_their_labels() {
        for (number, (barrier, _)) in Barrier::ALL.iter().enumerate() {
            assert_eq!(*barrier as usize, number);
        }
    }
}
