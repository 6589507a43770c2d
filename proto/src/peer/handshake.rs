//! The 68 bytes that open a peer connection (BEP 3), and the reserved bits by which peers name what they speak.
//!
//! Parsing is incremental and pessimistic: the first byte that cannot belong to a handshake ends it, so that a
//! connection that opens with [message stream encryption](super::mse) or another protocol is known by its first packet.

/// Length of a handshake on the wire.
pub const HANDSHAKE_BYTES: usize = 68;

/// The length byte and the protocol name that every handshake begins with (BEP 3).
pub const PREAMBLE: &[u8; 20] = b"\x13BitTorrent protocol";

/// Eight bytes of feature bits, numbered as the BEPs number them; bits nobody named are carried unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Reserved(pub [u8; 8]);

impl Reserved {
    const EXTENSION_PROTOCOL: (usize, u8) = (5, 0x10);
    const DHT: (usize, u8) = (7, 0x01);
    const FAST: (usize, u8) = (7, 0x04);
    const V2: (usize, u8) = (7, 0x10);

    fn has(self, (byte, mask): (usize, u8)) -> bool {
        self.0[byte] & mask != 0
    }

    fn with(mut self, (byte, mask): (usize, u8)) -> Self {
        self.0[byte] |= mask;
        self
    }

    /// Whether the sender speaks the fast extension (BEP 6).
    #[must_use]
    pub fn fast(self) -> bool {
        self.has(Self::FAST)
    }

    /// Whether the sender speaks the extension protocol (BEP 10).
    #[must_use]
    pub fn extension_protocol(self) -> bool {
        self.has(Self::EXTENSION_PROTOCOL)
    }

    /// Whether the sender takes part in the DHT and understands `port` (BEP 5).
    #[must_use]
    pub fn dht(self) -> bool {
        self.has(Self::DHT)
    }

    /// Whether the sender of a v1 infohash can upgrade a hybrid torrent to v2 (BEP 52).
    #[must_use]
    pub fn v2(self) -> bool {
        self.has(Self::V2)
    }

    /// Adds the bit of the fast extension (BEP 6).
    #[must_use]
    pub fn with_fast(self) -> Self {
        self.with(Self::FAST)
    }

    /// Adds the bit of the extension protocol (BEP 10).
    #[must_use]
    pub fn with_extension_protocol(self) -> Self {
        self.with(Self::EXTENSION_PROTOCOL)
    }

    /// Adds the bit of the DHT (BEP 5).
    #[must_use]
    pub fn with_dht(self) -> Self {
        self.with(Self::DHT)
    }

    /// Adds the v2 upgrade bit (BEP 52).
    #[must_use]
    pub fn with_v2(self) -> Self {
        self.with(Self::V2)
    }
}

/// A whole handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// What the sender speaks.
    pub reserved: Reserved,
    /// The v1 infohash, or the first 20 bytes of the v2 infohash (BEP 52).
    pub infohash: [u8; 20],
    /// The sender's name for itself (BEP 20).
    pub peer_id: [u8; 20],
}

/// What the bytes received so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A handshake so far; at least this many more bytes are to come.
    NeedMore(usize),
    /// A handshake; it took [`HANDSHAKE_BYTES`], what follows is the first frame.
    Whole(Handshake),
    /// Not BitTorrent, or BitTorrent behind message stream encryption: nothing further can make it a handshake.
    NotBitTorrent,
}

impl Handshake {
    /// Judges the bytes received since the connection opened; more than a handshake is fine.
    #[must_use]
    pub fn parse(received: &[u8]) -> Progress {
        if received.iter().zip(PREAMBLE).any(|(got, expected)| got != expected) {
            return Progress::NotBitTorrent;
        }
        let mut rest = received.get(PREAMBLE.len()..).unwrap_or_default();
        let fields = (|| {
            let reserved = Reserved(crate::octets::take(&mut rest)?);
            let infohash = crate::octets::take(&mut rest)?;
            Some(Self { reserved, infohash, peer_id: crate::octets::take(&mut rest)? })
        })();
        fields.map_or_else(|| Progress::NeedMore(HANDSHAKE_BYTES - received.len()), Progress::Whole)
    }

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> [u8; HANDSHAKE_BYTES] {
        let mut out = [0; HANDSHAKE_BYTES];
        out[..20].copy_from_slice(PREAMBLE);
        out[20..28].copy_from_slice(&self.reserved.0);
        out[28..48].copy_from_slice(&self.infohash);
        out[48..].copy_from_slice(&self.peer_id);
        out
    }
}

/// A handshake up to its peer id.
///
/// BEP 3 lets the side that was called answer from here on, and some peers wait for that answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// What the sender speaks.
    pub reserved: Reserved,
    /// As in [`Handshake`].
    pub infohash: [u8; 20],
}

impl Opening {
    /// What the bytes received since the connection opened begin with; `None` while some are missing, or if it is something else.
    #[must_use]
    pub fn parse(received: &[u8]) -> Option<Self> {
        let mut rest = received.strip_prefix(PREAMBLE)?;
        let reserved = Reserved(crate::octets::take(&mut rest)?);
        Some(Self { reserved, infohash: crate::octets::take(&mut rest)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Handshake {
        Handshake {
            reserved: Reserved::default().with_fast().with_extension_protocol().with_v2(),
            infohash: *b"an infohash of twent",
            peer_id: *b"-MR0100-abcdefghijkl",
        }
    }

    #[test]
    fn every_prefix_needs_exactly_the_rest() {
        let wire = sample().encode();
        for have in 0..wire.len() {
            assert_eq!(Handshake::parse(&wire[..have]), Progress::NeedMore(wire.len() - have));
        }
        let mut longer = wire.to_vec();
        longer.extend_from_slice(b"first frame");
        assert_eq!(Handshake::parse(&longer), Progress::Whole(sample()));
    }

    #[test]
    fn the_first_foreign_byte_ends_it() {
        let wire = sample().encode();
        for at in 0..PREAMBLE.len() {
            let mut other = wire;
            other[at] ^= 0x20;
            assert_eq!(Handshake::parse(&other[..=at]), Progress::NotBitTorrent, "byte {at}");
        }
        assert_eq!(Handshake::parse(b"GET / HTTP/1.1\r\n"), Progress::NotBitTorrent);
    }

    #[test]
    fn reserved_bits_sit_where_the_beps_put_them() {
        let none = Reserved::default();
        assert_eq!(none.with_extension_protocol().0, [0, 0, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(none.with_dht().0[7], 0x01);
        assert_eq!(none.with_fast().0[7], 0x04);
        assert_eq!(none.with_v2().0[7], 0x10);
        let reserved = sample().reserved;
        assert!(reserved.fast() && reserved.extension_protocol() && reserved.v2() && !reserved.dht());
    }

    #[test]
    fn the_infohash_is_known_before_the_peer_id() {
        let wire = sample().encode();
        let Handshake { reserved, infohash, .. } = sample();
        assert_eq!(Opening::parse(&wire[..47]), None);
        assert_eq!(Opening::parse(&wire[..48]), Some(Opening { reserved, infohash }));
        assert_eq!(Opening::parse(&[0; 68]), None);
    }
}
