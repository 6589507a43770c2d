//! The side that is called: from the first byte of a peer's key to its plain stream.

use super::cipher::Cipher;
use super::keys::{KEY_BYTES, KeyPair, Secret, SkeyHash};
use super::{PAD_BYTES_MAX, PLAINTEXT, VC};
use crate::octets::{take, take_u16, take_u32};

/// VC, `crypto_provide` and `len(PadC)`; of our answer VC, `crypto_select` and `len(PadD)`.
const HEAD_BYTES: usize = 14;

/// Bytes of a SHA-1.
const HASH_BYTES: usize = 20;

/// Bytes of `len(IA)`, and of the other lengths.
const LENGTH_BYTES: usize = 2;

/// What ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A request of HTTP, or bytes in which the marker did not come in time.
    #[error("neither BitTorrent nor message stream encryption")]
    NotEncryption,
    /// SKEY is no infohash of ours.
    #[error("message stream encryption for a torrent that is not here")]
    UnknownTorrent,
    /// A verification constant that is not zero, or a pad that is too long.
    #[error("malformed message stream encryption")]
    Malformed,
    /// `crypto_provide` is without plaintext: the peer insists on RC4.
    #[error("the peer does not offer plaintext")]
    PlaintextNotOffered,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// More must come.
    NeedMore,
    /// The stream begins: IA, decrypted, and whatever came behind it. All that comes later is plain, too.
    Plain(Vec<u8>),
}

#[derive(Debug, Default)]
enum Stage {
    /// Ya is arriving.
    #[default]
    Key,
    /// PadA, and the marker that ends it.
    PadA { secret: Secret, marker: [u8; HASH_BYTES], skipped_bytes: usize },
    /// Which torrent.
    Skey { secret: Secret },
    /// VC, `crypto_provide`, `len(PadC)`.
    Head { theirs: Cipher, ours: Cipher },
    /// PadC, `len(IA)`.
    PadC { theirs: Cipher, ours: Cipher, pad_bytes: usize },
    /// IA, which is the end.
    Ia { theirs: Cipher, bytes: usize },
}

/// See the module. It holds what has arrived of the step that is under way: 64 KiB at most, the length of the longest IA.
#[derive(Debug, Default)]
pub struct Responder {
    stage: Stage,
    received: Vec<u8>,
}

impl Responder {
    /// Takes the next bytes that came, in portions of any size, and appends what is to be sent to `answer`. `ours` must be the same at
    /// every call; `find` names the infohash that a hash stands for.
    ///
    /// The peer's key costs one exponentiation, tens of microseconds; everything else is small.
    ///
    /// # Errors
    /// [`Refusal`] once nothing that may follow can help. The connection is to be closed.
    pub fn handle(
        &mut self,
        data: &[u8],
        ours: &KeyPair,
        find: impl Fn(SkeyHash) -> Option<[u8; 20]>,
        answer: &mut Vec<u8>,
    ) -> Result<Progress, Refusal> {
        self.received.extend_from_slice(data);
        // Somebody's browser at the wrong port need not wait for the time-out; of keys, one in 2^32 begins like this.
        if matches!(self.stage, Stage::Key) && self.received.starts_with(b"GET ") {
            return Err(Refusal::NotEncryption);
        }
        let mut rest = self.received.as_slice();
        while let Some((now, later)) = rest.split_at_checked(self.stage.bytes()) {
            rest = later;
            self.stage = match std::mem::take(&mut self.stage) {
                Stage::Key => greet(now, ours, answer),
                Stage::PadA { secret, marker, .. } if now == marker => Stage::Skey { secret },
                Stage::PadA { skipped_bytes: PAD_BYTES_MAX, .. } => return Err(Refusal::NotEncryption),
                Stage::PadA { secret, marker, skipped_bytes } => {
                    // The marker may begin one byte further on.
                    rest = &self.received[self.received.len() - later.len() - HASH_BYTES + 1..];
                    Stage::PadA { secret, marker, skipped_bytes: skipped_bytes + 1 }
                }
                Stage::Skey { secret } => find_torrent(now, &secret, &find)?,
                Stage::Head { theirs, ours } => read_head(now, theirs, ours)?,
                Stage::PadC { theirs, ours, .. } => select_plaintext(now, theirs, ours, answer),
                Stage::Ia { mut theirs, .. } => {
                    let mut plain = now.to_vec();
                    theirs.apply(&mut plain);
                    plain.extend_from_slice(later);
                    self.received = Vec::new();
                    return Ok(Progress::Plain(plain));
                }
            };
        }
        let used = self.received.len() - rest.len();
        self.received.drain(..used);
        Ok(Progress::NeedMore)
    }

    /// Bytes of heap that it holds.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.received.capacity()
    }
}

impl Stage {
    /// How many bytes it takes to go on.
    fn bytes(&self) -> usize {
        match self {
            Stage::Key => KEY_BYTES,
            Stage::PadA { .. } | Stage::Skey { .. } => HASH_BYTES,
            Stage::Head { .. } => HEAD_BYTES,
            Stage::PadC { pad_bytes, .. } => pad_bytes + LENGTH_BYTES,
            Stage::Ia { bytes, .. } => *bytes,
        }
    }
}

fn greet(mut key: &[u8], ours: &KeyPair, answer: &mut Vec<u8>) -> Stage {
    answer.extend_from_slice(ours.public());
    let secret = ours.secret(&take(&mut key).unwrap_or([0; KEY_BYTES]));
    Stage::PadA { marker: secret.marker(), secret, skipped_bytes: 0 }
}

fn find_torrent(
    mut masked: &[u8],
    secret: &Secret,
    find: &impl Fn(SkeyHash) -> Option<[u8; 20]>,
) -> Result<Stage, Refusal> {
    let skey = take(&mut masked).and_then(|masked| find(SkeyHash(secret.mask(masked))));
    let skey = skey.ok_or(Refusal::UnknownTorrent)?;
    Ok(Stage::Head { theirs: Cipher::new(&secret.key_a(&skey)), ours: Cipher::new(&secret.key_b(&skey)) })
}

fn read_head(head: &[u8], mut theirs: Cipher, ours: Cipher) -> Result<Stage, Refusal> {
    let mut head = head.to_vec();
    theirs.apply(&mut head);
    let mut fields = head.as_slice();
    if take(&mut fields) != Some(VC) {
        return Err(Refusal::Malformed);
    }
    let provided = take_u32(&mut fields).unwrap_or(0);
    let pad_bytes = take_u16(&mut fields).map_or(usize::MAX, usize::from);
    if pad_bytes > PAD_BYTES_MAX {
        return Err(Refusal::Malformed);
    }
    if provided & PLAINTEXT == 0 {
        return Err(Refusal::PlaintextNotOffered);
    }
    Ok(Stage::PadC { theirs, ours, pad_bytes })
}

/// Queues the last that is encrypted. Nothing in it is padded.
fn select_plaintext(pad_c: &[u8], mut theirs: Cipher, mut ours: Cipher, answer: &mut Vec<u8>) -> Stage {
    let mut head = [0; HEAD_BYTES];
    head[VC.len()..HEAD_BYTES - LENGTH_BYTES].copy_from_slice(&PLAINTEXT.to_be_bytes());
    ours.apply(&mut head);
    answer.extend_from_slice(&head);
    let mut pad_c = pad_c.to_vec();
    theirs.apply(&mut pad_c);
    let bytes = pad_c.last_chunk().map_or(0, |length| u16::from_be_bytes(*length));
    Stage::Ia { theirs, bytes: usize::from(bytes) }
}
