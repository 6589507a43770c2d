//! Peers that open with message stream encryption: accepted if they insist, on a plain stream.
//!
//! Sending by reference needs plaintext, and most peers that try encryption first come back without. So an address is refused once, and
//! taken at its word if it then comes encrypted again.

use millrace_proto::peer::mse::{EXPONENT_BYTES, KeyPair, Progress, Refusal, Responder};

use crate::counters::Reason;
use crate::session::{Context, End, Random, Shared};

/// The encrypted part of an opening.
#[derive(Debug)]
pub(super) struct Encryption(Box<Responder>);

impl Encryption {
    /// For a peer whose first bytes are not those of a handshake.
    pub(super) fn begin(cx: &Context<'_>) -> Result<Self, End> {
        if cx.shared.ledger.refused.insists(cx.peer.ip(), cx.now) {
            Ok(Encryption(Box::default()))
        } else {
            Err(End::Now(Reason::NotBitTorrent))
        }
    }

    /// Handles what the peer sent. Once the stream is plain, returns what is known of it.
    pub(super) fn handle(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Result<Option<Vec<u8>>, End> {
        let peer = cx.peer.ip();
        let Shared { keys, random, catalog, gate, .. } = &mut *cx.shared;
        let keys = keys.get_or_insert_with(|| KeyPair::new(exponent(random)));
        let mut answer = Vec::new();
        let find = |skey| {
            let infohash = catalog.infohash_of(skey, peer).filter(|_| gate.rules.allow(peer));
            infohash.map(|infohash| infohash.0)
        };
        let progress = self.0.handle(data, keys, find, &mut answer);
        match progress {
            Ok(progress) => {
                cx.output.push_bytes(&answer);
                let Progress::Plain(plain) = progress else { return Ok(None) };
                cx.shared.counters.encrypted_handshakes.increment();
                Ok(Some(plain))
            }
            Err(refusal) => {
                if refusal == Refusal::PlaintextNotOffered {
                    // Refused at its first byte, it may still come in plain.
                    cx.shared.ledger.refused.forget(cx.peer.ip());
                }
                Err(End::Now(reason(refusal)))
            }
        }
    }
}

fn reason(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::NotEncryption => Reason::NotBitTorrent,
        Refusal::UnknownTorrent => Reason::UnknownTorrent,
        Refusal::Malformed => Reason::BadMessage,
        Refusal::PlaintextNotOffered => Reason::EncryptionRequired,
    }
}

/// It need not be a secret: see [`millrace_proto::peer::mse`].
fn exponent(random: &mut Random) -> [u8; EXPONENT_BYTES] {
    let mut exponent = [0; EXPONENT_BYTES];
    for chunk in exponent.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_be_bytes()[..chunk.len()]);
    }
    exponent
}
