//! Typed names for what the engine and its back end talk about.

/// A connection of one shard. A slot is used again after its connection is gone; the generation tells the two apart, so a late
/// event for the first never reaches the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    slot: u32,
    generation: u32,
}

impl ConnId {
    /// Slots fit in 24 bits, so that a connection, its generation and a kind of operation fill one 64-bit token.
    pub const SLOTS_MAX: u32 = 1 << 24;

    /// # Panics
    /// When `slot` is not below [`Self::SLOTS_MAX`].
    #[must_use]
    pub fn new(slot: u32, generation: u32) -> Self {
        assert!(slot < Self::SLOTS_MAX, "a shard has at most 2^24 connection slots");
        ConnId { slot, generation }
    }

    /// Index of the connection in its shard's table.
    #[must_use]
    pub fn slot(self) -> u32 {
        self.slot
    }

    /// How often the slot had been used before.
    #[must_use]
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// The slot as an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.slot as usize
    }
}

/// Number of a shard, from 0; one bit in the masks of a content, hence below 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShardId(pub u8);

/// Which front end a connection came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// The BitTorrent peer wire.
    BitTorrent,
}

/// The time of an event, read once per loop by the back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic nanoseconds since an arbitrary start.
    pub monotonic_ns: u64,
    /// Seconds since 1970-01-01 UTC: for `Date`, for when contents were used, and for the end of signed URLs.
    pub unix_s: u64,
}

impl Now {
    /// Monotonic milliseconds.
    #[must_use]
    pub fn monotonic_ms(self) -> u64 {
        self.monotonic_ns / 1_000_000
    }
}
