//! Message stream encryption (MSE, the Azureus wiki's "Message Stream Encryption", 2006), as far as a relay needs it: it is accepted from
//! peers who open with it, and of the two methods that it negotiates, plaintext is selected.
//!
//! ```text
//! A → B: Ya, PadA                             Ya = G^a mod P, 96 bytes; pads are 0 to 512 bytes
//! B → A: Yb, PadB                             S = Ya^b = Yb^a mod P
//! A → B: HASH("req1", S), HASH("req2", SKEY) xor HASH("req3", S),
//!        ENCRYPT(VC, crypto_provide, len(PadC), PadC, len(IA)), ENCRYPT(IA)
//! B → A: ENCRYPT(VC, crypto_select, len(PadD), PadD), then the stream
//! A → B: the stream
//! ```
//!
//! SKEY is the infohash, HASH is SHA-1, ENCRYPT is RC4, VC is eight zeros. What comes before the stream is encrypted even if
//! plaintext is selected, and so is IA, the first bytes of the peer's stream.
//!
//! **It keeps no secret here.** The stream that follows is plaintext, and the infohash is in it. So what we send is not padded, and one
//! exponent may serve many connections: neither would do if RC4 were ever selected.
//!
//! [`Responder`] is the side that is called. [`Initiator`] is the other, for the simulation and for tests: a relay calls nobody.

mod cipher;
mod initiator;
mod keys;
mod responder;

pub use initiator::Initiator;
pub use keys::{EXPONENT_BYTES, KEY_BYTES, KeyPair, SkeyHash};
pub use responder::{Progress, Refusal, Responder};

/// Most bytes of each pad.
pub const PAD_BYTES_MAX: usize = 512;

/// The verification constant, by which one sees that the keys agree.
const VC: [u8; 8] = [0; 8];

/// Bit of `crypto_provide` and `crypto_select`: what follows the handshake is not encrypted.
pub const PLAINTEXT: u32 = 1;

/// Bit of `crypto_provide`: what follows the handshake is encrypted by RC4. Never selected here.
pub const RC4: u32 = 2;
