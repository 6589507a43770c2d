//! What must hold across shards, as atomics that nobody waits for: caps on what is sent, connections per address, who insists on encryption, who
//! is let in.

pub mod addresses;
pub mod bucket;
pub mod caps;
pub mod gate;
mod networks;
pub mod refused;

use std::sync::{Arc, Mutex, PoisonError};

use millrace_proto::admin::caps::EffectiveCaps;

use addresses::Addresses;
use caps::EgressCaps;
use gate::{Gate, TurnedAway};
use refused::Refused;

/// Everything that shards share, besides the store.
#[derive(Debug)]
pub struct Ledger {
    /// For the control thread, and for shards that start: running ones are told by [`News::Caps`](crate::event::News::Caps).
    caps: Mutex<Arc<EgressCaps>>,
    /// As `caps`; told by [`News::Gate`](crate::event::News::Gate).
    gate: Mutex<Arc<Gate>>,
    /// Who was turned away.
    pub turned_away: TurnedAway,
    /// Connections per address.
    pub addresses: Addresses,
    /// Who was refused because of message stream encryption.
    pub refused: Refused,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger {
            caps: Mutex::default(),
            gate: Mutex::default(),
            turned_away: TurnedAway::default(),
            addresses: Addresses::new(1 << 16),
            refused: Refused::default(),
        }
    }
}

impl Ledger {
    /// A ledger with these caps.
    #[must_use]
    pub fn new(caps: &EffectiveCaps) -> Self {
        let ledger = Ledger::default();
        let _ = ledger.set_caps(caps);
        ledger
    }

    /// Changes the caps, and returns what every shard has to be told by [`News::Caps`](crate::event::News::Caps). New numbers of caps that
    /// there were before hold at once.
    #[must_use]
    pub fn set_caps(&self, caps: &EffectiveCaps) -> Arc<EgressCaps> {
        let mut held = self.caps.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(EgressCaps::new(caps, &held));
        Arc::clone(&held)
    }

    /// The caps as they are.
    #[must_use]
    pub fn caps(&self) -> Arc<EgressCaps> {
        Arc::clone(&self.caps.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes who is let in, and returns what every shard has to be told by [`News::Gate`](crate::event::News::Gate).
    #[must_use]
    pub fn set_gate(&self, gate: Gate) -> Arc<Gate> {
        let mut held = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(gate);
        Arc::clone(&held)
    }

    /// Who is let in, as it is.
    #[must_use]
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
